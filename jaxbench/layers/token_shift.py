"""The frame before, and what RWKV's two halves of a block carry because of it."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class TimeMixState(NamedTuple):
    """What RWKV's time mixing carries."""

    s_bhkv: jax.Array  # matrix state of each head, float32
    x_bd: jax.Array  # the frame before, float32


class ChannelMixState(NamedTuple):
    """The frame before, float32."""

    x_bd: jax.Array


def time_mix_shapes(width: int, heads: int) -> TimeMixState:
    """Shapes of a `TimeMixState`, see `Mixer.state_shapes`."""
    head = width // heads
    return TimeMixState((heads, head, head), (width,))


def token_shift(
    x_btd: jax.Array,
    last_bd: jax.Array | None = None,
    reset_bt: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns x_{t-1} for every t, and the last frame as the next call's `last_bd`.

    Args:
      x_btd: frames.
      last_bd: the frame before the first, float32; None is zero.
      reset_bt: true where an episode starts: the frame before is zero there.

    Returns:
      Array like `x_btd`, and float32 [B, D].
    """
    if last_bd is None:
        last_bd = jnp.zeros(x_btd[:, 0].shape, jnp.float32)
    first = last_bd[:, None].astype(x_btd.dtype)
    shifted = jnp.concatenate([first, x_btd[:, :-1]], axis=1)
    if reset_bt is not None:
        shifted = jnp.where(reset_bt[..., None], 0, shifted)
    return shifted, x_btd[:, -1].astype(jnp.float32)
