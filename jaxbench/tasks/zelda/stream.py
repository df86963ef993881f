"""A split's games frame by frame, as a player meets them: on the host, in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from jaxbench.tasks.task import Task

# What the encoders read from a batch, besides reset_bt.
INPUTS = {
    "clean": (
        *("numeric_btf", "action_state_btn", "character_btp", "stage_bt"),
        *("item_type_bti", "previous_bta"),
    ),
    "compat": ("frame_btf",),
}
FRAMES_PER_GATHER = 256


@dataclasses.dataclass(frozen=True)
class Stream:
    """Frames in the order of play.

    Attributes:
      examples: rows for `Task.gather` whose windows end at these frames, [N, ...].
      start_n: bool, true where a game begins.
      first_n: int, index of the first frame of the game a frame belongs to.
      frames: what the encoder reads, host arrays [N, ...], made by the same program
        that makes training's windows.
    """

    examples: np.ndarray
    start_n: np.ndarray
    first_n: np.ndarray
    frames: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.examples)

    def frame(self, n: int) -> dict[str, np.ndarray]:
        """Frame n alone, a batch [1, 1, ...]: views, nothing is copied."""
        batch = {name: x[None, n : n + 1] for name, x in self.frames.items()}
        return batch | {"reset_bt": self.start_n[None, n : n + 1]}

    def window(self, n: int, length: int) -> dict[str, np.ndarray]:
        """The `length` frames up to n, a batch [1, length, ...].

        Frames before the game's first repeat the first, each of them a reset, so that
        the true first one starts from the initial state.
        """
        first = self.first_n[n]
        index = np.arange(n + 1 - length, n + 1)
        kept = np.maximum(index, first)
        batch = {name: x[kept][None] for name, x in self.frames.items()}
        reset = index <= first
        reset[0] = True
        return batch | {"reset_bt": reset[None]}


def open_stream(
    task: Task, arrays: Mapping[str, jax.Array], split: str, count: int
) -> Stream:
    """Reads the first `count` frames of a split's games (all, where it has fewer).

    Clean: every frame of each perspective up to the last that is scored, one
    perspective after the other. Compat: every row of the split's games; unlike
    training's windows, those of the stream do not reach into the game before.

    Args:
      task: built by `imitation.build`.
      arrays: the task's arrays on the device.
      split: "train" or "validation".
      count: frames wanted.
    """
    examples, start_n = play_order(task, split)
    examples, start_n = examples[:count], start_n[:count]
    places = np.where(start_n, np.arange(len(start_n)), 0)
    first_n = np.maximum.accumulate(places)
    return Stream(examples, start_n, first_n, _read(task, arrays, examples))


def play_order(task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Examples that end at each frame of a split's games, and where games begin."""
    rows = task.splits[split]
    if task.protocol == "compat":
        first = rows[0] - (task.tokens_per_example - 1)
        examples = np.arange(first, rows[-1] + 1, dtype=rows.dtype)
        return examples, task.arrays["begins"][examples]
    played, parts = dict.fromkeys(rows[:, 0].tolist()), []
    for perspective in played:
        last = rows[rows[:, 0] == perspective, 1].max()
        index = np.arange(last + 1, dtype=rows.dtype)
        parts.append(np.stack([np.full_like(index, perspective), index], axis=1))
    examples = np.concatenate(parts)
    return examples, examples[:, 1] == 0


def _read(
    task: Task, arrays: Mapping[str, jax.Array], examples: np.ndarray
) -> dict[str, np.ndarray]:
    """The last frame of each example's window: what training shows as that frame."""
    names = INPUTS[task.protocol]

    @jax.jit
    def last(arrays: Mapping[str, jax.Array], examples_b: jax.Array) -> dict:
        batch = task.gather(arrays, examples_b)
        return {name: batch[name][:, -1] for name in names}

    parts = []
    for begin in range(0, len(examples), FRAMES_PER_GATHER):
        # The last group is filled up with its last row: one shape, one compilation.
        index = np.arange(begin, begin + FRAMES_PER_GATHER)
        group = examples[np.minimum(index, len(examples) - 1)]
        parts.append(jax.device_get(last(arrays, group)))
    return {
        name: np.concatenate([part[name] for part in parts])[: len(examples)]
        for name in names
    }
