"""`lax.scan`: written out where it is short, else ONNX's Scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from jaxbench.to_onnx.arrays import cut
from jaxbench.to_onnx.complexes import is_complex, parts
from jaxbench.to_onnx.graph import (
    Body,
    Const,
    Missing,
    Pair,
    Real,
    Tensor,
    Value,
    describe,
    live_nodes,
)
from jaxbench.to_onnx.tools import tool

# A loop of at most so many equations, rounds counted, is written out. A longer one is a
# Scan: as fast (a GRU's window of 30 frames took 3.1 ms, written out 3.9), loaded in a
# twentieth of the time, and in INT8 less than half the size.
UNROLL = 200


def scan(walker: Any, eqn: Any, xs: Sequence[Value], scope: str) -> list[Value]:
    """Converts a scan.

    What is carried, what is read whole and what is cut along time is told from shapes,
    because the names of a scan's parameters differ between versions of jax.
    """
    p = eqn.params
    closed, length, reverse = p["jaxpr"], int(p["length"]), bool(p["reverse"])
    body = closed.jaxpr
    whole = [
        len(v.aval.shape) == len(inner.aval.shape)
        for v, inner in zip(eqn.invars, body.invars, strict=True)
    ]
    carried = [
        len(v.aval.shape) == len(inner.aval.shape)
        for v, inner in zip(eqn.outvars, body.outvars, strict=True)
    ]
    carries, kept = sum(carried), sum(whole) - sum(carried)
    consts, carry, series = xs[:kept], xs[kept : kept + carries], xs[kept + carries :]
    series_shapes = [v.aval.shape for v in eqn.invars[kept + carries :]]
    series = [_whole(walker, x, s) for x, s in zip(series, series_shapes, strict=True)]
    if length <= 1 or length * equations(body) <= walker.unroll:
        order = range(length - 1, -1, -1) if reverse else range(length)
        ys: list[list[Value]] = [[] for _ in carried[carries:]]
        for t in order:
            rows = [_row(walker, x, t) for x in series]
            found = walker.walk(body, closed.consts, [*consts, *carry, *rows], scope)
            carry = found[:carries]
            for column, y in zip(ys, found[carries:], strict=True):
                column.append(y)
        outs = eqn.outvars[carries:]
        stacked = [
            _stack(walker, column[::-1] if reverse else column, out.aval)
            for column, out in zip(ys, outs, strict=True)
        ]
        return [*carry, *stacked]
    return _loop(walker, eqn, consts, carry, series, scope, length, reverse)


def equations(jaxpr: Any) -> int:
    """How many equations a jaxpr runs, loops inside it times their length."""
    count = 0
    for eqn in jaxpr.eqns:
        inner = [
            getattr(v, "jaxpr", v)
            for v in eqn.params.values()
            if hasattr(getattr(v, "jaxpr", v), "eqns")
        ]
        each = sum(equations(j) for j in inner) if inner else 1
        count += each * int(eqn.params.get("length", 1) or 1)
    return count


def _loop(
    walker: Any,
    eqn: Any,
    consts: Sequence[Value],
    carry: Sequence[Value],
    series: Sequence[Value],
    scope: str,
    length: int,
    reverse: bool,
) -> list[Value]:
    """A Scan: carried values, then the rows of the series, in and out."""
    g, closed = walker.g, eqn.params["jaxpr"]
    body, kept, carries = closed.jaxpr, len(consts), len(carry)
    missing = [x for x in (*consts, *carry, *series) if isinstance(x, Missing)]
    if missing:
        return [missing[0]] * len(eqn.outvars)
    inner = Body(len(g.bodies))
    g.bodies.append(inner)
    try:
        inside: list[Value] = []
        outer: list[Real] = []
        ports: list[Tensor] = []
        given = zip([*carry, *series], body.invars[kept:], strict=True)
        for i, (value, variable) in enumerate(given):
            shape = variable.aval.shape
            outer_shape = shape if i < carries else (length, *shape)
            split = is_complex(variable.aval.dtype)
            rows = []
            for half in _halves(value, split):
                outer.append(g.full(half, outer_shape))
                rows.append(g.input(g.unique("loop/in"), shape, half.dtype))
            ports += rows
            inside.append(Pair(*rows) if split else rows[0])
        if not series:
            # A Scan needs something to count its rounds by.
            outer.append(Const(np.zeros(length, np.float32)))
            ports.append(g.input(g.unique("loop/in"), (), np.float32))
        found = walker.walk(body, closed.consts, [*consts, *inside], scope)
        missing = [x for x in found if isinstance(x, Missing)]
        if missing:
            return [missing[0]] * len(eqn.outvars)
        ends: list[Tensor] = []
        outputs: list[tuple[Any, Any]] = []
        for i, (value, variable) in enumerate(zip(found, body.outvars, strict=True)):
            shape = variable.aval.shape
            split = is_complex(variable.aval.dtype)
            for half in _halves(value, split):
                ends.append(_end(g, inner, g.full(half, shape)))
                outer_shape = shape if i < carries else (length, *shape)
                outputs.append((outer_shape, half.dtype))
        graph = _close(g, inner, ports, ends)
    finally:
        g.bodies.pop()
    cut_up = sum(1 + is_complex(v.aval.dtype) for v in body.invars[kept + carries :])
    cut_up = cut_up or 1
    columns = sum(1 + is_complex(v.aval.dtype) for v in body.outvars[carries:])
    names = [g.tensor(x).name for x in outer]
    made = g.add(
        inner.level - 1,
        "Scan",
        names,
        outputs,
        f"{scope or 'top'}/Scan",
        {
            "body": graph,
            "num_scan_inputs": cut_up,
            "scan_input_directions": [int(reverse)] * cut_up,
            **({"scan_output_directions": [int(reverse)] * columns} if columns else {}),
        },
    )
    flat = iter(made)
    results: list[Value] = []
    for variable in eqn.outvars:
        if is_complex(variable.aval.dtype):
            results.append(Pair(next(flat), next(flat)))
        else:
            results.append(next(flat))
    return results


def _halves(value: Any, split: bool) -> list[Any]:
    """A value as what a Scan carries: a complex one is two."""
    return list(parts(value)) if split else [value]


def _end(g: Any, inner: Body, value: Real) -> Tensor:
    """A result of a body: a node of its own makes it, as Scan asks for."""
    name = g.tensor(value).name
    made = g.add(
        inner.level, "Identity", [name], [(value.shape, value.dtype)], "loop/out", {}
    )
    return made[0]


def _close(g: Any, inner: Body, ports: Sequence[Tensor], ends: Sequence[Tensor]) -> Any:
    """The body as an ONNX graph; what it needs from outside it reads by name."""
    return tool("onnx.helper").make_graph(
        live_nodes(inner.nodes, [end.name for end in ends]),
        g.unique("body"),
        [describe(port) for port in ports],
        [describe(end) for end in ends],
    )


def _whole(walker: Any, value: Value, shape: Sequence[int]) -> Value:
    """A series with every axis as long as it says."""
    if isinstance(value, Missing):
        return value
    if isinstance(value, Pair):
        return Pair(*(walker.g.full(half, shape) for half in value))
    return walker.g.full(value, shape)


def _row(walker: Any, value: Value, t: int) -> Value:
    """Entry t of a series."""
    if isinstance(value, Missing):
        return value
    if isinstance(value, Pair):
        real, imag = (_row(walker, half, t) for half in value)
        return Pair(cast(Real, real), cast(Real, imag))
    if isinstance(value, Const):
        return Const(value.array[t], value.label)
    row = cut(walker.g, value, 0, t, t + 1)
    return walker.g.reshape(row, value.shape[1:])


def _stack(walker: Any, rows: Sequence[Value], aval: Any) -> Value:
    """Rows as a series."""
    shape, g = tuple(aval.shape), walker.g
    missing = next((x for x in rows if isinstance(x, Missing)), None)
    if missing is not None:
        return missing
    if not rows:
        return Const(np.zeros(shape, aval.dtype))
    if is_complex(aval.dtype):
        halves = zip(*(parts(x) for x in rows), strict=True)
        return Pair(*(_joined(g, list(half), shape) for half in halves))
    return _joined(g, rows, shape)


def _joined(g: Any, rows: Sequence[Any], shape: Sequence[int]) -> Real:
    whole = [g.reshape(g.full(x, shape[1:]), (1, *shape[1:])) for x in rows]
    if all(isinstance(x, Const) for x in whole):
        return Const(np.concatenate([x.array for x in whole]))
    if len(whole) == 1:
        return whole[0]
    return g.emit("Concat", whole, shape, whole[0].dtype, axis=0)
