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

from jaxbench.layers.inits import log_of_uniform, softplus_inverse_log_uniform
from jaxbench.layers.ladder import self_gate, xavier
from jaxbench.layers.matrix_memory import MatrixMemory, MatrixState
from jaxbench.layers.norms import l2_normalize
from jaxbench.ops.matrix_cell import matrix_rnn, tanh_delta


class DeltaMemory(MatrixMemory):
    """A delta rule under a tanh, with a gate that forgets (E75) or without (E74).

    x = W_in u;  k, v, q = W x, k of length 1;  b = 1 (E74), or sigmoid(W_b x + b_b),
    b_b = 2 at the start (E75).

    With one head 96 % of the weights are W_in and the output is n numbers wide: more
    heads, not a larger n, are the remedy. The source trains with gradients that grow
    with the length of q and starts W_in and W_out normal with deviation 0.02, whatever
    the width. Cured: q of length 1, W_in Xavier-uniform, W_out as in the other mixers
    here. Gates and state are float32 in both forms (bfloat16 in the source).

    Attributes:
      expansion: width of x over model width.
      heads: H, independent memories.
      state_size: n, keys and values of a head.
      forget: the gate b of E75.
      cured: false: q as projected, W_in and W_out normal with deviation 0.02.
    """

    expansion: int = 2
    heads: int = 1
    state_size: int = 32
    forget: bool = False
    cured: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2) work, T steps one by one."""
        (s_bhkv,) = state or (None,)
        normal = nn.initializers.normal
        init = xavier() if self.cured else normal(0.02)
        x_bte = self.dense(self.expansion * self.width, "inner", init=init)(x_btd)
        q, k, v = (self.project(x_bte, name) for name in ("query", "key", "value"))
        q = l2_normalize(q) if self.cured else q
        decay = None
        if self.forget:
            decay = nn.sigmoid(self.project(x_bte, "forget", 2.0))
        o, s_bhkv = tanh_delta(q, l2_normalize(k), v, decay, s_bhkv, reset_bt)
        init = None if self.cured else normal(0.02 * self.out_scale)
        return self.output(self_gate(o), init), MatrixState(s_bhkv)


class E88(MatrixMemory):
    """A delta rule under a tanh in many small heads, each with a decay.

    Equations:
      q, k, v = SiLU(W u), |q| = |k| = 1
      a = exp(-exp(A_log) softplus(W_a u + dt_bias)) for each head
      S_t = tanh(a S_{t-1} + k (v - S_{t-1}^T k)^T);  y = S_t^T q
      output  W_out y, D / 16 heads;  with a gate W_out (y * SiLU(W_g u))

    exp(A_log) is uniform on (0.001, 16) at the start (on (0, 16) in the source). There
    is no convolution, and no norm of y, which made the source's losses worse.

    Attributes:
      heads: H; 0 is as many as make H n the model width, at least one.
      state_size: n, keys and values of a head; 16 or 32 in the source.
      gate: multiply by SiLU(W_g u) before the output projection.
    """

    heads: int = 0
    state_size: int = 16
    gate: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D (D + n)) work, T steps one by one."""
        (s_bhkv,) = state or (None,)
        heads = _heads(self, self.state_size)

        def project(name: str) -> jax.Array:
            return nn.silu(self.project(x_btd, name, heads=heads))

        q, k, v = l2_normalize(project("query")), project("key"), project("value")
        decay = _Decay(heads, 1e-3, self.dtype, name="decay")(x_btd)
        y, s_bhkv = tanh_delta(
            q, l2_normalize(k), v, decay[..., None], s_bhkv, reset_bt
        )
        y = y * project("gate") if self.gate else y
        return self.output(y), MatrixState(s_bhkv)

    def state_shapes(self):
        size = self.state_size
        return self.memory(_heads(self, size), size, size)


class M2RNN(MatrixMemory):
    """A recurrent network whose state is a matrix for each head.

    Equations:
      q, k = W u for all heads, q / sqrt(K);  v = W u for each
      f = exp(-exp(A_log) softplus(W_f u + dt_bias)) for each head
      S_t = f S_{t-1} + (1 - f) tanh(S_{t-1} W + k v^T);  y = S_t^T q + D v
      output  W_out (y * SiLU(W_g u))

    One pair of K numbers q, k for all heads; D a number for each head; exp(A_log)
    uniform on (1, 16) and W [V, V] of each head the identity at the start. Source:
    Mishra et al. 2026, arXiv:2603.14360. Difference: the factor 1 / sqrt(K), because K
    products of size 1 are summed.

    Attributes:
      heads: H; 0 is as many as make H V the model width, at least one.
      key_size: K, of the one pair of queries and keys.
      value_size: V, values of a head.
    """

    heads: int = 0
    key_size: int = 64
    value_size: int = 16

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D (D + K V)) work, T steps one by one."""
        (s_bhkv,) = state or (None,)
        heads, size = _heads(self, self.value_size), self.value_size

        def shared(name: str) -> jax.Array:
            return self.project(x_btd, name, heads=1, size=self.key_size)[:, :, 0]

        q_btk, k_btk = shared("query") * self.key_size**-0.5, shared("key")
        v_bthv = self.project(x_btd, "value", heads=heads, size=size)
        forget_bth = _Decay(heads, 1, self.dtype, name="decay")(x_btd)
        w_hvv = self.param("recurrent", _identities, (heads, size, size))
        skip_h = self.param("skip", nn.initializers.ones, (heads,))
        y, s_bhkv = matrix_rnn(
            q_btk, k_btk, v_bthv, forget_bth, w_hvv, s_bhkv, reset_bt
        )
        y = y + skip_h[None, None, :, None] * v_bthv
        y = y * nn.silu(self.project(x_btd, "gate", heads=heads, size=size))
        return self.output(y), MatrixState(s_bhkv)

    def state_shapes(self):
        heads = _heads(self, self.value_size)
        return self.memory(heads, self.key_size, self.value_size)


def _heads(mixer: MatrixMemory, size: int) -> int:
    return mixer.heads or max(mixer.width // max(size, 1), 1)


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


def _identities(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """The identity matrix of each head."""
    del key
    return jnp.broadcast_to(jnp.eye(shape[-1], dtype=dtype)[None], shape)
