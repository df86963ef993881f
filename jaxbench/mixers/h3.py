"""H3: two time-invariant state spaces and two products, a linear attention of SSMs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.state_space import (
    eigenvalues,
    half_size,
    log_time_step,
    read_out,
)
from jaxbench.ops.convolution import short_convolution
from jaxbench.ops.lti import diagonal_ssm


class H3State(NamedTuple):
    """What H3 carries."""

    x_bdn: jax.Array  # states of one conjugate half of the diagonal SSM, complex64
    shift_bwd: jax.Array  # the last keys, oldest first, float32


class H3(Mixer):
    """Two state spaces and two products, in the places of attention.

    Equations:
      q, k, v = W x;  khat_t = Σ_l c_l k_{t-l} + d_1 k_t,  l < taps
      x' = A x + khat v,  z = 2 Re(C x) + d_2 khat v    (A diagonal; zero-order hold)
      output  W_o RMSNorm(q * z)

    Source: Fu et al. 2022, arXiv:2212.14052, section 3.1 and algorithm 1, heads of
    width 1.

    Differences:
      - An RMSNorm stands before the output projection, because what enters it is a
        product of three projections.
      - d_1 is a part of c_0, which multiplies the same k_t.
      - The shift spans 8 frames, not 64.
      - There are no biases.

    Attributes:
      state_size: N of the diagonal state space, even; N/2 complex states a channel.
      taps: states of the shift: frames of k that khat sees.
      dt_min: smallest initial time step.
      dt_max: largest initial time step.
    """

    state_size: int = 64
    taps: int = 8
    dt_min: float = 1e-3
    dt_max: float = 1e-1

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; see `ops.lti.diagonal_ssm` for the cost."""
        x_bdn, shift_bwd = state or (None, None)
        qkv_bte = self.dense(3 * self.width, "qkv")(x_btd).astype(jnp.float32)
        q_btd, k_btd, v_btd = jnp.split(qkv_bte, 3, axis=-1)
        # The shift SSM is a filter over the last keys.
        shift_wd = self.param("shift", _shift_init, (self.taps, self.width))
        k_btd, shift_bwd = short_convolution(k_btd, shift_wd, None, shift_bwd, reset_bt)
        # S4D-Lin; B is 1: with a diagonal A it would only scale C.
        half = half_size(self)
        lambda_n = -0.5 + 1j * np.pi * np.arange(half)
        z_btd, x_bdn = diagonal_ssm(
            k_btd * v_btd,
            log_time_step(self, (self.width,)),
            eigenvalues(self, lambda_n),
            jnp.ones((self.width, half), jnp.complex64),
            read_out(self),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            x_bdn,
            reset_bt,
        )
        o_btd = norm("rms", self.dtype, name="norm")(q_btd * z_btd)
        return self.dense_out()(o_btd), H3State(x_bdn, shift_bwd)

    def check(self):
        half_size(self)
        self.at_least(1, "taps")
        if not 0 < self.dt_min <= self.dt_max:
            raise InputError(
                f"dt_min={self.dt_min} and dt_max={self.dt_max} are no range of time "
                f"steps; choose 0 < dt_min <= dt_max"
            )

    def state_shapes(self):
        return H3State(
            jax.ShapeDtypeStruct((self.width, half_size(self)), jnp.complex64),
            (self.taps - 1, self.width),
        )


def _shift_init(
    key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> jax.Array:
    """c ~ N(0, 1 / taps) plus d_1 ~ N(0, 1) at the current frame, the last tap."""
    key_c, key_d = jax.random.split(key)
    c_wd = jax.random.normal(key_c, shape, dtype) * shape[0] ** -0.5
    return c_wd.at[-1].add(jax.random.normal(key_d, shape[1:], dtype))
