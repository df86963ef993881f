"""An ONNX graph while it grows: values, nodes, and what makes it small.

A tensor may be thinner than the array it stands for: an axis along which all is equal
is kept at size 1 until an operation needs it whole (`Graph.full`), because ONNX
broadcasts and a jaxpr writes every broadcast out. Equal nodes are made once, a node is
put into the outermost graph that knows its inputs, and what no output needs is dropped.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxbench.errors import InputError
from jaxbench.to_onnx.tools import tool

# Version of ONNX's operators, and of its files: what runtimes since 2024 read.
OPSET, IR_VERSION = 18, 10
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "float32", "float64"),
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that is known when the model runs.

    Attributes:
      name: in the graph.
      shape: its own; axes of size 1 may stand for more, see the module.
      dtype: numpy's.
      level: how many graphs its graph lies inside of; 0 is the outermost.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    level: int


@dataclasses.dataclass(frozen=True, eq=False)
class Const:
    """A value that is known now.

    Attributes:
      array: it.
      label: path of the parameter it was computed from; "" for none.
    """

    array: np.ndarray
    label: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the array."""
        return self.array.dtype


class Pair(NamedTuple):
    """A complex value as two real ones; ONNX Runtime computes with no other."""

    real: Tensor | Const
    imag: Tensor | Const


class Missing(NamedTuple):
    """A value that cannot be made; an error only where an output needs it.

    Attributes:
      what: the operation that cannot be converted.
      where: where it was called: file, line and function.
    """

    what: str
    where: str


Real = Tensor | Const
Value = Real | Pair | Missing


@dataclasses.dataclass
class Body:
    """One graph: the model itself or the body of a loop."""

    level: int
    nodes: list[Any] = dataclasses.field(default_factory=list)
    made: dict[Any, tuple[Tensor, ...]] = dataclasses.field(default_factory=dict)


class UnsupportedError(Exception):
    """An operation, or a form of it, that the converter does not have."""


class Graph:
    """The graphs of one model, and the constants all of them read."""

    def __init__(self) -> None:
        self.bodies = [Body(0)]
        self.scope = ""
        self._initializers: dict[str, np.ndarray] = {}
        self._by_content: dict[Any, Tensor] = {}
        self._used: set[str] = set()

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> Tensor:
        """An input of the innermost graph."""
        self._used.add(name)
        return Tensor(name, tuple(shape), np.dtype(dtype), self.bodies[-1].level)

    def emit(
        self,
        op: str,
        inputs: Sequence[Real | None],
        shape: Sequence[int],
        dtype: Any,
        **attributes: Any,
    ) -> Tensor:
        """Adds a node with one output, or finds the one that is there already."""
        return self.emit_many(op, inputs, [(shape, dtype)], **attributes)[0]

    def emit_many(
        self,
        op: str,
        inputs: Sequence[Real | None],
        outputs: Sequence[tuple[Sequence[int], Any]],
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Adds a node with several outputs, given as (shape, dtype)."""
        given = [None if x is None else self.tensor(x) for x in inputs]
        level = max((x.level for x in given if x is not None), default=0)
        names = [x.name if x is not None else "" for x in given]
        key = (op, tuple(names), repr(sorted(attributes.items())))
        for body in self.bodies[: level + 1]:
            if key in body.made:
                return body.made[key]
        made = self.add(level, op, names, outputs, self._name_of(op, given), attributes)
        self.bodies[level].made[key] = made
        return made

    def add(
        self,
        level: int,
        op: str,
        names: Sequence[str],
        outputs: Sequence[tuple[Sequence[int], Any]],
        hint: str,
        attributes: Mapping[str, Any],
    ) -> tuple[Tensor, ...]:
        """Appends a node to the graph of a level, without looking for an equal one."""
        node_name = self.unique(hint)
        many = len(outputs) > 1
        made = tuple(
            Tensor(
                self.unique(f"{node_name}:{i}" if many else f"{node_name}:out"),
                tuple(int(n) for n in shape),
                check_dtype(dtype),
                level,
            )
            for i, (shape, dtype) in enumerate(outputs)
        )
        helper = tool("onnx.helper")
        self.bodies[level].nodes.append(
            helper.make_node(
                op, list(names), [x.name for x in made], name=node_name, **attributes
            )
        )
        return made

    def tensor(self, value: Real) -> Tensor:
        """The value as a tensor; a constant becomes an initialiser, once."""
        if isinstance(value, Tensor):
            return value
        array = np.asarray(value.array)
        check_dtype(array.dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            name = self.unique(value.label or "constant")
            self._initializers[name] = np.ascontiguousarray(array).reshape(array.shape)
            self._by_content[key] = Tensor(name, array.shape, array.dtype, 0)
        return self._by_content[key]

    def elementwise(
        self, op: str, *inputs: Real, dtype: Any = None, **more: Any
    ) -> Any:
        """A node that broadcasts its inputs; its type is the last input's by default.

        Constants lose the axes along which they are a mere broadcast.
        """
        thin = [thinned(x) if isinstance(x, Const) else x for x in inputs]
        shape = np.broadcast_shapes(*[x.shape for x in thin])
        return self.emit(op, thin, shape, dtype or inputs[-1].dtype, **more)

    def full(self, value: Real, shape: Sequence[int]) -> Real:
        """The value with every axis as long as `shape` says."""
        shape = tuple(int(n) for n in shape)
        if value.shape == shape:
            return value
        if isinstance(value, Const):
            return Const(np.broadcast_to(value.array, shape), value.label)
        return self.emit("Expand", [value, integers(shape)], shape, value.dtype)

    def reshape(self, value: Real, shape: Sequence[int]) -> Real:
        """The value in another shape of the same size."""
        shape = tuple(int(n) for n in shape)
        if value.shape == shape:
            return value
        if isinstance(value, Const):
            return Const(value.array.reshape(shape), value.label)
        return self.emit("Reshape", [value, integers(shape)], shape, value.dtype)

    def transpose(self, value: Real, order: Sequence[int]) -> Real:
        """The value with its axes in another order."""
        order = [int(n) for n in order]
        if order == sorted(order):
            return value
        if isinstance(value, Const):
            return Const(value.array.transpose(order), value.label)
        shape = [value.shape[i] for i in order]
        return self.emit("Transpose", [value], shape, value.dtype, perm=order)

    def cast(self, value: Real, dtype: Any) -> Real:
        """The value in another type, as numpy and XLA convert."""
        dtype = check_dtype(dtype)
        if value.dtype == dtype:
            return value
        if isinstance(value, Const):
            return Const(value.array.astype(dtype), value.label)
        code = tool("onnx.helper").np_dtype_to_tensor_dtype(dtype)
        return self.emit("Cast", [value], value.shape, dtype, to=code)

    def unique(self, hint: str) -> str:
        """A name that begins with `hint` and that nothing has yet."""
        hint = re.sub(r"[^\w/.:+-]", "_", hint)
        name, count = hint, 1
        while name in self._used:
            count += 1
            name = f"{hint}_{count}"
        self._used.add(name)
        return name

    def close(self, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
        """The outermost nodes that the outputs need, and the constants these read."""
        nodes = live_nodes(self.bodies[0].nodes, outputs)
        read = {name for node in nodes for name in reads(node)}
        return nodes, [(k, v) for k, v in self._initializers.items() if k in read]

    def _name_of(self, op: str, inputs: Sequence[Tensor | None]) -> str:
        """Where a node comes from: its weight, or the module that called it."""
        labels = [
            x.name
            for x in inputs
            if x is not None
            and x.name in self._initializers
            and not x.name.startswith("constant")
        ]
        return f"{labels[0] if labels else self.scope or 'top'}/{op}"


def reads(node: Any) -> Iterable[str]:
    """Names that a node, or the graphs inside it, read from outside."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            inner = attribute.g
            own = {x.name for x in inner.input}
            own |= {name for each in inner.node for name in each.output}
            for each in inner.node:
                yield from (name for name in reads(each) if name not in own)
            yield from (x.name for x in inner.output if x.name not in own)


def live_nodes(nodes: Sequence[Any], outputs: Iterable[str]) -> list[Any]:
    """The nodes without which the outputs cannot be computed, in their order."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]


def integers(values: Iterable[int]) -> Const:
    """A constant list of int64, as shapes, axes and indices are given."""
    return Const(np.asarray([int(v) for v in values], np.int64))


def scalar(value: float, dtype: Any) -> Const:
    """A constant without axes."""
    return Const(np.asarray(value, dtype))


def thinned(value: Const) -> Const:
    """The constant with each axis that is a mere broadcast at size 1."""
    array = value.array
    index = tuple(
        slice(0, 1) if stride == 0 and size > 1 else slice(None)
        for stride, size in zip(array.strides, array.shape, strict=True)
    )
    return Const(array[index], value.label)


def check_dtype(dtype: Any) -> np.dtype:
    """Refuses a type that ONNX Runtime has no kernels for on a CPU."""
    dtype = np.dtype(dtype)
    if dtype.name not in DTYPES:
        raise UnsupportedError(f"type {dtype.name}")
    return dtype


def describe(port: Any) -> Any:
    """A tensor, an input or an output as ONNX describes it."""
    helper = tool("onnx.helper")
    code = helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, code, port.shape)


def raise_missing(value: Value, backbone: str) -> None:
    """Raises what a missing value stands for.

    Raises:
      InputError: naming the operation, the backbone and the caller.
    """
    if isinstance(value, Missing):
        raise InputError(
            f"backbone {backbone!r} cannot be exported to ONNX: {value.what} has no "
            f"counterpart here; it comes from {value.where}; use --format=stablehlo"
        )
