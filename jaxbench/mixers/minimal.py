"""Minimal recurrences: GRU and LSTM whose gates see the input only."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.diagonal import diagonal


class MinimalState(NamedTuple):
    """State, float32."""

    h_be: jax.Array


class MinGRU(Mixer):
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

    Attributes:
      expansion: width E of the state over model width.
    """

    expansion: int = 2

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D E) work."""
        z_bte, v_bte = _project(self, x_btd, ("ssm_z_bias", "bias_h"))
        return _average(
            self, nn.sigmoid(-z_bte), nn.sigmoid(z_bte), v_bte, state, reset_bt
        )

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MinimalState:
        """Returns zeros."""
        return _zero_state(self, batch_size)


class MinLSTM(Mixer):
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

    Attributes:
      expansion: width E of the state over model width.
    """

    expansion: int = 2

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D E) work."""
        f_bte, i_bte, v_bte = _project(
            self, x_btd, ("ssm_f_bias", "ssm_i_bias", "bias_h")
        )
        odds_bte = jax.nn.log_sigmoid(f_bte) - jax.nn.log_sigmoid(i_bte)
        return _average(
            self, nn.sigmoid(odds_bte), nn.sigmoid(-odds_bte), v_bte, state, reset_bt
        )

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MinimalState:
        """Returns zeros."""
        return _zero_state(self, batch_size)


def _inner(module: nn.Module) -> int:
    if module.expansion < 1:
        raise InputError(f"expansion={module.expansion} must be at least 1")
    return module.expansion * module.width


def _project(
    module: nn.Module, x_btd: jax.Array, biases: tuple[str, ...]
) -> list[jax.Array]:
    """One [B, T, E] projection with a bias for each name, float32."""
    inner = _inner(module)
    project = nn.Dense(
        len(biases) * inner, use_bias=False, dtype=module.dtype, name="project"
    )
    parts = jnp.split(project(x_btd).astype(jnp.float32), len(biases), axis=-1)
    zeros = nn.initializers.zeros
    return [
        part + module.param(name, zeros, (inner,))[None, None]
        for part, name in zip(parts, biases, strict=True)
    ]


def _average(
    module: nn.Module,
    keep_bte: jax.Array,
    take_bte: jax.Array,
    v_bte: jax.Array,
    state: MinimalState | None,
    reset_bt: jax.Array | None,
) -> tuple[jax.Array, MinimalState]:
    """h_t = keep h_{t-1} + take g(v), and the projection of h."""
    candidate_bte = jnp.where(v_bte >= 0, v_bte + 0.5, nn.sigmoid(v_bte))
    h_be = None if state is None else state.h_be
    y_bte, h_be = diagonal(keep_bte, take_bte * candidate_bte, h_be, reset_bt)
    out = nn.Dense(
        module.width,
        use_bias=False,
        dtype=module.dtype,
        kernel_init=lecun(module.out_scale),
        name="out",
    )
    return out(y_bte.astype(module.dtype)), MinimalState(h_be)


def _zero_state(module: nn.Module, batch_size: int) -> MinimalState:
    return MinimalState(jnp.zeros((batch_size, _inner(module)), jnp.float32))
