"""S5: one state-space model for all channels, diagonal, scanned."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.state_space import complex_parts, log_time_step
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.hippo import hippo_legs_nplr

ACTIVATIONS = ("half_glu1", "half_glu2")


class S5State(NamedTuple):
    """States of one conjugate half, complex64; N = P / 2."""

    x_bn: jax.Array


class S5(Mixer):
    """A state-space model from all channels to all channels, then a gate.

    Equations:
      x' = Λ x + B u,  y = 2 Re(C x) + D u   (diagonal Λ, zero-order hold, dt a state)
      output  GELU(y) * sigmoid(W GELU(y) + b), or with "half_glu2" y * sigmoid(same)

    Λ starts as `blocks` copies of the normal part of HiPPO-LegS. B and C start as a
    Gaussian matrix in the eigenbasis V of that part: the real and imaginary parts of V
    are sqrt(1/2) times an orthonormal basis, so the parts are drawn directly, each with
    half the variance. No projection follows the gate: `out_scale` is not read.

    Source: Smith et al. 2022, arXiv:2208.04933, sections 3.1 to 3.3.

    Differences:
      - Real parts of Λ are -exp(p), so they stay negative without clipping.
      - Time steps are kept within [1e-4, 1].

    Attributes:
      state_size: P; P / 2 complex states in all. A multiple of 2 * `blocks`.
      blocks: J, copies of the HiPPO spectrum, each of P / J states.
      dt_min: smallest initial time step.
      dt_max: largest initial time step.
      activation: "half_glu1" gates GELU(y), "half_glu2" y itself. The first is what the
        authors' code (lindermanlab/S5, bin/run_experiments) has by default, for the
        paper's experiments on images, Pathfinder, retrieval and speech; ListOps and
        text have the second.
    """

    state_size: int = 256
    blocks: int = 8
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    activation: str = "half_glu1"

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D P) work."""
        (x_bn,) = state or (None,)
        u_btd, half = x_btd.astype(jnp.float32), self._half()
        # x_t = exp(dt Λ) x_{t-1} + (exp(dt Λ) - 1) / Λ B u_t
        a_n, b_scale_n = self._discretized()
        part_init = nn.initializers.normal((2 * self.width) ** -0.5)
        b_dn2 = complex_parts(self, "ssm_b", part_init, (self.width, half), axis=1)
        re_btn, im_btn = jnp.split(u_btd @ b_dn2, 2, axis=-1)
        b_btn = b_scale_n[None, None] * jax.lax.complex(re_btn, im_btn)
        x_btn, x_bn = diagonal(
            jnp.broadcast_to(a_n[None, None], b_btn.shape),
            b_btn,
            x_bn,
            reset_bt,
        )
        part_init = nn.initializers.normal((2 * self.state_size) ** -0.5)
        c_n2d = complex_parts(self, "c", part_init, (half, self.width), axis=0)
        d_d = self.param("ssm_d", nn.initializers.normal(1.0), (self.width,))
        # Re(C x) = Re(C) Re(x) - Im(C) Im(x)
        x_btn2 = jnp.concatenate([x_btn.real, -x_btn.imag], axis=-1)
        y_btd = 2 * (x_btn2 @ c_n2d) + d_d[None, None] * u_btd
        y_btd = y_btd.astype(self.dtype)
        active_btd = nn.gelu(y_btd)
        gate_btd = nn.sigmoid(self.dense(self.width, "gate", bias=True)(active_btd))
        if self.activation == "half_glu1":
            y_btd = active_btd
        return y_btd * gate_btd, S5State(x_bn)

    def check(self):
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"activation={self.activation!r} is unknown; nearest: "
                f"{nearest(self.activation, ACTIVATIONS)}"
            )

    def _discretized(self) -> tuple[jax.Array, jax.Array]:
        """exp(dt Lambda) and (exp(dt Lambda) - 1) / Lambda, complex [N]."""
        poles, _, _, _ = hippo_legs_nplr(self.state_size // self.blocks)
        poles_n = np.tile(poles, self.blocks)
        log_decay_n = self.param(
            "ssm_log_decay", lambda _: jnp.float32(np.log(-poles_n.real))
        )
        frequency_n = self.param("ssm_frequency", lambda _: jnp.float32(poles_n.imag))
        lambda_n = jax.lax.complex(-jnp.exp(log_decay_n), frequency_n)
        z_n = jnp.exp(log_time_step(self, poles_n.shape)) * lambda_n
        return jnp.exp(z_n), jnp.expm1(z_n) / lambda_n

    def state_shapes(self):
        return S5State(jax.ShapeDtypeStruct((self._half(),), jnp.complex64))

    @nn.nowrap
    def _half(self) -> int:
        size, blocks = self.state_size, self.blocks
        if blocks < 1 or size < 2 or size % (2 * blocks):
            raise InputError(
                f"state_size={size} must be a positive multiple of twice "
                f"blocks={blocks}: each block has an even number of states"
            )
        return size // 2
