"""Test-time training: the state is a linear model that learns from the frames."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import even_head_width
from jaxbench.layers.inits import lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.rotary import rotary
from jaxbench.ops.fast_weights import (
    InnerModel,
    initial_fast_weights,
    mini_batch_places,
    ttt_linear,
)

# Of the initial values of all kernels of the authors' code; W_out follows the block.
DEVIATION = 0.02


class TTT(Mixer):
    """Test-time training: the state is a linear model, trained on the frames.

    Equations:
      q, k turned, v = W x;  η = sigmoid(w · x + b) / K;  τ_i = max(1 / i + θ_i, 0)
      grad_j of |k_j + LN(k_j W + c) - v_j|² / 2 at W, c as the mini-batch started
      W_t = W - τ_i Σ_j η_j grad_j, j up to t in its mini-batch, i its place; c likewise
      y_t = q_t + LN(q_t W_t + c_t);  output  W_o LayerNorm(y)

    Kernels but W_o start normal with deviation 0.02, as in the authors' code
    (test-time-training/ttt-lm-pytorch, ttt.py), whatever the width.

    An episode starts with the learned W and c, and with a new mini-batch. Positions of
    the rotation are places in the mini-batch. With `gate` the output is W_o (GELU(W_g
    x) LayerNorm(y)).

    Source: Sun et al. 2024, arXiv:2407.04620 (TTT-Linear), section 2 and appendix A.

    Differences:
      - Mini-batches have 10 frames, not 16, for windows of 30.
      - There are no convolutions: it is the layer of the paper's Transformer backbone.

    Attributes:
      heads: H, one inner model each; D / H must be an even integer.
      mini_batch: b, frames whose gradients are taken at the same W.
      gate: multiply by GELU(W_g x) before the output projection.
    """

    heads: int = 4
    mini_batch: int = 10
    gate: bool = False

    def setup(self) -> None:
        head = self._head_width()
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        small = nn.initializers.normal(DEVIATION)
        linear = functools.partial(
            nn.Dense, use_bias=False, dtype=self.dtype, kernel_init=small
        )
        self.qkv = linear(3 * self.width)
        # Inner rates are part of the recurrence, so they are never rounded.
        self.eta = nn.Dense(self.heads, dtype=jnp.float32, kernel_init=small)
        self.inner_kernel = self.param("inner_kernel", small, (self.heads, head, head))
        self.inner_bias = self.param("inner_bias", zeros, (self.width,))
        self.inner_scale = self.param("inner_scale", ones, (self.width,))
        self.inner_shift = self.param("inner_shift", zeros, (self.width,))
        self.theta = self.param("theta", zeros, (self.mini_batch,))
        self.norm = norm("layer", self.dtype)
        if self.gate:
            self.gate_project = linear(self.width)
        self.out = linear(self.width, kernel_init=lecun(self.out_scale))

    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; see `ops.fast_weights.ttt_linear` for the cost.

        The learned W and c get a gradient from episodes that start inside the call:
        `state` None, a reset, or a state that `initial_state` made in the same trace.
        """
        batch, length, _ = x_btd.shape
        head = self._head_width()
        shape = (batch, length, 3, self.heads, head)
        q_bthk, k_bthk, v_bthk = jnp.moveaxis(self.qkv(x_btd).reshape(shape), 2, 0)
        count_b = jnp.zeros((batch,), jnp.int32) if state is None else state.count_b
        place_bt = mini_batch_places(count_b, reset_bt, length, self.mini_batch)
        y_bthk, state = ttt_linear(
            rotary(q_bthk, place_bt),
            rotary(k_bthk, place_bt),
            v_bthk,
            nn.sigmoid(self.eta(x_btd)) / head,
            self._inner_model(),
            state,
            reset_bt,
        )
        y_btd = self.norm(y_bthk.reshape(x_btd.shape))
        if self.gate:
            y_btd = nn.gelu(self.gate_project(x_btd)) * y_btd
        return self.out(y_btd), state

    def initial_state(self, batch_size):
        """The learned W and c of an episode's start, with nothing learned."""
        return initial_fast_weights(self._inner_model(), batch_size)

    def _inner_model(self) -> InnerModel:
        shape = (self.heads, self._head_width())
        place_m = jnp.arange(1, self.mini_batch + 1, dtype=jnp.float32)
        return InnerModel(
            self.inner_kernel,
            self.inner_bias.reshape(shape),
            self.inner_scale.reshape(shape),
            self.inner_shift.reshape(shape),
            nn.relu(1 / place_m + self.theta),
        )

    @nn.nowrap
    def _head_width(self) -> int:
        self.at_least(1, "mini_batch")
        return even_head_width(self.width, self.heads)
