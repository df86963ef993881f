"""Float64 oracles: plain functions, and how near a primitive comes to a loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.logaddexp(x, 0)


def gelu(x):
    return x * sigmoid(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))


def softmax(x):
    weight = np.exp(x - x.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def one_by_one(form: Callable, bundle: type[tuple]) -> Callable:
    """A form that takes its frames array by array, and no state or resets for None."""

    @functools.wraps(form)
    def run(*args, **given):
        count = len(bundle._fields)
        rest = (*args[count:], None, None)[: max(2, len(args) - count)]
        return form(bundle(*args[:count]), *rest, **given)

    return run


def relative_error(got: Any, want: Any) -> float:
    """The largest difference, in units of the largest value and one; all is finite."""
    # Flags and counts have no difference, or an unsigned one.
    got, want = map(np.asarray, (got, want))
    got, want = (x.astype(np.result_type(x.dtype, np.float32)) for x in (got, want))
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    return float(np.abs(got - want).max(initial=0) / (np.abs(want).max(initial=0) + 1))


def tree_error(got: Any, want: Any) -> float:
    """The largest of the errors of the leaves."""
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max(relative_error(x, y) for x, y in pairs)


def check_slopes(
    grads: Sequence[Any],
    inputs: Sequence[Any],
    loss: Callable[..., float],
    rng: np.random.Generator,
    *,
    tolerance: float = 1e-5,
    step: float = 1e-6,
    least: float = 0.0,
) -> None:
    """Gradients along random directions are differences of a float64 loss(*inputs).

    JAX's gradient g of a real loss in complex z has dL = Re(g dz).
    """
    exact = [np.asarray(x, np.result_type(x, np.float64)) for x in inputs]
    for i, grad in enumerate(map(np.asarray, grads)):
        direction = rng.normal(size=grad.shape)
        if np.iscomplexobj(grad):
            direction = direction + 1j * rng.normal(size=grad.shape)
        ends = []
        for sign in (1, -1):
            moved = list(exact)
            moved[i] = moved[i] + sign * step * direction
            ends.append(loss(*moved))
        terms = grad * direction
        difference = np.real(terms.sum()) - (ends[0] - ends[1]) / (2 * step)
        assert abs(difference) <= tolerance * np.abs(terms).sum() + least, i
