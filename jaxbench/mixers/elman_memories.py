"""E63m and E70 to E73: the Elman ladder's memories that failed, as run and cured.

All share x = SiLU(W_in u), two D wide, and keys, values and queries that are products
with x. The source is the repository ekg/elman (2026). There k is of any length, ~7 at
the start, so that what a key finds is |k|^2 times too large and, through the self-gate
SG(o) = o SiLU(o), enters the output squared. Each mixer has the field `cured`: false
computes what was run; the equations are those of the cured form. In both forms kernels
are Xavier-uniform, gates and states float32 (bfloat16 in the source), norms add 1e-6
under a root; the cured output projection starts at the deviation of the other mixers
here, and `out_scale` multiplies either.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import split_heads
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import MatrixMemory, MatrixState, constant
from jaxbench.layers.norms import l2_normalize, norm
from jaxbench.ops.gated_linear import gated_linear_attention
from jaxbench.ops.matrix_cell import gated_memory, slot_memory, tanh_memory

# Rounds of the power iteration behind a spectral norm.
_ROUNDS = 8


class Memory(MatrixMemory):
    """x = SiLU(W_in u), a memory of x by `recall`, W_out of what it reads."""

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2) work, as `recall` runs over frames."""
        (s_bhkv,) = state or (None,)
        inner = self.dense(self.expansion * self.width, "inner", init=xavier())
        o, s_bhkv = self.recall(nn.silu(inner(x_btd)), s_bhkv, reset_bt)
        init = None if self.cured else xavier(self.out_scale)
        return self.output(o, init), MatrixState(s_bhkv)

    def recall(self, x_bte, s_bhkv, reset_bt):
        """What is read, gated, [B, T, H, V], and the state; inside the compact call."""
        raise NotImplementedError

    def read(self, o: jax.Array) -> jax.Array:
        """SG(o), or SG(RMSNorm_head(o)) where it is cured."""
        return self_gate(norm("rms", jnp.float32, "read_norm")(o) if self.cured else o)


class E63m(Memory):
    """N slots of width d: each answers a key, and the answers are mixed and written.

    Equations:
      x = SiLU(W_in u);  |k| = 1;  q / sqrt(d);  a = sigmoid(W_a x + b_a)
      r = tanh(S_{t-1} k);  u = tanh(W_r r + W_v x + b)
      S_t = Diag(a) S_{t-1} + ((1 - a) u) k^T;  o = tanh(S_t q)
      output  W_out o

    S is [N, d], b_a = 2, W_r = 1/2 orthogonal. With |k|^2 = 280, as at the published
    width, a step stretches differences of states along k some 17 times, and the first
    backward pass overflows. Cured: k of length 1 (a stretch of at most (1 + a) / 2 at
    the start), q / sqrt(d), 32 slots.

    Attributes:
      expansion: inner width d over model width.
      slots: N. As published, 8: a default that leaked in where 64 were planned.
      cured: k of length 1, q / sqrt(d); false: both as projected.
    """

    expansion: int = 2
    slots: int = 32
    cured: bool = True

    def recall(self, x_bte, s_bhkv, reset_bt):
        inner, slots = self.expansion * self.width, self.slots

        def project(size: int, name: str, bias: float | None = None) -> jax.Array:
            return self.project(x_bte, name, bias, size=size)[:, :, 0]

        q_bte, k_bte = project(inner, "query"), project(inner, "key")
        if self.cured:
            q_bte, k_bte = q_bte * inner**-0.5, l2_normalize(k_bte)
        v_btn = project(slots, "value", 0.0)
        keep_btn = nn.sigmoid(project(slots, "keep", 2.0))
        half = nn.initializers.orthogonal(0.5)
        w_nn = self.param("recurrent", half, (slots, slots))
        s_ben = None if s_bhkv is None else s_bhkv[:, 0]
        o_btn, s_ben = slot_memory(q_bte, k_bte, v_btn, keep_btn, w_nn, s_ben, reset_bt)
        return jnp.tanh(o_btn)[:, :, None], s_ben[:, None]

    def state_shapes(self):
        return self.memory(1, self.expansion * self.width, self.slots)


class E70(Memory):
    """S_t = gamma S_{t-1} + k v^T;  o = S_t^T q: retention.

    Equations:
      x = SiLU(W_in u);  k, v, q = W x, k and q / sqrt(n)
      γ_h = exp(-softplus(θ_h));  S_t = γ_h S_{t-1} + k v^T;  o = S_t^T q
      output  W_out SG(RMSNorm_head(o));  SG(o) = o SiLU(o)

    As run, W_k and W_v have spectral norm 1/2, and gamma is 0.9: a number that was
    meant to be learned and was not, because it was read as a constant. The maths is
    sound, the loop was slow. Cured: chunks of matmuls, gamma_h for each of H heads, at
    the start from 1 - 2^-3 to 1 - 2^-9, k and q / sqrt(n), a norm before SG, no
    spectral norms. Difference in the uncured form: the spectral norms come from 8
    rounds from a fixed vector, where the source keeps the vector from step to step.

    Attributes:
      expansion: width of x over model width.
      heads: H; as published, 1.
      state_size: n, keys and values of a head; as published, 96.
      cured: false: gamma is stored but neither used nor trained, no norm before SG.
    """

    expansion: int = 2
    heads: int = 4
    state_size: int = 24
    cured: bool = True

    def recall(self, x_bte, s_bhkv, reset_bt):
        heads, size = self.heads, self.state_size
        q = self.project(x_bte, "query")
        if self.cured:
            k, v = (self.project(x_bte, name) for name in ("key", "value"))
            q, k = q * size**-0.5, k * size**-0.5
            log_h = -nn.softplus(self.param("ssm_decay", _spread_decays, (heads,)))
        else:
            k, v = (
                split_heads(
                    _HalfNormDense(heads * size, self.dtype, name=name)(x_bte), heads
                )
                for name in ("key", "value")
            )
            gamma_h = self.param("ssm_decay", constant(0.9), (heads,))
            log_h = jnp.log(jax.lax.stop_gradient(jnp.clip(gamma_h, 1e-6, 0.999)))
        log_decay = jnp.broadcast_to(log_h[None, None], q.shape[:3])
        o, s_bhkv = gated_linear_attention(q, k, v, log_decay, s_bhkv, reset_bt)
        return self.read(o), s_bhkv


class E71(Memory):
    """A running mean of k v^T whose rate sees what the key holds.

    Equations:
      x = SiLU(W_in u);  k, q = W x of length 1;  v = tanh(W_v x)
      a = sigmoid(W_a x + d_a * (S_{t-1}^T k) + b_a)
      S_t = S_{t-1} Diag(a) + k ((1 - a) * v)^T;  o = S_t^T q
      output  W_out SG(RMSNorm(o));  SG(o) = o SiLU(o)

    b_a = 2, d_a = 0.1. As run, S is bounded by |v| |k| ~ 40 only, and through r =
    S_{t-1}^T k the gate has a slope of |k|^2: at the published width a step stretches
    differences of states up to 2-fold (3-fold in `E72`). Cured: k and q of length 1,
    v = tanh, d_a = 0 at the start, a norm before SG.

    Attributes:
      expansion: width of x over model width.
      state_size: n, keys and values of the one head.
      cured: false: k, q, v as projected, no norm before SG.
    """

    expansion: int = 2
    state_size: int = 96
    cured: bool = True

    def recall(self, x_bte, s_bhkv, reset_bt):
        q, k, v = (self.project(x_bte, name) for name in ("query", "key", "value"))
        if self.cured:
            q, k, v = l2_normalize(q), l2_normalize(k), jnp.tanh(v)
        keep = self.project(x_bte, "keep", 2.0)
        o, s_bhkv = gated_memory(q, k, v, keep, *self.gates(), s_bhkv, reset_bt)
        return self.read(o), s_bhkv

    def gates(self):
        """d_a, and the pair d_g, b_g; None where the equations have none."""
        return self.slope("keep_slope", 0.1), None

    def slope(self, name: str, start: float) -> jax.Array:
        """How a gate sees the state; cured, it is blind at the start."""
        start = 0.0 if self.cured else start
        return self.param(name, constant(start), (1, self.state_size))


class E72(E71):
    """A running mean of k v^T whose values pass a gate that sees what the key holds.

    Equations:
      x = SiLU(W_in u);  k, q = W x of length 1;  v = tanh(W_v x)
      g = sigmoid(d_g * (S_{t-1}^T k) + b_g);  a = sigmoid(W_a x + b_a)
      S_t = S_{t-1} Diag(a) + k ((1 - a) * g * v)^T;  o = S_t^T q
      output  W_out SG(RMSNorm(o));  SG(o) = o SiLU(o)

    b_a = 2, b_g = 0, d_g = 0.5; what is wrong and the cure are those of `E71`, with d_g
    for d_a.

    Attributes:
      expansion: width of x over model width.
      state_size: n, keys and values of the one head.
      cured: false: k, q, v as projected, no norm before SG.
    """

    def gates(self):
        slope = self.slope("gain_slope", 0.5)
        return None, (slope, self.param("gain_bias", constant(0.0), slope.shape))


class E73(Memory):
    """S_t = tanh(Diag(z) S_{t-1} + k v^T);  o = S_t^T q;  z = tanh(W_z x + b_z).

    Equations:
      x = SiLU(W_in u);  k, v, q = W x, |k| = 1, q / sqrt(n)
      z = tanh(W_z x + b_z);  S_t = tanh(Diag(z) S_{t-1} + k v^T);  o = S_t^T q
      output  W_out (o * SiLU(W_g x)), 8 heads

    b_z = 1. Of the source's variants this is the one where z_j scales what the key
    channel j holds. One head of 96 with long keys drives every tanh to its ends.
    Cured: 8 heads of 32, k of length 1, q / sqrt(n), and for SG the gate SiLU(W_g x)
    of its own.

    Attributes:
      expansion: width of x over model width.
      heads: H; as published, 1.
      state_size: n, keys and values of a head; as published, 96.
      cured: false: k and q as projected, SG for the gate.
    """

    expansion: int = 2
    heads: int = 8
    state_size: int = 32
    cured: bool = True

    def recall(self, x_bte, s_bhkv, reset_bt):
        q, k, v = (self.project(x_bte, name) for name in ("query", "key", "value"))
        if self.cured:
            q, k = q * self.state_size**-0.5, l2_normalize(k)
        keep = jnp.tanh(self.project(x_bte, "keep", 1.0))
        o, s_bhkv = tanh_memory(q, k, v, keep, s_bhkv, reset_bt)
        if self.cured:
            return o * nn.silu(self.project(x_bte, "gate")), s_bhkv
        return self_gate(o), s_bhkv


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


def _spread_decays(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    """theta with exp(-softplus(theta)) from 1 - 2^-3 to 1 - 2^-9, even in the exponent.

    exp(-softplus(theta)) is sigmoid(-theta).
    """
    del key
    forgotten = 2.0 ** -np.linspace(3, 9, shape[0])
    return jnp.asarray(np.log(forgotten) - np.log1p(-forgotten), dtype)
