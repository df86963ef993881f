"""Models in ONNX Runtime, and whether they answer as their jax function does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx

from .graph import ConversionError

# arrays by name -> arrays by name, all on the host.
Call = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]
# ONNX Runtime's names of types that differ from numpy's.
_NAMES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def open_model(model: Path | bytes | onnx.ModelProto, threads: int = 1) -> Call:
    """Opens a model, or its file, in ONNX Runtime on the CPU.

    Args:
      model: a path, the bytes of a file, or what `convert` returned.
      threads: of ONNX Runtime.

    Returns:
      `call(arrays by input name) -> arrays by output name`.
    """
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Warnings are about initialisers that a Scan reads from outside.
    options.log_severity_level = 3
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    session = runtime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )
    kinds = {
        port.name: np.dtype(_NAMES.get(port.type, port.type[7:-1]))
        for port in session.get_inputs()
    }
    outputs = [port.name for port in session.get_outputs()]

    def call(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        given = {name: np.asarray(arrays[name], kind) for name, kind in kinds.items()}
        # Values without axes come back as numpy scalars, which a next call refuses.
        found = map(np.asarray, session.run(outputs, given))
        return dict(zip(outputs, found, strict=True))

    return call


def check(
    model: onnx.ModelProto,
    function: Any,
    params: Any,
    *inputs: Any,
    tolerance: float = 1e-5,
) -> dict[str, float]:
    """Runs a model and the function it was made of on the same inputs.

    Args:
      model: what `convert` returned, or `quantize`.
      function, params: as given to `convert`.
      inputs: arrays, as the shapes given to `convert`.
      tolerance: largest difference |a - b| / (1 + |b|) of a number, b jax's.

    Returns:
      The largest difference by the name of the output.

    Raises:
      ConversionError: an output is of another shape or type, or differs by more.
    """
    names = [port.name for port in model.graph.input]
    arrays = [np.asarray(x) for x in jax.tree.leaves(inputs)]
    with jax.default_matmul_precision("highest"):
        expected = jax.tree.leaves(jax.jit(function)(params, *inputs))
    found = open_model(model)(dict(zip(names, arrays, strict=True)))
    errors = {}
    for (name, got), wanted in zip(
        found.items(), map(np.asarray, expected), strict=True
    ):
        if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
            raise ConversionError(
                f"{name} is {got.dtype}{list(got.shape)} and jax's {wanted.dtype}"
                f"{list(wanted.shape)}"
            )
        errors[name] = _difference(got, wanted)
        if not errors[name] <= tolerance:
            raise ConversionError(
                f"{name} differs from jax's by {errors[name]:.1e}, more than "
                f"tolerance={tolerance:.0e}"
            )
    return errors


def _difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest |a - b| / (1 + |b|); 0 where both are equal or no number."""
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        error = np.abs(a - b) / (1 + np.abs(b))
    error = np.where(same, 0, np.where(np.isnan(error), np.inf, error))
    return float(error.max(initial=0))
