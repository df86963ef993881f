"""An exported function as a policy is timed: call after call, the state handed on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxbench.serving.decide import bind
from jaxbench.serving.export.runtime import Call, Function, next_state
from jaxbench.serving.timing import BUDGET_MS, percentiles

# What an answer may take where a game's own time is not all of it.
FAST_MS = 1.0
Arrays = Mapping[str, Any]


def one_thread() -> None:
    """Keeps this process to one core; call it before jax starts its threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def summary(times_ms: np.ndarray) -> dict[str, Any]:
    """p50_ms, p99_ms, and whether the latter fits a frame and a millisecond."""
    found = percentiles(times_ms)
    return {
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "makes_60fps": found["p99_ms"] < BUDGET_MS,
        "under_1ms": found["p99_ms"] < FAST_MS,
    }


def jax_caller(
    exported: Function, calls: Sequence[Arrays], initial: Arrays
) -> Callable[[int], Any]:
    """`call(n)`: the n-th call in jax, its state kept on the device."""
    compiled = bind(exported.call, jax.device_put(exported.weights))
    # The state comes last, in and out.
    own = len(exported.inputs) - len(initial)
    outputs = len(exported.outputs) - len(initial)
    held = [jax.device_put(initial[p.name]) for p in exported.inputs[own:]]

    def call(n: int) -> Any:
        given = calls[n % len(calls)]
        host = [port.narrow(given[port.name]) for port in exported.inputs[:own]]
        found = compiled(*host, *held)
        held[:] = found[outputs:]
        return [np.asarray(x) for x in found[:outputs]]

    return call


def file_caller(
    call: Call, calls: Sequence[Arrays], initial: Arrays
) -> Callable[[int], Any]:
    """`call(n)`: the n-th call of an exported file, its state handed on."""
    held = dict(initial)

    def again(n: int) -> Any:
        found = call({**calls[n % len(calls)], **held})
        held.update(next_state(found, initial))
        return found

    return again
