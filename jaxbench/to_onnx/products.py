"""Primitives that add up: products, reductions, running sums and maxima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbench.to_onnx.arrays import cut, flip, shape_of
from jaxbench.to_onnx.elementwise import Handler
from jaxbench.to_onnx.graph import Const, Graph, Real, integers, scalar


def dot_general(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Products summed over shared axes, as MatMul wherever numbers are summed."""
    a, b = (g.full(x, shape_of(eqn, i)) for i, x in enumerate(xs))
    found = dot(g, a, b, eqn.params["dimension_numbers"])
    # Products of narrow types may be asked for in a wide one.
    return g.cast(found, eqn.outvars[0].aval.dtype)


def dot(g: Graph, a: Real, b: Real, dimensions: Any) -> Real:
    """`lax.dot_general` of whole values.

    A constant goes to the right, where quantisation looks for weights.
    """
    (a_sum, b_sum), (a_batch, b_batch) = dimensions
    a_free = [i for i in range(len(a.shape)) if i not in {*a_sum, *a_batch}]
    b_free = [i for i in range(len(b.shape)) if i not in {*b_sum, *b_batch}]
    if isinstance(a, Const) and not isinstance(b, Const):
        swapped = dot(g, b, a, ((b_sum, a_sum), (b_batch, a_batch)))
        n, m, first = len(b_free), len(a_free), len(a_batch)
        order = [*range(first), *range(first + n, first + n + m)]
        return g.transpose(swapped, [*order, *range(first, first + n)])
    batch = [a.shape[i] for i in a_batch]
    rows, columns = [a.shape[i] for i in a_free], [b.shape[i] for i in b_free]
    shape = (*batch, *rows, *columns)
    terms = math.prod(a.shape[i] for i in a_sum)
    a = g.transpose(a, [*a_batch, *a_free, *a_sum])
    b = g.transpose(b, [*b_batch, *b_sum, *b_free])
    m, n = math.prod(rows), math.prod(columns)
    if not batch and terms > 1 and np.issubdtype(a.dtype, np.floating):
        left = g.reshape(a, (*rows, terms) if rows else (1, terms))
        right = g.reshape(b, (terms, n))
        return g.reshape(_matmul(g, left, right), shape)
    left, right = g.reshape(a, (*batch, m, terms)), g.reshape(b, (*batch, terms, n))
    if terms == 1:
        return g.reshape(g.elementwise("Mul", left, right), shape)
    if np.issubdtype(a.dtype, np.floating):
        return g.reshape(_matmul(g, left, right), shape)
    # Whole numbers: a MatMul of them would be taken for a product to quantise.
    left = g.reshape(a, (*batch, m, 1, terms))
    right = g.transpose(right, [*range(len(batch)), len(batch) + 1, len(batch)])
    products = g.elementwise("Mul", left, g.reshape(right, (*batch, 1, n, terms)))
    return g.reshape(reduce(g, "ReduceSum", products, [len(batch) + 2]), shape)


def _matmul(g: Graph, a: Real, b: Real) -> Real:
    return g.emit("MatMul", [a, b], (*a.shape[:-1], b.shape[-1]), a.dtype)


def reduce(g: Graph, op: str, x: Real, axes: Sequence[int]) -> Real:
    """One of ONNX's reductions over some axes, which it drops."""
    shape = [n for i, n in enumerate(x.shape) if i not in axes]
    if not len(axes):
        return x
    return g.emit(op, [x, integers(axes)], shape, x.dtype, keepdims=0)


def _reduction(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        axes = eqn.params["axes"]
        x = _along(g, eqn, xs[0], axes)
        if x.dtype == bool:
            # reduce_and and reduce_or: the least and the largest of 0 and 1.
            return g.cast(reduce(g, op, g.cast(x, np.int32), axes), bool)
        return reduce(g, op, x, axes)

    return handler


def _along(g: Graph, eqn: Any, x: Real, axes: Sequence[int]) -> Real:
    """x whole along some axes; others may stay thin."""
    whole = shape_of(eqn)
    shape = [whole[i] if i in axes else n for i, n in enumerate(x.shape)]
    return g.full(x, shape)


def _arg(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        (axis,) = eqn.params["axes"]
        x = _along(g, eqn, xs[0], [axis])
        shape = [n for i, n in enumerate(x.shape) if i != axis]
        found = g.emit(op, [x], shape, np.int64, axis=int(axis), keepdims=0)
        return g.cast(found, eqn.params["index_dtype"])

    return handler


def cumulative_sum(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Sums of all so far along an axis."""
    axis = int(eqn.params["axis"])
    x = _along(g, eqn, xs[0], [axis])
    place = scalar(axis, np.int64)
    back = int(eqn.params["reverse"])
    return g.emit("CumSum", [x, place], x.shape, x.dtype, reverse=back)


def _cumulative(op: str, start: float) -> Handler:
    """A running maximum, minimum or product in log2(T) steps of doubled reach."""

    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        axis = int(eqn.params["axis"])
        x = _along(g, eqn, xs[0], [axis])
        if eqn.params["reverse"]:
            return flip(g, _running(g, op, start, flip(g, x, axis), axis), axis)
        return _running(g, op, start, x, axis)

    return handler


def _running(g: Graph, op: str, start: float, x: Real, axis: int) -> Real:
    length, reach = x.shape[axis], 1
    if np.issubdtype(x.dtype, np.integer) and not np.isfinite(start):
        bounds = np.iinfo(x.dtype)
        start = bounds.min if start < 0 else bounds.max
    while reach < length:
        margin = (*x.shape[:axis], reach, *x.shape[axis + 1 :])
        before = Const(np.full(margin, start, x.dtype))
        kept = cut(g, x, axis, 0, length - reach)
        late = g.emit("Concat", [before, kept], x.shape, x.dtype, axis=axis)
        x = g.elementwise(op, x, late)
        reach *= 2
    return x


HANDLERS: dict[str, Handler] = {
    "dot_general": dot_general,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_and": _reduction("ReduceMin"),
    "reduce_or": _reduction("ReduceMax"),
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "cumsum": cumulative_sum,
    "cummax": _cumulative("Max", -np.inf),
    "cummin": _cumulative("Min", np.inf),
    "cumprod": _cumulative("Mul", 1.0),
}
