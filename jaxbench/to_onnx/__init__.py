"""JAX functions as ONNX models: convert, check, quantize. See README.md.

Scans, FFTs, complex numbers, gathers and scatters included; imports jax, numpy and
onnx, and nothing of the package around it.
"""

from .converter import convert
from .graph import ConversionError
from .int8 import quantize
from .runtime import check

__all__ = ["ConversionError", "check", "convert", "quantize"]
