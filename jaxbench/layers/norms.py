"""Normalisation: statistics in float32, epsilon inside the square root."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

KINDS = ("rms", "layer", "centered", "none")


def norm(
    kind: str, dtype: Any, name: str | None = None, *, epsilon: float = 1e-6
) -> nn.Module | None:
    """Returns a norm over the last axis: one of `KINDS`, or None for "none".

    "layer" takes away the mean and has a scale and a bias, "centered" has no bias, and
    "rms" has a scale only.

    Applied to `x_bthk` it normalises each head by itself, with one scale for all
    heads. Statistics and parameters are float32; the result has type `dtype`.

    `epsilon` is added to the variance, or to the mean square. It counts where inputs
    are small: what a memory gives in the first frames of an episode has a variance of
    1e-6 or so. Mixers therefore pass the value of their source.

    Raises:
      ValueError: `kind` is none of `KINDS`.
    """
    if kind == "rms":
        return nn.RMSNorm(epsilon=epsilon, dtype=dtype, name=name)
    if kind in ("layer", "centered"):
        # The fast variance E[x^2] - E[x]^2 cancels for inputs far from zero.
        return nn.LayerNorm(
            epsilon=epsilon,
            dtype=dtype,
            use_bias=kind == "layer",
            use_fast_variance=False,
            name=name,
        )
    if kind == "none":
        return None
    raise ValueError(f"norm {kind!r} is none of {KINDS}")


def l2_normalize(x: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Divides by the Euclidean norm of the last axis, in float32.

    x / sqrt(sum x^2 + epsilon): value and gradient are finite at x = 0, where the
    result is 0 (padding frames), and the norm of the result is at most 1.
    """
    x_float = x.astype(jnp.float32)
    squares = jnp.sum(jnp.square(x_float), axis=-1, keepdims=True)
    return (x_float * jax.lax.rsqrt(squares + epsilon)).astype(x.dtype)
