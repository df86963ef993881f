"""Primitives that add up: products, reductions, running sums and maxima."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import cut, flip, join, shape_of, with_size
from .elementwise import Handler
from .graph import Const, Graph, Real, Tensor, scalar


def dot_general(g: Graph, eqn: Any, *xs: Real) -> Real:
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
        turned = dot(g, b, a, ((b_sum, a_sum), (b_batch, a_batch)))
        n, m, first = len(b_free), len(a_free), len(a_batch)
        order = [*range(first), *range(first + n, first + n + m)]
        return g.transpose(turned, [*order, *range(first, first + n)])
    batch = [a.shape[i] for i in a_batch]
    rows, columns = [a.shape[i] for i in a_free], [b.shape[i] for i in b_free]
    shape = (*batch, *rows, *columns)
    terms, m, n = (
        math.prod(a.shape[i] for i in a_sum),
        math.prod(rows),
        math.prod(columns),
    )
    a = g.transpose(a, [*a_batch, *a_free, *a_sum])
    b = g.transpose(b, [*b_batch, *b_sum, *b_free])
    floats = np.issubdtype(a.dtype, np.floating)
    if not batch and terms > 1 and floats:
        left = g.reshape(a, (*rows, terms) if rows else (1, terms))
        # Rows may lie in any shape whose last axis is summed over.
        if isinstance(left, Tensor) and len(left.held) > 1 and left.held[-1] == terms:
            left = left.plain
        return g.reshape(_matmul(g, left, g.reshape(b, (terms, n))), shape)
    left, right = g.reshape(a, (*batch, m, terms)), g.reshape(b, (*batch, terms, n))
    if terms == 1:
        return g.reshape(g.op("Mul", left, right), shape)
    if floats:
        return g.reshape(_matmul(g, left, right), shape)
    # Whole numbers: a MatMul of them would be taken for a product to quantise.
    left, rank = g.reshape(a, (*batch, m, 1, terms)), len(batch)
    right = g.transpose(right, [*range(rank), rank + 1, rank])
    products = g.op("Mul", left, g.reshape(right, (*batch, 1, n, terms)))
    return g.reshape(g.reduce("ReduceSum", products, [rank + 2]), shape)


def _matmul(g: Graph, a: Real, b: Real) -> Real:
    return g.emit("MatMul", [a, b], (*a.shape[:-1], b.shape[-1]), a.dtype)


def _along(g: Graph, eqn: Any, x: Real, axes: Sequence[int]) -> Real:
    """x whole along some axes; others may stay thin."""
    whole = shape_of(eqn)
    return g.full(x, [whole[i] if i in axes else n for i, n in enumerate(x.shape)])


def _reduction(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, x: Real) -> Real:
        axes = eqn.params["axes"]
        x = _along(g, eqn, x, axes)
        if x.dtype == bool:
            # reduce_and and reduce_or: the least and the largest of 0 and 1.
            return g.cast(g.reduce(op, g.cast(x, np.int32), axes), bool)
        return g.reduce(op, x, axes)

    return handler


def _arg(op: str) -> Handler:
    def handler(g: Graph, eqn: Any, x: Real) -> Real:
        (axis,) = eqn.params["axes"]
        lying, (place,) = g.on_axes(_along(g, eqn, x, [axis]), [axis])
        shape = with_size(lying.shape, place, 1)
        found = g.emit(op, [lying], shape, np.int64, axis=place, keepdims=1)
        found = g.reshape(found, with_size(x.shape, axis))
        return g.cast(found, eqn.params["index_dtype"])

    return handler


def cumulative_sum(g: Graph, eqn: Any, x: Real) -> Real:
    """Sums of all so far along an axis."""
    x, axis = _along(g, eqn, x, [eqn.params["axis"]]), eqn.params["axis"]
    lying, (place,) = g.on_axes(x, [axis])
    inputs, back = [lying, scalar(place, np.int64)], int(eqn.params["reverse"])
    found = g.emit("CumSum", inputs, lying.shape, x.dtype, reverse=back)
    return g.reshape(found, x.shape)


def _cumulative(op: str, start: float) -> Handler:
    """A running maximum, minimum or product in log2(T) steps of doubled reach."""

    def handler(g: Graph, eqn: Any, x: Real) -> Real:
        axis = int(eqn.params["axis"])
        x, first, reach = _along(g, eqn, x, [axis]), start, 1
        if np.issubdtype(x.dtype, np.integer) and not np.isfinite(start):
            limits = np.iinfo(x.dtype)
            first = limits.min if start < 0 else limits.max
        if eqn.params["reverse"]:
            x = flip(g, x, axis)
        while reach < x.shape[axis]:
            margin = np.full(with_size(x.shape, axis, reach), first, x.dtype)
            early = cut(g, x, axis, 0, x.shape[axis] - reach)
            x = g.op(op, x, join(g, [Const(margin), early], axis))
            reach *= 2
        return flip(g, x, axis) if eqn.params["reverse"] else x

    return handler


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
