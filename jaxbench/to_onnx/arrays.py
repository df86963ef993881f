"""Primitives that move numbers and compute none. Written for any number of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbench.to_onnx.elementwise import Handler
from jaxbench.to_onnx.graph import Const, Graph, Real, integers


def shape_of(eqn: Any, i: int = 0) -> tuple[int, ...]:
    """Shape of the i-th operand as the jaxpr has it."""
    return tuple(eqn.invars[i].aval.shape)


def result_shape(eqn: Any, i: int = 0) -> tuple[int, ...]:
    """Shape of the i-th result."""
    return tuple(eqn.outvars[i].aval.shape)


def broadcast_in_dim(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """New axes of size 1; what is longer stays to be broadcast, see `graph`."""
    x, shape = xs[0], eqn.params["shape"]
    thin = [1] * len(shape)
    for axis, size in zip(eqn.params["broadcast_dimensions"], x.shape, strict=True):
        thin[axis] = size
    return g.reshape(x, thin)


def reshape(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Another shape; one that only adds or drops axes of size 1 keeps x thin."""
    was, shape = shape_of(eqn), result_shape(eqn)
    if [n for n in was if n != 1] == [n for n in shape if n != 1]:
        kept = iter([k for n, k in zip(was, xs[0].shape, strict=True) if n != 1])
        return g.reshape(xs[0], [1 if n == 1 else next(kept) for n in shape])
    return g.reshape(g.full(xs[0], was), shape)


def transpose(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Another order of axes."""
    return g.transpose(xs[0], eqn.params["permutation"])


def concatenate(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Arrays one after the other."""
    axis, shape = eqn.params["dimension"], result_shape(eqn)
    parts = [g.full(x, shape_of(eqn, i)) for i, x in enumerate(xs)]
    kept = [x for x in parts if x.shape[axis]]
    if len(kept) == 1:
        return kept[0]
    return g.emit("Concat", kept, shape, parts[0].dtype, axis=int(axis))


def stack(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Arrays side by side along a new axis."""
    axis, shape = int(eqn.params["axis"]), result_shape(eqn)
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [g.reshape(g.full(x, shape_of(eqn, i)), one) for i, x in enumerate(xs)]
    return g.emit("Concat", parts, shape, xs[0].dtype, axis=axis)


def unstack(g: Graph, eqn: Any, xs: Sequence[Real]) -> list[Real]:
    """The entries along an axis, without it."""
    axis = int(eqn.params["axis"])
    x = g.full(xs[0], shape_of(eqn))
    return [
        g.reshape(part, result_shape(eqn))
        for part in split_at(g, x, axis, [1] * x.shape[axis])
    ]


def split(g: Graph, eqn: Any, xs: Sequence[Real]) -> list[Real]:
    """Spans along an axis."""
    axis, sizes = int(eqn.params["axis"]), eqn.params["sizes"]
    return split_at(g, g.full(xs[0], shape_of(eqn)), axis, sizes)


def split_at(g: Graph, x: Real, axis: int, sizes: Sequence[int]) -> list[Real]:
    """Consecutive spans of the given sizes."""
    if isinstance(x, Const):
        bounds = np.cumsum(sizes)[:-1]
        return [Const(part, x.label) for part in np.split(x.array, bounds, axis)]
    if len(sizes) == 1:
        return [x]
    shapes = [(*x.shape[:axis], int(n), *x.shape[axis + 1 :]) for n in sizes]
    outputs = [(shape, x.dtype) for shape in shapes]
    return list(g.emit_many("Split", [x, integers(sizes)], outputs, axis=axis))


def slice_(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Spans of axes, with strides."""
    p = eqn.params
    shape, found = shape_of(eqn), xs[0]
    strides = p["strides"] or (1,) * len(shape)
    for axis, (start, limit, stride) in enumerate(
        zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    ):
        size = result_shape(eqn)[axis]
        if size == shape[axis] or found.shape[axis] != shape[axis]:
            continue
        found = cut(g, found, axis, start, limit, stride)
    return found


def cut(g: Graph, x: Real, axis: int, start: int, limit: int, stride: int = 1) -> Real:
    """x[start:limit:stride] along one axis."""
    if isinstance(x, Const):
        index = (slice(None),) * axis + (slice(start, limit, stride),)
        return Const(x.array[index], x.label)
    if (start, limit, stride) == (0, x.shape[axis], 1):
        return x
    size = len(range(start, limit, stride))
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    lists = [integers([n]) for n in (start, limit, axis, stride)]
    return g.emit("Slice", [x, *lists], shape, x.dtype)


def tile(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """The array several times over along each axis."""
    reps, shape = eqn.params["reps"], result_shape(eqn)
    x = g.full(xs[0], shape_of(eqn))
    return g.emit("Tile", [x, integers(reps)], shape, x.dtype)


def reverse(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Axes from their ends to their beginnings."""
    x = xs[0]
    for axis in eqn.params["dimensions"]:
        x = flip(g, x, axis)
    return x


def flip(g: Graph, x: Real, axis: int) -> Real:
    """One axis backwards."""
    if isinstance(x, Const):
        return Const(np.flip(x.array, axis), x.label)
    if x.shape[axis] == 1:
        return x
    lists = [integers([n]) for n in (-1, -(2**62), axis, -1)]
    return g.emit("Slice", [x, *lists], x.shape, x.dtype)


def pad(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Numbers before, after and between; a negative count cuts."""
    x, fill = g.full(xs[0], shape_of(eqn)), xs[1]
    config = eqn.params["padding_config"]
    for axis, (low, high, inside) in enumerate(config):
        if inside and x.shape[axis] > 1:
            x = _space_out(g, x, fill, axis, int(inside))
        size = x.shape[axis]
        x = cut(g, x, axis, max(-low, 0), size - max(-high, 0))
    before = [max(int(low), 0) for low, _, _ in config]
    after = [max(int(high), 0) for _, high, _ in config]
    return add_margins(g, x, before, after, fill)


def add_margins(
    g: Graph, x: Real, before: Sequence[int], after: Sequence[int], fill: Real
) -> Real:
    """`fill` before and after along every axis."""
    if not any(before) and not any(after):
        return x
    shape = [n + b + a for n, b, a in zip(x.shape, before, after, strict=True)]
    if x.dtype == bool:
        as_int = add_margins(
            g, g.cast(x, np.int32), before, after, g.cast(fill, np.int32)
        )
        return g.cast(as_int, bool)
    return g.emit(
        "Pad", [x, integers([*before, *after]), g.reshape(fill, ())], shape, x.dtype
    )


def _space_out(g: Graph, x: Real, fill: Real, axis: int, inside: int) -> Real:
    """`inside` fillers between neighbours: a new axis, padded and folded in."""
    size = x.shape[axis]
    apart = g.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    margin = [0] * len(apart.shape)
    margin[axis + 1] = inside
    apart = add_margins(g, apart, [0] * len(margin), margin, fill)
    long = (*x.shape[:axis], size * (inside + 1), *x.shape[axis + 1 :])
    return cut(g, g.reshape(apart, long), axis, 0, size * (inside + 1) - inside)


HANDLERS: dict[str, Handler] = {
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "split": split,
    "slice": slice_,
    "tile": tile,
    "rev": reverse,
    "pad": pad,
}
