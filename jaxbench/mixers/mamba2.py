"""Mamba-2: a selective state-space model with one decay for each head."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import head_count, merge_heads, split_heads
from jaxbench.layers.inits import (
    fan_in_uniform,
    log_of_uniform,
    softplus_inverse_log_uniform,
)
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.gated_linear import gated_linear_attention


class Mamba2State(NamedTuple):
    """What Mamba-2 carries."""

    s_bhnp: jax.Array  # state of the recurrence, float32
    conv_bwe: jax.Array  # last inputs of the short convolution, float32


class Mamba2(Mixer):
    """State-space duality: a decay for each head, which share input and read-out.

    Equations:
      z, (u, B, C), dt = W x;  u, B, C = SiLU(conv(u, B, C));  dt = softplus(dt + bias)
      S_t = exp(-exp(A_log) dt_t) S_{t-1} + B_t (dt_t u_t)^T
      y_t = S_t^T C_t + D u_t
      output  W_out RMSNorm(y * SiLU(z))

    Source: Dao & Gu 2024, arXiv:2405.21060, sections 6 and 7.1, one group.

    Attributes:
      state_size: N.
      expansion: inner width E over model width.
      heads: H; 0 is one head for 64 inner channels.
      taps: length of the short convolution.
    """

    state_size: int = 64
    expansion: int = 2
    heads: int = 0
    taps: int = 4

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T E N) work."""
        inner, size = self.expansion * self.width, self.state_size
        heads = head_count(inner, self.heads)
        # Kernels start as PyTorch's linear layers, which the authors' code keeps.
        project = self.dense(
            2 * inner + 2 * size + heads, "project", init=fan_in_uniform()
        )
        out = self.dense(self.width, "out", init=fan_in_uniform(self.out_scale))
        s_bhnp, conv_bwe = state or (None, None)
        z_bte, u_btx, dt_bth = jnp.split(
            project(x_btd), [inner, 2 * inner + 2 * size], axis=-1
        )
        conv = ShortConvolution(inner + 2 * size, self.dtype, self.taps, name="conv")
        u_btx, conv_bwe = conv(u_btx, conv_bwe, reset_bt)
        u_bte, b_btn, c_btn = jnp.split(
            nn.silu(u_btx).astype(jnp.float32), [inner, inner + size], axis=-1
        )
        bias_h = self.param(
            "ssm_dt_bias", softplus_inverse_log_uniform(1e-3, 1e-1), (heads,)
        )
        a_log_h = self.param("ssm_a_log", log_of_uniform(1, 16), (heads,))
        d_h = self.param("ssm_d", nn.initializers.ones, (heads,))
        dt_bth = jax.nn.softplus(dt_bth.astype(jnp.float32) + bias_h[None, None])
        u_bthp = split_heads(u_bte, heads)
        # S_t = exp(-exp(A_log) dt_t) S_{t-1} + B_t (dt_t u_t)^T, read by C_t: linear
        # attention with keys B and queries C (section 7.1), the same for all heads.
        o_bthp, s_bhnp = gated_linear_attention(
            c_btn[:, :, None],
            b_btn[:, :, None],
            dt_bth[..., None] * u_bthp,
            -jnp.exp(a_log_h)[None, None] * dt_bth,
            s_bhnp,
            reset_bt,
        )
        y_bte = merge_heads(o_bthp + d_h[None, None, :, None] * u_bthp)
        y_bte = y_bte * nn.silu(z_bte.astype(jnp.float32))
        y_btd = out(norm("rms", self.dtype, "output_norm", epsilon=1e-5)(y_bte))
        return y_btd, Mamba2State(s_bhnp, conv_bwe)

    def state_shapes(self):
        inner, size = self.expansion * self.width, self.state_size
        heads = head_count(inner, self.heads)
        return Mamba2State(
            (heads, size, inner // heads), (self.taps - 1, inner + 2 * size)
        )
