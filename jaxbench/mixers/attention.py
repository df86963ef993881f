"""Softmax attention to the recent past."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import lecun
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import (
    AttentionCache,
    banded_attention,
    initial_cache,
    positions,
)


class SlidingWindowAttention(nn.Module):
    """Causal multi-head attention to the last `window` frames, rotary positions.

    o_t = sum_s softmax_s(q_t . k_s / sqrt(K)) v_s over t - window < s <= t, within the
    episode; output W_o concat(o). Source: Beltagy et al. 2020, arXiv:2004.05150,
    section 3.1, causal; heads as in Vaswani et al. 2017. Differences: rotary positions
    instead of absolute ones, no biases. A stack of L layers sees L * (window - 1)
    frames back, so a stream sees further than one window of training.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; scores and softmax are float32.
      out_scale: factor on the initial output projection.
      heads: H; D / H must be an even integer.
      window: frames a frame sees, itself included. 30 is the original benchmark's, and
        the length of its training windows: there it is ordinary causal attention, and
        8 to 16 make the band matter.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    heads: int = 4
    window: int = 30

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: AttentionCache | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, AttentionCache]:
        """Mixes [B, T, D] along time; O(T * (T + window) * D) work."""
        batch, length, _ = x_btd.shape
        head = self._head_width()
        qkv = nn.Dense(3 * self.width, use_bias=False, dtype=self.dtype, name="qkv")
        shape = (batch, length, 3, self.heads, head)
        q_bthk, k_bthk, v_bthk = jnp.moveaxis(qkv(x_btd).reshape(shape), 2, 0)
        start_b = jnp.zeros((batch,), jnp.int32) if state is None else state.position_b
        position_bt, _ = positions(start_b, reset_bt, length)
        o_bthk, state = banded_attention(
            rotary(q_bthk, position_bt),
            rotary(k_bthk, position_bt),
            v_bthk,
            window=self.window,
            cache=state,
            reset_bt=reset_bt,
        )
        out = nn.Dense(
            self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun(self.out_scale),
            name="out",
        )
        return out(o_bthk.reshape(x_btd.shape)), state

    @nn.nowrap
    def initial_state(self, batch_size: int) -> AttentionCache:
        """Returns an empty cache of `window - 1` frames."""
        head = self._head_width()
        return initial_cache(
            batch_size,
            window=self.window,
            heads=self.heads,
            key_size=head,
            value_size=head,
        )

    @nn.nowrap
    def _head_width(self) -> int:
        if self.heads < 1 or self.width % self.heads:
            raise InputError(
                f"heads={self.heads} does not divide width={self.width}; choose a "
                f"width that is a multiple of the heads"
            )
        head = self.width // self.heads
        if head % 2:
            raise InputError(
                f"width={self.width} over heads={self.heads} gives heads of {head}; "
                f"rotary positions need an even width"
            )
        if self.window < 1:
            raise InputError(f"window={self.window} must be at least 1")
        return head
