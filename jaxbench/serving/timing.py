"""Milliseconds of a call, of one implementation or of several in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# A frame of the game.
BUDGET_MS = 1000 / 60
# Calls before any is counted.
WARM_UP = 100
Clock = Callable[[], float]


def time_in_turn(
    calls: Mapping[str, Callable[[int], Any]],
    count: int,
    warm_up: int = WARM_UP,
    clock: Clock = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Times several implementations, the n-th call of each before the next of any.

    So what else the machine does falls on all of them alike. Garbage collection is off.

    Args:
      calls: `call(n)`, ends when the answer is on the host.
      count: rounds timed, call(0) .. call(count - 1).
      warm_up: rounds before that, call(0) .. call(warm_up - 1), which are not counted.
      clock: seconds.

    Returns:
      Milliseconds of each round, [count], by name.
    """
    times = {name: np.empty(count) for name in calls}
    for n in range(warm_up):
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
                times[name][n] = 1e3 * (clock() - start)
    finally:
        if collected:
            gc.enable()
    return times


def percentiles(times_ms: np.ndarray) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    return {
        "p50_ms": float(np.percentile(times_ms, 50)),
        "p99_ms": float(np.percentile(times_ms, 99)),
        "max_ms": float(times_ms.max()),
    }
