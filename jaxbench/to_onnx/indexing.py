"""Primitives that read and write by index, and those that sort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .arrays import cut, join, result_shape, shape_of, with_size
from .elementwise import Handler, where
from .graph import Const, Graph, Real, UnsupportedError, integers, scalar


def dynamic_slice(g: Graph, eqn: Any, x: Real, *starts: Real) -> Real:
    """A block whose corner is computed; one that reaches out is moved inside."""
    shape = shape_of(eqn)
    x = g.full(x, shape)
    for axis, (start, size) in enumerate(
        zip(starts, eqn.params["slice_sizes"], strict=True)
    ):
        if size == shape[axis]:
            continue
        start = _inside(g, start, shape[axis] - size)
        if isinstance(start, Const):
            x = cut(g, x, axis, int(start.array), int(start.array) + size)
        else:
            x = take(g, x, _places(g, start, size), axis)
    return x


def dynamic_update_slice(
    g: Graph, eqn: Any, x: Real, update: Real, *starts: Real
) -> Real:
    """The array with a block, whose corner is computed, written over."""
    shape, block = shape_of(eqn), shape_of(eqn, 1)
    x, update = g.full(x, shape), g.full(update, block)
    flat: Real = scalar(0, np.int64)
    for axis, (start, size) in enumerate(zip(starts, block, strict=True)):
        start = _inside(g, start, shape[axis] - size)
        along = with_size([1] * len(shape), axis, size)
        places = g.reshape(_places(g, start, size), along)
        flat = g.op("Add", flat, g.op("Mul", places, math.prod(shape[axis + 1 :])))
    return _write(g, x, g.full(flat, block), update, "none")


class Windows(NamedTuple):
    """Which axes of an operand indices name, drop and batch; see `lax.gather`."""

    named: Sequence[int]
    dropped: Sequence[int]
    batched: Sequence[int]
    index_batched: Sequence[int]


def gather(g: Graph, eqn: Any, x: Real, start: Real) -> Real:
    """Blocks read at computed corners: one axis by Gather, others by flat index."""
    p, shape, result = eqn.params, shape_of(eqn), result_shape(eqn)
    d, sizes, mode = p["dimension_numbers"], p["slice_sizes"], _mode(p["mode"])
    x, start = g.full(x, shape), g.full(start, shape_of(eqn, 1))
    if start.dtype not in (np.int32, np.int64):
        start = g.cast(start, np.int64)
    fill = scalar(_fill_value(p["fill_value"], x.dtype), x.dtype)
    others = sum(size != n for size, n in zip(sizes, shape, strict=True))
    single = len(d.start_index_map) == 1 and not d.operand_batching_dims and others <= 1
    if single and d.start_index_map == d.collapsed_slice_dims:
        (axis,) = d.start_index_map
        index = g.reshape(start, start.shape[:-1])
        found = _take_one(g, x, index, axis, mode, fill)
        return _offsets_in_place(g, found, axis, len(index.shape), d, len(result))
    windows = Windows(
        d.start_index_map,
        d.collapsed_slice_dims,
        d.operand_batching_dims,
        d.start_indices_batching_dims,
    )
    flat, outside = _flat_index(g, start, shape, sizes, windows, mode)
    size = math.prod(shape)
    if outside is not None:
        flat = _clip(g, flat, size - 1)
    taken = take(g, g.reshape(x, (size,)), flat, 0)
    if outside is not None:
        taken = where(g, outside, fill, taken)
    # [batch..., window...] in the order of the result's axes.
    batch = [i for i in range(len(result)) if i not in d.offset_dims]
    order = [*batch, *d.offset_dims]
    whole = g.full(taken, [result[i] for i in order])
    return g.transpose(whole, np.argsort(order).tolist())


def _take_one(
    g: Graph, x: Real, index: Real, axis: int, mode: str, fill: Const
) -> Real:
    """x read along one axis; what lies outside is moved inside, or is `fill`."""
    size = x.shape[axis]
    if mode == "inside":
        return take(g, x, index, axis)
    if mode == "clip":
        return take(g, x, _clip(g, index, size - 1), axis)
    if isinstance(x, Const):
        # A table gets one more row, which every index outside reads.
        row = Const(np.broadcast_to(fill.array, with_size(x.shape, axis, 1)))
        longer = np.concatenate([x.array, row.array], axis)
        table = Const(longer, x.label and f"{x.label}/filled")
        low = where(g, g.op("Less", index, 0), scalar(size, index.dtype), index)
        return take(g, table, g.op("Min", low, size), axis)
    safe = _clip(g, index, size - 1)
    lead = (*index.shape, *[1] * (len(x.shape) - axis - 1))
    inside = g.reshape(g.op("Equal", index, safe), lead)
    return where(g, inside, take(g, x, safe, axis), fill)


def scatter(kind: str) -> Handler:
    """Blocks written, or added, at computed corners; those outside are dropped."""

    def handler(g: Graph, eqn: Any, x: Real, start: Real, updates: Real) -> Real:
        p, shape = eqn.params, shape_of(eqn)
        d, mode = p["dimension_numbers"], _mode(p["mode"])
        x, start = g.full(x, shape), g.full(start, shape_of(eqn, 1))
        updates = g.full(updates, shape_of(eqn, 2))
        windows = Windows(
            d.scatter_dims_to_operand_dims,
            d.inserted_window_dims,
            d.operand_batching_dims,
            d.scatter_indices_batching_dims,
        )
        window = iter([updates.shape[i] for i in d.update_window_dims])
        gone = {*windows.dropped, *windows.batched}
        sizes = [1 if i in gone else next(window) for i in range(len(shape))]
        flat, outside = _flat_index(g, start, shape, sizes, windows, mode)
        batch = [i for i in range(len(updates.shape)) if i not in d.update_window_dims]
        updates = g.transpose(updates, [*batch, *d.update_window_dims])
        updates = g.reshape(updates, flat.shape)
        if outside is None:
            return _write(g, x, flat, updates, kind)
        # What falls outside goes to one more place, which is cut off again.
        size = math.prod(shape)
        flat = where(g, outside, scalar(size, np.int64), flat)
        longer = join(g, [g.reshape(x, (size,)), Const(np.zeros(1, x.dtype))], 0)
        written = _write(g, longer, flat, updates, kind)
        return g.reshape(cut(g, written, 0, 0, size), shape)

    return handler


def sort(g: Graph, eqn: Any, *xs: Real) -> list[Real]:
    """Ascending order by the first operand; the others are put in the same order."""
    axis = int(eqn.params["dimension"])
    if eqn.params["num_keys"] != 1:
        raise UnsupportedError("sort by several keys")
    first, *rest = (g.full(x, shape_of(eqn, i)) for i, x in enumerate(xs))
    keys, index = _top(g, first, first.shape[axis], axis, largest=0)
    return [
        keys,
        *(
            g.emit("GatherElements", [x, index], x.shape, x.dtype, axis=axis)
            for x in rest
        ),
    ]


def top_k(g: Graph, eqn: Any, x: Real) -> list[Real]:
    """The k largest along an axis and where they are; the first of equals first."""
    x = g.full(x, shape_of(eqn))
    axis = int(eqn.params.get("axis", len(x.shape) - 1)) % len(x.shape)
    values, index = _top(g, x, eqn.params["k"], axis, largest=1)
    return [values, g.cast(index, eqn.outvars[1].aval.dtype)]


def _top(g: Graph, x: Real, k: int, axis: int, largest: int) -> tuple[Real, ...]:
    shape = with_size(x.shape, axis, k)
    more = {"axis": axis, "largest": largest, "sorted": 1}
    outputs = [(shape, x.dtype), (shape, np.int64)]
    return g.emit_many("TopK", [x, integers([k])], outputs, **more)


def take(g: Graph, x: Real, index: Real, axis: int) -> Real:
    """x read at `index` along one axis."""
    if isinstance(x, Const) and isinstance(index, Const):
        return Const(np.take(x.array, index.array, axis), x.label)
    shape = with_size(x.shape, axis, *index.shape)
    return g.emit("Gather", [x, index], shape, x.dtype, axis=axis)


def _write(g: Graph, x: Real, flat: Real, updates: Real, kind: str) -> Real:
    """x with updates at flat places."""
    if x.dtype == bool:
        as_int = [g.cast(v, np.int32) for v in (x, updates)]
        return g.cast(_write(g, as_int[0], flat, as_int[1], kind), bool)
    size, count = math.prod(x.shape), math.prod(updates.shape)
    more = {} if kind == "none" else {"reduction": kind}
    flat = g.reshape(g.full(flat, updates.shape), (count,))
    inputs = [g.reshape(x, (size,)), flat, g.reshape(updates, (count,))]
    written = g.emit("ScatterElements", inputs, (size,), x.dtype, axis=0, **more)
    return g.reshape(written, x.shape)


def _flat_index(
    g: Graph,
    start: Real,
    shape: Sequence[int],
    sizes: Sequence[int],
    d: Windows,
    mode: str,
) -> tuple[Real, Real | None]:
    """Flat places [batch..., window...] of all blocks, and which lie outside.

    The window's axes are those of the operand that are neither dropped nor batched.
    """
    batch = start.shape[:-1]
    windowed = [i for i in range(len(shape)) if i not in {*d.dropped, *d.batched}]
    steps = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    flat: Real = scalar(0, np.int64)
    outside: Real | None = None
    for i, axis in enumerate(d.named):
        corner = cut(g, start, len(batch), i, i + 1)
        corner = g.reshape(g.cast(corner, np.int64), batch)
        limit = shape[axis] - sizes[axis]
        if mode == "clip":
            corner = _clip(g, corner, limit)
        elif mode == "fill":
            above = g.op("Less", scalar(limit, np.int64), corner)
            out = g.op("Or", g.op("Less", corner, 0), above)
            outside = out if outside is None else g.op("Or", outside, out)
        flat = g.op("Add", flat, g.op("Mul", corner, steps[axis]))
    lead = (*batch, *[1] * len(windowed))

    def counted(size: int, axis: int, rank: int, place: int) -> Const:
        numbers = np.arange(size, dtype=np.int64) * steps[axis]
        return Const(numbers.reshape(with_size([1] * rank, place, size)))

    for axis, place in zip(d.batched, d.index_batched, strict=True):
        flat = g.op("Add", flat, counted(batch[place], axis, len(batch), place))
    flat = g.reshape(g.full(flat, batch), lead)
    for n, axis in enumerate(windowed):
        along = counted(sizes[axis], axis, len(lead), len(batch) + n)
        flat = g.op("Add", flat, along)
    flat = g.full(flat, (*batch, *(sizes[i] for i in windowed)))
    if isinstance(outside, Const) and not outside.array.any():
        outside = None
    if outside is not None:
        outside = g.reshape(g.full(outside, batch), lead)
    return flat, outside


def _offsets_in_place(
    g: Graph, x: Real, axis: int, count: int, d: Any, rank: int
) -> Real:
    """The result of a Gather at `axis` in the order of the result's axes."""
    # x is [before, index..., after]; before and after are the offset axes in order.
    index = list(range(axis, axis + count))
    offsets = [i for i in range(rank) if i not in index]
    batch = [i for i in range(rank) if i not in d.offset_dims]
    placed = dict(zip([*batch, *d.offset_dims], [*index, *offsets], strict=True))
    return g.transpose(x, [placed[i] for i in range(rank)])


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
    return g.op("Min", g.op("Max", index, 0), limit)


def _places(g: Graph, start: Real, size: int) -> Real:
    """start .. start + size - 1."""
    return g.op("Add", g.reshape(start, (1,)), Const(np.arange(size, dtype=np.int64)))


HANDLERS: dict[str, Handler] = {
    "dynamic_slice": dynamic_slice,
    "dynamic_update_slice": dynamic_update_slice,
    "gather": gather,
    "scatter": scatter("none"),
    "scatter-add": scatter("add"),
    "sort": sort,
    "top_k": top_k,
}
