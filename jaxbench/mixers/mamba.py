"""Mamba: a diagonal state-space model whose step, input and output depend on x."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.inits import (
    fan_in_uniform,
    log_range,
    softplus_inverse_log_uniform,
    symmetric_uniform,
)
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.selective_scan import selective_scan


class MambaState(NamedTuple):
    """What Mamba carries."""

    h_ben: jax.Array  # state of the recurrence, float32
    conv_bwe: jax.Array  # last inputs of the short convolution, float32


class Mamba(Mixer):
    """A selective state space, a short convolution before it, a gate after it.

    Equations:
      u, z = W x;  u = SiLU(conv(u));  [δ, B, C] = W_x u
      dt = softplus(W_dt δ + b_dt);  A = -exp(A_log)
      h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = C_t · h_t + D u_t
      output  W_out (y * SiLU(z))

    Source: Gu & Dao 2023, arXiv:2312.00752, algorithm 2 and section 3.6.

    Differences:
      - B is discretised by Euler's rule, as in the authors' code, not by zero-order
        hold.

    Attributes:
      state_size: N, states for each channel.
      expansion: inner width E over model width.
      taps: length of the short convolution.
      rank: width of delta; 0 is ceil(D / 16).
      inner_norm: RMSNorm on delta, B and C, Jamba's cure for spikes of the loss (Lieber
        et al. 2024, arXiv:2403.19887, section 6.4).
    """

    state_size: int = 16
    expansion: int = 2
    taps: int = 4
    rank: int = 0
    inner_norm: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T E N) work."""
        inner, rank = self.expansion * self.width, self.rank or -(-self.width // 16)
        # Kernels start as PyTorch's linear layers, which the authors' code keeps.
        linear = fan_in_uniform()
        project = self.dense(2 * inner, "project", init=linear)
        select = self.dense(rank + 2 * self.state_size, "select", init=linear)
        out = self.dense(self.width, "out", init=fan_in_uniform(self.out_scale))
        h_ben, conv_bwe = state or (None, None)
        u_bte, z_bte = jnp.split(project(x_btd), 2, axis=-1)
        conv = ShortConvolution(inner, self.dtype, self.taps, name="conv")
        u_bte, conv_bwe = conv(u_bte, conv_bwe, reset_bt)
        u_bte = nn.silu(u_bte)
        # Algorithm 2, lines 2 to 4: B, C and the step depend on the input.
        delta_btr, b_btn, c_btn = jnp.split(
            select(u_bte), [rank, rank + self.state_size], axis=-1
        )
        if self.inner_norm:
            delta_btr, b_btn, c_btn = (
                norm("rms", self.dtype, f"{name}_norm")(x)
                for name, x in (("dt", delta_btr), ("b", b_btn), ("c", c_btn))
            )
        # h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = C_t · h_t + D u_t
        y_bte, h_ben = selective_scan(
            u_bte,
            self._time_step(delta_btr, inner),
            -jnp.exp(self.param("ssm_a_log", log_range, (inner, self.state_size))),
            b_btn,
            c_btn,
            self.param("ssm_d", nn.initializers.ones, (inner,)),
            h_ben,
            reset_bt,
        )
        y_btd = out(y_bte.astype(self.dtype) * nn.silu(z_bte))
        return y_btd, MambaState(h_ben, conv_bwe)

    def _time_step(self, delta_btr: jax.Array, inner: int) -> jax.Array:
        rank = delta_btr.shape[-1]
        kernel_re = self.param(
            "ssm_dt_kernel", symmetric_uniform(rank**-0.5), (rank, inner)
        )
        bias_e = self.param(
            "ssm_dt_bias", softplus_inverse_log_uniform(1e-3, 1e-1), (inner,)
        )
        logit_bte = delta_btr.astype(jnp.float32) @ kernel_re
        return jax.nn.softplus(logit_bte + bias_e[None, None])

    def state_shapes(self):
        inner = self.expansion * self.width
        return MambaState((inner, self.state_size), (self.taps - 1, inner))
