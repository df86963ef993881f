"""Matrix memories that survived the Elman ladder: E74, E75, E88, and M2RNN.

A delta rule whose state passes through a tanh at every frame. The sources are the
repository ekg/elman (2026), and for M2RNN a paper. Keys have length 1, so no step
stretches a difference of two states.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import merge_heads
from jaxbench.layers.inits import (
    lecun,
    log_of_uniform,
    softplus_inverse_log_uniform,
)
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import (
    MatrixState,
    initial_matrix_state,
    project_heads,
)
from jaxbench.layers.norms import l2_normalize
from jaxbench.ops.matrix_cell import matrix_rnn, tanh_delta


class DeltaMemory(nn.Module):
    """S_t = tanh(S_{t-1} Diag(b) + k (v - S_{t-1}^T k)^T);  o = S_t^T q.

    x = W_in u;  k, v, q = W x, k of length 1;  b = 1 (E74), or sigmoid(W_b x + b_b),
    b_b = 2 at the start (E75);  output W_out SG(o), SG(o) = o SiLU(o).

    With one head 96 % of the weights are W_in and the output is n numbers wide: more
    heads, not a larger n, are the remedy. The source trains with gradients that grow
    with the length of q and starts W_in and W_out normal with deviation 0.02, whatever
    the width. Cured: q of length 1, W_in Xavier-uniform, W_out as in the other mixers
    here. Gates and state are float32 in both forms (bfloat16 in the source).

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      heads: H, independent memories.
      state_size: n, keys and values of a head.
      forget: the gate b of E75.
      cured: false: q as projected, W_in and W_out normal with deviation 0.02.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    heads: int = 1
    state_size: int = 32
    forget: bool = False
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one by one."""
        small = nn.initializers.normal(0.02)
        inner = nn.Dense(
            self.expansion * self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=xavier() if self.cured else small,
            name="inner",
        )
        x_bte = inner(x_btd)

        def project(name: str, bias: float | None = None) -> jax.Array:
            heads, size = self.heads, self.state_size
            return project_heads(x_bte, heads, size, self.dtype, name, bias)

        q, k, v = project("query"), l2_normalize(project("key")), project("value")
        q = l2_normalize(q) if self.cured else q
        decay = nn.sigmoid(project("forget", 2.0)) if self.forget else None
        s_bhkv = None if state is None else state.s_bhkv
        o, s_bhkv = tanh_delta(q, k, v, decay, s_bhkv, reset_bt)
        if self.cured:
            init = lecun(self.out_scale)
        else:
            init = nn.initializers.normal(0.02 * self.out_scale)
        out = nn.Dense(
            self.width, use_bias=False, dtype=self.dtype, kernel_init=init, name="out"
        )
        return out(merge_heads(self_gate(o))), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        size = self.state_size
        return initial_matrix_state(batch_size, self.heads, size, size)


class E88(nn.Module):
    """S_t = tanh(a S_{t-1} + k (v - S_{t-1}^T k)^T);  y = S_t^T q, many small heads.

    q, k, v = SiLU(W u), then q and k of length 1;  a = exp(-exp(A_log) softplus(W_a u +
    dt_bias)) for each head, exp(A_log) uniform on (0.001, 16) at the start (on (0, 16)
    in the source);  output W_out y, or W_out (y * SiLU(W_g u)) with a gate. There is no
    convolution, and no norm of y, which made the source's losses worse.

    Attributes:
      width: model width D.
      dtype: type of the projections; decays and state are float32.
      out_scale: factor on the initial output projection.
      heads: H; 0 is as many as make H n the model width, at least one.
      state_size: n, keys and values of a head; 16 or 32 in the source.
      gate: multiply by SiLU(W_g u) before the output projection.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    heads: int = 0
    state_size: int = 16
    gate: bool = False

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D (D + n)) work, T steps one by one."""
        heads, size = _heads(self.width, self.heads, self.state_size), self.state_size

        def project(name: str) -> jax.Array:
            return nn.silu(project_heads(x_btd, heads, size, self.dtype, name))

        q, k, v = l2_normalize(project("query")), project("key"), project("value")
        decay = _Decay(heads, 1e-3, self.dtype, name="decay")(x_btd)
        s_bhkv = None if state is None else state.s_bhkv
        y, s_bhkv = tanh_delta(
            q, l2_normalize(k), v, decay[..., None], s_bhkv, reset_bt
        )
        y = y * project("gate") if self.gate else y
        out = _out(self.width, self.dtype, self.out_scale)
        return out(merge_heads(y)), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        heads, size = _heads(self.width, self.heads, self.state_size), self.state_size
        return initial_matrix_state(batch_size, heads, size, size)


class M2RNN(nn.Module):
    """S_t = f S_{t-1} + (1 - f) tanh(S_{t-1} W + k v^T);  y = S_t^T q / sqrt(K) + D v.

    q, k = W u, one pair of K numbers for all heads;  v = W u for each head;  f =
    exp(-exp(A_log) softplus(W_f u + dt_bias)) and a number D for each head, exp(A_log)
    uniform on (1, 16) at the start;  W [V, V] of each head starts as the identity;
    output W_out (y * SiLU(W_g u)). Source: Mishra et al. 2026, arXiv:2603.14360.
    Difference: the factor 1 / sqrt(K), because K products of size 1 are summed.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates, state and W are float32.
      out_scale: factor on the initial output projection.
      heads: H; 0 is as many as make H V the model width, at least one.
      key_size: K, of the one pair of queries and keys.
      value_size: V, values of a head.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    heads: int = 0
    key_size: int = 64
    value_size: int = 16

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D (D + K V)) work, T steps one by one."""
        heads, size = _heads(self.width, self.heads, self.value_size), self.value_size

        def project(count: int, size: int, name: str) -> jax.Array:
            return project_heads(x_btd, count, size, self.dtype, name)

        q_btk = project(1, self.key_size, "query")[:, :, 0] * self.key_size**-0.5
        k_btk = project(1, self.key_size, "key")[:, :, 0]
        v_bthv = project(heads, size, "value")
        forget_bth = _Decay(heads, 1, self.dtype, name="decay")(x_btd)
        w_hvv = self.param("recurrent", _identities, (heads, size, size))
        skip_h = self.param("skip", nn.initializers.ones, (heads,))
        s_bhkv = None if state is None else state.s_bhkv
        y, s_bhkv = matrix_rnn(
            q_btk, k_btk, v_bthv, forget_bth, w_hvv, s_bhkv, reset_bt
        )
        y = y + skip_h[None, None, :, None] * v_bthv
        y = y * nn.silu(project(heads, size, "gate"))
        out = _out(self.width, self.dtype, self.out_scale)
        return out(merge_heads(y)), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        heads = _heads(self.width, self.heads, self.value_size)
        return initial_matrix_state(batch_size, heads, self.key_size, self.value_size)


def _heads(width: int, heads: int, size: int) -> int:
    return heads or max(width // max(size, 1), 1)


class _Decay(nn.Module):
    """exp(-exp(A_log) softplus(W x + dt_bias)) for each head, float32 [B, T, H].

    exp(A_log) starts uniform on (lowest, 16), softplus(dt_bias) log-uniform on (0.001,
    0.1).
    """

    heads: int
    lowest: float
    dtype: Any

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        dense = nn.Dense(
            self.heads,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=xavier(),
            name="project",
        )
        bias_init = softplus_inverse_log_uniform(1e-3, 1e-1)
        bias_h = self.param("ssm_dt_bias", bias_init, (self.heads,))
        rate_init = log_of_uniform(self.lowest, 16)
        a_log_h = self.param("ssm_a_log", rate_init, (self.heads,))
        dt = nn.softplus(dense(x_btd).astype(jnp.float32) + bias_h[None, None])
        return jnp.exp(-jnp.exp(a_log_h)[None, None] * dt)


def _out(width: int, dtype: Any, scale: float) -> nn.Dense:
    return nn.Dense(
        width, use_bias=False, dtype=dtype, kernel_init=lecun(scale), name="out"
    )


def _identities(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """The identity matrix of each head."""
    del key
    return jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype)[None], shape)
