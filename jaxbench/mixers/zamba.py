"""The attention block that all call sites of a Zamba share."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import head_width, merge_heads, split_heads
from jaxbench.layers.inits import lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.ops.attention import banded_attention, initial_cache


class SharedAttention(Mixer):
    """Attention and an MLP at twice the model width, shared by all call sites.

    Equations:
      o = attention(RMSNorm([x, x_0])) at width 2 D, causal, the last `window` frames
      y = W_out GELU(W_in RMSNorm(W_a o));  the layer above adds W_side y to its input

    x_0 is the embedding of the frame. The result, [B, T, 2 D], is projected by the
    layer above (`join="next"`), so the call sites share this block but not that
    projection. There are no residuals, and no positions, as in the paper.

    Source: Glorioso et al. 2024, arXiv:2405.16712, section 2.

    Differences:
      - Attention is to a window, so that a stream has a bounded cache.
      - The shared kernels start `out_scale` smaller.

    Attributes:
      heads: H; divides 2 D.
      window: frames a frame sees, itself included.
    """

    heads: int = 4
    window: int = 30

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None, *, lower):
        """Mixes [B, T, D] along time into [B, T, 2 D]; O(T window D) work."""
        inner, heads = 2 * self.width, self.heads
        both = jnp.concatenate([x_btd, lower["embedding"]], axis=-1)
        qkv = self.dense(3 * inner, "qkv")(norm("rms", self.dtype, "norm")(both))
        q, k, v = (split_heads(x, heads) for x in jnp.split(qkv, 3, axis=-1))
        o, state = banded_attention(
            q, k, v, window=self.window, cache=state, reset_bt=reset_bt
        )
        h = self.dense(inner, "attention_out")(merge_heads(o))
        h = norm("rms", self.dtype, "mlp_norm")(h)
        h = nn.gelu(self.dense(2 * inner, "in")(h))
        out = self.dense(inner, "out", init=lecun(self.out_scale))
        return out(h), state, lower

    def check(self):
        head_width(2 * self.width, self.heads)

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty cache of `window - 1` frames."""
        self.check()
        heads, head = self.heads, 2 * self.width // self.heads
        return initial_cache(
            batch_size, window=self.window, heads=heads, key_size=head, value_size=head
        )
