"""From a jaxpr to an ONNX model.

Calls are inlined, what is known is computed, and each other equation becomes nodes
through `HANDLERS`, a table from the name of a primitive to a function. An operation
that is not in it is an error only where an output needs its result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxbench
from jaxbench.errors import InputError
from jaxbench.to_onnx import (
    arrays,
    complexes,
    elementwise,
    indexing,
    loops,
    products,
)
from jaxbench.to_onnx.folding import fold
from jaxbench.to_onnx.graph import (
    IR_VERSION,
    OPSET,
    Const,
    Graph,
    Missing,
    Real,
    Tensor,
    UnsupportedError,
    Value,
    describe,
    raise_missing,
)
from jaxbench.to_onnx.tools import tool

HANDLERS: dict[str, elementwise.Handler] = {
    **elementwise.HANDLERS,
    **arrays.HANDLERS,
    **products.HANDLERS,
    **indexing.HANDLERS,
}
# Primitive -> its parameter that holds the jaxpr to inline.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
# A draw depends on a key; what is exported answers the same input alike.
RANDOM = {
    *("random_bits", "random_seed", "random_split", "random_fold_in", "random_wrap"),
    *("random_unwrap", "random_gamma", "threefry2x32", "rng_bit_generator"),
}


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of an exported function.

    Attributes:
      name: in the exported file.
      shape, dtype: of the array.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


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
    """A `Function` whose outputs have these names; shapes and types are found."""
    shapes = jax.eval_shape(call, weights, *map(specification, inputs))
    ports = [
        Port(name, tuple(x.shape), str(x.dtype))
        for name, x in zip(outputs, shapes, strict=True)
    ]
    return Function(name, call, weights, tuple(inputs), tuple(ports), backbone)


def specification(port: Port) -> jax.ShapeDtypeStruct:
    """A port as jax describes arrays."""
    return jax.ShapeDtypeStruct(port.shape, np.dtype(port.dtype))


def to_onnx(exported: Function, *, unroll: int = loops.UNROLL) -> Any:
    """Converts a function; weights become initialisers named by their paths.

    Args:
      exported: what to convert.
      unroll: loops of at most so many equations in all are written out; longer ones
        become Scan.

    Returns:
      An `onnx.ModelProto`, checked.

    Raises:
      InputError: onnx is not installed, or an output needs an operation that cannot
        be converted; the message names it, the backbone and where it comes from.
    """
    onnx = tool("onnx")
    names, weights = list(exported.weights), list(exported.weights.values())

    def flat(weights: list[Any], *inputs: Any) -> tuple[jax.Array, ...]:
        return exported.call(dict(zip(names, weights, strict=True)), *inputs)

    specs = [specification(port) for port in exported.inputs]
    closed = jax.make_jaxpr(flat)(weights, *specs)
    g = Graph()
    known = [Const(np.asarray(w), n) for n, w in zip(names, weights, strict=True)]
    inputs = [g.input(p.name, p.shape, p.dtype) for p in exported.inputs]
    walker = Walker(g, unroll)
    found = walker.walk(closed.jaxpr, closed.consts, [*known, *inputs], "")
    for port, value in zip(exported.outputs, found, strict=True):
        raise_missing(value, exported.backbone)
        if not isinstance(value, Tensor | Const):
            raise InputError(f"output {port.name} is complex; split it into two arrays")
        whole = g.full(value, port.shape)
        g.bodies[0].nodes.append(
            onnx.helper.make_node("Identity", [g.tensor(whole).name], [port.name])
        )
    nodes, constants = g.close([port.name for port in exported.outputs])
    graph = onnx.helper.make_graph(
        nodes,
        exported.name,
        [describe(port) for port in exported.inputs],
        [describe(port) for port in exported.outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants],
    )
    model = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        producer_name="jaxbench",
        producer_version=jaxbench.__version__,
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


class Walker:
    """Turns the equations of jaxprs into nodes of one graph.

    Args:
      g: the graph.
      unroll: see `to_onnx`.
    """

    def __init__(self, g: Graph, unroll: int):
        self.g = g
        self.unroll = unroll

    def walk(
        self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], scope: str
    ) -> list[Value]:
        """The values of a jaxpr's results, given those of its operands."""
        values: dict[Any, Value] = {}

        def read(x: Any) -> Value:
            if hasattr(x, "val"):
                return Const(np.asarray(x.val, x.aval.dtype))
            return values[x]

        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            values[variable] = Const(np.asarray(const))
        for variable, value in zip(jaxpr.invars, inputs, strict=True):
            values[variable] = value
        for eqn in jaxpr.eqns:
            found = self.equation(eqn, [read(x) for x in eqn.invars], scope)
            for variable, value in zip(eqn.outvars, found, strict=True):
                values[variable] = value
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, xs: Sequence[Value], scope: str) -> Sequence[Value]:
        """The results of one equation."""
        name, count = eqn.primitive.name, len(eqn.outvars)
        here = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        if name in CALLS:
            inner = eqn.params[CALLS[name]]
            consts = getattr(inner, "consts", ())
            return self.walk(getattr(inner, "jaxpr", inner), consts, xs, here)
        missing = next((x for x in xs if isinstance(x, Missing)), None)
        if missing is not None:
            return [missing] * count
        self.g.scope = here
        try:
            found = self._convert(eqn, xs, here)
        except UnsupportedError as error:
            what = str(error) if name in str(error) else f"{name} ({error})"
            return [Missing(f"the operation {what}", source(eqn))] * count
        return found if isinstance(found, list) else [found]

    def _convert(self, eqn: Any, xs: Sequence[Any], here: str) -> Any:
        name = eqn.primitive.name
        if name in RANDOM:
            raise UnsupportedError(f"{name}, which draws random numbers,")
        if name == "scan":
            return loops.scan(self, eqn, xs, here)
        if all(isinstance(x, Const) for x in xs):
            return fold(eqn, xs)
        kinds = [v.aval.dtype for v in (*eqn.invars, *eqn.outvars)]
        if any(complexes.is_complex(kind) for kind in kinds) or name == "fft":
            return complexes.convert(self.g, eqn, xs)
        if name not in HANDLERS:
            raise UnsupportedError(name)
        given: Sequence[Real] = xs
        return HANDLERS[name](self.g, eqn, given)


def source(eqn: Any) -> str:
    """Where an equation was written: file, line and function, ours before others'."""
    traceback = eqn.source_info.traceback
    frames = list(traceback.frames) if traceback is not None else []
    names = [frame.file_name.replace("\\", "/") for frame in frames]
    for inside in ("/jaxbench/", "/"):
        for frame, name in zip(frames, names, strict=True):
            _, found, rest = name.rpartition(inside)
            library = "/site-packages/" in name or "/to_onnx/" in name
            if found and not library:
                place = rest if inside == "/" else f"jaxbench/{rest}"
                caller = frame.function_name.rpartition(".")[2]
                return f"{place}:{frame.line_num} ({caller})"
    return "an unknown place"
