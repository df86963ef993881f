"""Exported functions as things to call: arrays by name in, arrays by name out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from jaxbench.to_onnx.convert import Function, Port, specification
from jaxbench.to_onnx.tools import tool

Arrays = Mapping[str, Any]
# arrays by name -> arrays by name, all on the host.
Call = Callable[[Arrays], dict[str, np.ndarray]]
# ONNX Runtime's names of types that differ from numpy's.
_NAMES = {"float": "float32", "double": "float64"}


def onnx_call(model: Path | bytes, threads: int = 1) -> Call:
    """Opens an ONNX file, or its bytes, in ONNX Runtime on the CPU.

    Raises:
      InputError: onnxruntime is not installed.
    """
    runtime = tool("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Warnings are about initialisers that a Scan reads from outside.
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )
    kinds = {port.name: _numpy_type(port.type) for port in session.get_inputs()}
    outputs = [port.name for port in session.get_outputs()]

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        given = {name: np.asarray(arrays[name], kinds[name]) for name in kinds}
        # Values without axes come back as numpy scalars, which a next call refuses.
        found = map(np.asarray, session.run(outputs, given))
        return dict(zip(outputs, found, strict=True))

    return call


def jax_call(exported: Function) -> Call:
    """The function in jax, compiled once, products in full float32 on any device."""
    names = [port.name for port in exported.outputs]
    weights = jax.device_put(exported.weights)
    compiled = jax.jit(exported.call)

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        given = [narrow(arrays[port.name], port) for port in exported.inputs]
        with jax.default_matmul_precision("highest"):
            found = jax.device_get(compiled(weights, *given))
        return dict(zip(names, map(np.asarray, found), strict=True))

    return call


def to_stablehlo(exported: Function) -> bytes:
    """The function and its weights as one file that jax loads on a CPU or on CUDA.

    Raises:
      InputError: flatbuffers is not installed.
    """
    tool("flatbuffers")

    def whole(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        return exported.call(exported.weights, *inputs)

    # Else XLA on a GPU may round the factors of products to TF32.
    with jax.default_matmul_precision("highest"):
        program = jax.export.export(jax.jit(whole), platforms=["cpu", "cuda"])(
            *map(specification, exported.inputs)
        )
    return bytes(program.serialize())


def stablehlo_call(
    serialized: bytes, inputs: tuple[Port, ...], outputs: tuple[Port, ...]
) -> Call:
    """Opens what `to_stablehlo` made.

    Raises:
      InputError: flatbuffers is not installed.
    """
    tool("flatbuffers")
    program = jax.jit(jax.export.deserialize(bytearray(serialized)).call)
    names = [port.name for port in outputs]

    def call(arrays: Arrays) -> dict[str, np.ndarray]:
        found = jax.device_get(program(*(narrow(arrays[p.name], p) for p in inputs)))
        return dict(zip(names, map(np.asarray, found), strict=True))

    return call


def narrow(array: Any, port: Port) -> np.ndarray:
    """An array in the port's type; a caller may hold bytes as int64."""
    return np.asarray(array, np.dtype(port.dtype))


def _numpy_type(name: str) -> np.dtype:
    """numpy's type of what ONNX Runtime calls "tensor(float)"."""
    inside = name.removeprefix("tensor(").removesuffix(")")
    return np.dtype(_NAMES.get(inside, inside))
