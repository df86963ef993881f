"""Primitives that read and write by index, and those that sort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxbench.to_onnx.arrays import cut, result_shape, shape_of
from jaxbench.to_onnx.elementwise import Handler, where
from jaxbench.to_onnx.graph import (
    Const,
    Graph,
    Real,
    UnsupportedError,
    integers,
    scalar,
)


def dynamic_slice(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """A block whose corner is computed; one that reaches out is moved inside."""
    shape, sizes = shape_of(eqn), eqn.params["slice_sizes"]
    x = g.full(xs[0], shape)
    for axis, (start, size) in enumerate(zip(xs[1:], sizes, strict=True)):
        if size == shape[axis]:
            continue
        start = _inside(g, start, shape[axis] - size)
        if isinstance(start, Const):
            begin = int(start.array)
            x = cut(g, x, axis, begin, begin + size)
            continue
        x = take(g, x, _places(g, start, size), axis)
    return x


def dynamic_update_slice(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """The array with a block, whose corner is computed, written over."""
    shape, block = shape_of(eqn), shape_of(eqn, 1)
    x, update = g.full(xs[0], shape), g.full(xs[1], block)
    flat: Real = scalar(0, np.int64)
    for axis, (start, size) in enumerate(zip(xs[2:], block, strict=True)):
        start = _inside(g, start, shape[axis] - size)
        along = [1] * len(shape)
        along[axis] = size
        step = scalar(math.prod(shape[axis + 1 :]), np.int64)
        places = g.reshape(_places(g, start, size), along)
        flat = _add(g, flat, _multiply(g, places, step))
    return _write(g, x, g.full(flat, block), update, "none")


def gather(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
    """Blocks read at computed corners: one axis by Gather, others by flat index."""
    p, shape = eqn.params, shape_of(eqn)
    d, sizes = p["dimension_numbers"], p["slice_sizes"]
    x, start = g.full(xs[0], shape), g.full(xs[1], shape_of(eqn, 1))
    result = result_shape(eqn)
    mode = _mode(p["mode"])
    whole = [i for i, size in enumerate(sizes) if size == shape[i]]
    single = (
        len(d.start_index_map) == 1
        and d.start_index_map == d.collapsed_slice_dims
        and not d.operand_batching_dims
        and len(whole) >= len(shape) - 1
    )
    if single:
        axis = d.start_index_map[0]
        index = g.reshape(start, start.shape[:-1])
        safe = index if mode == "inside" else _clip(g, index, shape[axis] - 1)
        found = take(g, x, safe, axis)
        if mode == "fill":
            inside = g.elementwise("Equal", index, safe, dtype=bool)
            lead = (*index.shape, *[1] * (len(shape) - axis - 1))
            fill = scalar(_fill_value(p["fill_value"], x.dtype), x.dtype)
            found = where(g, g.reshape(inside, lead), found, fill)
        return _offsets_in_place(g, found, axis, len(index.shape), d, len(result))
    flat, outside = _flat_index(g, start, shape, sizes, d, mode)
    last = math.prod(shape) - 1
    if outside is not None:
        flat = _clip(g, flat, last)
    taken = take(g, g.reshape(x, (-1,) if last < 0 else (last + 1,)), flat, 0)
    if outside is not None:
        fill = _fill_value(p["fill_value"], x.dtype)
        taken = where(g, outside, scalar(fill, x.dtype), taken)
    return _arranged(g, taken, d, result)


def scatter(kind: str) -> Handler:
    """Blocks written, or added, at computed corners; those outside are dropped."""

    def handler(g: Graph, eqn: Any, xs: Sequence[Real]) -> Real:
        p, shape = eqn.params, shape_of(eqn)
        d = p["dimension_numbers"]
        x = g.full(xs[0], shape)
        start = g.full(xs[1], shape_of(eqn, 1))
        updates = g.full(xs[2], shape_of(eqn, 2))
        as_gather = _AsGather(d)
        window = iter([updates.shape[i] for i in d.update_window_dims])
        dropped = {*d.inserted_window_dims, *d.operand_batching_dims}
        sizes = [1 if i in dropped else next(window) for i in range(len(shape))]
        mode = _mode(p["mode"])
        flat, outside = _flat_index(g, start, shape, sizes, as_gather, mode)
        size = math.prod(shape)
        batch = [i for i in range(len(updates.shape)) if i not in d.update_window_dims]
        updates = g.transpose(updates, [*batch, *d.update_window_dims])
        updates = g.reshape(updates, flat.shape)
        if outside is None:
            return _write(g, x, flat, updates, kind)
        # What falls outside goes to one more place, which is cut off again.
        flat = where(g, outside, scalar(size, np.int64), flat)
        longer = g.emit(
            "Concat",
            [g.reshape(x, (size,)), Const(np.zeros(1, x.dtype))],
            (size + 1,),
            x.dtype,
            axis=0,
        )
        written = _write(g, longer, flat, updates, kind)
        return g.reshape(cut(g, written, 0, 0, size), shape)

    return handler


class _AsGather:
    """A scatter's dimension numbers in the words of a gather."""

    def __init__(self, d: Any):
        self.start_index_map = d.scatter_dims_to_operand_dims
        self.collapsed_slice_dims = d.inserted_window_dims
        self.operand_batching_dims = d.operand_batching_dims
        self.start_indices_batching_dims = d.scatter_indices_batching_dims


def sort(g: Graph, eqn: Any, xs: Sequence[Real]) -> list[Real]:
    """Ascending order by the first operand; the others are put in the same order."""
    axis = int(eqn.params["dimension"])
    if eqn.params["num_keys"] != 1:
        raise UnsupportedError("sort by several keys")
    whole = [g.full(x, shape_of(eqn, i)) for i, x in enumerate(xs)]
    keys, index = _top(g, whole[0], whole[0].shape[axis], axis, largest=0)
    others = [
        g.emit("GatherElements", [x, index], x.shape, x.dtype, axis=axis)
        for x in whole[1:]
    ]
    return [keys, *others]


def top_k(g: Graph, eqn: Any, xs: Sequence[Real]) -> list[Real]:
    """The k largest along an axis and where they are; the first of equals first."""
    x = g.full(xs[0], shape_of(eqn))
    axis = int(eqn.params.get("axis", len(x.shape) - 1)) % len(x.shape)
    values, index = _top(g, x, eqn.params["k"], axis, largest=1)
    return [values, g.cast(index, eqn.outvars[1].aval.dtype)]


def _top(g: Graph, x: Real, k: int, axis: int, largest: int) -> tuple[Real, Real]:
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    values, index = g.emit_many(
        "TopK",
        [x, integers([k])],
        [(shape, x.dtype), (shape, np.int64)],
        axis=axis,
        largest=largest,
        sorted=1,
    )
    return values, index


def take(g: Graph, x: Real, index: Real, axis: int) -> Real:
    """x read at `index` along one axis."""
    if isinstance(x, Const) and isinstance(index, Const):
        return Const(np.take(x.array, index.array, axis), x.label)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
    return g.emit("Gather", [x, index], shape, x.dtype, axis=axis)


def _write(g: Graph, x: Real, flat: Real, updates: Real, kind: str) -> Real:
    """x with updates at flat places."""
    if x.dtype == bool:
        as_int = [g.cast(v, np.int32) for v in (x, updates)]
        return g.cast(_write(g, as_int[0], flat, as_int[1], kind), bool)
    size, count = math.prod(x.shape), math.prod(updates.shape)
    more = {} if kind == "none" else {"reduction": kind}
    parts = [g.reshape(x, (size,)), g.reshape(g.full(flat, updates.shape), (count,))]
    written = g.emit(
        "ScatterElements",
        [*parts, g.reshape(updates, (count,))],
        (size,),
        x.dtype,
        axis=0,
        **more,
    )
    return g.reshape(written, x.shape)


def _flat_index(
    g: Graph, start: Real, shape: Sequence[int], sizes: Sequence[int], d: Any, mode: str
) -> tuple[Real, Real | None]:
    """Flat places [batch..., window...] of all blocks, and which lie outside.

    The window's axes are those of the operand that are neither collapsed nor batched.
    """
    batch = start.shape[:-1]
    kept = [
        i
        for i in range(len(shape))
        if i not in d.collapsed_slice_dims and i not in d.operand_batching_dims
    ]
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    flat: Real = scalar(0, np.int64)
    outside: Real | None = None
    rank = len(batch) + len(kept)
    for i, axis in enumerate(d.start_index_map):
        corner = cut(g, start, len(batch), i, i + 1)
        corner = g.reshape(g.cast(corner, np.int64), batch)
        limit = shape[axis] - sizes[axis]
        if mode == "clip":
            corner = _clip(g, corner, limit)
        elif mode == "fill":
            out = _or(g, _less(g, corner, 0), _less(g, scalar(limit, np.int64), corner))
            outside = out if outside is None else _or(g, outside, out)
        step = scalar(steps[axis], np.int64)
        flat = _add(g, flat, _multiply(g, corner, step))
    pairs = zip(d.operand_batching_dims, d.start_indices_batching_dims, strict=True)
    for axis, place in pairs:
        along = [1] * len(batch)
        along[place] = batch[place]
        counted = np.arange(batch[place], dtype=np.int64) * steps[axis]
        flat = _add(g, flat, Const(counted.reshape(along)))
    lead = (*batch, *[1] * len(kept))
    flat = g.reshape(g.full(flat, batch), lead)
    for n, axis in enumerate(kept):
        along = [1] * rank
        along[len(batch) + n] = sizes[axis]
        counted = np.arange(sizes[axis], dtype=np.int64) * steps[axis]
        flat = _add(g, flat, Const(counted.reshape(along)))
    flat = g.full(flat, (*batch, *(sizes[i] for i in kept)))
    if isinstance(outside, Const) and not outside.array.any():
        outside = None
    if outside is not None:
        outside = g.reshape(g.full(outside, batch), lead)
    return flat, outside


def _arranged(g: Graph, x: Real, d: Any, result: Sequence[int]) -> Real:
    """[batch..., window...] in the order of the result's axes."""
    batch = [i for i in range(len(result)) if i not in d.offset_dims]
    order = [*batch, *d.offset_dims]
    whole = g.full(x, [result[i] for i in order])
    return g.transpose(whole, np.argsort(order).tolist())


def _offsets_in_place(
    g: Graph, x: Real, axis: int, count: int, d: Any, rank: int
) -> Real:
    """The result of a Gather at `axis` in the order of the result's axes."""
    # x is [before, index..., after]; before and after are the offset axes in order.
    index = list(range(axis, axis + count))
    offsets = [i for i in range(rank) if i not in index]
    batch = [i for i in range(rank) if i not in d.offset_dims]
    order = [0] * rank
    for source, target in zip(index, batch, strict=True):
        order[target] = source
    for source, target in zip(offsets, d.offset_dims, strict=True):
        order[target] = source
    return g.transpose(x, order)


def _mode(mode: Any) -> str:
    """What becomes of an index outside: "clip", "fill" (or drop), or "inside"."""
    name = str(mode).lower()
    if "clip" in name:
        return "clip"
    return "fill" if "fill" in name or "drop" in name else "inside"


def _fill_value(given: Any, dtype: np.dtype) -> Any:
    if given is not None:
        return given
    if np.issubdtype(dtype, np.floating):
        return np.nan
    if np.issubdtype(dtype, np.signedinteger):
        return np.iinfo(dtype).min
    return True if dtype.kind == "b" else np.iinfo(dtype).max


def _inside(g: Graph, start: Real, limit: int) -> Real:
    return _clip(g, g.cast(g.reshape(start, ()), np.int64), limit)


def _clip(g: Graph, index: Real, limit: int) -> Real:
    if isinstance(index, Const):
        return Const(np.clip(index.array, 0, limit))
    low = g.elementwise("Max", index, scalar(0, index.dtype))
    return g.elementwise("Min", low, scalar(limit, index.dtype))


def _places(g: Graph, start: Real, size: int) -> Real:
    """start .. start + size - 1."""
    return _add(g, g.reshape(start, (1,)), Const(np.arange(size, dtype=np.int64)))


def _add(g: Graph, a: Real, b: Real) -> Real:
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(np.add(a.array, b.array))
    if isinstance(a, Const) and not a.array.any() and len(a.shape) <= len(b.shape):
        return b
    return g.elementwise("Add", a, b)


def _multiply(g: Graph, a: Real, b: Const) -> Real:
    if isinstance(a, Const):
        return Const(np.multiply(a.array, b.array))
    return a if b.array == 1 else g.elementwise("Mul", a, b)


def _less(g: Graph, a: Real, b: Any) -> Real:
    b = scalar(b, np.int64) if isinstance(b, int) else b
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(np.less(a.array, b.array))
    return g.elementwise("Less", a, b, dtype=bool)


def _or(g: Graph, a: Real, b: Real) -> Real:
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(np.logical_or(a.array, b.array))
    return g.elementwise("Or", a, b)


HANDLERS: dict[str, Handler] = {
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter("none"),
    "scatter-add": scatter("add"),
    "sort": sort,
    "top_k": top_k,
}
