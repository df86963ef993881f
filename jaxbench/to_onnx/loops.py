"""`lax.scan`: written out where it is short, else ONNX's Scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from .arrays import entries, join
from .complexes import is_complex, parts
from .graph import (
    Body,
    Const,
    Graph,
    Missing,
    Pair,
    Real,
    Tensor,
    Value,
    described,
    live_nodes,
)

# A loop of at most so many equations, rounds counted, is written out. A longer one is a
# Scan: as fast (a GRU's window of 30 frames took 3.1 ms, written out 3.9), loaded in a
# twentieth of the time, and in INT8 less than half the size.
UNROLL = 200


def scan(walker: Any, eqn: Any, xs: Sequence[Value], scope: str) -> list[Value]:
    """Converts a scan.

    What is carried, what is read whole and what is cut along time is told from shapes,
    because the names of a scan's parameters differ between versions of jax.
    """
    p, g = eqn.params, walker.g
    closed, length, reverse = p["jaxpr"], int(p["length"]), bool(p["reverse"])
    body = closed.jaxpr

    def whole(outer: Sequence[Any], inner: Sequence[Any]) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(len(v.aval.shape) == len(w.aval.shape) for v, w in pairs)

    carries = whole(eqn.outvars, body.outvars)
    kept = whole(eqn.invars, body.invars) - carries
    consts, carry, series = xs[:kept], xs[kept : kept + carries], xs[kept + carries :]
    shapes = [v.aval.shape for v in eqn.invars[kept + carries :]]
    series = [
        _each(x, lambda half, shape=shape: g.full(half, shape))
        for x, shape in zip(series, shapes, strict=True)
    ]
    if length > 1 and length * equations(body) > walker.unroll:
        return _loop(walker, eqn, consts, carry, series, scope)
    rows = [_rows(g, x) for x in series]
    ys: list[list[Any]] = [[] for _ in body.outvars[carries:]]
    for t in range(length)[:: -1 if reverse else 1]:
        given = [*consts, *carry, *(row[t] for row in rows)]
        found = walker.walk(body, closed.consts, given, scope)
        carry = found[:carries]
        for column, y in zip(ys, found[carries:], strict=True):
            column.append(y)
    outs = zip(ys, eqn.outvars[carries:], strict=True)
    return [*carry, *(_stack(g, y[:: -1 if reverse else 1], v.aval) for y, v in outs)]


def equations(jaxpr: Any) -> int:
    """How many equations a jaxpr runs, loops inside it times their length."""
    count = 0
    for eqn in jaxpr.eqns:
        inner = [getattr(v, "jaxpr", v) for v in eqn.params.values()]
        inside = [equations(j) for j in inner if hasattr(j, "eqns")]
        length = int(eqn.params.get("length", 1) or 1)
        count += (sum(inside) if inside else 1) * length
    return count


def _loop(
    walker: Any,
    eqn: Any,
    consts: Sequence[Value],
    carry: Sequence[Value],
    series: Sequence[Value],
    scope: str,
) -> list[Value]:
    """A Scan: carried values, then the rows of the series, in and out."""
    g, closed = walker.g, eqn.params["jaxpr"]
    length, reverse = int(eqn.params["length"]), bool(eqn.params["reverse"])
    body, carries = closed.jaxpr, len(carry)
    inner = Body(len(g.bodies))
    g.bodies.append(inner)
    try:
        inside: list[Value] = []
        outer: list[Real] = []
        ports: list[Tensor] = []

        def port(value: Real, shape: Sequence[int], rounds: Sequence[int]) -> Tensor:
            outer.append(g.full(value, (*rounds, *shape)))
            ports.append(g.input(g.unique("loop/in"), shape, value.dtype))
            return ports[-1]

        given = zip([*carry, *series], body.invars[len(consts) :], strict=True)
        for i, (value, variable) in enumerate(given):
            shape, rounds = variable.aval.shape, () if i < carries else (length,)
            halves = [port(x, shape, rounds) for x in _halves(value, variable)]
            inside.append(Pair(*halves) if len(halves) == 2 else halves[0])
        if not series:
            # A Scan needs something to count its rounds by.
            port(Const(np.zeros(length, np.float32)), (), (length,))
        found = walker.walk(body, closed.consts, [*consts, *inside], scope)
        missing = next((x for x in found if isinstance(x, Missing)), None)
        if missing is not None:
            return [missing] * len(eqn.outvars)
        ends: list[Tensor] = []
        outputs: list[tuple[Any, Any]] = []
        for i, (value, variable) in enumerate(zip(found, body.outvars, strict=True)):
            shape, rounds = variable.aval.shape, () if i < carries else (length,)
            for half in _halves(value, variable):
                ends.append(g.end(g.full(half, shape), [x.name for x in ends]))
                outputs.append(((*rounds, *shape), half.dtype))
        graph = helper.make_graph(
            live_nodes(inner.nodes, [end.name for end in ends]),
            g.unique("body"),
            [described(port) for port in ports],
            [described(end) for end in ends],
        )
    finally:
        g.bodies.pop()
    carried = sum(1 + is_complex(v.aval.dtype) for v in body.outvars[:carries])
    attributes = {
        "body": graph,
        "num_scan_inputs": len(ports) - carried,
        "scan_input_directions": [int(reverse)] * (len(ports) - carried),
    }
    if len(ends) > carried:
        attributes["scan_output_directions"] = [int(reverse)] * (len(ends) - carried)
    inputs, name = [g.tensor(x) for x in outer], f"{scope or 'top'}/Scan"
    flat = iter(g.add(inner.level - 1, "Scan", inputs, outputs, name, attributes))
    return [
        Pair(next(flat), next(flat)) if is_complex(v.aval.dtype) else next(flat)
        for v in eqn.outvars
    ]


def _halves(value: Any, variable: Any) -> list[Any]:
    """A value as what a Scan carries: a complex one is two."""
    return list(parts(value)) if is_complex(variable.aval.dtype) else [value]


def _each(value: Any, change: Callable[..., Any]) -> Any:
    return Pair(*map(change, value)) if isinstance(value, Pair) else change(value)


def _rows(g: Graph, value: Any) -> Sequence[Any]:
    """Every entry of a series."""
    if isinstance(value, Pair):
        return [Pair(*both) for both in zip(*(_rows(g, x) for x in value), strict=True)]
    if isinstance(value, Const):
        return [Const(row, value.label) for row in value.array]
    return entries(g, value, 0)


def _stack(g: Graph, rows: Sequence[Any], aval: Any) -> Value:
    """Rows as a series."""
    missing = next((x for x in rows if isinstance(x, Missing)), None)
    if missing is not None:
        return missing
    if not rows:
        return Const(np.zeros(aval.shape, aval.dtype))
    if is_complex(aval.dtype):
        halves = zip(*map(parts, rows), strict=True)
        return Pair(*(_joined(g, half, aval.shape[1:]) for half in halves))
    return _joined(g, rows, aval.shape[1:])


def _joined(g: Graph, rows: Sequence[Any], shape: Sequence[int]) -> Real:
    return join(g, [g.reshape(g.full(x, shape), (1, *shape)) for x in rows], 0)
