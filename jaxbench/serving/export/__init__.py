"""Trained runs as files that run without jax: ONNX, INT8, StableHLO.

`functions` says what of a run is exported, `jaxbench.to_onnx` converts, and
`bundle.load_exported` runs a folder that `jaxbench export` wrote.
"""
