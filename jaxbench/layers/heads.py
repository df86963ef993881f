"""Splitting a width into heads, and norms that treat each head by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError

# Width of a head where a mixer's option leaves their number open.
HEAD = 64


def head_count(width: int, heads: int) -> int:
    """Returns `heads`, or for 0 one head for each 64 channels, at least one.

    Raises:
      InputError: the heads do not divide the width.
    """
    count = heads or max(width // HEAD, 1)
    head_width(width, count)
    return count


def head_width(width: int, heads: int) -> int:
    """Returns the width of one head.

    Raises:
      InputError: the heads do not divide the width.
    """
    if heads < 1 or width % heads:
        raise InputError(
            f"heads={heads} does not divide width={width}; choose a width that is a "
            "multiple of the heads"
        )
    return width // heads


def even_head_width(width: int, heads: int) -> int:
    """Returns the width of one head, for rotary positions.

    Raises:
      InputError: the heads do not divide the width, or a head is odd.
    """
    head = head_width(width, heads)
    if head % 2:
        raise InputError(
            f"width={width} over heads={heads} gives heads of {head}; rotary positions "
            "need an even width"
        )
    return head


def split_heads(x_bte: jax.Array, heads: int) -> jax.Array:
    """[B, T, H K] as [B, T, H, K]."""
    return x_bte.reshape(*x_bte.shape[:2], heads, -1)


def merge_heads(x_bthk: jax.Array) -> jax.Array:
    """[B, T, H, K] as [B, T, H K]."""
    return x_bthk.reshape(*x_bthk.shape[:2], -1)


class GroupNorm(nn.Module):
    """Layer norm of each head by itself, with a scale and a bias for every channel.

    Statistics are float32 and of one frame: frames do not meet.

    Attributes:
      heads: H.
      dtype: type of the result.
      epsilon: added to the variance.
      scale: what the scales start from.
    """

    heads: int
    dtype: Any = jnp.float32
    epsilon: float = 1e-5
    scale: float = 1.0

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Normalises [B, T, H K]."""
        norm = nn.GroupNorm(
            self.heads,
            epsilon=self.epsilon,
            dtype=self.dtype,
            use_fast_variance=False,
            scale_init=nn.initializers.constant(self.scale),
            name="norm",
        )
        # Flax sums over all axes but the first and the groups of the last.
        return norm(x_btd.reshape(-1, x_btd.shape[-1])).reshape(x_btd.shape)
