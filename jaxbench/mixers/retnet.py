"""Retention: linear attention whose decay is fixed, one rate for each head."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import even_head_width, merge_heads, split_heads
from jaxbench.layers.inits import lecun
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import positions
from jaxbench.ops.gated_linear import gated_linear_attention


class RetentionState(NamedTuple):
    """What retention carries.

    Attributes:
      s_bhkv: matrix state of each head, float32.
      position_b: frames since the episode started, int32.
    """

    s_bhkv: jax.Array
    position_b: jax.Array


class Retention(nn.Module):
    """S_t = gamma_h S_{t-1} + k_t v_t^T / sqrt(K);  o_t = S_t^T q_t, q, k rotated.

    gamma_h = 1 - 2^(-5-h), not trained; output W_out (GroupNorm(o) * SiLU(W_gate x)),
    the norm for each head and without parameters. Source: Sun et al. 2023,
    arXiv:2307.08621, eq. 6 to 8. Difference: rotary positions without xPos's length
    factors, which the decay makes redundant; the three normalisations of scores, which
    the group norm cancels but for its epsilon, are left out.

    Attributes:
      width: model width D.
      dtype: type of the projections; decays and state are float32.
      out_scale: factor on the initial output projection.
      heads: H; D / H must be an even integer. At 30 frames the fastest head still
        keeps 0.969^30 = 0.39.
      value_expansion: value width over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    heads: int = 4
    value_expansion: int = 2

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: RetentionState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, RetentionState]:
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        batch, length, _ = x_btd.shape
        heads, head = self.heads, even_head_width(self.width, self.heads)
        values = self.value_expansion * self.width

        def project(size: int, name: str) -> jax.Array:
            return nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)(x_btd)

        if state is None:
            s_bhkv, position_b = None, jnp.zeros((batch,), jnp.int32)
        else:
            s_bhkv, position_b = state
        position_bt, position_b = positions(position_b, reset_bt, length)
        q = rotary(split_heads(project(self.width, "query"), heads), position_bt)
        k = rotary(split_heads(project(self.width, "key"), heads), position_bt)
        v = split_heads(project(values, "value"), heads)
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
        out = nn.Dense(
            self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun(self.out_scale),
            name="out",
        )
        y_btd = out(merge_heads(norm(o)) * nn.silu(project(values, "gate")))
        return y_btd, RetentionState(s_bhkv, position_b)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> RetentionState:
        """Returns zeros."""
        head = even_head_width(self.width, self.heads)
        shape = (batch_size, self.heads, head, self.value_expansion * head)
        return RetentionState(
            jnp.zeros(shape, jnp.float32), jnp.zeros((batch_size,), jnp.int32)
        )
