"""The Elman ladder where channels of the state do not meet: E61, E62, E64 to E68.

Every one is a moving average of candidates v, by a gate alpha that says how much of the
old state stays. Where alpha and v see the input only (E61, E62) the recurrence is
linear and all frames are computed at once; where they see the old state of their own
channel (E64, E65, E67, E68) it is an elementwise cell (`ops.elementwise_cell`).

Source of all: repository ekg/elman, 2026. Difference of all: gates, candidates and
states are float32, where the source stored them in bfloat16.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.ladder import (
    VectorState,
    inner_width,
    narrow,
    self_gate,
    widen,
    xavier_square,
    zero_state,
)
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.elementwise_cell import elementwise_cell

# Bias of the gate that keeps, at the start: sigmoid(2) = 0.88.
KEEP = 2.0


class E61(nn.Module):
    """A gated moving average without a tanh: linear and diagonal in the state.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a);  v = W_v x + b_v
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E61. b_a starts at 2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work, all frames at once."""
        gate_bte, v_bte = _gates(self, widen(self, u_btd), KEEP)
        share_bte = nn.sigmoid(-gate_bte)
        return _linear(self, nn.sigmoid(gate_bte), share_bte * v_bte, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E62(nn.Module):
    """A selective write: a gate k says how much of a bounded candidate is written.

    x = SiLU(W_in u);  k = sigmoid(W_k x + b_k);  v = tanh(W_v x + b_v)
    h_t = (1 - k) h_{t-1} + k v;  output W_out (h SiLU(h))

    Linear and diagonal in the state. Source: ekg/elman, E62. b_k starts at -2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work, all frames at once."""
        gate_bte, v_bte = _gates(self, widen(self, u_btd), -KEEP)
        written_bte = nn.sigmoid(gate_bte) * jnp.tanh(v_bte)
        return _linear(self, nn.sigmoid(-gate_bte), written_bte, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E64(nn.Module):
    """A gated average whose candidate adds the old state inside a tanh.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a);  v = tanh(h_{t-1} + W_x x + b)
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Near h = 0 the slope of the tanh is 1, so what is stored there hardly fades.

    Source: ekg/elman, E64. b_a starts at 2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work."""
        gate_bte, x_bte = _gates(self, widen(self, u_btd), KEEP)
        inputs = (nn.sigmoid(gate_bte), x_bte)
        return _nonlinear(self, additive, inputs, (), state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E65(nn.Module):
    """E64 with a learned weight on the old state inside the tanh.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a)
    v = tanh(d_h h_{t-1} + W_x x + b)
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E65. d_h starts at 1/2, so the candidate forgets; b_a at 2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work."""
        gate_bte, x_bte = _gates(self, widen(self, u_btd), KEEP)
        inputs = (nn.sigmoid(gate_bte), x_bte)
        weights = _vector(self, "recurrent_v", 0.5)
        return _nonlinear(self, weighted, inputs, weights, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E67(nn.Module):
    """A gated average whose gate sees the old state, each channel its own.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + d_a h_{t-1} + b_a)
    v = tanh(W_x x + b)
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E67. d_a starts at 1/10, b_a at 2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work."""
        gate_bte, x_bte = _gates(self, widen(self, u_btd), KEEP)
        inputs = (gate_bte, jnp.tanh(x_bte))
        weights = _vector(self, "recurrent_alpha", 0.1)
        return _nonlinear(self, self_keeping, inputs, weights, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E68(nn.Module):
    """A gated average of candidates that the old state lets through or not.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a)
    g = sigmoid(d_g h_{t-1} + b_g);  v = tanh(W_x x + b) g
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E68. d_g starts at 1/2, b_g at 0, b_a at 2.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work."""
        gate_bte, x_bte = _gates(self, widen(self, u_btd), KEEP)
        inputs = (nn.sigmoid(gate_bte), jnp.tanh(x_bte))
        weights = (
            _vector(self, "recurrent_g", 0.5),
            _vector(self, "bias_g", 0.0),
        )
        return _nonlinear(self, self_writing, inputs, weights, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


def additive(h, inputs, weights):
    """The cell of E64: alpha h + (1 - alpha) tanh(h + x)."""
    del weights
    alpha, x = inputs
    return alpha * h + (1 - alpha) * jnp.tanh(h + x)


def weighted(h, inputs, weights):
    """The cell of E65: alpha h + (1 - alpha) tanh(d h + x)."""
    alpha, x = inputs
    return alpha * h + (1 - alpha) * jnp.tanh(weights * h + x)


def self_keeping(h, inputs, weights):
    """The cell of E67: alpha h + (1 - alpha) v with alpha = sigmoid(a + d h)."""
    gate, v = inputs
    alpha = nn.sigmoid(gate + weights * h)
    return alpha * h + (1 - alpha) * v


def self_writing(h, inputs, weights):
    """The cell of E68: alpha h + (1 - alpha) v sigmoid(d h + b)."""
    alpha, v = inputs
    return alpha * h + (1 - alpha) * v * nn.sigmoid(weights[0] * h + weights[1])


def _gates(
    module: nn.Module, x_bte: jax.Array, start: float
) -> tuple[jax.Array, jax.Array]:
    """Gate and candidate before their nonlinearities, float32, in one product."""
    inner = inner_width(module)
    gates = nn.Dense(
        2 * inner,
        use_bias=False,
        dtype=module.dtype,
        kernel_init=xavier_square,
        name="gates",
    )
    gate_bte, v_bte = jnp.split(gates(x_bte).astype(jnp.float32), 2, axis=-1)
    gate_e = _vector(module, "ssm_gate_bias", start)
    v_e = _vector(module, "bias_v", 0.0)
    return gate_bte + gate_e[None, None], v_bte + v_e[None, None]


def _vector(module: nn.Module, name: str, start: float) -> jax.Array:
    """A parameter for each channel of the state."""
    constant = nn.initializers.constant(start)
    return module.param(name, constant, (inner_width(module),))


def _linear(
    module: nn.Module,
    keep_bte: jax.Array,
    written_bte: jax.Array,
    state: VectorState | None,
    reset_bt: jax.Array | None,
) -> tuple[jax.Array, VectorState]:
    h_be = None if state is None else state.h_be
    h_bte, h_be = diagonal(keep_bte, written_bte, h_be, reset_bt)
    return narrow(module, self_gate(h_bte)), VectorState(h_be)


def _nonlinear(
    module: nn.Module,
    cell: Any,
    inputs_bte: Any,
    weights_e: Any,
    state: VectorState | None,
    reset_bt: jax.Array | None,
) -> tuple[jax.Array, VectorState]:
    h_be = None if state is None else state.h_be
    h_bte, h_be = elementwise_cell(cell, inputs_bte, weights_e, h_be, reset_bt)
    return narrow(module, self_gate(h_bte)), VectorState(h_be)
