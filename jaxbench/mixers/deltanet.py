"""The delta rule: DeltaNet, DeltaProduct, Gated DeltaNet, Kimi Delta Attention."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_width, merge_heads, split_heads
from jaxbench.layers.inits import lecun, log_of_uniform, softplus_inverse_log_uniform
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import l2_normalize, norm
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.delta_rule import delta_rule


class DeltaState(NamedTuple):
    """What the delta-rule mixers carry."""

    s_bhkv: jax.Array  # matrix state of each head, float32
    conv_q_bwe: jax.Array  # last inputs of the convolutions, float32
    conv_k_bwe: jax.Array  # last inputs of the convolutions, float32
    conv_v_bwe: jax.Array  # last inputs of the convolutions, float32


class DeltaNet(Mixer):
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

    heads: int = 4
    taps: int = 4
    negative: bool = False
    value_expansion: int = 1
    conv_bias: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        head_width(self.width, self.heads)
        values = self.value_expansion * self.width
        inputs = _Inputs(
            self.width, values, self.heads, self.dtype, self.taps, self.conv_bias
        )
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta_bth1 = _rate(x_btd, self.heads, self.dtype, self.negative)
        written = beta_bth1 * k
        o, s_bhkv = delta_rule(q, written, v, None, -k, written, s_bhkv, reset_bt)
        o_bte = merge_heads(norm("rms", self.dtype, "head_norm")(o))
        out = _out(self.width, self.dtype, self.out_scale)
        return out(o_bte), DeltaState(s_bhkv, *conv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DeltaState:
        """Returns zeros."""
        values = self.value_expansion * self.width
        return _initial_state(batch_size, self.width, values, self.heads, self.taps)


class DeltaProduct(Mixer):
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

    heads: int = 4
    taps: int = 4
    householders: int = 2
    negative: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(n T D^2 / H) work."""
        head_width(self.width, self.heads)
        many = self._updates()
        inputs = _Inputs(
            self.width, self.width, self.heads, self.dtype, self.taps, updates=many
        )
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta_bth1 = _rate(x_btd, many * self.heads, self.dtype, self.negative)
        batch, length = x_btd.shape[:2]

        def in_turn(x_btge: jax.Array) -> jax.Array:
            return x_btge.reshape(batch, many * length, self.heads, -1)

        k, v, beta = in_turn(k), in_turn(v), in_turn(beta_bth1)
        if reset_bt is not None:
            first = (jnp.arange(many) == 0)[None, None]
            reset_bt = (reset_bt[:, :, None] & first).reshape(batch, many * length)
        q, written = jnp.repeat(q, many, axis=1), beta * k
        o, s_bhkv = delta_rule(q, written, v, None, -k, written, s_bhkv, reset_bt)
        o_bte = merge_heads(
            norm("rms", self.dtype, "head_norm")(o[:, many - 1 :: many])
        )
        out = _out(self.width, self.dtype, self.out_scale)
        return out(o_bte), DeltaState(s_bhkv, *conv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DeltaState:
        """Returns zeros."""
        return _initial_state(
            batch_size, self.width, self.width, self.heads, self.taps, self._updates()
        )

    @nn.nowrap
    def _updates(self) -> int:
        if self.householders < 1:
            raise InputError(f"householders={self.householders} must be at least 1")
        return self.householders


class GatedDeltaNet(Mixer):
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

    heads: int = 4
    taps: int = 4
    value_expansion: int = 2
    conv_bias: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        head_width(self.width, self.heads)
        values = self.value_expansion * self.width
        inputs = _Inputs(
            self.width, values, self.heads, self.dtype, self.taps, self.conv_bias
        )
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta_bth1 = _rate(x_btd, self.heads, self.dtype)
        dt = self.dense(self.heads, "decay")(x_btd)
        bias_h = self.param(
            "ssm_dt_bias", softplus_inverse_log_uniform(1e-3, 1e-1), (self.heads,)
        )
        a_log_h = self.param("ssm_a_log", log_of_uniform(1, 16), (self.heads,))
        dt = jax.nn.softplus(dt.astype(jnp.float32) + bias_h[None, None])
        g = -jnp.exp(a_log_h)[None, None] * dt
        read = -jnp.exp(g)[..., None] * k
        o, s_bhkv = delta_rule(
            q, beta_bth1 * k, v, g, read, beta_bth1 * k, s_bhkv, reset_bt
        )
        gate = self.dense(values, "gate")(x_btd)
        o_bte = merge_heads(norm("rms", self.dtype, "head_norm")(o))
        out = _out(self.width, self.dtype, self.out_scale)
        return out(o_bte * nn.silu(gate)), DeltaState(s_bhkv, *conv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DeltaState:
        """Returns zeros."""
        values = self.value_expansion * self.width
        return _initial_state(batch_size, self.width, values, self.heads, self.taps)


class KimiDeltaAttention(Mixer):
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

    heads: int = 4
    taps: int = 4

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        head = head_width(self.width, self.heads)
        inputs = _Inputs(self.width, self.width, self.heads, self.dtype, self.taps)
        q, k, v, s_bhkv, conv = inputs(x_btd, state, reset_bt)
        beta_bth1 = _rate(x_btd, self.heads, self.dtype)

        def low_rank(name: str, use_bias: bool) -> jax.Array:
            down = self.dense(head, f"{name}_down")
            up = nn.Dense(
                self.width, use_bias=use_bias, dtype=self.dtype, name=f"{name}_up"
            )
            return up(down(x_btd))

        bias_d = self.param(
            "ssm_dt_bias", softplus_inverse_log_uniform(1e-3, 1e-1), (self.width,)
        )
        a_log_h = self.param("ssm_a_log", log_of_uniform(1, 16), (self.heads,))
        dt = low_rank("decay", False).astype(jnp.float32) + bias_d[None, None]
        dt = split_heads(jax.nn.softplus(dt), self.heads)
        g = -jnp.exp(a_log_h)[None, None, :, None] * dt
        o, s_bhkv = delta_rule(
            q, beta_bth1 * k, v, g, -jnp.exp(g) * k, beta_bth1 * k, s_bhkv, reset_bt
        )
        o_btd = merge_heads(norm("rms", self.dtype, "head_norm")(o))
        out = _out(self.width, self.dtype, self.out_scale)
        y_btd = out(o_btd * nn.sigmoid(low_rank("gate", True)))
        return y_btd, DeltaState(s_bhkv, *conv)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> DeltaState:
        """Returns zeros."""
        return _initial_state(batch_size, self.width, self.width, self.heads, self.taps)


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
    def __call__(
        self, x_btd: jax.Array, state: DeltaState | None, reset_bt: jax.Array | None
    ) -> tuple:
        s_bhkv, *before = (None,) * 4 if state is None else state
        sizes = {"query": (self.keys, 1)}
        sizes |= {
            "key": (self.keys, self.updates),
            "value": (self.values, self.updates),
        }
        made, after = [], []
        for (name, (size, many)), conv_bwe in zip(sizes.items(), before, strict=True):
            size *= many
            dense = nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)
            conv = ShortConvolution(
                size, self.dtype, self.taps, self.bias, name=f"{name}_conv"
            )
            x_bte, conv_bwe = conv(dense(x_btd), conv_bwe, reset_bt)
            x_bthk = split_heads(nn.silu(x_bte), many * self.heads)
            x_bthk = x_bthk.astype(jnp.float32)
            made.append(x_bthk)
            after.append(conv_bwe)
        q, k, v = made
        q = l2_normalize(q) * q.shape[-1] ** -0.5
        return q, l2_normalize(k), v, s_bhkv, tuple(after)


def _rate(
    x_btd: jax.Array, heads: int, dtype: Any, negative: bool = False
) -> jax.Array:
    """beta, float32 [B, T, H, 1]: how much of what a key holds is replaced."""
    logit = nn.Dense(heads, use_bias=False, dtype=dtype, name="beta")(x_btd)
    beta_bth = nn.sigmoid(logit.astype(jnp.float32))
    return (2 * beta_bth if negative else beta_bth)[..., None]


def _out(width: int, dtype: Any, scale: float) -> nn.Dense:
    return nn.Dense(
        width, use_bias=False, dtype=dtype, kernel_init=lecun(scale), name="out"
    )


def _initial_state(
    batch_size: int, keys: int, values: int, heads: int, taps: int, updates: int = 1
) -> DeltaState:
    head_width(keys, heads)

    def conv(size: int) -> jax.Array:
        return jnp.zeros((batch_size, taps - 1, size), jnp.float32)

    shape = (batch_size, heads, keys // heads, values // heads)
    return DeltaState(
        jnp.zeros(shape, jnp.float32),
        conv(keys),
        conv(updates * keys),
        conv(updates * values),
    )
