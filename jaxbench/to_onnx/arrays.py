"""Primitives that move numbers and compute none. Written for any number of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .elementwise import Handler
from .graph import Const, Graph, Real, integers, longer


def shape_of(eqn: Any, i: int = 0) -> tuple[int, ...]:
    """Shape of the i-th operand as the jaxpr has it."""
    return tuple(eqn.invars[i].aval.shape)


def result_shape(eqn: Any, i: int = 0) -> tuple[int, ...]:
    """Shape of the i-th result."""
    return tuple(eqn.outvars[i].aval.shape)


def with_size(shape: Sequence[int], axis: int, *sizes: int) -> tuple[int, ...]:
    """A shape with other sizes in the place of one axis."""
    return (*shape[:axis], *(int(n) for n in sizes), *shape[axis + 1 :])


def broadcast_in_dim(g: Graph, eqn: Any, x: Real) -> Real:
    """New axes of size 1; what is longer stays to be broadcast, see `graph`."""
    thin = [1] * len(eqn.params["shape"])
    for axis, size in zip(eqn.params["broadcast_dimensions"], x.shape, strict=True):
        thin[axis] = size
    return g.reshape(x, thin)


def reshape(g: Graph, eqn: Any, x: Real) -> Real:
    """Another shape; one that only adds or drops axes of size 1 keeps x thin."""
    was, shape = shape_of(eqn), result_shape(eqn)
    if longer(was) == longer(shape):
        thin = iter([k for n, k in zip(was, x.shape, strict=True) if n != 1])
        return g.reshape(x, [1 if n == 1 else next(thin) for n in shape])
    return g.reshape(g.full(x, was), shape)


def concatenate(g: Graph, eqn: Any, *xs: Real) -> Real:
    """Arrays one after the other."""
    axis = int(eqn.params["dimension"])
    parts = [g.full(x, shape_of(eqn, i)) for i, x in enumerate(xs)]
    return join(g, [x for x in parts if x.shape[axis]] or parts[:1], axis)


def join(g: Graph, parts: Sequence[Real], axis: int) -> Real:
    """Whole values one after the other."""
    if all(isinstance(x, Const) for x in parts):
        return Const(np.concatenate([x.array for x in parts], axis))  # type: ignore[union-attr]
    if len(parts) == 1:
        return parts[0]
    shape = with_size(parts[0].shape, axis, sum(x.shape[axis] for x in parts))
    return g.emit("Concat", parts, shape, parts[0].dtype, axis=axis)


def stack(g: Graph, eqn: Any, *xs: Real) -> Real:
    """Arrays side by side along a new axis."""
    axis, shape = int(eqn.params["axis"]), result_shape(eqn)
    one, each = with_size(shape, axis, 1), with_size(shape, axis)
    return join(g, [g.reshape(g.full(x, each), one) for x in xs], axis)


def unstack(g: Graph, eqn: Any, x: Real) -> list[Real]:
    """The entries along an axis, without it."""
    return entries(g, g.full(x, shape_of(eqn)), int(eqn.params["axis"]))


def entries(g: Graph, x: Real, axis: int) -> list[Real]:
    """Every x[..., i, ...] along an axis."""
    pieces = split_at(g, x, axis, [1] * x.shape[axis])
    return [g.reshape(piece, with_size(x.shape, axis)) for piece in pieces]


def split(g: Graph, eqn: Any, x: Real) -> list[Real]:
    """Spans along an axis."""
    whole = g.full(x, shape_of(eqn))
    return split_at(g, whole, int(eqn.params["axis"]), eqn.params["sizes"])


def split_at(g: Graph, x: Real, axis: int, sizes: Sequence[int]) -> list[Real]:
    """Consecutive spans of the given sizes."""
    if isinstance(x, Const):
        bounds = np.cumsum(sizes)[:-1]
        return [Const(part, x.label) for part in np.split(x.array, bounds, axis)]
    if len(sizes) < 2:
        alone: list[Real] = [x]
        return alone[: len(sizes)]
    shapes = [with_size(x.shape, axis, n) for n in sizes]
    lying, (place,) = g.on_axes(x, [axis])
    outputs = [(with_size(lying.shape, place, n), x.dtype) for n in sizes]
    made = g.emit_many("Split", [lying, integers(sizes)], outputs, axis=place)
    return [g.reshape(y, shape) for y, shape in zip(made, shapes, strict=True)]


def slice_(g: Graph, eqn: Any, x: Real) -> Real:
    """Spans of axes, with strides."""
    p, shape, result = eqn.params, shape_of(eqn), result_shape(eqn)
    strides = p["strides"] or (1,) * len(shape)
    spans = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    for axis, span in enumerate(spans):
        if result[axis] != shape[axis] == x.shape[axis]:
            x = cut(g, x, axis, *span)
    return x


def cut(g: Graph, x: Real, axis: int, start: int, limit: int, stride: int = 1) -> Real:
    """x[start:limit:stride] along one axis."""
    if isinstance(x, Const):
        index = (slice(None),) * axis + (slice(start, limit, stride),)
        return Const(x.array[index], x.label)
    size = len(range(start, limit, stride))
    if (size, stride) == (x.shape[axis], 1):
        return x
    return _sliced(g, x, axis, size, start, limit, stride)


def flip(g: Graph, x: Real, axis: int) -> Real:
    """One axis backwards."""
    if isinstance(x, Const):
        return Const(np.flip(x.array, axis), x.label)
    size = x.shape[axis]
    return x if size == 1 else _sliced(g, x, axis, size, -1, -(2**62), -1)


def _sliced(g: Graph, x: Real, axis: int, size: int, *span: int) -> Real:
    lying, (place,) = g.on_axes(x, [axis])
    start, limit, stride = span
    lists = [integers([n]) for n in (start, limit, place, stride)]
    shape = with_size(lying.shape, place, size)
    found = g.emit("Slice", [lying, *lists], shape, x.dtype)
    return g.reshape(found, with_size(x.shape, axis, size))


def tile(g: Graph, eqn: Any, x: Real) -> Real:
    """The array several times over along each axis."""
    inputs = [g.full(x, shape_of(eqn)), integers(eqn.params["reps"])]
    return g.emit("Tile", inputs, result_shape(eqn), x.dtype)


def reverse(g: Graph, eqn: Any, x: Real) -> Real:
    """Axes from their ends to their beginnings."""
    for axis in eqn.params["dimensions"]:
        x = flip(g, x, axis)
    return x


def pad(g: Graph, eqn: Any, x: Real, fill: Real) -> Real:
    """Numbers before, after and between; a negative count cuts."""
    x = g.full(x, shape_of(eqn))
    config = eqn.params["padding_config"]
    for axis, (low, high, inside) in enumerate(config):
        if inside and x.shape[axis] > 1:
            x = _space_out(g, x, fill, axis, int(inside))
        x = cut(g, x, axis, max(-low, 0), x.shape[axis] - max(-high, 0))
    before, after = ([max(int(c[i]), 0) for c in config] for i in (0, 1))
    return add_margins(g, x, before, after, fill)


def add_margins(
    g: Graph, x: Real, before: Sequence[int], after: Sequence[int], fill: Real
) -> Real:
    """`fill` before and after along every axis."""
    if not any(before) and not any(after):
        return x
    if x.dtype == bool:
        as_int = [g.cast(v, np.int32) for v in (x, fill)]
        return g.cast(add_margins(g, as_int[0], before, after, as_int[1]), bool)
    shape = [n + b + a for n, b, a in zip(x.shape, before, after, strict=True)]
    margins = integers([*before, *after])
    return g.emit("Pad", [x, margins, g.reshape(fill, ())], shape, x.dtype)


def _space_out(g: Graph, x: Real, fill: Real, axis: int, inside: int) -> Real:
    """`inside` fillers between neighbours: a new axis, padded and folded in."""
    size = x.shape[axis]
    apart = g.reshape(x, with_size(x.shape, axis, size, 1))
    margin = [inside if i == axis + 1 else 0 for i in range(len(apart.shape))]
    apart = add_margins(g, apart, [0] * len(margin), margin, fill)
    long = g.reshape(apart, with_size(x.shape, axis, size * (inside + 1)))
    return cut(g, long, axis, 0, size * (inside + 1) - inside)


HANDLERS: dict[str, Handler] = {
    "broadcast_in_dim": broadcast_in_dim,
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), reshape),
    "transpose": lambda g, eqn, x: g.transpose(x, eqn.params["permutation"]),
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "slice": slice_,
    "tile": tile,
    "rev": reverse,
    "pad": pad,
}
