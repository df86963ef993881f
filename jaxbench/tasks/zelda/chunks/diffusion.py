"""A chunk out of noise, by a network that tells noise from controllers.

Training: x_t = sqrt(a_t) action + sqrt(1 - a_t) noise for one of 100 steps t (Ho et al.
2020, arXiv:2006.11239; for controllers Chi et al. 2023, arXiv:2303.04137). a_t is the
product of 1 - beta up to t. The network gives v = sqrt(a_t) noise - sqrt(1 - a_t)
action, from which noise and action follow, and learns by its squared error (Salimans
and Ho 2022, arXiv:2202.00512). That is the error on the noise divided by a_t: an error
on the noise itself counts next to nothing where there is much of it, but is divided by
sqrt(a_t) when the action is made, and a stick's level forgives a sixteenth.
Acting: some of those steps, backwards and without new noise (Song et al. 2021,
arXiv:2010.02502, eta 0).

The betas rise linearly. Published are 1e-4 to 0.02 for 1000 steps; with 100 of those, a
third of the signal's variance is left at the last step, although acting begins there
with none. `schedule="rescaled"` makes them ten times as large, which a hundred steps
need; "published" keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda.chunks import action, networks
from jaxbench.tasks.zelda.chunks.options import TRAINING_STEPS

_BETAS = {"published": (1e-4, 0.02), "rescaled": (1e-3, 0.2)}


class DiffusionHead(nn.Module):
    """Denoises a chunk of controllers; see the module and `heads`.

    Attributes:
      horizon: H, controllers in a chunk.
      steps: of the 100, that acting takes.
      schedule: "rescaled" or "published".
      hidden, layers: of `networks.Denoiser`.
      dtype: compute type of the products.
    """

    horizon: int
    steps: int
    schedule: str
    hidden: int
    layers: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.denoiser = networks.Denoiser(self.hidden, self.layers, dtype=self.dtype)

    def objective(
        self, h_btd: jax.Array, batch: Batch, keys_bt: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean squared error on v of each frame's chunk, [B, T]."""
        kept_s = jnp.asarray(kept(self.schedule), jnp.float32)
        both = jax.vmap(jax.vmap(jax.random.split))(keys_bt)
        clean = action.encode(batch["chunk_btha"])
        noise = networks.frame_normal(both[..., 0], clean.shape[2:])

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.randint(key, (), 0, TRAINING_STEPS)

        step_bt = jax.vmap(jax.vmap(draw))(both[..., 1])
        a = kept_s[step_bt][..., None, None]
        noisy = jnp.sqrt(a) * clean + jnp.sqrt(1 - a) * noise
        found = self.denoiser(noisy, h_btd, step_bt / TRAINING_STEPS)
        velocity = jnp.sqrt(a) * noise - jnp.sqrt(1 - a) * clean
        error = jnp.square(found - velocity)
        return networks.chunk_mean(error, batch["chunk_valid_bth"]), {}

    def chunk(self, h_btd: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
        """A chunk for each frame, [B, T, H, 13]; the key is unused at temperature 0."""
        network, variables = self.denoiser.unbind()

        def noise_of(x_bthc: jax.Array, step: jax.Array) -> jax.Array:
            time_bt = jnp.full(h_btd.shape[:2], step / TRAINING_STEPS)
            found: Any = network.apply(variables, x_bthc, h_btd, time_bt)
            a = kept_s[step]
            return jnp.sqrt(1 - a) * x_bthc + jnp.sqrt(a) * found

        kept_s = jnp.asarray(kept(self.schedule), jnp.float32)
        first = networks.start(key, temperature, h_btd, self.horizon)
        return denoise(noise_of, first, kept(self.schedule), self.steps)


def kept(schedule: str) -> np.ndarray:
    """a_t, the share of the signal's variance left at each step, float64 [100]."""
    low, high = _BETAS[schedule]
    return np.cumprod(1 - np.linspace(low, high, TRAINING_STEPS))


def denoise(
    noise_of: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    kept_s: np.ndarray,
    steps: int,
) -> jax.Array:
    """Goes backwards through `steps` of the training steps, evenly, first to last.

    Each step takes the action that the noise implies, within [-1, 1], and goes to the
    noise level of the next; after the last there is none.

    Args:
      noise_of: (x, training step) -> its noise.
      start: x at the last training step.
      kept_s: a_t of the training steps.
      steps: at least 1 and at most as many.
    """
    last = len(kept_s) - 1
    taken = np.linspace(last, 0, steps).round().astype(np.int32)
    now = kept_s[taken].astype(np.float32)
    then = np.append(now[1:], np.float32(1))

    def back(x: jax.Array, given: Any) -> tuple[jax.Array, None]:
        step, a, next_a = given
        noise = noise_of(x, step)
        clean = jnp.clip((x - jnp.sqrt(1 - a) * noise) / jnp.sqrt(a), -1, 1)
        return jnp.sqrt(next_a) * clean + jnp.sqrt(1 - next_a) * noise, None

    return jax.lax.scan(back, start, (taken, now, then))[0]
