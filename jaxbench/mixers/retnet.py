"""Retention: linear attention whose decay is fixed, one rate for each head."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import even_head_width, merge_heads, split_heads
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import positions
from jaxbench.ops.gated_linear import gated_linear_attention


class RetentionState(NamedTuple):
    """What retention carries."""

    s_bhkv: jax.Array  # matrix state of each head, float32
    position_b: jax.Array  # frames since the episode started, int32


class Retention(Mixer):
    """Linear attention with rotary positions and a fixed decay for each head.

    Equations:
      γ_h = 1 - 2^(-5-h), not trained;  q, k rotated by their position
      S_t = γ_h S_{t-1} + k_t v_t^T / sqrt(K);  o_t = S_t^T q_t
      output  W_out (GroupNorm(o) * SiLU(W_gate x))

    The group norm is for each head and has no parameters.

    Source: Sun et al. 2023, arXiv:2307.08621, eq. 6 to 8.

    Differences:
      - Positions are rotary without xPos's length factors, which the decay makes
        redundant.
      - The three normalisations of scores are left out: the group norm cancels them but
        for its epsilon.

    Attributes:
      heads: H; D / H must be an even integer. At 30 frames the fastest head still
        keeps 0.969^30 = 0.39.
      value_expansion: value width over model width.
    """

    heads: int = 4
    value_expansion: int = 2

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        batch, length, _ = x_btd.shape
        heads, head = self.heads, even_head_width(self.width, self.heads)
        values = self.value_expansion * self.width

        def project(size: int, name: str) -> jax.Array:
            return self.dense(size, name)(x_btd)

        s_bhkv, position_b = state or (None, jnp.zeros((batch,), jnp.int32))
        position_bt, position_b = positions(position_b, reset_bt, length)
        q = rotary(split_heads(project(self.width, "query"), heads), position_bt)
        k = rotary(split_heads(project(self.width, "key"), heads), position_bt)
        v = split_heads(project(values, "value"), heads)
        # Eq. 8: γ_h = 1 - 2^(-5-h)
        gamma_h = 1 - 2.0 ** (-5 - np.arange(heads, dtype=np.float64))
        log_decay = jnp.broadcast_to(
            jnp.asarray(np.log(gamma_h), jnp.float32), (batch, length, heads)
        )
        k = k.astype(jnp.float32) * head**-0.5
        o, s_bhkv = gated_linear_attention(q, k, v, log_decay, s_bhkv, reset_bt)
        norm = nn.LayerNorm(
            epsilon=1e-6,
            dtype=self.dtype,
            use_scale=False,
            use_bias=False,
            use_fast_variance=False,
        )
        o = merge_heads(norm(o)) * nn.silu(project(values, "gate"))
        return self.dense_out()(o), RetentionState(s_bhkv, position_b)

    def state_shapes(self):
        head = even_head_width(self.width, self.heads)
        return RetentionState(
            (self.heads, head, self.value_expansion * head),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
