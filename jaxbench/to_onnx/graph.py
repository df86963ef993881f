"""An ONNX graph while it grows: values, nodes, and what makes it small.

Two kinds of laziness keep the broadcasts and reshapes of a jaxpr from becoming nodes.
A tensor may be thinner than the array it stands for: an axis along which all is equal
keeps size 1 until an operation needs it whole (`Graph.full`). And its shape may be a
reshape of the one it has in the file (`Tensor.held`): the Reshape node is made only for
an operation that cannot read the tensor as it lies. Equal nodes are made once, a node
is put into the outermost graph that knows its inputs, `rules` replace a node by fewer,
and what no output needs is dropped.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import helper

# Version of ONNX's operators, and of its files: what runtimes since 2024 read.
OPSET, IR_VERSION = 18, 10
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "float32", "float64"),
)
# What is computed now where all inputs are known.
FOLD: dict[str, Callable[..., Any]] = {
    **{"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Neg": np.negative},
    **{"Max": np.maximum, "Min": np.minimum, "Abs": np.abs, "Sign": np.sign},
    **{"Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt, "Tanh": np.tanh},
    **{"Sin": np.sin, "Cos": np.cos, "Floor": np.floor, "Ceil": np.ceil},
    **{"Sigmoid": lambda x: 1 / (1 + np.exp(-x)), "Equal": np.equal},
    **{"Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater},
    **{"GreaterOrEqual": np.greater_equal, "Where": np.where},
    **{"And": np.logical_and, "Or": np.logical_or, "Not": np.logical_not},
}
TESTS = {
    *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
    *("And", "Or", "Not", "IsNaN", "IsInf"),
}
Shape = tuple[int, ...]


class ConversionError(ValueError):
    """A function, or an option, that cannot be converted; the message is one line."""


class UnsupportedError(Exception):
    """An operation, or a form of it, that the converter does not have."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that is known when the model runs.

    Attributes:
      name: in the graph.
      shape: as it is read; axes of size 1 may stand for more, see the module.
      dtype: numpy's.
      level: how many graphs its graph lies inside of; 0 is the outermost.
      held: its shape in the file, of as many numbers as `shape`.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    level: int
    held: Shape

    @property
    def plain(self) -> Tensor:
        """The tensor in the shape it has in the file."""
        return dataclasses.replace(self, shape=self.held)


@dataclasses.dataclass(frozen=True, eq=False)
class Const:
    """An array that is known now, and the path of the parameter it came from, or ""."""

    array: np.ndarray
    label: str = ""

    @property
    def shape(self) -> Shape:
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
    """The result of an operation that cannot be converted, and where it was called."""

    what: str
    where: str


Real = Tensor | Const
Value = Real | Pair | Missing
# rule(graph, operator, inputs, attributes) -> a value in the node's place, or None.
Rule = Callable[["Graph", str, list[Tensor], Mapping[str, Any]], "Real | None"]


class Node(NamedTuple):
    """What made a tensor."""

    op: str
    inputs: Sequence[Any]
    attributes: Mapping[str, Any]


@dataclasses.dataclass
class Body:
    """One graph: the model itself or the body of a loop."""

    level: int
    nodes: list[Any] = dataclasses.field(default_factory=list)
    made: dict[Any, tuple[Tensor, ...]] = dataclasses.field(default_factory=dict)


class Graph:
    """The graphs of one model, and the constants all of them read.

    Args:
      rules: operator -> rules tried before a node of that operator is made.
      views: whether reshapes are put off until an operation needs them.
    """

    def __init__(
        self, rules: Mapping[str, Collection[Rule]] | None = None, views: bool = True
    ) -> None:
        self.bodies = [Body(0)]
        self.scope = ""
        self.rules, self.views = rules or {}, views
        self.initializers: dict[str, np.ndarray] = {}
        self.makers: dict[str, Node] = {}
        self._by_content: dict[Any, Tensor] = {}
        self._used: set[str] = set()

    def input(self, name: str, shape: Sequence[int], dtype: Any) -> Tensor:
        """An input of the innermost graph."""
        self._used.add(name)
        held, level = tuple(shape), self.bodies[-1].level
        return Tensor(name, held, check_dtype(dtype), level, held)

    def emit(
        self,
        op: str,
        inputs: Sequence[Real],
        shape: Sequence[int],
        dtype: Any,
        **attributes: Any,
    ) -> Any:
        """Adds a node with one output, or finds what does the same."""
        given = [self.tensor(x) for x in inputs]
        for rule in self.rules.get(op, ()):
            found = rule(self, op, given, attributes)
            if found is not None:
                return self.reshape(found, shape)
        return self.emit_many(op, given, [(shape, dtype)], **attributes)[0]

    def emit_many(
        self,
        op: str,
        inputs: Sequence[Real],
        outputs: Sequence[tuple[Sequence[int], Any]],
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Adds a node with several outputs, given as (shape, dtype)."""
        given = [self.tensor(x) for x in inputs]
        level = max((x.level for x in given), default=0)
        key = (op, *(x.name for x in given), repr(sorted(attributes.items())))
        for body in self.bodies[: level + 1]:
            if key in body.made:
                return body.made[key]
        made = self.add(level, op, given, outputs, self._name_of(op, given), attributes)
        self.bodies[level].made[key] = made
        return made

    def add(
        self,
        level: int,
        op: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[tuple[Sequence[int], Any]],
        hint: str,
        attributes: Mapping[str, Any],
    ) -> tuple[Tensor, ...]:
        """Appends a node to the graph of a level, without looking for an equal one."""
        node_name = self.unique(hint)
        made = []
        for i, (shape, dtype) in enumerate(outputs):
            name = self.unique(f"{node_name}:{i if len(outputs) > 1 else 'out'}")
            held = tuple(int(n) for n in shape)
            made.append(Tensor(name, held, check_dtype(dtype), level, held))
            self.makers[name] = Node(op, inputs, attributes)
        read, written = [x.name for x in inputs], [x.name for x in made]
        node = helper.make_node(op, read, written, name=node_name, **attributes)
        self.bodies[level].nodes.append(node)
        return tuple(made)

    def tensor(self, value: Real) -> Tensor:
        """The value in its shape: a constant is kept once, a put off Reshape made."""
        if isinstance(value, Tensor):
            if value.shape == value.held:
                return value
            given: list[Real] = [value.plain, integers(value.shape)]
            return self.emit("Reshape", given, value.shape, value.dtype)
        array = np.asarray(value.array)
        check_dtype(array.dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._by_content:
            name, held = self.unique(value.label or "constant"), array.shape
            self.initializers[name] = np.ascontiguousarray(array).reshape(held)
            self._by_content[key] = Tensor(name, held, array.dtype, 0, held)
        return self._by_content[key]

    def op(self, op: str, *inputs: Any, dtype: Any = None, **attributes: Any) -> Any:
        """A node that works number by number and broadcasts its inputs.

        Args:
          op: of ONNX.
          inputs: values, or Python numbers, which get the type of the last value.
          dtype: of the result; the last input's by default.
          attributes: of the node.
        """
        kind = [x.dtype for x in inputs if isinstance(x, Real)][-1]
        xs: list[Any] = [x if isinstance(x, Real) else scalar(x, kind) for x in inputs]
        dtype = np.dtype(bool if op in TESTS else dtype or xs[-1].dtype)
        if op in FOLD and all(isinstance(x, Const) for x in xs):
            with np.errstate(all="ignore"):
                found = FOLD[op](*(x.array for x in xs))
            return Const(np.asarray(found, dtype), xs[0].label)
        xs = [thinned(x) if isinstance(x, Const) else x for x in xs]
        shape = np.broadcast_shapes(*(x.shape for x in xs))
        tensors = [x for x in xs if isinstance(x, Tensor)]
        # Axes of size 1 may be anywhere: they go where most inputs have them.
        layouts = [x.held for x in tensors if longer(x.held) == longer(shape)]

        def bent(layout: Shape) -> int:
            wanted = [bare(_laid(x.shape, shape, layout)) for x in tensors]
            return sum(bare(x.held) != w for x, w in zip(tensors, wanted, strict=True))

        layout = min([shape, *layouts], key=bent)
        laid: list[Real] = []
        for x in xs:
            target = bare(_laid(x.shape, shape, layout))
            fits = isinstance(x, Tensor) and bare(x.held) == target
            laid.append(x.plain if fits else self.reshape(x, target))
        held = np.broadcast_shapes(*(x.shape for x in laid))
        return self.reshape(self.emit(op, laid, held, dtype, **attributes), shape)

    def reduce(self, op: str, x: Real, axes: Sequence[int]) -> Real:
        """One of ONNX's reductions over some axes, which it drops."""
        shape = [n for i, n in enumerate(x.shape) if i not in axes]
        long = [i for i in axes if x.shape[i] != 1]
        if not long:
            return self.reshape(x, shape)
        x, places = self.on_axes(x, long)
        held = [1 if i in places else n for i, n in enumerate(x.shape)]
        found = self.emit(op, [x, integers(places)], held, x.dtype, keepdims=1)
        return self.reshape(found, shape)

    def on_axes(self, x: Real, axes: Sequence[int]) -> tuple[Real, list[int]]:
        """The value as it lies, and where some of its axes are there."""
        if isinstance(x, Const) or x.shape == x.held:
            return x, [int(i) for i in axes]
        if longer(x.shape) != longer(x.held) or any(x.shape[i] == 1 for i in axes):
            return self.tensor(x), [int(i) for i in axes]
        there = [i for i, n in enumerate(x.held) if n != 1]
        order = [sum(n != 1 for n in x.shape[:i]) for i in axes]
        return x.plain, [there[i] for i in order]

    def full(self, value: Real, shape: Sequence[int]) -> Real:
        """The value with every axis as long as `shape` says."""
        shape = tuple(int(n) for n in shape)
        if value.shape == shape:
            return value
        if isinstance(value, Const):
            return Const(np.broadcast_to(value.array, shape), value.label)
        return self.emit("Expand", [value, integers(shape)], shape, value.dtype)

    def reshape(self, value: Real, shape: Sequence[int]) -> Any:
        """The value in another shape of the same size."""
        other = tuple(int(n) for n in shape)
        if value.shape == other:
            return value
        if isinstance(value, Const):
            return Const(value.array.reshape(other), value.label)
        found = dataclasses.replace(value, shape=other)
        return found if self.views else self.tensor(found)

    def transpose(self, value: Real, order: Sequence[int]) -> Real:
        """The value with its axes in another order."""
        order = [int(n) for n in order]
        shape = [value.shape[i] for i in order]
        if isinstance(value, Const):
            return Const(value.array.transpose(order), value.label)
        moved = [i for i in order if value.shape[i] != 1]
        if moved == sorted(moved):
            return self.reshape(value, shape)
        return self.emit("Transpose", [value], shape, value.dtype, perm=order)

    def cast(self, value: Real, dtype: Any) -> Real:
        """The value in another type, as numpy and XLA convert."""
        dtype = check_dtype(dtype)
        if value.dtype == dtype:
            return value
        if isinstance(value, Const):
            return Const(value.array.astype(dtype), value.label)
        code = helper.np_dtype_to_tensor_dtype(dtype)
        return self.op("Cast", value, dtype=dtype, to=code)

    def made_by(self, x: Tensor, op: str) -> Sequence[Tensor] | None:
        """Inputs of the node that made a tensor, if that node is an `op`."""
        maker = self.makers.get(x.name)
        return maker.inputs if maker is not None and maker.op == op else None

    def made_with(self, x: Tensor) -> Mapping[str, Any]:
        """Attributes of the node that made a tensor."""
        return self.makers[x.name].attributes

    def single(self, x: Tensor) -> float | None:
        """The number of a constant that holds one."""
        array = self.initializers.get(x.name)
        return array.item() if array is not None and array.size == 1 else None

    def end(self, value: Real, taken: Iterable[str]) -> Tensor:
        """The value as an output of the innermost graph: made there, by one name."""
        x, level = self.tensor(value), self.bodies[-1].level
        if x.name in self.makers and x.level == level and x.name not in taken:
            return x
        return self.add(level, "Identity", [x], [(x.shape, x.dtype)], "out", {})[0]

    def unique(self, hint: str) -> str:
        """A name that begins with `hint` and that nothing has yet."""
        hint = re.sub(r"[^\w/.:+-]", "_", hint)
        name, count = hint, 1
        while name in self._used:
            count += 1
            name = f"{hint}_{count}"
        self._used.add(name)
        return name

    def _name_of(self, op: str, inputs: Sequence[Tensor]) -> str:
        """Where a node comes from: its weight, or the module that called it."""
        names = [x.name for x in inputs if x.name in self.initializers]
        labels = [name for name in names if not name.startswith("constant")]
        return f"{labels[0] if labels else self.scope or 'top'}/{op}"


def longer(shape: Sequence[int]) -> list[int]:
    """The axes that are longer than 1."""
    return [n for n in shape if n != 1]


def bare(shape: Sequence[int]) -> Shape:
    """A shape without the axes of size 1 it begins with, which broadcasting adds."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape))
    return tuple(shape[first:])


def _laid(dims: Shape, shape: Shape, layout: Shape) -> Shape:
    """`dims`, which broadcast to `shape`, where `layout` has the axes of `shape`."""
    dims = (1,) * (len(shape) - len(dims)) + dims
    rest = iter([n for n, long in zip(dims, shape, strict=True) if long != 1])
    return tuple(1 if n == 1 else next(rest) for n in layout)


def live_nodes(nodes: Sequence[Any], outputs: Iterable[str]) -> list[Any]:
    """The nodes without which the outputs cannot be computed, in their order."""
    needed, kept = set(outputs), list[Any]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads(node))
    return kept[::-1]


def reads(node: Any) -> Iterable[str]:
    """Names that a node, or the graphs inside it, read."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from (x.name for x in attribute.g.output)
            for each in attribute.g.node:
                yield from reads(each)


def rename(nodes: Iterable[Any], names: Mapping[str, str]) -> None:
    """Gives tensors other names, also where graphs inside the nodes read them."""
    for node in nodes:
        for place in (node.input, node.output):
            place[:] = [names.get(name, name) for name in place]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                rename(attribute.g.node, names)


def integers(values: Iterable[int]) -> Const:
    """A constant list of int64, as shapes, axes and indices are given."""
    return Const(np.asarray([int(v) for v in values], np.int64))


def scalar(value: float, dtype: Any) -> Const:
    """A constant without axes."""
    return Const(np.asarray(value, dtype))


def thinned(value: Const) -> Const:
    """The constant with each axis that is a mere broadcast at size 1."""
    array = value.array
    sizes = zip(array.strides, array.shape, strict=True)
    thin = [stride == 0 and size > 1 for stride, size in sizes]
    return Const(array[tuple(slice(0, 1 if x else None) for x in thin)], value.label)


def check_dtype(dtype: Any) -> np.dtype:
    """Refuses a type that ONNX Runtime has no kernels for on a CPU."""
    dtype = np.dtype(dtype)
    if dtype.name not in DTYPES:
        raise UnsupportedError(f"type {dtype.name}")
    return dtype


def described(x: Tensor) -> Any:
    """An input or an output as ONNX describes it."""
    code = helper.np_dtype_to_tensor_dtype(np.dtype(x.dtype))
    return helper.make_tensor_value_info(x.name, code, x.held)
