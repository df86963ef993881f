"""The delta rule: DeltaNet, DeltaProduct, Gated DeltaNet, Kimi Delta Attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import head_width, merge_heads, split_heads
from jaxbench.layers.inits import log_of_uniform, softplus_inverse_log_uniform
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import l2_normalize, norm
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.delta_rule import delta_rule


class DeltaState(NamedTuple):
    """What the delta-rule mixers carry, float32."""

    s_bhkv: jax.Array  # matrix state of each head
    conv_q_bwe: jax.Array  # last inputs of the convolutions
    conv_k_bwe: jax.Array
    conv_v_bwe: jax.Array


class _Delta(Mixer):
    """What the delta rules have in common."""

    heads: int = 4
    taps: int = 4

    def check(self):
        head_width(self.width, self.heads)

    def state_shapes(self):
        return self._shapes(self.width)

    @nn.nowrap
    def _shapes(self, values: int, updates: int = 1) -> DeltaState:
        keys, heads = self.width, self.heads
        sizes = (keys, updates * keys, updates * values)
        convs = [(self.taps - 1, size) for size in sizes]
        return DeltaState((heads, keys // heads, values // heads), *convs)

    @nn.nowrap
    def _inputs(self, values: int, bias: bool = True, updates: int = 1) -> _Inputs:
        return _Inputs(
            self.width, values, self.heads, self.dtype, self.taps, bias, updates
        )

    def _rate(self, x_btd: jax.Array, heads: int) -> jax.Array:
        """β, float32 [B, T, H, 1]: how much of what a key holds is replaced."""
        logit = self.dense(heads, "beta")(x_btd)
        return nn.sigmoid(logit.astype(jnp.float32))[..., None]

    def _time_step(
        self, x_btd: jax.Array, heads: int, lowest: float
    ) -> tuple[jax.Array, jax.Array]:
        """softplus(x + dt_bias), float32, and A_log of each head.

        A is uniform on [lowest, 16] at the start.
        """
        bias_init = softplus_inverse_log_uniform(1e-3, 1e-1)
        bias_h = self.param("ssm_dt_bias", bias_init, (heads,))
        a_log_h = self.param("ssm_a_log", log_of_uniform(lowest, 16), (self.heads,))
        return nn.softplus(x_btd.astype(jnp.float32) + bias_h[None, None]), a_log_h

    def _normed(self, o_bthv: jax.Array) -> jax.Array:
        return merge_heads(norm("rms", self.dtype, "head_norm", epsilon=1e-5)(o_bthv))


class DeltaNet(_Delta):
    """A matrix state in which each write replaces what its key held.

    Equations:
      q, k, v = SiLU(conv(W x)), |q| = 1 / sqrt(K), |k| = 1
      β = sigmoid(W x) for each head
      S_t = (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T;  o_t = S_t^T q_t
      output  W_out RMSNorm_head(o)

    Source: Yang et al. 2024, arXiv:2406.06484, eq. 4 and section 4; Schlag et al. 2021,
    arXiv:2102.11174.

    Attributes:
      heads: H.
      taps: length of the short convolutions.
      negative: beta in (0, 2) instead of (0, 1): eigenvalues down to -1, which a state
        that must swap or count needs (Grazzi et al. 2024, arXiv:2411.12537).
      value_expansion: value width over model width; keys are as wide as the model.
      conv_bias: whether the short convolutions have biases; the authors' code has none.
    """

    negative: bool = False
    value_expansion: int = 1
    conv_bias: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        inputs = self._inputs(self.value_expansion * self.width, self.conv_bias)
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta = self._rate(x_btd, self.heads)
        beta = 2 * beta if self.negative else beta
        # S_t = S_{t-1} + β_t k_t (v_t - S_{t-1}^T k_t)^T
        written = beta * k
        o, s_bhkv = delta_rule(q, written, v, None, -k, None, s_bhkv, reset_bt)
        return self.dense_out()(self._normed(o)), DeltaState(s_bhkv, *conv)

    def state_shapes(self):
        return self._shapes(self.value_expansion * self.width)


class DeltaProduct(_Delta):
    """DeltaNet with n delta-rule updates a frame; the query reads after the last.

    Equations:
      q, k_j, v_j, β_j as in DeltaNet, but β_j = 2 sigmoid(W x);  j = 1 .. n
      S <- (I - β_j k_j k_j^T) S + β_j k_j v_j^T for each j;  o_t = S^T q_t
      output  W_out RMSNorm_head(o)

    With β up to 2 a frame can turn the state by a product of n reflections: two make
    any rotation of a plane, which a single update cannot. Runs as `DeltaNet` on n T
    frames.

    Source: Siems et al. 2025, arXiv:2502.10297, eq. 4.

    Attributes:
      heads: H.
      taps: length of the short convolutions.
      householders: n, updates a frame.
      negative: beta in (0, 2), eigenvalues down to -1, instead of (0, 1).
    """

    householders: int = 2
    negative: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(n T D^2 / H) work."""
        many, (batch, length, _) = self.householders, x_btd.shape
        inputs = self._inputs(self.width, updates=many)
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta = self._rate(x_btd, many * self.heads)
        beta = 2 * beta if self.negative else beta

        def in_turn(x_btge: jax.Array) -> jax.Array:
            return x_btge.reshape(batch, many * length, self.heads, -1)

        k, v, beta = in_turn(k), in_turn(v), in_turn(beta)
        if reset_bt is not None:
            first = (jnp.arange(many) == 0)[None, None]
            reset_bt = (reset_bt[:, :, None] & first).reshape(batch, many * length)
        q, written = jnp.repeat(q, many, axis=1), beta * k
        o, s_bhkv = delta_rule(q, written, v, None, -k, None, s_bhkv, reset_bt)
        o_btd = self._normed(o[:, many - 1 :: many])
        return self.dense_out()(o_btd), DeltaState(s_bhkv, *conv)

    def check(self):
        super().check()
        self.at_least(1, "householders")

    def state_shapes(self):
        return self._shapes(self.width, self.householders)


class GatedDeltaNet(_Delta):
    """The delta rule with a decay for each head and an output gate.

    Equations:
      q, k, v, β as in DeltaNet;  g = -exp(A_log) softplus(W_a x + dt_bias) a head
      S_t = e^{g_t} (I - β_t k_t k_t^T) S_{t-1} + β_t k_t v_t^T;  o_t = S_t^T q_t
      output  W_out (RMSNorm_head(o) * SiLU(W_gate x))

    Source: Yang et al. 2024, arXiv:2412.06464, eq. 10 and section 3.4.

    Attributes:
      heads: H.
      taps: length of the short convolutions.
      value_expansion: value width over model width; keys are as wide as the model.
      conv_bias: whether the short convolutions have biases; the authors' code has none.
    """

    value_expansion: int = 2
    conv_bias: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        values = self.value_expansion * self.width
        inputs = self._inputs(values, self.conv_bias)
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta = self._rate(x_btd, self.heads)
        logit = self.dense(self.heads, "decay")(x_btd)
        dt, a_log_h = self._time_step(logit, self.heads, 0)
        g = -jnp.exp(a_log_h)[None, None] * dt
        # S_t = e^g S_{t-1} + β_t k_t (v_t - e^g S_{t-1}^T k_t)^T
        read = -jnp.exp(g)[..., None] * k
        o, s_bhkv = delta_rule(q, beta * k, v, g, read, None, s_bhkv, reset_bt)
        gate = self.dense(values, "gate")(x_btd)
        y_btd = self.dense_out()(self._normed(o) * nn.silu(gate))
        return y_btd, DeltaState(s_bhkv, *conv)

    def state_shapes(self):
        return self._shapes(self.value_expansion * self.width)


class KimiDeltaAttention(_Delta):
    """The gated delta rule with a decay for every key channel.

    Equations:
      g = -exp(A_log) softplus(W_2 W_1 x + dt_bias) a key channel;  q, k, v, β: DeltaNet
      S_t = (I - β_t k_t k_t^T) Diag(e^{g_t}) S_{t-1} + β_t k_t v_t^T;  o_t = S_t^T q_t
      output  W_out (RMSNorm_head(o) * sigmoid(W_2' W_1' x + b))

    The projections of decay and output gate have the rank of a head.

    Source: Kimi Team 2025, arXiv:2510.26692, eq. 1 and section 4.

    Attributes:
      heads: H.
      taps: length of the short convolutions.
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        q, k, v, s_bhkv, conv = self._inputs(self.width)(x_btd, state, reset_bt)
        beta = self._rate(x_btd, self.heads)

        def low_rank(name: str, bias: bool) -> jax.Array:
            down = self.dense(self.width // self.heads, f"{name}_down")
            return self.dense(self.width, f"{name}_up", bias=bias)(down(x_btd))

        dt, a_log_h = self._time_step(low_rank("decay", False), self.width, 1)
        g = -jnp.exp(a_log_h)[None, None, :, None] * split_heads(dt, self.heads)
        # S_t = S' + β_t k_t (v_t - S'^T k_t)^T with S' = Diag(e^g) S_{t-1}
        read = -jnp.exp(g) * k
        o, s_bhkv = delta_rule(q, beta * k, v, g, read, None, s_bhkv, reset_bt)
        y_btd = self._normed(o) * nn.sigmoid(low_rank("gate", True))
        return self.dense_out()(y_btd), DeltaState(s_bhkv, *conv)


class _Inputs(nn.Module):
    """Queries, keys and values: projected, convolved, SiLU; q and k of length 1.

    With several updates a frame, keys and values have that many times the heads.
    """

    keys: int
    values: int
    heads: int
    dtype: Any
    taps: int
    bias: bool = True
    updates: int = 1

    @nn.compact
    def __call__(self, x_btd, state, reset_bt):
        s_bhkv, *before = state or (None,) * 4
        many = self.updates
        sizes = {"query": (self.keys, 1), "key": (self.keys, many)}
        sizes["value"] = (self.values, many)
        made, after = [], []
        for (name, (size, many)), conv_bwe in zip(sizes.items(), before, strict=True):
            size *= many
            dense = nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)
            conv = ShortConvolution(
                size, self.dtype, self.taps, self.bias, name=f"{name}_conv"
            )
            x_bte, conv_bwe = conv(dense(x_btd), conv_bwe, reset_bt)
            x_bthk = split_heads(nn.silu(x_bte), many * self.heads)
            made.append(x_bthk.astype(jnp.float32))
            after.append(conv_bwe)
        q, k, v = made
        q = l2_normalize(q) * q.shape[-1] ** -0.5
        return q, l2_normalize(k), v, s_bhkv, tuple(after)
