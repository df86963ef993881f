"""A leaky echo state network: a frozen random recurrence, a trained read-out."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import symmetric_uniform
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.cell import cell_scan

# Below about this many connections a unit, W may have no cycle, hence no radius.
_FEWEST = 8


class ReservoirState(NamedTuple):
    """Units of the reservoir, float32, inside (-1, 1)."""

    h_bn: jax.Array


class Reservoir(Mixer):
    """A frozen sparse recurrence that echoes its input, read by one dense layer.

    Equations:
      h_t = (1 - leak) h_{t-1} + leak tanh(W_in x_t + W h_{t-1} + b);  W_in, W, b frozen
      output  W_out [h_t, x_t] + b_out

    W: entries N(0, 1) with probability `density`, else 0, scaled so that its largest
    |eigenvalue| is `radius`. W_in and b are uniform, W_in x_t has standard deviation
    1/2 where the channels of x_t have 1, and b is one more such channel. All three are
    drawn from the run's seed, for each layer anew.

    Source: Jaeger 2001, GMD report 148; leaky units: Jaeger et al. 2007, Neural
    Networks 20(3).

    Differences:
      - The read-out is trained with the rest of the model by gradient descent, not
        solved for.
      - The units are leaky (Jaeger and others 2007).

    Attributes:
      size: N, units of the reservoir.
      radius: spectral radius of W, positive; below 1 in nearly all uses.
      density: share of connections in W, in (0, 1].
      leak: share of h that is new each frame, in (0, 1].
    """

    size: int = 512
    radius: float = 0.9
    density: float = 0.1
    leak: float = 0.8

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T N (N + D)) work, T steps one by one."""
        recurrent_nn = self._frozen("recurrent", self._recurrent)
        limit = 0.5 * (3 / self.width) ** 0.5
        uniform = symmetric_uniform(limit)
        input_dn = self._frozen(
            "input", lambda key: uniform(key, (self.width, self.size))
        )
        bias_n = self._frozen("bias", lambda key: uniform(key, (self.size,)))
        recurrent_nn = recurrent_nn.astype(self.dtype)

        def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return jnp.matmul(
                x.astype(self.dtype), kernel, preferred_element_type=jnp.float32
            )

        def cell(state, input_bn):
            new_bn = jnp.tanh(input_bn + product(state.h_bn, recurrent_nn))
            h_bn = (1 - self.leak) * state.h_bn + self.leak * new_bn
            return ReservoirState(h_bn), h_bn

        h_btn, state = cell_scan(
            cell,
            product(x_btd, input_dn.astype(self.dtype)) + bias_n[None, None],
            state,
            self.initial_state(x_btd.shape[0]),
            reset_bt,
        )
        joined = [h_btn.astype(self.dtype), x_btd.astype(self.dtype)]
        return self.dense_out(bias=True)(jnp.concatenate(joined, axis=-1)), state

    def state_shapes(self):
        return ReservoirState((self.size,))

    def check(self):
        if not 0 < self.density <= 1 or not 0 < self.leak <= 1 or self.radius <= 0:
            raise InputError(
                f"density={self.density} and leak={self.leak} must be in (0, 1], and "
                f"radius={self.radius} positive"
            )
        if self.size * self.density < _FEWEST:
            raise InputError(
                f"size={self.size} times density={self.density} must be at least "
                f"{_FEWEST} connections a unit; raise one of them"
            )

    def _frozen(self, name: str, draw: Any) -> jax.Array:
        """A variable of the collection "constants", drawn when the model is made."""
        value = self.variable("constants", name, lambda: draw(self.make_rng("params")))
        return jax.lax.stop_gradient(value.value)

    @nn.nowrap
    def _recurrent(self, key: jax.Array) -> jax.Array:
        value_key, mask_key = jax.random.split(key)
        shape = (self.size, self.size)
        kept = jax.random.bernoulli(mask_key, self.density, shape)
        matrix = jnp.where(kept, jax.random.normal(value_key, shape), 0)
        return matrix * (self.radius / spectral_radius(matrix))


def spectral_radius(matrix: jax.Array) -> jax.Array:
    """The largest |eigenvalue| of a square matrix, on every device and under jit.

    Gelfand's formula |A^k|^(1/k) at k = 2^20, by squaring with the norm taken out each
    time: log of the radius = sum_j 2^-j log |A_j|, A_{j+1} = (A_j / |A_j|)^2. Relative
    error about 1e-5. Power iteration would not settle, because the largest eigenvalues
    come in conjugate pairs; `jnp.linalg.eigvals` is not there on every device.

    Returns:
      Scalar, float32; 20 products of the matrix with itself.
    """

    def square(j: int, carry: tuple) -> tuple[jax.Array, jax.Array]:
        power, log_radius = carry
        norm = jnp.sqrt(jnp.sum(jnp.square(power)))
        power = power / norm
        power = jnp.matmul(power, power, precision=jax.lax.Precision.HIGHEST)
        return power, log_radius + jnp.log(norm) * 0.5**j

    start = (matrix.astype(jnp.float32), jnp.float32(0))
    return jnp.exp(jax.lax.fori_loop(0, 21, square, start)[1])
