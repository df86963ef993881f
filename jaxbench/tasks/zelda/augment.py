"""Other games that could have been: windows mirrored, and measured less exactly.

Only training sees them. They change the batch that a task's gather gives, on the
device, so the stored games stay what they are.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import controller, features

# Last parts of the names of columns that change sign when left and right do.
_SIDEWAYS = frozenset(
    "facing x dx relative_x velocity_x self_x_air self_x_ground knockback_x".split()
)
# Those that a measurement has an error in; bits, counters and the clock have none.
_MEASURED = frozenset(
    """percent x y ledge shield dx dy distance relative_x relative_y velocity_x
    velocity_y state_age hitlag hitstun self_x_air self_y knockback_x knockback_y
    self_x_ground""".split()
)
# Labels of controllers in a batch, [..., 6].
_LABELS = ("previous_bta", "target_bta", "chunk_btha")
_SIDEWAYS_STICKS = ("main_x", "c_x")


@dataclasses.dataclass(frozen=True)
class Augment:
    """What training does to its windows; `Task.augment`.

    A mirrored window has left and right exchanged: x and speeds along it, where
    fighters look, and both sticks, of every input and target alike. Stages are nearly
    symmetric; what moves on them is not mirrored (Whispy's wind, Randall).

    Attributes:
      mirror: share of the windows that are mirrored.
      noise: share of the windows whose measurements get an error.
      noise_scale: its standard deviation, in the units of `features`. A column that is
        0 stays 0: nobody is there.
    """

    mirror: float = 0.0
    noise: float = 0.0
    noise_scale: float = 0.01

    def __bool__(self) -> bool:
        return self.mirror > 0 or (self.noise > 0 and self.noise_scale > 0)

    def __call__(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch, each window drawn for itself; pure."""
        mirror_key, choose_key, noise_key = jax.random.split(key, 3)
        count = batch["numeric_btf"].shape[0]
        if self.mirror:
            chosen_b = jax.random.bernoulli(mirror_key, self.mirror, (count,))
            batch = _where(chosen_b, mirrored(batch), batch)
        if self.noise and self.noise_scale:
            numeric_btf = batch["numeric_btf"]
            error_btf = jax.random.normal(noise_key, numeric_btf.shape)
            chosen_b = jax.random.bernoulli(choose_key, self.noise, (count,))
            scale_bf = self.noise_scale * chosen_b[:, None] * _columns(_MEASURED)[None]
            error_btf = jnp.where(numeric_btf != 0, error_btf * scale_bf[:, None], 0)
            batch = {**batch, "numeric_btf": numeric_btf + error_btf}
        return batch


def mirrored(batch: Batch) -> Batch:
    """The batch with left and right exchanged in every window."""
    sign_f = jnp.asarray(1.0 - 2.0 * _columns(_SIDEWAYS), jnp.float32)
    changed = {"numeric_btf": batch["numeric_btf"] * sign_f[None, None]}
    for name in _LABELS:
        if name in batch:
            labels = batch[name]
            for stick in _SIDEWAYS_STICKS:
                place = controller.COMPONENTS.index(stick)
                top = controller.CLASSES[stick] - 1
                labels = labels.at[..., place].set(top - labels[..., place])
            changed[name] = labels
    return {**batch, **changed}


def _where(chosen_b: jax.Array, one: Batch, other: Batch) -> Batch:
    """Rows of `one` where chosen, of `other` where not."""

    def pick(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(chosen_b.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return {name: pick(one[name], other[name]) for name in other}


def _columns(names: frozenset[str]) -> np.ndarray:
    """1 for columns of `features.NUMERIC` whose last name is among `names`, [F]."""
    last = [name.rpartition(".")[2] for name in features.NUMERIC]
    return np.array([name in names for name in last], np.float32)
