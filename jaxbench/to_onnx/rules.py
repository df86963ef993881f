"""Peephole rules that compute the same with fewer nodes.

Each rule looks backwards from the node that is about to be made, and gives a value to
use in its place; nodes that lose their last reader are dropped at the end. A policy's
step works on one row of numbers, where a node costs its call and not its arithmetic.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .graph import Const, Graph, Real, Rule, Tensor

CORNERS: dict[str, Callable[[int, int], int]] = {
    **{"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul},
    **{"Max": max, "Min": min},
}
NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}


def neutral(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """x + 0, x - 0, 1 x and x / 1 are x."""
    pairs = [xs, xs[::-1]] if op in ("Add", "Mul") else [xs]
    for x, other in pairs:
        if g.single(other) == NEUTRAL[op] and len(other.shape) <= len(x.shape):
            return x
    return None


def mean(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """A sum of n numbers over n is ReduceMean."""
    summed = g.made_by(xs[0], "ReduceSum")
    if summed and g.single(xs[1]) == _count(g, summed) and _is_float(xs[0]):
        return g.emit("ReduceMean", summed, xs[0].shape, xs[0].dtype, keepdims=1)
    return None


def squares(g: Graph, op: str, xs: list[Tensor], attributes: Any) -> Real | None:
    """A sum of x x is ReduceSumSquare."""
    factors = g.made_by(xs[0], "Mul")
    if factors and factors[0].name == factors[1].name and _is_float(xs[0]):
        shape = list(xs[0].shape)
        for axis in g.initializers[xs[1].name]:
            shape[axis] = 1
        inputs = [factors[0], xs[1]]
        return g.emit("ReduceSumSquare", inputs, shape, xs[0].dtype, **attributes)
    return None


def quotient(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """x (1 / y) is x / y."""
    for x, other in (xs, xs[::-1]):
        under = g.made_by(other, "Reciprocal")
        if under:
            shape = np.broadcast_shapes(x.shape, other.shape)
            return g.emit("Div", [x, under[0]], shape, x.dtype)
    return None


def layer_norm(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """(x - mean) (scale / sqrt(variance + epsilon)) over the last axis.

    Both variances that flax computes: of x - mean, and mean(x^2) - mean^2 from 0 on.
    """
    for centred, factor in (xs, xs[::-1]) if op == "Mul" else (xs,):
        less = g.made_by(centred, "Sub")
        around = less and g.made_by(less[1], "ReduceMean")
        over = g.made_by(factor, "Div") if op == "Mul" else (None, factor)
        root = over and g.made_by(over[1], "Sqrt")
        within = root and g.made_by(root[0], "Add")
        if not less or not around or not over or not within:
            continue
        x, n = less[0], less[0].shape[-1]
        last = list(g.initializers[around[1].name]) == [len(x.shape) - 1]
        epsilon, scale = g.single(within[1]), np.ones(n, x.dtype)
        if over[0] is not None:
            scale = g.initializers.get(over[0].name, np.ones(0))
        fits = x.name == around[0].name and _is_row(scale, n)
        if last and fits and epsilon and _is_variance(g, within[0], centred, less):
            weight = Const(scale.reshape(n), over[0].name if over[0] else "")
            more = {"axis": -1, "epsilon": epsilon}
            return g.emit("LayerNormalization", [x, weight], x.shape, x.dtype, **more)
    return None


def _is_variance(g: Graph, x: Tensor, centred: Tensor, less: Sequence[Tensor]) -> bool:
    """Whether x is the mean of centred^2, or max(0, mean(of^2) - mean^2)."""
    if _is_mean_square(g, x, centred):
        return True
    for low in (0, 1):
        found = g.made_by(x, "Max")
        if found and g.single(found[low]) == 0:
            parts = g.made_by(found[1 - low], "Sub")
            square = parts and g.made_by(parts[1], "Mul")
            same = square and {y.name for y in square} == {less[1].name}
            return bool(same and parts and _is_mean_square(g, parts[0], less[0]))
    return False


def _is_mean_square(g: Graph, x: Tensor, of: Tensor) -> bool:
    over = g.made_by(x, "Div")
    summed = over and g.made_by(over[0], "ReduceSumSquare")
    if not over or not summed or summed[0].name != of.name:
        return False
    axes = list(g.initializers[summed[1].name])
    return axes == [len(of.shape) - 1] and g.single(over[1]) == of.shape[-1]


def bias(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """What is added to a LayerNormalization is its third input."""
    for x, other in (xs, xs[::-1]):
        inputs = g.made_by(x, "LayerNormalization")
        row = g.initializers.get(other.name, np.ones(0))
        if inputs and len(inputs) == 2 and _is_row(row, x.shape[-1]):
            given: list[Real] = [*inputs, Const(row.reshape(-1), other.name)]
            more = g.made_with(x)
            return g.emit("LayerNormalization", given, x.shape, x.dtype, **more)
    return None


def turned(g: Graph, op: str, xs: list[Tensor], attributes: Any) -> Real | None:
    """Two orders of axes in a row are one, or none."""
    inner = g.made_by(xs[0], "Transpose")
    if not inner:
        return None
    before = g.made_with(xs[0])["perm"]
    return g.transpose(inner[0], [before[i] for i in attributes["perm"]])


def swapped(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """Where(not c, a, b) is Where(c, b, a)."""
    test = g.made_by(xs[0], "Not")
    if not test:
        return None
    shape = np.broadcast_shapes(*(x.shape for x in xs))
    return g.emit("Where", [test[0], xs[2], xs[1]], shape, xs[1].dtype)


def bounded(g: Graph, op: str, xs: list[Tensor], _: Any) -> Real | None:
    """Comparisons and clamps of whole numbers whose range settles them."""
    if xs[0].dtype.kind not in "iu":
        return None
    (low, high), (least, most) = (bounds(g, x) for x in xs)
    if op == "Less":
        if high < least or low >= most:
            shape = np.broadcast_shapes(*(x.shape for x in xs))
            return Const(np.broadcast_to(np.bool_(high < least), shape))
        return None
    first, second = (low >= most, least >= high)
    if op == "Min":
        first, second = (high <= least, most <= low)
    a, b = xs
    for wins, x, other in ((first, a, b), (second, b, a)):
        if wins and len(other.shape) <= len(x.shape) and math.prod(other.shape) == 1:
            return x
    return None


def bounds(g: Graph, x: Tensor, depth: int = 8) -> tuple[int, int]:
    """A range that holds every number of whole numbers, from how they were made.

    It looks back `depth` nodes: graphs share, so further back the paths are too many.
    """
    array = g.initializers.get(x.name)
    if array is not None and array.size:
        return int(array.min()), int(array.max())
    if x.dtype.kind == "b":
        return 0, 1
    if x.dtype.kind not in "iu":
        return -(2**63), 2**63 - 1
    known = (int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max))
    maker = g.makers.get(x.name)
    if maker is None or not depth:
        return known

    def ends(y: Tensor) -> tuple[int, int]:
        return bounds(g, y, depth - 1)

    op, of = maker.op, maker.inputs
    if op in ("ArgMax", "ArgMin"):
        return 0, max(of[0].shape) - 1
    if op in ("Reshape", "Transpose", "Expand", "Slice", "Gather", "Split", "Cast"):
        return _within(ends(of[0]), known)
    if op in ("Where", "Concat"):
        every = [ends(y) for y in of[op == "Where" :]]
        return min(y[0] for y in every), max(y[1] for y in every)
    if op not in CORNERS:
        return known
    # Monotone in each input, whose ends therefore hold the result's.
    corners = [CORNERS[op](p, q) for p in ends(of[0]) for q in ends(of[1])]
    return _within((min(corners), max(corners)), known)


def _within(ends: tuple[int, int], known: tuple[int, int]) -> tuple[int, int]:
    """The range of numbers in a type: all of it where they may wrap around."""
    return ends if known[0] <= ends[0] and ends[1] <= known[1] else known


def _count(g: Graph, summed: Sequence[Tensor]) -> int:
    axes = g.initializers[summed[1].name]
    return math.prod(summed[0].shape[axis] for axis in axes)


def _is_row(array: np.ndarray, n: int) -> bool:
    """Whether it holds a number for each entry of a last axis of n."""
    return array.size == n and array.shape[-1:] == (n,)


def _is_float(x: Tensor) -> bool:
    return x.dtype.kind == "f"


# Name -> operators after which the rule is tried. "views" is of `Graph` itself.
RULES: dict[str, tuple[Sequence[str], Rule | None]] = {
    "views": ((), None),
    "neutral": (("Add", "Sub", "Mul", "Div"), neutral),
    "mean": (("Div",), mean),
    "squares": (("ReduceSum",), squares),
    "quotient": (("Mul",), quotient),
    "layer_norm": (("Mul", "Div"), layer_norm),
    "bias": (("Add",), bias),
    "turned": (("Transpose",), turned),
    "swapped": (("Where",), swapped),
    "bounded": (("Less", "Max", "Min"), bounded),
}


def by_operator(names: Iterable[str]) -> Mapping[str, list[Rule]]:
    """The rules of these names, in their order, by the operator they are tried at."""
    table: dict[str, list[Rule]] = {}
    for name in names:
        ops, rule = RULES[name]
        if rule is not None:
            for op in ops:
                table.setdefault(op, []).append(rule)
    return table
