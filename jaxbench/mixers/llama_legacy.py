"""A Llama block with a defect: it carries its own residuals into another block."""

from __future__ import annotations

import math

import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import even_head_width, head_count
from jaxbench.layers.ladder import xavier
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import (
    banded_attention,
    initial_cache,
    positions,
)

# Llama rounds the hidden width of its MLP up to a multiple of this.
MULTIPLE = 256


class LlamaLegacy(Mixer):
    """A whole Llama block, residuals included, inside a residual block: a defect.

    Equations:
      u = RMSNorm(r);  h = u + W_o attention(RMSNorm(u))
      r <- r + h + W_2 (SiLU(W_g n) * W_1 n),  n = RMSNorm(h)

    A mixer returns only what is to be added to the stream r; here u = norm(r) comes out
    again, so every layer adds a copy of it of size one, and the stream stays what it
    was at first, the embedding of the current byte: with a tied output the untrained
    model predicts that byte again, at about 10 nats a byte (9.7 in the source, at its
    size) where guessing costs ln 256 = 5.55. Row `llama` is the same without the
    defect.

    Matrices start Xavier-uniform and do not shrink with the depth, as in the source:
    `out_scale` is not read.

    Source: repository ekg/elman, 2026, its Llama baseline; the block itself is Touvron
    et al. 2023, arXiv:2302.13971.

    Differences:
      - Attention reaches back `window` frames at most, so that a stream has a bounded
        cache.
      - Rotated pairs are the halves of a head instead of neighbours.

    Attributes:
      heads: H; 0 is one for each 64 channels, at least one.
      window: frames a frame sees, itself included: the training windows, so that
        attention in them is full; a stream keeps that many.
    """

    heads: int = 0
    window: int = 512

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T * (T + window) * D) work."""
        y_btd = norm("rms", self.dtype, name="attention_norm")(x_btd)
        y_btd, state = self._attend(y_btd, state, reset_bt)
        h_btd = x_btd + y_btd
        y_btd = norm("rms", self.dtype, name="channel_norm")(h_btd)
        hidden = MULTIPLE * math.ceil(8 * self.width / (3 * MULTIPLE))
        gate = self._dense(hidden, "gate")(y_btd)
        value = self._dense(hidden, "in")(y_btd)
        return h_btd + self._dense(self.width, "out")(nn.silu(gate) * value), state

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty cache of `window - 1` frames."""
        self.check()
        heads, head = self._heads()
        return initial_cache(
            batch_size, window=self.window, heads=heads, key_size=head, value_size=head
        )

    def _attend(self, x_btd, state, reset_bt):
        heads, head = self._heads()
        batch, length, width = x_btd.shape
        q, k, v = (
            self._dense(width, name)(x_btd).reshape(batch, length, heads, head)
            for name in ("query", "key", "value")
        )
        start_b = jnp.zeros((batch,), jnp.int32) if state is None else state.position_b
        position_bt, _ = positions(start_b, reset_bt, length)
        o_bthk, state = banded_attention(
            rotary(q, position_bt),
            rotary(k, position_bt),
            v,
            window=self.window,
            cache=state,
            reset_bt=reset_bt,
        )
        return self._dense(width, "attention_out")(o_bthk.reshape(x_btd.shape)), state

    @nn.nowrap
    def _dense(self, size: int, name: str) -> nn.Dense:
        return self.dense(size, name, init=xavier())

    def check(self):
        self.at_least(1, "window")
        self._heads()

    @nn.nowrap
    def _heads(self) -> tuple[int, int]:
        """Heads and channels of one."""
        heads = head_count(self.width, self.heads)
        return heads, even_head_width(self.width, heads)
