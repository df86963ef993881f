"""The contract between what is learned (a task) and how it is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

Batch = dict[str, jax.Array]


class Order(Protocol):
    """Batches by step: a function of the seed and the step alone.

    Attributes:
      steps_per_epoch: steps until the data begins anew; 0 where it is drawn at random.
    """

    steps_per_epoch: int

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1, [pad_to, batch, ...].

        A row is an index into `arrays`, or the example itself: what `gather` is given.
        The program never reads the steps past `count`.
        """


Statistics = dict[str, jax.Array]


class Stage(NamedTuple):
    """A part of a curriculum that comes before the last.

    Attributes:
      name: of the level.
      order: as `Task.order`.
      split: the split that validates it.
    """

    name: str
    order: Callable[..., Order]
    split: str


@dataclasses.dataclass(frozen=True)
class Task:
    """Data on the device once, a pure way to gather batches, a loss, and floors.

    Attributes:
      name: `config["task"]`, e.g. "zelda".
      protocol: "clean" or "compat".
      encoder: linen module, `encoder(batch) -> x_btd` of the model's width.
      head: linen module, `head(h_btd, batch) -> outputs`. It may read targets from
        the batch (teacher forcing) and nothing else about the future.
      readout: "last" scores the last frame of a window, "all" every frame.
      arrays: host arrays placed on the device once; `gather` reads them there.
      splits: split name -> [N] or [N, k], one row per example, of the splits that are
        scored.
      order: `order(batch_size=, seed=)`, which rows make up which step of training:
        the same for every backbone.
      gather: pure, `(arrays, examples[B, ...]) -> batch`; runs inside the jitted step.
        `batch["reset_bt"]`, bool [B, T], where episodes begin inside a window; a task
        without it has none. `weight_b` is added to the batch later, not here.
      loss: `(outputs, batch) -> (scalar, statistics)`. `batch["weight_b"]` is 1 for
        real examples and 0 for padding; the scalar is the weighted mean. Statistics
        are sums, so that those of several batches add up; `weight` among them is what
        the mean was divided by.
      summarize: `(summed statistics) -> metrics`, on the host. Contains `primary`.
      primary: the metric that selects the best checkpoint.
      maximize: whether larger is better for `primary`.
      tokens_per_example: positions a window holds, for tokens/s.
      floors: name -> metrics a model must beat, measured on the validation split.
      source: what the data was: at least "source" (a word), "fingerprint" (a digest)
        and "options" (what of the recipe made it: runs that differ are not compared);
        what else a result should tell, such as splits and counts.
      level: name of what `order` and "validation" are about, where there is more.
      curriculum: what is trained before it.
      ceiling: metrics that no model can pass, where they are known.
      finals: splits that are scored once, with the best weights, when a run has ended.
      excluded: other splits, and why this model is not scored on them.
      augment: pure, `(batch, key) -> batch`: what training does to a batch before it
        learns from it; None for nothing.
    """

    name: str
    protocol: str
    encoder: nn.Module
    head: nn.Module
    readout: str
    arrays: Mapping[str, np.ndarray]
    splits: Mapping[str, np.ndarray]
    order: Callable[..., Order]
    gather: Callable[[Mapping[str, jax.Array], jax.Array], Batch]
    loss: Callable[[Any, Batch], tuple[jax.Array, Statistics]]
    summarize: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    primary: str
    maximize: bool
    tokens_per_example: int
    floors: Mapping[str, Mapping[str, float]]
    source: Mapping[str, Any]
    level: str = ""
    curriculum: tuple[Stage, ...] = ()
    ceiling: Mapping[str, float] = dataclasses.field(default_factory=dict)
    finals: tuple[str, ...] = ()
    excluded: Mapping[str, str] = dataclasses.field(default_factory=dict)
    augment: Callable[[Batch, jax.Array], Batch] | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All parts of training, the last included."""
        return (*self.curriculum, Stage(self.level, self.order, "validation"))
