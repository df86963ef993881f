"""Time-invariant state-space models: S4, and its diagonal form S4D."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.state_space import (
    complex_row,
    eigenvalues,
    gated_output,
    half_size,
    log_time_step,
    read_out,
)
from jaxbench.ops.hippo import hippo_legs_nplr
from jaxbench.ops.lti import diagonal_ssm, dplr_ssm

SPECTRA = ("lin", "inv", "legs")


class SSMState(NamedTuple):
    """States of one conjugate half, complex64; N/2 for each channel."""

    x_bdn: jax.Array


class S4(Mixer):
    """A state-space model with HiPPO memory for each channel, then a GLU.

    Equations:
      x' = (Λ - P P*) x + B u,  y = 2 Re(C x) + D u   (bilinear rule; dt of a channel)
      output  (W_a GELU(y) + b_a) * sigmoid(W_b GELU(y) + b_b)

    Source: Gu et al. 2021, arXiv:2111.00396, section 3.3; the GLU is that of the
    authors' code.

    Differences:
      - The matrices of the state are not shared by the channels.
      - The convolution kernel is computed as an impulse response, not through a
        generating function.
      - The gated output is that of the authors' code.

    Attributes:
      state_size: N, even; N/2 complex states for each channel.
      dt_min: smallest initial time step.
      dt_max: largest initial time step.
    """

    state_size: int = 64
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; see `ops.lti.dplr_ssm` for the cost."""
        (x_bdn,) = state or (None,)
        # Theorem 1: HiPPO-LegS is normal plus low rank, Lambda - P P* in its basis.
        lambda_n, p_n, b_n, _ = hippo_legs_nplr(2 * half_size(self))
        y_btd, x_bdn = dplr_ssm(
            x_btd.astype(jnp.float32),
            log_time_step(self, (self.width,)),
            eigenvalues(self, lambda_n),
            complex_row(self, "ssm_p", p_n),
            complex_row(self, "ssm_b", b_n),
            read_out(self),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            x_bdn,
            reset_bt,
        )
        return gated_output(self, y_btd, approximate=False), SSMState(x_bdn)

    def state_shapes(self):
        return _state_shapes(self)


class S4D(Mixer):
    """S4 with a diagonal state matrix, then a GLU.

    Equations:
      x' = A x + u,  y = 2 Re(C x) + D u   (diagonal A, zero-order hold, dt a channel)
      output  (W_a GELU(y) + b_a) * sigmoid(W_b GELU(y) + b_b)

    Source: Gu et al. 2022, arXiv:2206.11893, section 4; the GLU is that of the authors'
    code.

    Differences:
      - A is not shared by the channels.
      - The gated output is that of the authors' code.

    Attributes:
      state_size: N, even; N/2 complex states for each channel.
      dt_min: smallest initial time step.
      dt_max: largest initial time step.
      spectrum: initial imaginary parts of A: "lin" pi n, "inv" N/pi (N/(2n+1) - 1),
        "legs" those of S4's normal part. Real parts start at -1/2.
    """

    state_size: int = 64
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    spectrum: str = "lin"

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; see `ops.lti.diagonal_ssm` for the cost."""
        (x_bdn,) = state or (None,)
        y_btd, x_bdn = diagonal_ssm(
            x_btd.astype(jnp.float32),
            log_time_step(self, (self.width,)),
            eigenvalues(self, _spectrum(self.spectrum, half_size(self))),
            # B is 1: with a diagonal A it would only scale C.
            jnp.ones((self.width, half_size(self)), jnp.complex64),
            read_out(self),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            x_bdn,
            reset_bt,
        )
        return gated_output(self, y_btd, approximate=False), SSMState(x_bdn)

    def state_shapes(self):
        return _state_shapes(self)


def _state_shapes(mixer: Mixer) -> SSMState:
    shape = (mixer.width, half_size(mixer))
    return SSMState(jax.ShapeDtypeStruct(shape, jnp.complex64))


def _spectrum(name: str, half: int) -> np.ndarray:
    """Initial eigenvalues: S4D-Lin, S4D-Inv or S4D-LegS."""
    n, size = np.arange(half), 2 * half
    if name == "lin":
        return -0.5 + 1j * np.pi * n
    if name == "inv":
        return -0.5 + 1j * size / np.pi * (size / (2 * n + 1) - 1)
    if name == "legs":
        return hippo_legs_nplr(size)[0]
    raise InputError(f"spectrum={name!r} is unknown; nearest: {nearest(name, SPECTRA)}")
