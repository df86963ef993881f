"""Spiking neurons: leaky integrate-and-fire, trained with a surrogate gradient."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.inits import fan_in_uniform, lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.cell import cell_scan

RESETS = ("soft", "hard")

# Size of the input current at the start: with inputs of variance 1 about 5 % of the
# neurons fire where frames are independent, 15 % where they hardly change.
_GAIN = 0.5

# Height of the surrogate derivative. Errors that pass from spike to spike are damped by
# it at every frame; at 1 they grow exponentially with the frames they pass.
DAMPING = 0.3


class SNNState(NamedTuple):
    """What a spiking layer carries; the last spikes are those of `u_bd` above 1."""

    u_bd: jax.Array  # membrane of the spiking neurons, float32
    m_bd: jax.Array  # membrane of the read-out, which never spikes, float32


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def spike(v: jax.Array, slope: float) -> jax.Array:
    """1 where v > 0, else 0; its derivative is taken to be 0.3 / (1 + slope |v|)^2.

    Source: Neftci et al. 2019, arXiv:1901.09948 (the fast sigmoid); the factor: Bellec
    et al. 2018, arXiv:1803.09574, section 2.
    """
    del slope
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _spike_jvp(slope: float, primals: tuple, tangents: tuple) -> tuple:
    (v,), (v_dot,) = primals, tangents
    return spike(v, slope), DAMPING * v_dot / jnp.square(1 + slope * jnp.abs(v))


class SNN(Mixer):
    """Recurrent leaky integrate-and-fire neurons and a leaky read-out.

    Equations:
      u_t = β u_{t-1} - s_{t-1} + W x_t + b + V s_{t-1};  s_t = 1 where u_t > 1, else 0
      m_t = λ m_{t-1} + (1 - λ) s_t;  output  W_out m_t + b_out
      backward, ds/du is taken to be 0.3 / (1 + slope |u - 1|)²

    A hard reset replaces β u - s by β u (1 - s). β and λ are sigmoids and start as
    exp(-1/τ), τ from 2 to 20 frames over the neurons. V starts as PyTorch's linear
    layers do, in which snnTorch keeps it.

    A spike turns a rounding error into a whole 1. So all products are made inside the
    scan, frame by frame, with the same shapes however many frames a call has.

    Source: Neftci et al. 2019, arXiv:1901.09948, in discrete time; the factor 0.3 of
    the surrogate is the dampening of Bellec et al. 2018, arXiv:1803.09574, without
    which gradients grow exponentially with the length of a window.

    Differences:
      - There is no synaptic current: x is a frame, not a train of spikes.
      - The decays β and λ are learned.
      - The gradient does not pass through the reset term (Zenke & Vogels 2021).

    Attributes:
      reset_rule: "soft" or "hard".
      micro_steps: steps of the neurons in a frame, all with the current of that frame.
      slope: of the surrogate derivative. Steeper ones (10 and more are common) leave
        most neurons without a gradient and learned slower here.
    """

    reset_rule: str = "soft"
    micro_steps: int = 1
    slope: float = 3.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T K D^2) work for K steps in a frame.

        Sows the share of neurons that fire, `firing_rate`, into "metrics".
        """
        (y_btd, rate_bt), state = cell_scan(
            self._cell(),
            x_btd.astype(self.dtype),
            state,
            self.initial_state(x_btd.shape[0]),
            reset_bt,
        )
        if not self.is_initializing():
            self.sow("metrics", "firing_rate", jnp.mean(rate_bt))
        return y_btd.astype(self.dtype), state

    def state_shapes(self):
        return SNNState((self.width,), (self.width,))

    def check(self):
        if self.reset_rule not in RESETS:
            raise InputError(
                f"reset_rule={self.reset_rule!r} is unknown; nearest: "
                f"{nearest(self.reset_rule, RESETS)}"
            )
        if self.micro_steps < 1 or self.slope <= 0:
            raise InputError(
                f"micro_steps={self.micro_steps} must be at least 1 and "
                f"slope={self.slope} positive"
            )

    def _cell(self):
        square = (self.width, self.width)
        w_dd, b_d = _Affine(square, lecun(_GAIN), name="project")()
        out_dd, out_d = _Affine(square, lecun(self.out_scale), name="out")()
        v_dd = self.param("recurrent", fan_in_uniform(), square)
        beta_d = jax.nn.sigmoid(self.param("ssm_decay", _spread, (self.width,)))
        read_d = jax.nn.sigmoid(self.param("ssm_read_decay", _spread, (self.width,)))

        def cell(state, x_bd):
            u_bd, m_bd = state
            current_bd = self._product(x_bd, w_dd) + b_d[None]
            s_bd, count_bd = spike(u_bd - 1, self.slope), 0.0
            for _ in range(self.micro_steps):
                recurrent_bd = self._product(s_bd, v_dd)
                u_bd = self._leak(u_bd, s_bd, beta_d) + current_bd + recurrent_bd
                s_bd = spike(u_bd - 1, self.slope)
                m_bd = read_d[None] * m_bd + (1 - read_d)[None] * s_bd
                count_bd += s_bd
            y_bd = self._product(m_bd, out_dd) + out_d[None]
            rate_b = jnp.mean(count_bd, axis=-1) / self.micro_steps
            return SNNState(u_bd, m_bd), (y_bd, rate_b)

        return cell

    @nn.nowrap
    def _leak(self, u_bd: jax.Array, s_bd: jax.Array, beta_d: jax.Array) -> jax.Array:
        """What a frame leaves of the membrane, those that fired being reset."""
        s_bd = jax.lax.stop_gradient(s_bd)
        if self.reset_rule == "soft":
            return beta_d[None] * u_bd - s_bd
        return beta_d[None] * u_bd * (1 - s_bd)

    @nn.nowrap
    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """x @ kernel in `dtype`, summed in float32, never in TF32."""
        return jnp.matmul(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            precision=jax.lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )


class _Affine(nn.Module):
    """The kernel and the bias of a dense layer, for use inside a scan."""

    shape: tuple[int, int]
    kernel_init: Any

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", self.kernel_init, self.shape)
        return kernel, self.param("bias", nn.initializers.zeros, self.shape[1:])


def _spread(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    """Logits of exp(-1/tau), tau log-spaced from 2 to 20 frames."""
    del key
    tau = jnp.geomspace(2.0, 20.0, shape[0], dtype=dtype)
    # sigmoid(p) = exp(-1/tau) means exp(-p) = exp(1/tau) - 1.
    return -jnp.log(jnp.expm1(1 / tau))
