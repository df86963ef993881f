"""Time-invariant state-space models: S4, and its diagonal form S4D."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.inits import lecun, log_uniform
from jaxbench.layers.mixer import Mixer
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
        lambda_n, p_n, b_n, _ = hippo_legs_nplr(2 * _half(self.state_size))
        y_btd, x_bdn = dplr_ssm(
            x_btd.astype(jnp.float32),
            _log_dt(self, self.dt_min, self.dt_max),
            _eigenvalues(self, lambda_n),
            _complex_row(self, "ssm_p", p_n),
            _complex_row(self, "ssm_b", b_n),
            _read_out(self),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            None if state is None else state.x_bdn,
            reset_bt,
        )
        return _gated_output(self, y_btd), SSMState(x_bdn)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> SSMState:
        """Returns zeros."""
        return _zero_state(self, batch_size)


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
        shape = (self.width, _half(self.state_size))
        y_btd, x_bdn = diagonal_ssm(
            x_btd.astype(jnp.float32),
            _log_dt(self, self.dt_min, self.dt_max),
            _eigenvalues(self, _spectrum(self.spectrum, self.state_size)),
            jnp.ones(shape, jnp.complex64),
            _read_out(self),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            None if state is None else state.x_bdn,
            reset_bt,
        )
        return _gated_output(self, y_btd), SSMState(x_bdn)

    @nn.nowrap
    def initial_state(self, batch_size: int) -> SSMState:
        """Returns zeros."""
        return _zero_state(self, batch_size)


def _half(state_size: int) -> int:
    if state_size < 2 or state_size % 2:
        raise InputError(f"state_size={state_size} must be even and at least 2")
    return state_size // 2


def _spectrum(name: str, size: int) -> np.ndarray:
    n = np.arange(_half(size))
    if name == "lin":
        return -0.5 + 1j * np.pi * n
    if name == "inv":
        return -0.5 + 1j * size / np.pi * (size / (2 * n + 1) - 1)
    if name == "legs":
        return hippo_legs_nplr(size)[0]
    raise InputError(f"spectrum={name!r} is unknown; nearest: {nearest(name, SPECTRA)}")


def _row_param(module: nn.Module, name: str, value_n: np.ndarray) -> jax.Array:
    """A real [D, N/2] parameter that starts as the same row for every channel."""
    shape = (module.width, module.state_size // 2)
    return module.param(
        name, lambda _: jnp.broadcast_to(jnp.float32(value_n)[None], shape)
    )


def _complex_row(module: nn.Module, name: str, value_n: np.ndarray) -> jax.Array:
    """A complex [D, N/2] parameter as two real leaves."""
    return jax.lax.complex(
        _row_param(module, f"{name}_re", value_n.real),
        _row_param(module, f"{name}_im", value_n.imag),
    )


def _eigenvalues(module: nn.Module, lambda_n: np.ndarray) -> jax.Array:
    """Trained eigenvalues: real parts are -exp(p), so they stay negative."""
    log_decay = _row_param(module, "ssm_log_decay", np.log(-lambda_n.real))
    frequency = _row_param(module, "ssm_frequency", lambda_n.imag)
    return jax.lax.complex(-jnp.exp(log_decay), frequency)


def _read_out(module: nn.Module) -> jax.Array:
    """C, with parts of variance 1/2: |C| is 1 on average."""
    shape = (module.width, module.state_size // 2)
    init = nn.initializers.normal(math.sqrt(0.5))
    return jax.lax.complex(
        module.param("c_re", init, shape), module.param("c_im", init, shape)
    )


def _log_dt(module: nn.Module, low: float, high: float) -> jax.Array:
    """Logarithms of the time steps, kept where the bilinear map is of use."""
    log_dt_d = module.param("ssm_log_dt", log_uniform(low, high), (module.width,))
    return jnp.clip(log_dt_d, math.log(1e-4), 0.0)


def _gated_output(module: nn.Module, y_btd: jax.Array) -> jax.Array:
    y_btd = nn.gelu(y_btd.astype(module.dtype))
    out = nn.Dense(
        module.width,
        dtype=module.dtype,
        kernel_init=lecun(module.out_scale),
        name="out",
    )
    gate = nn.Dense(module.width, dtype=module.dtype, name="gate")
    return out(y_btd) * nn.sigmoid(gate(y_btd))


def _zero_state(module: nn.Module, batch_size: int) -> SSMState:
    shape = (batch_size, module.width, _half(module.state_size))
    return SSMState(jnp.zeros(shape, jnp.complex64))
