"""Mamba-3: trapezoidal inputs and data-dependent rotations in a scalar-decay state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_count, merge_heads, split_heads
from jaxbench.layers.inits import (
    fan_in_uniform,
    log_of_uniform,
    softplus_inverse_log_uniform,
)
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.rotary import turn
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.gated_linear import gated_linear_attention

FULL_TURN = 6.283185307179586
# Shares of the state that may be rotated.
FRACTIONS = (0.5, 1.0)


class Mamba3State(NamedTuple):
    """What Mamba-3 carries; float32."""

    s_bhnp: jax.Array  # what the frames before the last one wrote, decayed
    k_bhn: jax.Array  # rotated input vector of the last frame
    u_bhp: jax.Array  # input of the last frame times its share gamma
    v_bhp: jax.Array  # input of the last frame
    angle_bhr: jax.Array  # rotation since the episode started, in [0, 2 pi)


class Mamba3(Mixer):
    """A scalar-decay state with trapezoidal inputs and learned rotations.

    Equations:
      a = exp(-exp(A_log) dt), dt = softplus(W x + bias), l = sigmoid(W x)
      k, q = RMSNorm(B) + b, RMSNorm(C) + b', half turned by the sum of dt π tanh(W x)
      S_t = a_t (S_{t-1} + (1 - l_t) dt_t k_{t-1} v_{t-1}^T) + l_t dt_t k_t v_t^T
      y_t = S_t^T q_t + D v_t;  output  W_out (y * SiLU(z))

    The rotations make the state complex; each input is written twice, by the
    trapezoidal rule. There is no convolution.

    Source: Lahoti et al. 2026, arXiv:2603.15569; the bound π of the angles and the half
    that is rotated: state-spaces/mamba, mamba_ssm/modules/mamba3.py.

    Differences:
      - The form with a single input is implemented.
      - A does not depend on the input, as in Mamba-2.

    Attributes:
      state_size: N; the share that is rotated is even.
      expansion: inner width E over model width.
      heads: H; 0 is one head for 64 inner channels.
      rope_fraction: share of the state that is rotated, 0.5 or 1.
    """

    state_size: int = 64
    expansion: int = 2
    heads: int = 0
    rope_fraction: float = 0.5

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T E N) work."""
        inner, size = self.expansion * self.width, self.state_size
        heads, turned = head_count(inner, self.heads), self._turned()
        sizes = (inner, inner, size, size, heads, heads, turned // 2)
        # Kernels start as PyTorch's linear layers, which the authors' code keeps.
        dense = self.dense(sum(sizes), "project", init=fan_in_uniform())
        out = self.dense(self.width, "out", init=fan_in_uniform(self.out_scale))
        cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        z_bte, v, b, c, dt, mix, theta = jnp.split(dense(x_btd), cuts, axis=-1)
        if state is None:
            state = self.initial_state(x_btd.shape[0])
        v_bthp = split_heads(v, heads).astype(jnp.float32)
        dt_bth, log_decay = self._step_and_decay(dt, heads)
        gamma_bth = nn.sigmoid(mix.astype(jnp.float32)) * dt_bth
        angle, last_angle = _running_angle(dt_bth, theta, state.angle_bhr, reset_bt)
        k = self._turn(self._biased(b, "input", heads), angle)
        q = self._turn(self._biased(c, "read", heads), angle)
        own_bth = gamma_bth * jnp.einsum("bthn,bthn->bth", q, k)

        # The state before a frame's own write is P3 of the frame before: its write is
        # complete once this frame's half of the trapezoid is known.
        k_before = _before(k, state.k_bhn, reset_bt)
        v_before = _before(v_bthp, state.v_bhp, reset_bt)
        u_before = _before(gamma_bth[..., None] * v_bthp, state.u_bhp, reset_bt)
        write = u_before + (dt_bth - gamma_bth)[..., None] * v_before
        o, s_bhnp = gated_linear_attention(
            q,
            k_before,
            jnp.exp(log_decay)[..., None] * write,
            log_decay,
            state.s_bhnp,
            reset_bt,
        )
        d_h = self.param("ssm_d", nn.initializers.ones, (heads,))
        y_bthp = o + (own_bth + d_h[None, None])[..., None] * v_bthp
        y_btd = out(merge_heads(y_bthp).astype(self.dtype) * nn.silu(z_bte))
        u_bhp = gamma_bth[:, -1, :, None] * v_bthp[:, -1]
        return y_btd, Mamba3State(s_bhnp, k[:, -1], u_bhp, v_bthp[:, -1], last_angle)

    def _step_and_decay(self, dt_bth, heads: int) -> tuple[jax.Array, jax.Array]:
        """dt = softplus(W x + bias) and log a = -exp(A_log) dt."""
        init = softplus_inverse_log_uniform(1e-3, 1e-1)
        bias_h = self.param("ssm_dt_bias", init, (heads,))
        a_log_h = self.param("ssm_a_log", log_of_uniform(1, 16), (heads,))
        dt_bth = jax.nn.softplus(dt_bth.astype(jnp.float32) + bias_h[None, None])
        return dt_bth, -jnp.exp(a_log_h)[None, None] * dt_bth

    def _biased(self, x_btn: jax.Array, name: str, heads: int) -> jax.Array:
        """RMSNorm(x) plus a bias of each head, float32 [B, T, H, N]."""
        x_btn = norm("rms", jnp.float32, f"{name}_norm", epsilon=1e-5)(x_btn)
        shape = (heads, self.state_size)
        bias_hn = self.param(f"{name}_bias", nn.initializers.ones, shape)
        return x_btn[:, :, None] + bias_hn[None, None]

    def state_shapes(self):
        inner, size = self.expansion * self.width, self.state_size
        heads = head_count(inner, self.heads)
        head = inner // heads
        shapes = (size, head), (size,), (head,), (head,), (self._turned() // 2,)
        return Mamba3State(*((heads, *shape) for shape in shapes))

    @nn.nowrap
    def _turn(self, x_bthn: jax.Array, angle: jax.Array) -> jax.Array:
        """Rotates the first channels, and leaves the others as they are."""
        turned = self._turned()
        first = turn(x_bthn[..., :turned], angle)
        return jnp.concatenate([first, x_bthn[..., turned:]], axis=-1)

    @nn.nowrap
    def _turned(self) -> int:
        """Channels of the state that are rotated."""
        if self.rope_fraction not in FRACTIONS:
            raise InputError(
                f"rope_fraction={self.rope_fraction} must be one of {FRACTIONS}"
            )
        turned = self.rope_fraction * self.state_size
        if turned < 2 or turned % 2:
            raise InputError(
                f"state_size={self.state_size} times rope_fraction="
                f"{self.rope_fraction} must be even: channels are rotated in pairs"
            )
        return int(turned)


def _running_angle(dt_bth, theta_btn, start_bhn, reset_bt):
    """phi_t = phi_{t-1} + dt_t pi tanh(theta_t), 0 before an episode; the last one in
    a turn.
    """
    theta_btn = FULL_TURN / 2 * jnp.tanh(theta_btn.astype(jnp.float32))
    step = dt_bth[..., None] * theta_btn[:, :, None]
    angle, last = diagonal(jnp.ones_like(step), step, start_bhn, reset_bt)
    return angle, jnp.mod(last, FULL_TURN)


def _before(x_bthn, first_bhn, reset_bt) -> jax.Array:
    """x_{t-1}; zero where an episode starts."""
    shifted = jnp.concatenate([first_bhn[:, None], x_bthn[:, :-1]], axis=1)
    if reset_bt is None:
        return shifted
    return jnp.where(reset_bt[..., None, None], 0, shifted)
