"""What a model must beat: two predictors of the next frame that know no physics.

copy_last: the next frame is this one.
constant_velocity: both fighters move on as they moved from the frame before, and
everything else stays.

Both predict no reward, and done at the rate of the training split. They are measured on
the frames that validation scores, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxbench.tasks.world import frame, loss, states

_POSITION = states.columns("position")


def measure(
    arrays: Mapping[str, np.ndarray],
    perspectives: Sequence[states.Perspective],
    *,
    train: Sequence[int],
    examples: np.ndarray,
    window: int,
    scales: frame.Scales,
) -> dict[str, dict[str, float]]:
    """Metrics of both floors on windows that do not overlap.

    Args:
      arrays, perspectives: from `states.store`.
      train: perspectives of the training split.
      examples: windows of the validation split, int [N, 2].
      window: frames of each.
      scales: of the task.
    """
    rate = _rate_of_done(arrays, [perspectives[p] for p in train])
    parts: dict[str, list[np.ndarray]] = {}
    for p in dict.fromkeys(examples[:, 0].tolist()):
        seen = perspectives[p]
        step = states.steps(arrays, seen.start, seen.rival, seen.length)
        first = examples[examples[:, 0] == p, 1]
        t = (first[:, None] + np.arange(window)[None]).ravel()
        before = np.concatenate([step["state_ts"][:1], step["state_ts"]])
        for name, values in {**step, "before_ts": before}.items():
            parts.setdefault(name, []).append(values[t])
    found = {name: np.concatenate(values) for name, values in parts.items()}
    alive, valid = found["alive_t"], found["valid_t"]
    now, then, before = (
        found[name][valid].astype(np.float64)
        for name in ("state_ts", "next_ts", "before_ts")
    )
    same = found["action_state_tn"] == found["next_action_state_tn"]
    done = found["done_t"][alive]
    shared = {
        "action_state_accuracy": float(same[valid].mean()),
        "action_state_accuracy/changes": 0.0,
        "reward_error": float(
            np.mean((found["reward_t"][alive] / float(scales.reward[0])) ** 2)
        ),
        "done_nats": float(-np.mean(np.log(np.where(done, rate, 1 - rate)))),
    }
    said = {"copy_last": now, "constant_velocity": extrapolate(before, now, 1)}
    return {
        name: _errors(prediction - then, scales) | shared
        for name, prediction in said.items()
    }


def extrapolate(before_s: np.ndarray, now_s: np.ndarray, steps: int) -> np.ndarray:
    """States [..., STATE] `steps` frames on, of positions that go on as they went."""
    said = np.array(now_s)
    columns = _POSITION.ravel()
    said[..., columns] += steps * (now_s - before_s)[..., columns]
    return said


def _errors(off_ts: np.ndarray, scales: frame.Scales) -> dict[str, float]:
    error_s = np.mean((off_ts / np.asarray(scales.change_std, np.float64)) ** 2, axis=0)
    distance = np.hypot(*np.moveaxis(off_ts[:, _POSITION], -1, 0)).mean()
    return loss.made(error_s, float(distance))


def _rate_of_done(
    arrays: Mapping[str, np.ndarray], train: Sequence[states.Perspective]
) -> float:
    """The share of frames at which it is over, one added to both counts."""
    over, count = 1.0, 2.0
    for seen in train:
        step = states.steps(arrays, seen.start, seen.rival, seen.length)
        over += float((step["done_t"] & step["alive_t"]).sum())
        count += float(step["alive_t"].sum())
    return over / count
