"""The packages that only exports need, imported when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType

from jaxbench.errors import InputError

# Module -> what to install for it.
NEEDS = {
    "onnx": "onnx>=1.23",
    "onnxruntime": "onnxruntime>=1.31",
    "flatbuffers": "flatbuffers",
}


def tool(name: str) -> ModuleType:
    """Imports a module of one of the packages in `NEEDS`.

    Raises:
      InputError: it is not installed; the message says how to get all of them.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"exports need the package {package}, which cannot be imported ({error}); "
            f"pip install 'jaxbench[onnx]' or pip install '{NEEDS[package]}'"
        ) from error
