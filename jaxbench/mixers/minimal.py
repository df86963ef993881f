"""Minimal recurrences: GRU and LSTM whose gates see the input only."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.mixer import Mixer
from jaxbench.ops.diagonal import diagonal


class MinimalState(NamedTuple):
    """State, float32."""

    h_be: jax.Array


class _Minimal(Mixer):
    """h_t = keep h_{t-1} + take g(v), both shares functions of the input alone."""

    expansion: int = 2

    def check(self):
        self.at_least(1, "expansion")

    def state_shapes(self):
        return MinimalState((self.expansion * self.width,))

    def _project(self, x_btd: jax.Array, *biases: str) -> list[jax.Array]:
        """One [B, T, E] projection with a bias for each name, float32."""
        inner = self.expansion * self.width
        project = self.dense(len(biases) * inner, "project")
        parts = jnp.split(project(x_btd).astype(jnp.float32), len(biases), axis=-1)
        zeros = nn.initializers.zeros
        return [
            part + self.param(name, zeros, (inner,))[None, None]
            for part, name in zip(parts, biases, strict=True)
        ]

    def _average(self, keep_bte, take_bte, v_bte, state, reset_bt):
        """The recurrence, and the projection of h."""
        (h_be,) = state or (None,)
        candidate_bte = jnp.where(v_bte >= 0, v_bte + 0.5, nn.sigmoid(v_bte))
        y_bte, h_be = diagonal(keep_bte, take_bte * candidate_bte, h_be, reset_bt)
        return self.dense_out()(y_bte.astype(self.dtype)), MinimalState(h_be)


class MinGRU(_Minimal):
    """A GRU without a reset gate, linear in its state, which stays positive.

    Equations:
      z = sigmoid(W_z x + b_z);  h~ = g(W_h x + b_h)
      g(v) = v + 1/2 where v >= 0, else sigmoid(v)
      h_t = (1 - z) h_{t-1} + z h~
      output  W_out h

    Source: Feng et al. 2024, arXiv:2410.01201, section 3.1; g is that of the log-space
    model of appendix B.

    Differences:
      - The recurrence runs on h itself, not on its logarithm: 1 - z is formed as a
        sigmoid.
      - An episode starts from h = 0.
      - The convolution that some of the paper's experiments have before the cell is
        left out; `min_gru/conv` has one, with SiLU.

    Attributes:
      expansion: width E of the state over model width.
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D E) work."""
        z_bte, v_bte = self._project(x_btd, "ssm_z_bias", "bias_h")
        keep_bte, take_bte = nn.sigmoid(-z_bte), nn.sigmoid(z_bte)
        return self._average(keep_bte, take_bte, v_bte, state, reset_bt)


class MinLSTM(_Minimal):
    """An LSTM without an output gate, linear in its cell, gates that sum to 1.

    Equations:
      f, i = sigmoid(W x + b);  h~ = g(W_h x + b_h)
      g(v) = v + 1/2 where v >= 0, else sigmoid(v)
      h_t = f / (f + i) h_{t-1} + i / (f + i) h~
      output  W_out h

    Source: Feng et al. 2024, arXiv:2410.01201, section 3.2; g is that of the log-space
    model of appendix B.

    Differences:
      - The recurrence runs on h itself, not on its logarithm: both shares are formed as
        sigmoids of log f - log i.
      - An episode starts from h = 0.
      - The convolution that some of the paper's experiments have before the cell is
        left out; `min_lstm/conv` has one, with SiLU.

    Attributes:
      expansion: width E of the state over model width.
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D E) work."""
        f_bte, i_bte, v_bte = self._project(x_btd, "ssm_f_bias", "ssm_i_bias", "bias_h")
        # f / (f + i) = sigmoid(log f - log i)
        odds_bte = jax.nn.log_sigmoid(f_bte) - jax.nn.log_sigmoid(i_bte)
        keep_bte, take_bte = nn.sigmoid(odds_bte), nn.sigmoid(-odds_bte)
        return self._average(keep_bte, take_bte, v_bte, state, reset_bt)
