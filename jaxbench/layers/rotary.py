"""Rotary positions: angles that depend on time, so that scores depend on distance."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rotary(x_bthk: jax.Array, position_bt: jax.Array, base: float = 1e4) -> jax.Array:
    """Rotates the pairs (x_i, x_{i + K/2}) by `position * base^(-2i/K)`.

    With queries and keys rotated, q_i . k_j depends on i - j only. Source: Su et al.
    2021, arXiv:2104.09864, eq. 34. Difference: pairs are split in halves, as in most
    current code, not interleaved; the two differ by a permutation of the channels.

    Args:
      x_bthk: queries or keys, K even.
      position_bt: int32, frames since some fixed origin of the episode. Angles are
        float32: past 1e5 frames the fastest one loses its last two digits.

    Returns:
      Array like `x_bthk`.

    Raises:
      ValueError: K is odd.
    """
    width = x_bthk.shape[-1]
    if width % 2:
        raise ValueError(f"rotary positions need an even head width, got {width}")
    rate_k = base ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angle = position_bt.astype(jnp.float32)[..., None, None] * rate_k[None, None, None]
    return turn(x_bthk, angle)


def turn(x_bthk: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates the pairs (x_i, x_{i + K/2}) by the angles [B, T, H or 1, K/2]."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x_bthk.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )
    return rotated.astype(x_bthk.dtype)
