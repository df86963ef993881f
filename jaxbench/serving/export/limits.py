"""Checks of the options of an export. Imports no jax."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from jaxbench.errors import InputError

FORMATS = ("onnx", "stablehlo")
# Format -> the packages that only it needs, and what to install for each.
NEEDS = {
    "onnx": {"onnx": "onnx>=1.23", "onnxruntime": "onnxruntime>=1.31"},
    "stablehlo": {"flatbuffers": "flatbuffers"},
}
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
    for name in formats:
        require(*NEEDS[name])


def require(*packages: str) -> None:
    """Refuses to go on without packages of `NEEDS`.

    Raises:
      InputError: one cannot be imported; the message says how to get all of them.
    """
    known = {name: text for each in NEEDS.values() for name, text in each.items()}
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(
                f"exports need the package {package}, which cannot be imported "
                f"({error}); pip install 'jaxbench[onnx]' or pip install "
                f"'{known[package]}'"
            ) from error
