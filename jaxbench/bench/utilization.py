"""Measures the device: FLOP/s of matrix products, bytes/s of memory traffic."""

from __future__ import annotations

import math
import time
from typing import Any

import jax
import jax.numpy as jnp


def matmul_peak(dtype: Any, size: int | None = None) -> float:
    """Measures FLOP/s of a square matrix product on the first device: best of five.

    Args:
      dtype: of the operands.
      size: side length; None chooses 1024 on a CPU and 8192 elsewhere.
    """
    if size is None:
        size = 1024 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul).lower(a, a).compile()
    best = math.inf
    for _ in range(6):  # the first one warms up
        start = time.perf_counter()
        product(a, a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def memory_bandwidth(size: int | None = None) -> float:
    """Measures bytes/s of memory traffic on the first device: best of five.

    A triad, b = b / 2 + c over float32, counted as two reads and one write. The result
    takes b's memory, so that no time goes into new pages.

    Args:
      size: numbers in one array; None chooses 2^26 on a CPU and 2^28 elsewhere, more
        than caches hold.
    """
    if size is None:
        size = 2**26 if jax.default_backend() == "cpu" else 2**28
    b, c = jnp.ones(size, jnp.float32), jnp.ones(size, jnp.float32)
    triad = jax.jit(lambda b, c: 0.5 * b + c, donate_argnums=0).lower(b, c).compile()
    best = math.inf
    for _ in range(6):  # the first one warms up
        start = time.perf_counter()
        b = triad(b, c).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 3 * b.nbytes / best
