"""JAX functions as ONNX models: jaxprs to graphs, INT8, ONNX Runtime.

`convert.to_onnx` turns a jaxpr into ONNX. onnx and onnxruntime are imported only where
they are used (`tools`).
"""
