"""Sinusoids of a position, for mixers that see a whole window at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def sinusoid(position_bt: jax.Array, width: int, base: float = 1e4) -> jax.Array:
    """sin and cos of `position * base^(-2i / width)`, float32 [B, T, width].

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5. Difference: all sines,
    then all cosines, not alternating; an odd width leaves out the last cosine.
    """
    count = -(-width // 2)
    rate_i = base ** (-jnp.arange(count, dtype=jnp.float32) / count)
    angle = position_bt.astype(jnp.float32)[..., None] * rate_i[None, None]
    waves = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return waves[..., :width]
