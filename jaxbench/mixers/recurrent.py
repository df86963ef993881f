"""The classic gated recurrences: LSTM and GRU, as wide as the model."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.inits import forget_one, orthogonal_gates
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.cell import gru_scan, lstm_scan


class LSTMState(NamedTuple):
    """What an LSTM carries."""

    h_bd: jax.Array  # output of the previous frame, float32
    c_bd: jax.Array  # cell, float32


class LSTM(Mixer):
    """Long short-term memory with a forget gate, as wide as the model.

    Equations:
      i, f, o = sigmoid(W x + R h + b);  g = tanh(W x + R h + b)
      c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)
      output  h

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000, its bias 1 at
    the start: Jozefowicz et al. 2015.

    Differences:
      - There is a forget gate, which came after the paper (Gers and others 2000), whose
        bias starts at 1.
      - There are no peepholes and no output projection; recurrent matrices start
        orthogonal, one for each gate.

    Attributes:
      double_bias: a second bias, added to R h, as cuDNN and PyTorch have it: the same
        functions with 4 D more parameters, so b moves twice as fast.
    """

    double_bias: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one after the other."""
        gates_bt4d = nn.Dense(
            4 * self.width,
            dtype=self.dtype,
            bias_init=forget_one,
            name="project",
        )(x_btd)
        if self.double_bias:
            zeros = nn.initializers.zeros
            bias_4d = self.param("recurrent_bias", zeros, (4 * self.width,))
            gates_bt4d = gates_bt4d + bias_4d.astype(self.dtype)[None, None]
        r_d4d = self.param("recurrent", orthogonal_gates, (self.width, 4 * self.width))
        h_bd, c_bd = state or (None, None)
        # Gates i, f, g, o side by side
        y_btd, (h_bd, c_bd) = lstm_scan(
            gates_bt4d, r_d4d.astype(self.dtype), h_bd, c_bd, reset_bt
        )
        return y_btd.astype(self.dtype), LSTMState(h_bd, c_bd)

    def state_shapes(self):
        return LSTMState((self.width,), (self.width,))


class GRUState(NamedTuple):
    """Output of the previous frame, float32."""

    h_bd: jax.Array


class GRU(Mixer):
    """Gated recurrent unit, as wide as the model.

    Equations:
      r, z = sigmoid(W x + R h + b);  n = tanh(W x + b + r (R h + b'))
      h_t = (1 - z) n + z h_{t-1}
      output  h

    Source: Cho et al. 2014, arXiv:1406.1078.

    Differences:
      - The reset gate acts after the recurrent product, as in cuDNN.
      - There is no output projection; recurrent matrices start orthogonal, one for each
        gate.

    Attributes:
      double_bias: a second bias for r and z, added to R h, as cuDNN and PyTorch have
        it (n has two in any case): the same functions with 2 D more parameters.
    """

    double_bias: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one after the other."""
        gates_bt3d = self.dense(3 * self.width, "project", bias=True)(x_btd)
        if self.double_bias:
            zeros = nn.initializers.zeros
            bias_2d = self.param("recurrent_bias", zeros, (2 * self.width,))
            bias_3d = jnp.pad(bias_2d, (0, self.width)).astype(self.dtype)
            gates_bt3d = gates_bt3d + bias_3d[None, None]
        r_d3d = self.param("recurrent", orthogonal_gates, (self.width, 3 * self.width))
        bias_n_d = self.param("bias_n", nn.initializers.zeros, (self.width,))
        (h_bd,) = state or (None,)
        y_btd, h_bd = gru_scan(
            gates_bt3d, r_d3d.astype(self.dtype), bias_n_d, h_bd, reset_bt
        )
        return y_btd.astype(self.dtype), GRUState(h_bd)

    def state_shapes(self):
        return GRUState((self.width,))
