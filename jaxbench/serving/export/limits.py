"""Checks of the options of an export. Imports no jax."""

from __future__ import annotations

from collections.abc import Sequence

from jaxbench.errors import InputError
from jaxbench.serving.export.tools import tool

FORMATS = ("onnx", "stablehlo")
# Steps in a row on which an exported file is compared with jax, at least.
LEAST = 200


def check_options(formats: Sequence[str], int8: bool, frames: int) -> None:
    """Checks formats, frames and installed packages before anything is exported.

    Raises:
      InputError: an unknown format, INT8 without ONNX, too few frames, or a package
        that is not installed.
    """
    for name in formats:
        if name not in FORMATS:
            raise InputError(f"--format={name!r} is none of {', '.join(FORMATS)}")
    if not formats:
        raise InputError(f"--format names none of {', '.join(FORMATS)}")
    if int8 and "onnx" not in formats:
        raise InputError("--int8 quantises ONNX files; add --format=onnx")
    if frames < LEAST:
        raise InputError(f"--frames={frames} must be at least {LEAST}")
    packages = ("onnx", "onnxruntime") if "onnx" in formats else ()
    for name in (*packages, *(["flatbuffers"] if "stablehlo" in formats else [])):
        tool(name)
