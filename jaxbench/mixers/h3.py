"""H3: two time-invariant state spaces and two products, a linear attention of SSMs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import log_uniform
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.ops.convolution import short_convolution
from jaxbench.ops.lti import diagonal_ssm


class H3State(NamedTuple):
    """What H3 carries.""""""

    # N of the diagonal state space, even; N/2 complex states a channel.
    state_size: int = 64
    taps: int = 8  # states of the shift: frames of k that khat sees
    dt_min: float = 1e-3  # smallest initial time step
    dt_max: float = 1e-1  # largest initial time step

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; see `ops.lti.diagonal_ssm` for the cost."""
        self._check()
        qkv = self.dense(3 * self.width, "qkv")
        qkv_bte = qkv(x_btd).astype(jnp.float32)
        q_btd, k_btd, v_btd = jnp.split(qkv_bte, 3, axis=-1)
        x_bdn, shift_bwd = (None, None) if state is None else state
        shift_wd = self.param("shift", _shift_init, (self.taps, self.width))
        k_btd, shift_bwd = short_convolution(k_btd, shift_wd, None, shift_bwd, reset_bt)
        shape = (self.width, self.state_size // 2)
        z_btd, x_bdn = diagonal_ssm(
            k_btd * v_btd,
            self._log_dt(),
            self._eigenvalues(),
            jnp.ones(shape, jnp.complex64),
            self._read_out(),
            self.param("ssm_d", nn.initializers.normal(1.0), (self.width,)),
            x_bdn,
            reset_bt,
        )
        o_btd = norm("rms", self.dtype, name="norm")(q_btd * z_btd)
        out = self.dense_out()
        return out(o_btd), H3State(x_bdn, shift_bwd)

    def _log_dt(self) -> jax.Array:
        init = log_uniform(self.dt_min, self.dt_max)
        log_dt_d = self.param("ssm_log_dt", init, (self.width,))
        return jnp.clip(log_dt_d, math.log(1e-4), 0.0)

    def _eigenvalues(self) -> jax.Array:
        """S4D-Lin, -1/2 + i pi n; real parts are -exp(p), so they stay negative."""
        shape = (self.width, self.state_size // 2)
        frequency_n = jnp.float32(np.pi * np.arange(shape[1]))
        log_decay = self.param(
            "ssm_log_decay", nn.initializers.constant(math.log(0.5)), shape
        )
        frequency = self.param(
            "ssm_frequency", lambda _: jnp.broadcast_to(frequency_n[None], shape)
        )
        return jax.lax.complex(-jnp.exp(log_decay), frequency)

    def _read_out(self) -> jax.Array:
        """C, with parts of variance 1/2: |C| is 1 on average."""
        shape = (self.width, self.state_size // 2)
        init = nn.initializers.normal(math.sqrt(0.5))
        return jax.lax.complex(
            self.param("c_re", init, shape), self.param("c_im", init, shape)
        )

    @nn.nowrap
    def initial_state(self, batch_size: int) -> H3State:
        """Returns zeros."""
        self._check()
        shape = (batch_size, self.width, self.state_size // 2)
        return H3State(
            jnp.zeros(shape, jnp.complex64),
            jnp.zeros((batch_size, self.taps - 1, self.width), jnp.float32),
        )

    @nn.nowrap
    def _check(self) -> None:
        if self.state_size < 2 or self.state_size % 2:
            raise InputError(
                f"state_size={self.state_size} must be even and at least 2"
            )
        if self.taps < 1:
            raise InputError(f"taps={self.taps} must be at least 1")
        if not 0 < self.dt_min <= self.dt_max:
            raise InputError(
                f"dt_min={self.dt_min} and dt_max={self.dt_max} are no range of time "
                f"steps; choose 0 < dt_min <= dt_max"
            )


def _shift_init(
    key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32
) -> jax.Array:
    """c ~ N(0, 1 / taps) plus d_1 ~ N(0, 1) at the current frame, the last tap."""
    key_c, key_d = jax.random.split(key)
    c_wd = jax.random.normal(key_c, shape, dtype) * shape[0] ** -0.5
    return c_wd.at[-1].add(jax.random.normal(key_d, shape[1:], dtype))
