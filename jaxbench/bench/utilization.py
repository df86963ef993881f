"""What a run asks of the device, and what the device can give."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Counts the floating-point operations of matrix products and convolutions.

    Walks the traced program: a scan counts its body once per step (the compiler's own
    account counts it once), a conditional its costliest branch. A `while` loop counts
    once, so hand in a function that makes one step. Elementwise work is left out, as
    in a model's analytic FLOPs.

    Args:
      function: what to trace.
      arguments: arrays or `jax.ShapeDtypeStruct`s.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def jaxpr_flops(jaxpr: Any) -> int:
    """Counts what `count_flops` counts, in a program that is already traced."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot_flops(equation)
        elif name == "conv_general_dilated":
            total += _convolution_flops(equation)
        elif name == "cond":
            total += max(jaxpr_flops(branch.jaxpr) for branch in params["branches"])
        else:
            inner = sum(jaxpr_flops(j) for j in _inner_jaxprs(params))
            total += inner * (params["length"] if name == "scan" else 1)
    return total


def _inner_jaxprs(params: dict[str, Any]) -> list[Any]:
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(item, "jaxpr"):
                found.append(item.jaxpr)
            elif hasattr(item, "eqns"):
                found.append(item)
    return found


def _dot_flops(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    out = equation.outvars[0].aval.shape
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    out_channel_axis = equation.params["dimension_numbers"].rhs_spec[0]
    per_output = math.prod(kernel) // kernel[out_channel_axis]
    return 2 * math.prod(equation.outvars[0].aval.shape) * per_output


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
