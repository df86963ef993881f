"""Trained runs as files that run without jax: ONNX, INT8, StableHLO.

`convert.to_onnx` turns a jaxpr into ONNX; `functions` says what of a run is exported;
`bundle.load_exported` runs a folder that `jaxbench export` wrote. onnx, onnxruntime and
flatbuffers are imported only where they are used (`tools`), so that everything else
works without them.
"""
