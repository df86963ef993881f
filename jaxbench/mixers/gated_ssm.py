"""Gated SSM: a moving average for each channel, behind two gates for each frame."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.inits import lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.diagonal import diagonal


class GatedSSMState(NamedTuple):
    """What a gated SSM carries."""

    h_be: jax.Array  # moving averages, float32
    conv_bwe: jax.Array  # last inputs of the short convolution, float32


class GatedSSM(Mixer):
    """Mamba's shape with a fixed decay for each channel and scalar gates.

    Equations:
      x, z = W x;  x = SiLU(conv(x));  [δ, B, C] = W_x x
      g_t = sigmoid(mean softplus(W_g δ_t + b_g));  s_t = sigmoid(B_t · C_t)
      u_t = g_t s_t x_t;  h_t = a h_{t-1} + (1 - a) u_t;  y_t = u_t + (1 - g_t) h_t
      output  W_out (y * SiLU(z))

    Source: the layer of this name in Edifice, which no paper describes.

    Differences:
      - There is no paper: this is the layer of that name in Edifice, the library of the
        original benchmark.
      - That one weighs each frame by its place in the window, so nothing moves along
        time but a mean over four frames; here h is the moving average its text
        promises.
      - The decay is learned for each channel, where the library has 0.9 for all.
      - The convolution is a real depthwise one, and the projections have no biases.

    Attributes:
      state_size: N, length of B and C.
      expansion: inner width E over model width.
      taps: length of the short convolution.
      rank: width of delta; 0 is ceil(D / 16).
    """

    state_size: int = 16
    expansion: int = 2
    taps: int = 4
    rank: int = 0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T E (D + N)) work."""
        inner = self.expansion * self.width
        project = self.dense(2 * inner, "project")
        h_be, conv_bwe = state or (None, None)
        x_bte, z_bte = jnp.split(project(x_btd), 2, axis=-1)
        conv = ShortConvolution(inner, self.dtype, self.taps, name="conv")
        x_bte, conv_bwe = conv(x_bte, conv_bwe, reset_bt)
        x_bte = nn.silu(x_bte)
        open_bt1, kept_bt1, shared_bt1 = self._gates(x_bte)
        u_bte = open_bt1 * shared_bt1 * x_bte.astype(jnp.float32)
        logit_e = self.param("ssm_decay_logit", _decay_logit, (inner,))
        # h_t = a h_{t-1} + (1 - a) u_t
        y_bte, h_be = diagonal(
            jnp.broadcast_to(nn.sigmoid(logit_e)[None, None], u_bte.shape),
            nn.sigmoid(-logit_e)[None, None] * u_bte,
            h_be,
            reset_bt,
        )
        y_bte = u_bte + kept_bt1 * y_bte
        y_btd = self.dense_out()(y_bte.astype(self.dtype) * nn.silu(z_bte))
        return y_btd, GatedSSMState(h_be, conv_bwe)

    def _gates(self, x_bte: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """g, 1 - g and s, float32 [B, T, 1]."""
        inner, rank = x_bte.shape[-1], self.rank or -(-self.width // 16)
        select = self.dense(rank + 2 * self.state_size, "select")
        selected = select(x_bte).astype(jnp.float32)
        delta_btr, b_btn, c_btn = jnp.split(
            selected, [rank, rank + self.state_size], axis=-1
        )
        kernel_re = self.param("gate_kernel", lecun(), (rank, inner))
        bias_e = self.param("ssm_gate_bias", nn.initializers.zeros, (inner,))
        step_bte = jax.nn.softplus(delta_btr @ kernel_re + bias_e[None, None])
        # g = sigmoid(mean softplus(W_g δ + b_g));  s = sigmoid(B · C)
        logit_bt1 = step_bte.mean(axis=-1, keepdims=True)
        shared_bt1 = nn.sigmoid(jnp.sum(b_btn * c_btn, axis=-1, keepdims=True))
        return nn.sigmoid(logit_bt1), nn.sigmoid(-logit_bt1), shared_bt1

    def state_shapes(self):
        inner = self.expansion * self.width
        return GatedSSMState((inner,), (self.taps - 1, inner))


def _decay_logit(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    """Logits of decays uniform on [0.8, 0.99]: memories of 5 to 100 frames."""
    decay = jax.random.uniform(key, shape, dtype, 0.8, 0.99)
    return jnp.log(decay) - jnp.log1p(-decay)
