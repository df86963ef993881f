"""The Elman ladder where every channel of the state sees all: E1, E42, E56, E63, E66.

The old state goes through a matrix (E1H: one for each head). Inside a tanh the frames
come one after the other (`ops.dense_cell`); without it (E42) the recurrence is linear
and all frames are computed at once (`ops.dense_linear`). The products with the input
are made for all frames before.

Source of all: repository ekg/elman, 2026. Differences of all: gates and states are
float32, where the source stored them in bfloat16; and power iterations for a spectral
norm start from a fixed direction (`layers.spectral`), where the source carried it along
as it trained.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.ladder import (
    VectorState,
    inner_width,
    narrow,
    self_gate,
    widen,
    widen_with_gate,
    xavier,
    xavier_square,
    zero_state,
)
from jaxbench.layers.spectral import first_direction, spectral_normalize
from jaxbench.ops.dense_cell import block_product, dense_cell
from jaxbench.ops.dense_linear import dense_linear

# Channels of a head of E1H where no number of heads is asked for.
_HEAD = 64
# Power iterations a call. The source made 3, from where its last call ended.
_ITERATIONS = 8


class E1(nn.Module):
    """The Elman network with a bounded recurrent matrix, and a gate on its output.

    [x~, z] = W_in u;  x = SiLU(x~);  |W~_h|_2 = 0.99
    h_t = tanh(W_x x + W~_h h_{t-1} + b);  output W_out (h SiLU(z))

    Source: ekg/elman, E1, after Elman 1990. W_h starts Xavier-uniform times 1/10 and is
    scaled to its norm at every call, upwards too.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; the state is float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
      spectral_norm: largest singular value of the recurrent matrix, positive.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    spectral_norm: float = 0.99

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work, T steps one by one."""
        inner = inner_width(self)
        x_bte, z_bte = widen_with_gate(self, u_btd)
        into = nn.Dense(
            inner, dtype=self.dtype, kernel_init=xavier_square, name="input"
        )
        w_ee = _bounded(self, (inner, inner))
        h_be = None if state is None else state.h_be
        h_bte, h_be = dense_cell(into(x_bte), (w_ee,), None, h_be, reset_bt)
        return narrow(self, h_bte * z_bte), VectorState(h_be)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E1H(nn.Module):
    """E1 with heads: blocks on the diagonal instead of one recurrent matrix.

    [x~, z] = W_in u;  x = SiLU(x~);  |W~_h|_2 = 0.99 for each head
    h_t = tanh(W_x x + W~_h h_{t-1} + b) inside each head;  output W_out (h SiLU(z))

    Source: ekg/elman, E1H. Difference: W_h is normalised head by head as in E1, which
    the source's description leaves open.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; the state is float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
      heads: H, divides E; 0 is as many as leave 64 channels or more to a head.
      spectral_norm: largest singular value of each block, positive.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    heads: int = 0
    spectral_norm: float = 0.99

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E / H)) work, T steps one by one."""
        inner, heads = inner_width(self), self._heads()
        x_bte, z_bte = widen_with_gate(self, u_btd)
        shape = (heads, inner // heads, inner // heads)
        input_hnn = self.param("input", _blocks(xavier_square), shape)
        bias_e = self.param("bias", nn.initializers.zeros, (inner,))
        pre_bte = block_product(x_bte, input_hnn.astype(self.dtype))
        w_hnn = _bounded(self, shape)
        h_be = None if state is None else state.h_be
        h_bte, h_be = dense_cell(
            pre_bte + bias_e[None, None], (w_hnn,), None, h_be, reset_bt
        )
        return narrow(self, h_bte * z_bte), VectorState(h_be)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)

    @nn.nowrap
    def _heads(self) -> int:
        inner = inner_width(self)
        if self.heads == 0:
            most = max(inner // _HEAD, 1)
            return max(h for h in range(1, most + 1) if inner % h == 0)
        if self.heads < 0 or inner % self.heads:
            raise InputError(
                f"heads={self.heads} must divide {inner}, the expansion times the width"
            )
        return self.heads


class E42(nn.Module):
    """A linear Elman network whose one matrix takes the input and the old state.

    x = SiLU(W_in u);  |W~|_2 = 0.999
    h_t = W~ (x + h_{t-1}) + b;  output W_out (h SiLU(h))

    Linear and the same at every frame, so all frames can be computed at once, by
    doubling: twice the products of a scan, but large ones.

    Source: ekg/elman, E42. W starts Xavier-uniform times 1/10 and is scaled to its norm
    at every call, upwards too.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; powers of W~ and the state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
      spectral_norm: largest singular value of the matrix, positive; stable below 1.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    spectral_norm: float = 0.999

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work, all frames at once."""
        inner = inner_width(self)
        x_bte = widen(self, u_btd)
        w_ee = _bounded(self, (inner, inner))
        bias_e = self.param("bias", nn.initializers.zeros, (inner,))
        input_bte = block_product(x_bte, w_ee) + bias_e[None, None]
        h_be = None if state is None else state.h_be
        h_bte, h_be = dense_linear(input_bte, w_ee, h_be, reset_bt)
        return narrow(self, self_gate(h_bte)), VectorState(h_be)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E56(nn.Module):
    """The Elman network with one matrix over input and old state together.

    [x~, z] = W_in u;  x = SiLU(x~)
    h_t = tanh(W [x; h_{t-1}] + b);  output W_out (h SiLU(z))

    Source: ekg/elman, E56. W is Xavier-uniform as the [E, 2 E] matrix it is, and its
    norm is free.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; the state is float32.
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
        """Mixes [B, T, D] along time; O(T E (D + E)) work, T steps one by one."""
        inner = inner_width(self)
        x_bte, z_bte = widen_with_gate(self, u_btd)
        joint = self.param("recurrent", xavier(), (2 * inner, inner))
        into_ee, w_ee = jnp.split(joint.astype(self.dtype), 2)
        bias_e = self.param("bias", nn.initializers.zeros, (inner,))
        pre_bte = block_product(x_bte, into_ee) + bias_e[None, None]
        h_be = None if state is None else state.h_be
        h_bte, h_be = dense_cell(pre_bte, (w_ee,), None, h_be, reset_bt)
        return narrow(self, h_bte * z_bte), VectorState(h_be)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E63(nn.Module):
    """A gated average whose candidate sees the whole old state through a matrix.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a)
    v = tanh(W_h h_{t-1} + W_x x + b)
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E63. W_h starts as half an orthogonal matrix, b_a at 2.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; gates and state are float32.
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
        """Mixes [B, T, D] along time; O(T E (D + E)) work, T steps one by one."""
        inner = inner_width(self)
        half = nn.initializers.orthogonal(0.5)
        kernels = (self.param("recurrent", half, (inner, inner)),)
        return _gated(self, u_btd, kernels, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


class E66(nn.Module):
    """E63 with a recurrent matrix of low rank.

    x = SiLU(W_in u);  alpha = sigmoid(W_a x + b_a)
    v = tanh(U (V h_{t-1}) + W_x x + b)
    h_t = alpha h_{t-1} + (1 - alpha) v;  output W_out (h SiLU(h))

    Source: ekg/elman, E66. U and V start as halves of matrices with orthonormal columns
    or rows, b_a at 2.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width E of the state over model width.
      rank: of U V; 0 is E / 4.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    rank: int = 0

    @nn.compact
    def __call__(
        self,
        u_btd: jax.Array,
        state: VectorState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, VectorState]:
        """Mixes [B, T, D] along time; O(T E (D + E)) work, T steps one by one."""
        inner = inner_width(self)
        if not 0 <= self.rank <= inner:
            raise InputError(
                f"rank={self.rank} must be at least 0 and at most {inner}, the "
                f"expansion times the width"
            )
        rank = self.rank or max(inner // 4, 1)
        half = nn.initializers.orthogonal(0.5)
        kernels = (
            self.param("recurrent_v", half, (inner, rank)),
            self.param("recurrent_u", half, (rank, inner)),
        )
        return _gated(self, u_btd, kernels, state, reset_bt)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> VectorState:
        """Returns zeros."""
        return zero_state(self, batch_size)


def _bounded(module: nn.Module, shape: tuple[int, ...]) -> jax.Array:
    """A recurrent matrix, or blocks, of the module's spectral norm."""
    if module.spectral_norm <= 0:
        raise InputError(f"spectral_norm={module.spectral_norm} must be positive")

    def small(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return 0.1 * _blocks(xavier_square)(key, shape, dtype)

    w = module.param("recurrent", small, shape)
    # A buffer: where the power iterations start.
    direction = module.variable(
        "constants", "direction", lambda: first_direction(module.make_rng("params"), w)
    )
    w = spectral_normalize(
        w, direction.value, target=module.spectral_norm, iterations=_ITERATIONS
    )
    return w.astype(module.dtype)


def _blocks(init: Any) -> Any:
    """The initialiser of a matrix, for blocks [H, N, N] each by itself."""

    def of_blocks(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
        if len(shape) == 2:
            return init(key, shape, dtype)
        keys = jax.random.split(key, shape[0])
        return jnp.stack([init(k, shape[1:], dtype) for k in keys])

    return of_blocks


def _gated(
    module: nn.Module,
    u_btd: jax.Array,
    kernels: tuple[jax.Array, ...],
    state: VectorState | None,
    reset_bt: jax.Array | None,
) -> tuple[jax.Array, VectorState]:
    """Gate, candidate and output of E63 and E66."""
    inner = inner_width(module)
    gates = nn.Dense(
        2 * inner,
        use_bias=False,
        dtype=module.dtype,
        kernel_init=xavier_square,
        name="gates",
    )
    gates_bt2e = gates(widen(module, u_btd)).astype(jnp.float32)
    gate_bte, x_bte = jnp.split(gates_bt2e, 2, axis=-1)
    keep = nn.initializers.constant(2.0)
    gate_e = module.param("ssm_gate_bias", keep, (inner,))
    bias_e = module.param("bias_v", nn.initializers.zeros, (inner,))
    h_bte, h_be = dense_cell(
        x_bte + bias_e[None, None],
        tuple(kernel.astype(module.dtype) for kernel in kernels),
        nn.sigmoid(gate_bte + gate_e[None, None]),
        None if state is None else state.h_be,
        reset_bt,
    )
    return narrow(module, self_gate(h_bte)), VectorState(h_be)
