"""Milliseconds of a call, of several implementations in turn, on one thread."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxbench.bench.latency import BUDGET_MS, WARM_UP
from jaxbench.serving.export.runtime import Call, Function, next_state

# What an answer may take where a game's own time is not all of it.
FAST_MS = 1.0
Arrays = Mapping[str, Any]


def one_thread() -> None:
    """Keeps this process to one core; call it before jax starts its threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def time_in_turn(
    calls: Mapping[str, Callable[[int], Any]],
    count: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Times several implementations, the n-th call of each before the next of any.

    So what else the machine does falls on all of them alike. Garbage collection is
    off; the first `WARM_UP` rounds are not counted.

    Args:
      calls: `call(n)`, ends when the answer is on the host.
      count: rounds timed.
      clock: seconds.

    Returns:
      p50_ms, p99_ms, makes_60fps (p99 within a frame) and under_1ms (p99) by name.
    """
    seconds = {name: np.empty(count) for name in calls}
    for n in range(min(WARM_UP, count)):
        for call in calls.values():
            call(n)
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for n in range(count):
            for name, call in calls.items():
                start = clock()
                call(n)
                seconds[name][n] = clock() - start
    finally:
        if collected:
            gc.enable()
    return {name: summary(times * 1e3) for name, times in seconds.items()}


def summary(times_ms: np.ndarray) -> dict[str, Any]:
    """Percentiles, and which budgets the 99th keeps."""
    p99 = float(np.percentile(times_ms, 99))
    return {
        "p50_ms": float(np.percentile(times_ms, 50)),
        "p99_ms": p99,
        "makes_60fps": p99 < BUDGET_MS,
        "under_1ms": p99 < FAST_MS,
    }


def jax_player(exported: Function, calls: Sequence[Arrays], initial: Arrays) -> Any:
    """`play(n)`: the n-th call in jax, its state kept on the device."""
    compiled = jax.jit(exported.call)
    weights = jax.device_put(exported.weights)
    ports = exported.inputs
    # The state comes last, in and out.
    states, outputs = len(initial), len(exported.outputs) - len(initial)
    own, carried = ports[: len(ports) - states], ports[len(ports) - states :]
    held = {"state": [jax.device_put(initial[p.name]) for p in carried]}

    def play(n: int) -> Any:
        given = calls[n % len(calls)]
        host = [port.narrow(given[port.name]) for port in own]
        found = compiled(weights, *host, *held["state"])
        held["state"] = list(found[outputs:])
        return [np.asarray(x) for x in found[:outputs]]

    return play


def file_player(call: Call, calls: Sequence[Arrays], initial: Arrays) -> Any:
    """`play(n)`: the n-th call of an exported file, its state handed on."""
    held = {"state": dict(initial)}

    def play(n: int) -> Any:
        found = call({**calls[n % len(calls)], **held["state"]})
        held["state"] = next_state(found, initial)
        return found

    return play
