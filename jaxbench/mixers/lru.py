"""The linear recurrent unit: a complex diagonal recurrence, trained as it is."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import Initializer
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.state_space import complex_parts, gated_output
from jaxbench.ops.diagonal import diagonal


class LRUState(NamedTuple):
    """State of the recurrence, complex64."""

    h_bn: jax.Array


class LRU(Mixer):
    """A linear recurrence with eigenvalues in a ring, then a GLU.

    Equations:
      λ = exp(-exp(ν) + i exp(θ))
      h_t = λ h_{t-1} + exp(γ) B x_t;  y_t = Re(C h_t) + D x_t
      output  (W_a GELU(y) + b_a) * sigmoid(W_b GELU(y) + b_b)

    |λ|² starts uniform between the squares of the radii, the phase uniform below
    `phase_max`, and exp(γ) as sqrt(1 - |λ|²), which keeps the state at the size of the
    input.

    Source: Orvieto et al. 2023, arXiv:2303.06349, section 3 and appendix A.

    Differences:
      - A GELU stands before the gated output, as in S4.

    Attributes:
      state_size: N, complex states.
      radius_min: smallest initial |lambda|.
      radius_max: largest initial |lambda|.
      phase_max: largest initial phase, radians a frame.
    """

    state_size: int = 256
    radius_min: float = 0.9
    radius_max: float = 0.999
    phase_max: float = 2 * math.pi

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D N) work."""
        (h_bn,) = state or (None,)
        x_float = x_btd.astype(jnp.float32)
        # h_t = λ h_{t-1} + exp(γ) B x_t
        lambda_n, scale_n = self._eigenvalues()
        part_init = nn.initializers.normal((2 * self.width) ** -0.5)
        shape = (self.width, self.state_size)
        b_dn2 = complex_parts(self, "ssm_b", part_init, shape, axis=1)
        re_btn, im_btn = jnp.split(x_float @ b_dn2, 2, axis=-1)
        b_btn = scale_n[None, None] * jax.lax.complex(re_btn, im_btn)
        h_btn, h_bn = diagonal(
            jnp.broadcast_to(lambda_n[None, None], b_btn.shape),
            b_btn,
            h_bn,
            reset_bt,
        )
        part_init = nn.initializers.normal(self.state_size**-0.5)
        c_n2d = complex_parts(self, "c", part_init, shape[::-1], axis=0)
        d_d = self.param("ssm_d", nn.initializers.normal(1.0), (self.width,))
        # Re(C h) = Re(C) Re(h) - Im(C) Im(h)
        h_btn2 = jnp.concatenate([h_btn.real, -h_btn.imag], axis=-1)
        y_btd = h_btn2 @ c_n2d + d_d[None, None] * x_float
        return gated_output(self, y_btd), LRUState(h_bn)

    def _eigenvalues(self) -> tuple[jax.Array, jax.Array]:
        """Lambda, complex, and the scale of the input, real."""
        low, high = self.radius_min, self.radius_max
        if not 0 <= low < high < 1:
            raise InputError(
                f"radius_min={low} and radius_max={high} must satisfy "
                f"0 <= radius_min < radius_max < 1"
            )
        if self.phase_max <= 0:
            raise InputError(f"phase_max={self.phase_max} must be above 0")
        shape = (self.state_size,)
        nu_n = self.param("ssm_nu", _log_decay(low, high), shape)
        theta_n = self.param("ssm_theta", _log_phase(self.phase_max), shape)
        decay_n, phase_n = jnp.exp(nu_n), jnp.exp(theta_n)
        gamma_n = self.param(
            "ssm_gamma", lambda _: 0.5 * jnp.log(-jnp.expm1(-2 * decay_n))
        )
        return jnp.exp(jax.lax.complex(-decay_n, phase_n)), jnp.exp(gamma_n)

    def state_shapes(self):
        return LRUState(jax.ShapeDtypeStruct((self.state_size,), jnp.complex64))


def _log_decay(low: float, high: float) -> Initializer:
    """nu with exp(-exp(nu))^2 uniform on [low^2, high^2]: uniform on the ring."""

    def init(key, shape, dtype=jnp.float32):
        # 1 - u instead of u keeps 0 out of the logarithm.
        share = 1 - jax.random.uniform(key, shape, dtype)
        return jnp.log(-0.5 * jnp.log(share * (high**2 - low**2) + low**2))

    return init


def _log_phase(high: float) -> Initializer:
    """theta with exp(theta) uniform on (0, high]."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.log(high * (1 - jax.random.uniform(key, shape, dtype)))

    return init
