"""A chunk out of noise, along the straight lines between the two.

Training: x_t = (1 - t) noise + t action at a uniform real t in [0, 1), and the
network's squared error on the velocity action - noise (Lipman et al. 2023,
arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003).
Acting: dx/dt = velocity(x, t) from t = 0 to 1.

The network adds to what x alone tells of the velocity, for actions of variance one:
(2t - 1) x / r + network / sqrt(r) with r = t^2 + (1 - t)^2 (as Karras et al. 2022,
arXiv:2206.00364, do for diffusion). Without that it had to learn first to take away a
hundred numbers of noise exactly, and a stick's level forgives a sixteenth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda.chunks import action, networks

Field = Callable[[jax.Array, jax.Array], jax.Array]


class FlowMatchingHead(nn.Module):
    """Integrates a chunk of controllers; see the module and `heads`.

    Attributes:
      horizon: H, controllers in a chunk.
      steps: of the solver, from t = 0 to 1.
      solver: "euler", "midpoint" (two calls of the network a step) or "rk4" (four).
      hidden, layers: of `networks.Denoiser`.
      dtype: compute type of the products.
    """

    horizon: int
    steps: int
    solver: str
    hidden: int
    layers: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.denoiser = networks.Denoiser(self.hidden, self.layers, dtype=self.dtype)

    def objective(
        self, h_btd: jax.Array, batch: Batch, keys_bt: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean squared error on the velocity of each frame's chunk, [B, T]."""
        both = jax.vmap(jax.vmap(jax.random.split))(keys_bt)
        clean = action.encode(batch["chunk_btha"])
        noise = networks.frame_normal(both[..., 0], clean.shape[2:])
        time_bt = jax.vmap(jax.vmap(jax.random.uniform))(both[..., 1])
        t = time_bt[..., None, None]
        x_bthc = (1 - t) * noise + t * clean
        found = with_linear_part(self.denoiser(x_bthc, h_btd, time_bt), x_bthc, t)
        error = jnp.square(found - (clean - noise))
        return networks.chunk_mean(error, batch["chunk_valid_bth"]), {}

    def chunk(self, h_btd: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
        """A chunk for each frame, [B, T, H, 13]; the key is unused at temperature 0."""
        network, variables = self.denoiser.unbind()

        def velocity(x_bthc: jax.Array, t: jax.Array) -> jax.Array:
            time_bt = jnp.full(h_btd.shape[:2], t)
            found: Any = network.apply(variables, x_bthc, h_btd, time_bt)
            return with_linear_part(found, x_bthc, t)

        first = networks.start(key, temperature, h_btd, self.horizon)
        return integrate(velocity, first, self.steps, self.solver)


def with_linear_part(found: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """The velocity of what the network gives, see the module; t as x, or a scalar."""
    r = jnp.square(t) + jnp.square(1 - t)
    return (2 * t - 1) / r * x + found / jnp.sqrt(r)


def integrate(field: Field, start: jax.Array, steps: int, solver: str) -> jax.Array:
    """x at t = 1 of dx/dt = field(x, t) from x = start at t = 0, in equal steps.

    Euler's error falls as 1 / steps, the midpoint rule's as its square, rk4's (the
    classical Runge-Kutta method) as its fourth power. None looks at t = 1 but rk4.
    """
    step = 1 / steps

    def euler(x: jax.Array, t: jax.Array) -> jax.Array:
        return x + step * field(x, t)

    def midpoint(x: jax.Array, t: jax.Array) -> jax.Array:
        half = x + step / 2 * field(x, t)
        return x + step * field(half, t + step / 2)

    def rk4(x: jax.Array, t: jax.Array) -> jax.Array:
        k1 = field(x, t)
        k2 = field(x + step / 2 * k1, t + step / 2)
        k3 = field(x + step / 2 * k2, t + step / 2)
        k4 = field(x + step * k3, t + step)
        return x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    forward = {"euler": euler, "midpoint": midpoint, "rk4": rk4}[solver]
    times = jnp.arange(steps, dtype=start.dtype) * step
    return jax.lax.scan(lambda x, t: (forward(x, t), None), start, times)[0]
