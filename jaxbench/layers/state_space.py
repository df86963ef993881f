"""Parameters of linear state spaces with complex states, as real leaves.

Functions of a mixer that make its parameters, to be called inside `nn.compact`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import Initializer, log_uniform
from jaxbench.layers.mixer import Mixer


def half_size(mixer: Mixer) -> int:
    """N/2, the states of one conjugate half.

    Raises:
      InputError: `state_size` is odd or below 2.
    """
    size = mixer.state_size
    if size < 2 or size % 2:
        raise InputError(f"state_size={size} must be even and at least 2")
    return size // 2


def row_param(mixer: Mixer, name: str, value_n: np.ndarray) -> jax.Array:
    """A real [D, N/2] parameter that starts as the same row for every channel."""
    shape = (mixer.width, mixer.state_size // 2)
    row_1n = jnp.float32(value_n)[None]
    return mixer.param(name, lambda _: jnp.broadcast_to(row_1n, shape))


def complex_row(mixer: Mixer, name: str, value_n: np.ndarray) -> jax.Array:
    """A complex [D, N/2] parameter as two real leaves."""
    return jax.lax.complex(
        row_param(mixer, f"{name}_re", value_n.real),
        row_param(mixer, f"{name}_im", value_n.imag),
    )


def eigenvalues(mixer: Mixer, lambda_n: np.ndarray) -> jax.Array:
    """Trained eigenvalues [D, N/2]: real parts are -exp(p), so they stay negative."""
    log_decay = row_param(mixer, "ssm_log_decay", np.log(-lambda_n.real))
    frequency = row_param(mixer, "ssm_frequency", lambda_n.imag)
    return jax.lax.complex(-jnp.exp(log_decay), frequency)


def read_out(mixer: Mixer) -> jax.Array:
    """C, [D, N/2], with parts of variance 1/2: |C| is 1 on average."""
    shape = (mixer.width, mixer.state_size // 2)
    init = nn.initializers.normal(math.sqrt(0.5))
    return jax.lax.complex(
        mixer.param("c_re", init, shape), mixer.param("c_im", init, shape)
    )


def log_time_step(mixer: Mixer, shape: tuple[int, ...]) -> jax.Array:
    """Logarithms of the time steps, kept where the discretisations are of use."""
    init = log_uniform(mixer.dt_min, mixer.dt_max)
    return jnp.clip(mixer.param("ssm_log_dt", init, shape), math.log(1e-4), 0.0)


def complex_parts(
    mixer: Mixer, name: str, init: Initializer, shape: tuple[int, int], axis: int
) -> jax.Array:
    """Real and imaginary part of a complex matrix side by side along `axis`."""
    parts = [mixer.param(f"{name}_{part}", init, shape) for part in ("re", "im")]
    return jnp.concatenate(parts, axis=axis)


def gated_output(
    mixer: Mixer, y_btd: jax.Array, *, approximate: bool = True
) -> jax.Array:
    """(W_a GELU(y) + b_a) * sigmoid(W_b GELU(y) + b_b).

    GELU is by tanh with `approximate`, as flax has it, else by erf, as PyTorch has it.
    """
    y_btd = nn.gelu(y_btd.astype(mixer.dtype), approximate=approximate)
    out_btd = mixer.dense_out(bias=True)(y_btd)
    return out_btd * nn.sigmoid(mixer.dense(mixer.width, "gate", bias=True)(y_btd))
