"""Floating-point operations of a traced program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax


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
