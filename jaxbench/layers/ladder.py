"""The shell of the Elman ladder's vector mixers: widen, recur, gate, narrow.

x = SiLU(W_in u), of width E = expansion D; a cell makes h from x; the output is W_out o
with o = h SiLU(h), or h SiLU(z) where half of W_in makes z. No biases here; all
matrices start Xavier-uniform. Source: repository ekg/elman, 2026.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import Initializer


class VectorState(NamedTuple):
    """What a vector mixer of the ladder carries.

    Attributes:
      h_be: state, float32.
    """

    h_be: jax.Array


def xavier(scale: float = 1.0) -> Initializer:
    """Xavier-uniform, times `scale`: limit `scale sqrt(6 / (fan_in + fan_out))`."""
    return nn.initializers.variance_scaling(scale**2, "fan_avg", "uniform")


def xavier_square(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
    """Xavier-uniform for square matrices side by side: each is [E, E] by itself."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "uniform")(key, shape, dtype)


def inner_width(module: nn.Module) -> int:
    """E, the width of the state.

    Raises:
      InputError: the expansion is below 1.
    """
    if module.expansion < 1:
        raise InputError(f"expansion={module.expansion} must be at least 1")
    return module.expansion * module.width


def widen(module: nn.Module, u_btd: jax.Array) -> jax.Array:
    """x = SiLU(W_in u), [B, T, E]."""
    return nn.silu(_project(module, u_btd, 1))


def widen_with_gate(module: nn.Module, u_btd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x = SiLU(x~) and SiLU(z) with [x~, z] = W_in u, both [B, T, E]."""
    x_bte, z_bte = jnp.split(_project(module, u_btd, 2), 2, axis=-1)
    return nn.silu(x_bte), nn.silu(z_bte.astype(jnp.float32))


def self_gate(h: jax.Array) -> jax.Array:
    """h SiLU(h) = h^2 sigmoid(h): never negative, quadratic near 0 and above."""
    return h * nn.silu(h)


def narrow(module: nn.Module, o_bte: jax.Array) -> jax.Array:
    """W_out o, [B, T, D]."""
    out = nn.Dense(
        module.width,
        use_bias=False,
        dtype=module.dtype,
        kernel_init=xavier(module.out_scale),
        name="out",
    )
    return out(o_bte.astype(module.dtype))


def zero_state(module: nn.Module, batch_size: int) -> VectorState:
    """Zeros, [B, E]."""
    return VectorState(jnp.zeros((batch_size, inner_width(module)), jnp.float32))


def _project(module: nn.Module, u_btd: jax.Array, branches: int) -> jax.Array:
    project = nn.Dense(
        branches * inner_width(module),
        use_bias=False,
        dtype=module.dtype,
        kernel_init=xavier(),
        name="project",
    )
    return project(u_btd)
