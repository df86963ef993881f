"""How a model reads a frame and answers the next: the same in training and rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.world.states import FIELDS, FIGHTERS, Perspective, steps
from jaxbench.tasks.zelda.features import ACTION_STATES

# Of what a model reads, in standard deviations: a respawn is not the rest of the game.
LIMIT = 10.0
# Where a quantity cannot be, and which are whole numbers.
_LOWEST = {
    **dict.fromkeys(("percent", "shield", "stocks", "jumps"), 0.0),
    **dict.fromkeys(("hitlag", "hitstun", "airborne", "invulnerable"), 0.0),
}
_HIGHEST = {"shield": 60.0, "airborne": 1.0, "invulnerable": 1.0}
_WHOLE = ("stocks", "jumps", "airborne", "invulnerable")


class Scales(NamedTuple):
    """Means and standard deviations over the training split, float32 [STATE] each.

    Attributes:
      mean, std: of states.
      change_mean, change_std: of the change from a frame to the next.
      reward: [1], the root mean square of the reward.
    """

    mean: jax.Array | np.ndarray
    std: jax.Array | np.ndarray
    change_mean: jax.Array | np.ndarray
    change_std: jax.Array | np.ndarray
    reward: jax.Array | np.ndarray

    @classmethod
    def of(cls, arrays: Mapping[str, jax.Array | np.ndarray]) -> Scales:
        """Those that `arrays` hold, of `next_frame.build`."""
        return cls(**{name: arrays[f"scale_{name}"] for name in cls._fields})

    def arrays(self) -> dict[str, np.ndarray]:
        """As entries of `Task.arrays`."""
        return {
            f"scale_{name}": np.asarray(value, np.float32)
            for name, value in self._asdict().items()
        }


class Frame(NamedTuple):
    """Frames as they are in the game; leading axes are [B] or [B, T].

    Attributes:
      state_bs: [..., STATE], in the units of `states`.
      action_state_bn: int32 [..., 2], own and the opponent's; the last is "unknown".
      character_bn: int32 [..., 2], internal ids.
      stage_b: int32 [...], index into `frames.STAGES`.
    """

    state_bs: Any
    action_state_bn: Any
    character_bn: Any
    stage_b: Any


def measure_scales(
    arrays: Mapping[str, np.ndarray], train: Sequence[Perspective]
) -> Scales:
    """Scales of the steps that are scored, both fighters taken together.

    Sums are float64. What never varies has deviation 1.
    """
    width = len(FIELDS)
    # Count, and of states and of changes the sums and the sums of squares.
    count = alive = squares = 0.0
    sums = np.zeros((4, width))
    for p in train:
        step = steps(arrays, p.start, p.rival, p.length)
        kept = step["valid_t"]
        now, then = (
            step[name][kept].astype(np.float64).reshape(-1, width)
            for name in ("state_ts", "next_ts")
        )
        change = then - now
        sums += [x.sum(0) for x in (now, now**2, change, change**2)]
        count += len(now)
        reward = step["reward_t"][step["alive_t"]]
        alive, squares = alive + len(reward), squares + float(np.sum(reward**2))
    found = sums / max(count, 1)

    def spread(mean: np.ndarray, square: np.ndarray) -> np.ndarray:
        std = np.sqrt(np.maximum(square - mean**2, 0))
        # Rounding leaves a trace of a variance where there is none.
        return np.where(std > 1e-6 * (1 + np.abs(mean)), std, 1.0)

    def both(x: np.ndarray) -> np.ndarray:
        return np.tile(x, len(FIGHTERS)).astype(np.float32)

    rms = np.sqrt(squares / max(alive, 1))
    return Scales(
        mean=both(found[0]),
        std=both(spread(found[0], found[1])),
        change_mean=both(found[2]),
        change_std=both(spread(found[2], found[3])),
        reward=np.array([rms if rms > 0 else 1.0], np.float32),
    )


def inputs(frame: Frame, controller_bna: jax.Array, scales: Scales) -> dict:
    """What the encoder reads of frames and the controllers that act on the next.

    Args:
      frame: leading axes [B, T].
      controller_bna: int32 [B, T, 2, 6], labels of `zelda.controller`.
      scales: of the task.
    """
    state = (frame.state_bs - _like(scales.mean, frame.state_bs)) / _like(
        scales.std, frame.state_bs
    )
    return {
        "state_bts": jnp.clip(state, -LIMIT, LIMIT),
        "action_state_btn": frame.action_state_bn,
        "character_btn": frame.character_bn,
        "stage_bt": frame.stage_b,
        "controller_btna": controller_bna,
    }


def target(
    now_bs: jax.Array, next_bs: jax.Array, scales: Scales, residual: bool
) -> jax.Array:
    """What the head learns to say of the next state: its change, or itself; scaled."""
    if residual:
        change = next_bs - now_bs
        return (change - _like(scales.change_mean, change)) / _like(
            scales.change_std, change
        )
    return (next_bs - _like(scales.mean, next_bs)) / _like(scales.std, next_bs)


def next_state(
    now_bs: jax.Array, said_bs: jax.Array, scales: Scales, residual: bool
) -> jax.Array:
    """The inverse of `target`: the next state of what the head said."""
    if residual:
        change = said_bs * _like(scales.change_std, said_bs)
        return now_bs + change + _like(scales.change_mean, said_bs)
    return said_bs * _like(scales.std, said_bs) + _like(scales.mean, said_bs)


def project(state_bs: jax.Array) -> jax.Array:
    """The nearest state that can be: whole stocks, one side to face, no shield of -1.

    Without it a rollout feeds a model fractions that it was never shown.
    """
    low = np.array([_LOWEST.get(name, -np.inf) for name in FIELDS], np.float32)
    high = np.array([_HIGHEST.get(name, np.inf) for name in FIELDS], np.float32)
    whole = np.array([name in _WHOLE for name in FIELDS])
    side = np.array([name == "facing" for name in FIELDS])
    low, high, whole, side = (
        np.tile(x, len(FIGHTERS)) for x in (low, high, whole, side)
    )
    x = jnp.clip(state_bs, _like(low, state_bs), _like(high, state_bs))
    x = jnp.where(_like(whole, x), jnp.round(x), x)
    return jnp.where(_like(side, x), jnp.where(x < 0, -1.0, 1.0), x)


def following(
    frame: Frame, outputs: Mapping[str, jax.Array], scales: Scales, residual: bool
) -> tuple[Frame, jax.Array, jax.Array]:
    """The frame that outputs say comes next, its reward, and whether it is over.

    The likeliest action states; characters and the stage stay what they are.

    Returns:
      The projected frame, the reward [...], and the probability of done [...].
    """
    state = next_state(frame.state_bs, outputs["state_bts"], scales, residual)
    chosen = jnp.argmax(outputs["action_state_btnk"], axis=-1).astype(jnp.int32)
    following = frame._replace(state_bs=project(state), action_state_bn=chosen)
    reward = outputs["reward_bt"] * _like(scales.reward, outputs["reward_bt"])
    return following, reward, jax.nn.sigmoid(outputs["done_bt"])


def known_states(ids: jax.Array) -> jax.Array:
    """Table indices of action states: the last is all that the table lacks."""
    return jnp.minimum(ids.astype(jnp.int32), ACTION_STATES)


def _like(row: jax.Array | np.ndarray, x: jax.Array) -> jax.Array:
    """A row [S] (or [1]) with as many axes as x."""
    return jnp.asarray(row).reshape((1,) * (x.ndim - 1) + (-1,))
