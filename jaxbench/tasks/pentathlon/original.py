"""The five tasks as the report had them: its generators, streams, epochs and table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbench.data.synthetic.event import IGNORE
from jaxbench.data.synthetic.orders import rows
from jaxbench.data.synthetic.original_event import EPOCH, OriginalEvent
from jaxbench.data.synthetic.streams import fingerprint
from jaxbench.tasks.pentathlon.curriculum import parse_levels
from jaxbench.tasks.pentathlon.loss import PRIMARY, answer_loss, summarize
from jaxbench.tasks.pentathlon.modules import (
    TokenEncoder,
    TokenHead,
    TokenTable,
    gather,
    learns_positions,
)
from jaxbench.tasks.task import Task


class OriginalOrder:
    """Epochs of 1000 new instances from one numpy stream; the last batch is short.

    A short batch is filled up with rows that ask nothing. Instances are drawn one
    after the other, so step s costs all before it once; they are kept for one epoch.

    Args:
      event: what to draw from.
      level: of the instances.
      batch_size: instances of one step.
      seed: of the run; the stream's own is 42 more.
    """

    def __init__(self, event: OriginalEvent, level: str, *, batch_size: int, seed: int):
        self._event, self._level, self._seed = event, level, seed
        self._batch_size = batch_size
        self.steps_per_epoch = -(-EPOCH // batch_size)
        self._epoch = -1

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1 of one epoch, [pad_to, batch, 2, T]."""
        epoch, first = divmod(start, self.steps_per_epoch)
        assert first + count <= self.steps_per_epoch, "steps cross an epoch"
        self._draw_until(epoch)
        steps = np.minimum(first + np.arange(pad_to), first + count - 1)
        index = steps[:, None] * self._batch_size + np.arange(self._batch_size)[None]
        found = self._rows[np.minimum(index, EPOCH - 1)].copy()
        found[index >= EPOCH, 1] = IGNORE
        return found

    def _draw_until(self, epoch: int) -> None:
        if epoch < self._epoch or self._epoch < 0:
            self._state = self._event.training_stream(self._seed)
            self._epoch = -1
        length = self._event.length(self._level)
        while self._epoch < epoch:
            self._rows = rows(self._event.epoch(self._state, self._level), length)
            self._epoch += 1


def build(event: OriginalEvent, config: Mapping[str, Any], width: int) -> Task:
    """A task of the report.

    Training is an epoch of 1000 new instances after another from stream 42 + seed;
    validation is the first 200 instances of stream 43 + seed. The token table is drawn
    from N(0, 1) and tied to the output, and so are learned positions, which the
    report's vanilla model has; embedded tokens have no dropout. Differences: the report
    drew other validation instances in each epoch; here they stay the same, so that a
    curve has less noise.

    Args:
      event: an original generator.
      config: the resolved recipe, such as configs/mqar.py, whose values were checked.
      width: of the encoder's output.

    Raises:
      InputError: a level that does not exist.
    """
    level, seed = config["data"]["level"], config["seed"]
    (level,) = parse_levels(level, event.levels)
    length = event.length(level)
    validation = event.validation(seed, level)
    counted = event.epoch(event.training_stream(seed), level)
    table = TokenTable(event.laws[level].vocabulary, width, scale=1.0)
    primary = PRIMARY[event.scored]
    floors = event.floors(level, validation, counted)
    return Task(
        name=event.name,
        protocol="compat",
        encoder=TokenEncoder(
            table,
            event.laws[level].positions if learns_positions(config["model"]) else 0,
            scale=1.0,
        ),
        head=TokenHead(table, getattr(jnp, config["train"]["dtype"])),
        readout="all",
        arrays={},
        splits={"validation": rows(validation, length)},
        order=functools.partial(OriginalOrder, event, level),
        gather=functools.partial(gather, {length: event.answers(level)}),
        loss=functools.partial(answer_loss, None),
        summarize=summarize,
        primary=primary,
        maximize=True,
        tokens_per_example=length,
        floors={name: {primary: score} for name, score in floors.items()},
        ceiling={primary: event.ceiling},
        source={
            "source": "synthetic",
            "level": level,
            "version": event.version,
            # Of the generator, not of the seed: seeds of one board are one group.
            "fingerprint": fingerprint(event.validation(0, level)),
            "options": {},
        },
        level=level,
    )
