"""Errors of rollouts by horizon, beside those of the floors.

On stretches of held-out games in which both players can act throughout, with the
controllers that were truly held: what is measured is the model of the game alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from jaxbench.errors import InputError
from jaxbench.serving.world.members import World
from jaxbench.serving.world.rollout import Trajectory, recorded, rollout, warm_up
from jaxbench.tasks.task import Task
from jaxbench.tasks.world import states, windows
from jaxbench.tasks.world.floors import extrapolate
from jaxbench.tasks.world.frame import Frame

STEPS = (1, 2, 4, 8, 15, 30, 60)
ACTION_STATE, REWARD = "action_state", "reward"
UNITS = {
    **{name: unit for name, (_, unit) in states.GROUPS.items()},
    ACTION_STATE: "share wrong",
    REWARD: "sum to here",
}
# Stretches rolled out together.
TOGETHER = 64


class HeldOut(NamedTuple):
    """N stretches of warm_up + horizon frames of held-out games; arrays of the host.

    Attributes:
      frames: [N, warm_up + horizon, ...].
      controllers_ntna: int32 [N, warm_up + horizon - 1, 2, 6], that act on the frame
        after each.
      reward_nt: float64 [N, warm_up + horizon - 1], of the steps between frames.
      game_n: which game each is from.
      warm_up: frames that are read before the first prediction.
    """

    frames: Frame
    controllers_ntna: np.ndarray
    reward_nt: np.ndarray
    game_n: np.ndarray
    warm_up: int

    def __len__(self) -> int:
        return len(self.game_n)

    def part(self, rows: np.ndarray) -> HeldOut:
        """The stretches of some rows."""
        chosen = Frame(*(x[rows] for x in self.frames))
        rest = (self.controllers_ntna[rows], self.reward_nt[rows], self.game_n[rows])
        return HeldOut(chosen, *rest, self.warm_up)


def held_out(task: Task, *, warm_up: int, horizon: int, count: int) -> HeldOut:
    """Stretches of the validation games that do not overlap, spread evenly over them.

    Each game is seen from one side, that of its first perspective.

    Args:
      task: of `next_frame.build`.
      warm_up: frames before the first prediction, 2 or more.
      horizon: frames to predict.
      count: stretches, where there are as many.

    Raises:
      InputError: no game has such a stretch.
    """
    arrays, length = task.arrays, warm_up + horizon
    table = arrays["perspective"]
    seen: dict[int, int] = {}
    for p in task.splits["validation"][:, 0].tolist():
        seen.setdefault(int(table[p, states.GAME]), p)
    found = []
    for p in seen.values():
        own, rival, _, frames, _ = table[p].tolist()
        valid = states.steps(arrays, own, rival, frames)["valid_t"]
        found += [(p, first) for first in stretches(valid, length - 1)]
    if not found:
        raise InputError(
            f"no held-out game has {length} frames in a row ({warm_up} to warm up, "
            f"{horizon} to predict) in which both players can act; lower --horizon or "
            "--warm_up"
        )
    even = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    picked = np.array(found)[even]
    facts = table[picked[:, 0]]
    time = picked[:, 1:] + np.arange(length)[None]
    row_ntn = facts[:, None, [states.OWN, states.OPPONENT]] + time[..., None]
    read = windows.read(arrays, row_ntn, facts[:, states.STAGE])
    hurt = arrays["harm"][row_ntn[:, :-1]].astype(np.float64)
    return HeldOut(
        frames=Frame(*map(np.asarray, read)),
        controllers_ntna=arrays["controller"][row_ntn[:, 1:]].astype(np.int32),
        reward_nt=hurt[..., 1] - hurt[..., 0],
        game_n=facts[:, states.GAME],
        warm_up=warm_up,
    )


def stretches(valid_t: np.ndarray, length: int) -> list[int]:
    """Where `length` steps in a row are valid: starts, from 1 on, none overlapping."""
    found, first = [], 1
    while first + length <= len(valid_t):
        bad = np.flatnonzero(~valid_t[first : first + length])
        if len(bad):
            first += int(bad[-1]) + 1
        else:
            found.append(first)
            # The last frame of a stretch is no frame of the next.
            first += length + 1
    return found


def roll_out(world: World, held: HeldOut, advance: Callable[[int], None]) -> Trajectory:
    """Every stretch rolled out with its true controllers; arrays of the host.

    Args:
      world: M members.
      held: N stretches.
      advance: called with the number of stretches done.
    """
    horizon = held.controllers_ntna.shape[1] - held.warm_up + 1

    @jax.jit
    def run(frames: Frame, controllers: jax.Array) -> Trajectory:
        past = jax.tree.map(lambda x: x[:, : held.warm_up], frames)
        place = warm_up(world, past, controllers)
        ahead = recorded(controllers[:, held.warm_up - 1 :])
        return rollout(world, place, horizon, ahead)[0]

    parts = []
    for begin in range(0, len(held), TOGETHER):
        # The last group is filled up with its last row: one shape, one compilation.
        rows = np.minimum(np.arange(begin, begin + TOGETHER), len(held) - 1)
        part = held.part(rows)
        parts.append(jax.device_get(run(part.frames, part.controllers_ntna)))
        advance(min(begin + TOGETHER, len(held)))
    joined = (
        np.concatenate(x, axis=1)[:, : len(held)] for x in zip(*parts, strict=True)
    )
    return Trajectory(*joined)


def errors(
    said: Trajectory, held: HeldOut, steps: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Mean errors after each of `steps` frames: of the world and of both floors.

    Of the position: the distance, in units, from where a fighter came to be; of other
    groups the mean absolute error. The world's states are the mean over members. Of
    action states: the share that is wrong, of a member on average. Of the reward: of
    the sum up to there, where a floor says 0.

    Returns:
      group -> {"unit", "model", "copy_last", "constant_velocity"}: a number for each
      step.
    """
    last = held.warm_up - 1
    state = np.asarray(held.frames.state_bs, np.float64)
    ids = np.asarray(held.frames.action_state_bn)
    now, before = state[:, last], state[:, last - 1]
    true_reward = held.reward_nt[:, last:].cumsum(axis=1)
    model = np.asarray(said.state_mbhs, np.float64).mean(axis=0)
    reward = np.asarray(said.reward_mbh, np.float64).mean(axis=0).cumsum(axis=1)
    found: dict[str, dict[str, Any]] = {
        group: {"unit": unit, "model": [], "copy_last": [], "constant_velocity": []}
        for group, unit in UNITS.items()
    }
    for h in steps:
        true = state[:, last + h]
        answers = {
            "model": model[:, h - 1],
            "copy_last": now,
            "constant_velocity": extrapolate(before, now, h),
        }
        for name, answer in answers.items():
            for group in states.GROUPS:
                found[group][name].append(float(off(answer, true, group).mean()))
            wrong = ids[:, last] != ids[:, last + h]
            summed = np.abs(true_reward[:, h - 1])
            if name == "model":
                wrong = said.action_state_mbhn[:, :, h - 1] != ids[None, :, last + h]
                summed = np.abs(reward[:, h - 1] - true_reward[:, h - 1])
            found[ACTION_STATE][name].append(float(np.mean(wrong)))
            found[REWARD][name].append(float(summed.mean()))
    return found


def off(answer_ns: np.ndarray, true_ns: np.ndarray, group: str) -> np.ndarray:
    """Error of each fighter in a group of features, [N, 2]; see `errors`."""
    apart = np.abs(answer_ns - true_ns)[:, states.columns(group)]
    return (
        np.hypot(*np.moveaxis(apart, -1, 0)) if group == "position" else apart.mean(-1)
    )


def disagreement(
    said: Trajectory, held: HeldOut, steps: Sequence[int]
) -> dict[str, list[float]]:
    """Spread of the members' positions, and its correlation with the error.

    Returns:
      spread: the mean over fighters of sqrt(var_x + var_y), in units, by step; rank
      correlation (Spearman's) of that spread with the error of the mean, by step.
    """
    last = held.warm_up - 1
    columns = states.columns("position")
    model = np.asarray(said.state_mbhs, np.float64)
    found: dict[str, list[float]] = {"spread": [], "rank_correlation": []}
    for h in steps:
        here = model[:, :, h - 1]
        spread = np.sqrt(here.var(axis=0)[:, columns].sum(-1)).ravel()
        true = np.asarray(held.frames.state_bs, np.float64)[:, last + h]
        error = off(here.mean(axis=0), true, "position").ravel()
        varies = np.ptp(spread) > 0 and np.ptp(error) > 0
        rank = stats.spearmanr(spread, error).statistic if varies else 0.0
        found["spread"].append(float(spread.mean()))
        found["rank_correlation"].append(float(rank))
    return found


def steps_to(horizon: int) -> list[int]:
    """The horizons to report: those of `STEPS` up to `horizon`, and itself."""
    return sorted({*(h for h in STEPS if h <= horizon), horizon})


def behind(found: Mapping[str, Mapping[str, Any]], group: str) -> list[bool]:
    """Whether the model's error exceeds the better floor's, at each step."""
    of = found[group]
    floors = zip(of["copy_last"], of["constant_velocity"], strict=True)
    return [m > min(f) for m, f in zip(of["model"], floors, strict=True)]
