"""Initialisers that several mixers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]


def lecun(scale: float = 1.0) -> Initializer:
    """Truncated normal of standard deviation `scale / sqrt(fan_in)`.

    `scale` is below 1 for the last projection of a residual branch, so that the sum
    of all branches starts at the size of one (GPT-2's rule; see `models.block`).
    """
    return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")


def fan_in_uniform(scale: float = 1.0) -> Initializer:
    """Uniform on [-limit, limit], limit = `scale / sqrt(fan_in)`.

    The default of PyTorch's linear layers, a third of the variance of `lecun`.
    """
    return nn.initializers.variance_scaling(scale**2 / 3, "fan_in", "uniform")


def small(width: int) -> Initializer:
    """Normal of variance 2 / (5 D), "small init", for kernels of any shape.

    Source: Nguyen & Salazar 2019, arXiv:1910.05895, section 2.2.
    """
    return nn.initializers.normal((2 / (5 * width)) ** 0.5)


def symmetric_uniform(limit: float) -> Initializer:
    """Uniform on [-limit, limit]."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def log_uniform(low: float, high: float) -> Initializer:
    """The logarithm of a log-uniform draw from [low, high]: uniform in the log."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, jnp.log(low), jnp.log(high))

    return init


def log_of_uniform(low: float, high: float) -> Initializer:
    """The logarithm of a uniform draw from [low, high], low 0 or more."""

    def init(key, shape, dtype=jnp.float32):
        drawn = jax.random.uniform(key, shape, dtype, low, high)
        # One draw in 2^23 is 0.
        return jnp.log(jnp.maximum(drawn, jnp.finfo(dtype).tiny))

    return init


def softplus_inverse_log_uniform(low: float, high: float) -> Initializer:
    """Biases b with softplus(b) log-uniform on [low, high]: time steps at the start."""
    logarithm = log_uniform(low, high)

    def init(key, shape, dtype=jnp.float32):
        value = jnp.exp(logarithm(key, shape, dtype))
        return value + jnp.log(-jnp.expm1(-value))

    return init


def log_range(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """log(1), ..., log(n) along the last axis, the same for every channel."""
    del key
    row = jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype))
    return jnp.broadcast_to(row, tuple(shape))


def orthogonal_gates(key: jax.Array, shape: Sequence[int], dtype=jnp.float32):
    """Independent orthogonal [D, D] matrices side by side, one for each gate."""
    width, columns = shape
    keys = jax.random.split(key, columns // width)
    init = nn.initializers.orthogonal()
    return jnp.concatenate([init(k, (width, width), dtype) for k in keys], axis=1)


def forget_one(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Biases of an LSTM: zeros, and ones for the forget gate, the second of four."""
    del key
    width = shape[0] // 4
    return jnp.zeros(shape, dtype).at[width : 2 * width].set(1)
