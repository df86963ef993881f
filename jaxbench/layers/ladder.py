"""The shell of the Elman ladder's vector mixers: widen, recur, gate, narrow.

Source: repository ekg/elman, 2026.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.inits import Initializer
from jaxbench.layers.mixer import Mixer


class VectorState(NamedTuple):
    """The state of a vector mixer of the ladder, float32."""

    h_be: jax.Array


class Ladder(Mixer):
    """x = SiLU(W_in u), E = expansion D wide; h from x by `recur`; W_out (h SiLU(h)).

    With `gated`, half of W_in makes z, and the output is W_out (h SiLU(z)). No biases
    here; both matrices start Xavier-uniform.

    Attributes:
      expansion: width E of the state over model width.
    """

    expansion: int = 2
    gated = False

    @nn.compact
    def __call__(self, u_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T E (D + E)) work."""
        (h_be,) = state or (None,)
        size = (1 + self.gated) * self.inner()
        x_bte = self.dense(size, "project", init=xavier())(u_btd)
        if self.gated:
            x_bte, z_bte = jnp.split(x_bte, 2, axis=-1)
            gate_bte = nn.silu(z_bte.astype(jnp.float32))
        h_bte, h_be = self.recur(nn.silu(x_bte), h_be, reset_bt)
        o_bte = h_bte * gate_bte if self.gated else self_gate(h_bte)
        out = self.dense(self.width, "out", init=xavier(self.out_scale))
        return out(o_bte.astype(self.dtype)), VectorState(h_be)

    def recur(self, x_bte, h_be, reset_bt):
        """All states [B, T, E] and the last; inside the compact call."""
        raise NotImplementedError

    def gates(self, x_bte, start: float):
        """Gate, biased by `start`, and candidate before their nonlinearities, float32.

        Both in one product.
        """
        gates = self.dense(2 * self.inner(), "gates", init=xavier_square)
        gate_bte, v_bte = jnp.split(gates(x_bte).astype(jnp.float32), 2, axis=-1)
        gate_e = self.vector("ssm_gate_bias", start)
        v_e = self.vector("bias_v", 0.0)
        return gate_bte + gate_e[None, None], v_bte + v_e[None, None]

    def vector(self, name: str, start: float):
        """A parameter for each channel of the state."""
        return self.param(name, nn.initializers.constant(start), (self.inner(),))

    @nn.nowrap
    def inner(self) -> int:
        """E, the width of the state; InputError where the expansion is below 1."""
        self.at_least(1, "expansion")
        return self.expansion * self.width

    def state_shapes(self):
        return VectorState((self.inner(),))


def xavier(scale: float = 1.0) -> Initializer:
    """Xavier-uniform, times `scale`: limit `scale sqrt(6 / (fan_in + fan_out))`."""
    return nn.initializers.variance_scaling(scale**2, "fan_avg", "uniform")


def xavier_square(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
    """Xavier-uniform for square matrices side by side: each is [E, E] by itself."""
    return nn.initializers.variance_scaling(1.0, "fan_in", "uniform")(key, shape, dtype)


def self_gate(h: jax.Array) -> jax.Array:
    """h SiLU(h) = h^2 sigmoid(h): never negative, quadratic near 0 and above."""
    return h * nn.silu(h)
