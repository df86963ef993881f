"""E63m and E70 to E73: the Elman ladder's memories that failed, as run and cured.

All share x = SiLU(W_in u), two D wide, and keys, values and queries that are products
with x. The source is the repository ekg/elman (2026). There k is of any length, ~7 at
the start, so that what a key finds is |k|^2 times too large and, through the self-gate,
enters the output squared. Each mixer has the field `cured`: false computes what was
run. In both forms kernels are Xavier-uniform, gates and states float32 (bfloat16 in the
source), norms add 1e-6 under a root; the cured output projection starts at the
deviation of the other mixers here, and `out_scale` multiplies either.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import merge_heads, split_heads
from jaxbench.layers.inits import lecun
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import (
    MatrixState,
    constant,
    initial_matrix_state,
    project_heads,
)
from jaxbench.layers.norms import l2_normalize, norm
from jaxbench.ops.gated_linear import gated_linear_attention
from jaxbench.ops.matrix_cell import gated_memory, slot_memory, tanh_memory

# Rounds of the power iteration behind a spectral norm.
_ROUNDS = 8


class E63m(nn.Module):
    """N slots of width d: each answers a key, and the answers are mixed and written.

    r = tanh(S_{t-1} k);  u = tanh(W_r r + W_v x + b);  a = sigmoid(W_a x + b_a)
    S_t = Diag(a) S_{t-1} + ((1 - a) u) k^T;  o = tanh(S_t q);  output W_out o

    S is [N, d], b_a = 2, W_r = 1/2 orthogonal. With |k|^2 = 280, as at the published
    width, a step stretches differences of states along k some 17 times, and the first
    backward pass overflows. Cured: k of length 1 (a stretch of at most (1 + a) / 2 at
    the start), q / sqrt(d), 32 slots.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: inner width d over model width.
      slots: N. As published, 8: a default that leaked in where 64 were planned.
      cured: k of length 1, q / sqrt(d); false: both as projected.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    slots: int = 32
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T (D^2 + D N)) work, T steps one by one."""
        inner, slots = self.expansion * self.width, self.slots
        x_bte = _inner(x_btd, inner, self.dtype)

        def project(size: int, name: str, bias: float | None = None) -> jax.Array:
            return project_heads(x_bte, 1, size, self.dtype, name, bias)[:, :, 0]

        q_bte, k_bte = project(inner, "query"), project(inner, "key")
        if self.cured:
            q_bte, k_bte = q_bte * inner**-0.5, l2_normalize(k_bte)
        v_btn = project(slots, "value", 0.0)
        keep_btn = nn.sigmoid(project(slots, "keep", 2.0))
        half = nn.initializers.orthogonal(0.5)
        w_nn = self.param("recurrent", half, (slots, slots))
        s_ben = None if state is None else state.s_bhkv[:, 0]
        o_btn, s_ben = slot_memory(q_bte, k_bte, v_btn, keep_btn, w_nn, s_ben, reset_bt)
        out = _out(self.width, self.dtype, self.out_scale, self.cured)
        return out(jnp.tanh(o_btn)), MatrixState(s_ben[:, None])

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros, the slots as values of one head."""
        inner = self.expansion * self.width
        return initial_matrix_state(batch_size, 1, inner, self.slots)


class E70(nn.Module):
    """S_t = gamma S_{t-1} + k v^T;  o = S_t^T q: retention.

    k, v, q = W x, W_k and W_v of spectral norm 1/2, output W_out SG(o), SG(o) = o
    SiLU(o), and gamma 0.9: a number that was meant to be learned and was not, because
    it was read as a constant. The maths is sound, the loop was slow. Cured: chunks of
    matmuls, gamma_h = exp(-softplus(theta_h)) for each of H heads, at the start from
    1 - 2^-3 to 1 - 2^-9, k and q / sqrt(n), SG(RMSNorm_head(o)), no spectral norms.
    Difference in the uncured form: the spectral norms come from 8 rounds from a fixed
    vector, where the source keeps the vector from step to step.

    Attributes:
      width: model width D.
      dtype: type of the projections; decays and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      heads: H; as published, 1.
      state_size: n, keys and values of a head; as published, 96.
      cured: false: gamma is stored but neither used nor trained, no norm before SG.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    heads: int = 4
    state_size: int = 24
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D^2) work, matmuls over chunks."""
        batch, length, _ = x_btd.shape
        heads, size = self.heads, self.state_size
        x_bte = _inner(x_btd, self.expansion * self.width, self.dtype)
        q = project_heads(x_bte, heads, size, self.dtype, "query")
        if self.cured:
            k, v = (
                project_heads(x_bte, heads, size, self.dtype, name)
                for name in ("key", "value")
            )
            q, k = q * size**-0.5, k * size**-0.5
            theta_h = self.param("ssm_decay", _spread_decays, (heads,))
            log_h = -nn.softplus(theta_h)
        else:
            k, v = (
                split_heads(
                    _HalfNormDense(heads * size, self.dtype, name=name)(x_bte), heads
                )
                for name in ("key", "value")
            )
            gamma_h = self.param("ssm_decay", constant(0.9), (heads,))
            log_h = jnp.log(jax.lax.stop_gradient(jnp.clip(gamma_h, 1e-6, 0.999)))
        log_decay = jnp.broadcast_to(log_h[None, None], (batch, length, heads))
        s_bhkv = None if state is None else state.s_bhkv
        o, s_bhkv = gated_linear_attention(q, k, v, log_decay, s_bhkv, reset_bt)
        if self.cured:
            o = norm("rms", jnp.float32, "read_norm")(o)
        out = _out(self.width, self.dtype, self.out_scale, self.cured)
        return out(merge_heads(self_gate(o))), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        size = self.state_size
        return initial_matrix_state(batch_size, self.heads, size, size)


class E71(nn.Module):
    """A running mean of k v^T whose rate sees what the key holds.

    r = S_{t-1}^T k;  a = sigmoid(W_a x + d_a * r + b_a)
    S_t = S_{t-1} Diag(a) + k ((1 - a) * v)^T;  o = S_t^T q;  output W_out SG(o)

    SG(o) = o SiLU(o), b_a = 2, d_a = 0.1. S is bounded by |v| |k| ~ 40 only, and
    through r the gate has a slope of |k|^2: at the published width a step stretches
    differences of states up to 2-fold (3-fold in `E72`). Cured: k and q of length 1,
    v = tanh, d_a = 0 at the start, SG(RMSNorm(o)).

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      state_size: n, keys and values of the one head.
      cured: false: k, q, v as projected, no norm before SG.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    state_size: int = 96
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one by one."""
        size, cured = self.state_size, self.cured
        x_bte = _inner(x_btd, self.expansion * self.width, self.dtype)
        q, k, v = _lookup(x_bte, size, self.dtype, cured)
        keep_bthv = project_heads(x_bte, 1, size, self.dtype, "keep", 2.0)
        slope = self.param("keep_slope", constant(0.0 if cured else 0.1), (1, size))
        s_bhkv = None if state is None else state.s_bhkv
        o, s_bhkv = gated_memory(q, k, v, keep_bthv, slope, None, s_bhkv, reset_bt)
        if cured:
            o = norm("rms", jnp.float32, "read_norm")(o)
        out = _out(self.width, self.dtype, self.out_scale, cured)
        return out(merge_heads(self_gate(o))), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        return initial_matrix_state(batch_size, 1, self.state_size, self.state_size)


class E72(nn.Module):
    """A running mean of k v^T whose values pass a gate that sees what the key holds.

    g = sigmoid(d_g * (S_{t-1}^T k) + b_g);  a = sigmoid(W_a x + b_a)
    S_t = S_{t-1} Diag(a) + k ((1 - a) * g * v)^T;  o = S_t^T q;  output W_out SG(o)

    SG(o) = o SiLU(o), b_a = 2, b_g = 0, d_g = 0.5; what is wrong and the cure are those
    of `E71`, with d_g for d_a.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      state_size: n, keys and values of the one head.
      cured: false: k, q, v as projected, no norm before SG.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    state_size: int = 96
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one by one."""
        size, cured = self.state_size, self.cured
        x_bte = _inner(x_btd, self.expansion * self.width, self.dtype)
        q, k, v = _lookup(x_bte, size, self.dtype, cured)
        keep_bthv = project_heads(x_bte, 1, size, self.dtype, "keep", 2.0)
        slope = self.param("gain_slope", constant(0.0 if cured else 0.5), (1, size))
        gain = (slope, self.param("gain_bias", constant(0.0), (1, size)))
        s_bhkv = None if state is None else state.s_bhkv
        o, s_bhkv = gated_memory(q, k, v, keep_bthv, None, gain, s_bhkv, reset_bt)
        if cured:
            o = norm("rms", jnp.float32, "read_norm")(o)
        out = _out(self.width, self.dtype, self.out_scale, cured)
        return out(merge_heads(self_gate(o))), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        return initial_matrix_state(batch_size, 1, self.state_size, self.state_size)


class E73(nn.Module):
    """S_t = tanh(Diag(z) S_{t-1} + k v^T);  o = S_t^T q;  z = tanh(W_z x + b_z).

    b_z = 1, output W_out SG(o), SG(o) = o SiLU(o). Of the source's variants this is the
    one where z_j scales what the key channel j holds. One head of 96 with long keys
    drives every tanh to its ends. Cured: 8 heads of 32, k of length 1, q / sqrt(n), and
    for SG the gate SiLU(W_g x) of its own.

    Attributes:
      width: model width D.
      dtype: type of the projections; gates and state are float32.
      out_scale: factor on the initial output projection.
      expansion: width of x over model width.
      heads: H; as published, 1.
      state_size: n, keys and values of a head; as published, 96.
      cured: false: k and q as projected, SG for the gate.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 2
    heads: int = 8
    state_size: int = 32
    cured: bool = True

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: MatrixState | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, MatrixState]:
        """Mixes [B, T, D] along time; O(T D H n) work, T steps one by one."""
        x_bte = _inner(x_btd, self.expansion * self.width, self.dtype)

        def project(name: str, bias: float | None = None) -> jax.Array:
            heads, size = self.heads, self.state_size
            return project_heads(x_bte, heads, size, self.dtype, name, bias)

        q, k, v = project("query"), project("key"), project("value")
        if self.cured:
            q, k = q * self.state_size**-0.5, l2_normalize(k)
        keep = jnp.tanh(project("keep", 1.0))
        s_bhkv = None if state is None else state.s_bhkv
        o, s_bhkv = tanh_memory(q, k, v, keep, s_bhkv, reset_bt)
        o = o * nn.silu(project("gate")) if self.cured else self_gate(o)
        out = _out(self.width, self.dtype, self.out_scale, self.cured)
        return out(merge_heads(o)), MatrixState(s_bhkv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> MatrixState:
        """Returns zeros."""
        size = self.state_size
        return initial_matrix_state(batch_size, self.heads, size, size)


class _HalfNormDense(nn.Module):
    """A linear map whose kernel is scaled to the spectral norm 1/2, up or down."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x_bte: jax.Array) -> jax.Array:
        shape = (x_bte.shape[-1], self.features)
        kernel = self.param("kernel", xavier(), shape)
        scaled = kernel * (0.5 / (_spectral_norm(kernel) + 1e-8))
        product = jnp.matmul(x_bte.astype(self.dtype), scaled.astype(self.dtype))
        return product.astype(jnp.float32)


def _spectral_norm(kernel_de: jax.Array) -> jax.Array:
    """The largest singular value, its vectors taken as constants in the gradient."""
    frozen = jax.lax.stop_gradient(kernel_de)
    start = np.random.default_rng(0).normal(size=kernel_de.shape[1])
    v_e = jnp.asarray(start / np.linalg.norm(start), jnp.float32)

    def unit(x: jax.Array) -> jax.Array:
        return x / (jnp.linalg.norm(x) + 1e-12)

    for _ in range(_ROUNDS):
        u_d = unit(frozen @ v_e)
        v_e = unit(frozen.T @ u_d)
    return jnp.einsum("d,de,e->", u_d, kernel_de, v_e)


def _inner(x_btd: jax.Array, size: int, dtype: Any) -> jax.Array:
    dense = nn.Dense(
        size, use_bias=False, dtype=dtype, kernel_init=xavier(), name="inner"
    )
    return nn.silu(dense(x_btd))


def _lookup(
    x_bte: jax.Array, size: int, dtype: Any, cured: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k and v of one head; cured: q and k of length 1, v a tanh."""
    q, k, v = (
        project_heads(x_bte, 1, size, dtype, name) for name in ("query", "key", "value")
    )
    return (l2_normalize(q), l2_normalize(k), jnp.tanh(v)) if cured else (q, k, v)


def _out(width: int, dtype: Any, scale: float, cured: bool) -> nn.Dense:
    init = lecun(scale) if cured else xavier(scale)
    return nn.Dense(width, use_bias=False, dtype=dtype, kernel_init=init, name="out")


def _spread_decays(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    """theta with exp(-softplus(theta)) from 1 - 2^-3 to 1 - 2^-9, even in the exponent.

    exp(-softplus(theta)) is sigmoid(-theta).
    """
    del key
    forgotten = 2.0 ** -np.linspace(3, 9, shape[0])
    return jnp.asarray(np.log(forgotten) - np.log1p(-forgotten), dtype)
