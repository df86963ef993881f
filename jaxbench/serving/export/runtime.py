"""The functions of a run, in jax and as files: arrays by name, in and out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np

from jaxbench.errors import InputError
from jaxbench.serving.export.limits import require

# arrays by name -> arrays by name, all on the host.
Call = Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Port:
    """Name, shape and type of an input or output of an exported function."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def specification(self) -> jax.ShapeDtypeStruct:
        """The port as jax describes arrays."""
        return jax.ShapeDtypeStruct(self.shape, np.dtype(self.dtype))

    def facts(self) -> dict[str, Any]:
        """The port as JSON has it."""
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}

    def narrow(self, array: Any) -> np.ndarray:
        """An array in the port's type; a caller may hold bytes as int64."""
        return np.asarray(array, np.dtype(self.dtype))


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of arrays that is exported.

    Attributes:
      name: "step" or "window".
      call: `call(weights, *inputs) -> tuple of outputs`, pure.
      weights: arrays by the path of their parameter.
      inputs, outputs: in the order of `call`.
      backbone: for messages.
    """

    name: str
    call: Callable[..., tuple[jax.Array, ...]]
    weights: dict[str, np.ndarray]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    backbone: str


def function(
    name: str,
    call: Callable[..., tuple[jax.Array, ...]],
    weights: dict[str, np.ndarray],
    inputs: Sequence[Port],
    outputs: Sequence[str],
    backbone: str = "",
) -> Function:
    """A `Function` whose outputs have these names; their shapes are computed."""
    shapes = jax.eval_shape(call, weights, *(port.specification for port in inputs))
    ports = [
        Port(name, tuple(x.shape), str(x.dtype))
        for name, x in zip(outputs, shapes, strict=True)
    ]
    return Function(name, call, weights, tuple(inputs), tuple(ports), backbone)


def to_onnx(exported: Function, **options: Any) -> Any:
    """The function as an `onnx.ModelProto`; `options` are those of `to_onnx.convert`.

    Raises:
      InputError: an output needs an operation that cannot be converted; the message
        names it, the backbone and where it comes from.
    """
    from jaxbench.to_onnx import ConversionError, convert

    try:
        return convert(
            exported.call,
            exported.weights,
            *(port.specification for port in exported.inputs),
            input_names=[port.name for port in exported.inputs],
            output_names=[port.name for port in exported.outputs],
            name=exported.name,
            **options,
        )
    except ConversionError as error:
        raise InputError(
            f"backbone {exported.backbone!r} cannot be exported to ONNX: {error}; use "
            "--format=stablehlo"
        ) from error


def next_state(
    outputs: Mapping[str, np.ndarray], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The outputs that the next call reads as its state, by its inputs' names."""
    return {name: outputs["next/" + name.removeprefix("state/")] for name in names}


def jax_call(exported: Function) -> Call:
    """The function in jax, compiled once, products in full float32 on any device."""
    weights = jax.device_put(exported.weights)
    compiled = jax.jit(exported.call)

    def program(*given: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return compiled(weights, *given)

    return _by_name(program, exported.inputs, exported.outputs)


def to_stablehlo(exported: Function) -> bytes:
    """The function and its weights as one file that jax loads on a CPU or on CUDA.

    Raises:
      InputError: flatbuffers is not installed.
    """
    require("flatbuffers")

    def whole(*inputs: jax.Array) -> tuple[jax.Array, ...]:
        return exported.call(exported.weights, *inputs)

    # Else XLA on a GPU may round the factors of products to TF32.
    with jax.default_matmul_precision("highest"):
        program = jax.export.export(jax.jit(whole), platforms=["cpu", "cuda"])(
            *(port.specification for port in exported.inputs)
        )
    return bytes(program.serialize())


def stablehlo_call(
    serialized: bytes, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Call:
    """Opens what `to_stablehlo` made.

    Raises:
      InputError: flatbuffers is not installed.
    """
    require("flatbuffers")
    program = jax.jit(jax.export.deserialize(bytearray(serialized)).call)
    return _by_name(program, inputs, outputs)


def _by_name(program: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> Call:
    def call(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        given = [port.narrow(arrays[port.name]) for port in inputs]
        found = map(np.asarray, jax.device_get(program(*given)))
        return {port.name: x for port, x in zip(outputs, found, strict=True)}

    return call
