"""Training batches of synthetic tasks: new ones for each step, or of a fixed set."""

from __future__ import annotations

import numpy as np

from jaxbench.data.order import epoch_order
from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.streams import keys, stream


def rows(examples: Examples, length: int = 0) -> np.ndarray:
    """Examples as one array, [N, 2, T]: tokens and targets, padded to `length`."""
    tokens_nt, targets_nt = examples
    missing = max(length - tokens_nt.shape[1], 0)
    pad = ((0, 0), (0, missing))
    return np.stack(
        [
            np.pad(tokens_nt, pad),
            np.pad(targets_nt, pad, constant_values=IGNORE),
        ],
        axis=1,
    ).astype(np.int32)


def draw_apart(
    event: Event,
    law: str,
    count: int,
    generator: np.random.Generator,
    held_out: np.ndarray,
) -> Examples:
    """Draws examples none of which is a held-out one.

    Args:
      event, law, count, generator: see `Event.draw`.
      held_out: sorted `keys` of the test examples.
    """
    examples = event.draw(law, count, generator)
    while True:
        found = _is_in(keys(examples.tokens_nt), held_out)
        if not found.any():
            return examples
        again = event.draw(law, int(found.sum()), generator)
        for mine, other in zip(examples, again, strict=True):
            mine[found] = other


class OnlineOrder:
    """Every step draws new examples: a function of the seed and the step alone.

    Args:
      event: what to draw from.
      law: of the examples.
      length: to pad sequences to.
      held_out: sorted `keys` of test examples, which are never drawn.
      batch_size: examples of one step.
      seed: of the draws.
    """

    steps_per_epoch = 0

    def __init__(
        self,
        event: Event,
        law: str,
        *,
        length: int,
        held_out: np.ndarray,
        batch_size: int,
        seed: int,
    ):
        self._event, self._law, self._length = event, law, length
        self._held_out = held_out
        self._batch_size, self._seed = batch_size, seed

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1, [pad_to, batch, 2, T].

        Rows past `count` repeat the last step; the program never reads them.
        """
        drawn = [self._step(start + i) for i in range(count)]
        return np.stack(drawn + [drawn[-1]] * (pad_to - count))

    def _step(self, step: int) -> np.ndarray:
        generator = stream(self._seed, self._event.name, "train", self._law, step)
        examples = draw_apart(
            self._event, self._law, self._batch_size, generator, self._held_out
        )
        return rows(examples, self._length)


class FixedSetOrder:
    """Epoch after epoch of permutations of a fixed training set, without gaps.

    A batch may hold the end of one epoch and the beginning of the next.

    Args:
      examples: rows [N, 2, T].
      batch_size: examples of one step.
      seed: of the permutations.
    """

    steps_per_epoch = 0

    def __init__(self, examples: np.ndarray, *, batch_size: int, seed: int):
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._epochs: dict[int, np.ndarray] = {}

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """As `OnlineOrder.steps`."""
        steps = np.minimum(start + np.arange(pad_to), start + count - 1)
        places = steps[:, None] * self._batch_size + np.arange(self._batch_size)[None]
        epochs, inside = np.divmod(places, len(self._examples))
        index = np.empty_like(places)
        wanted = np.unique(epochs)
        self._epochs = {e: self._permutation(int(e)) for e in wanted}
        for epoch, permutation in self._epochs.items():
            here = epochs == epoch
            index[here] = permutation[inside[here]]
        return self._examples[index]

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._epochs:
            return self._epochs[epoch]
        return epoch_order(self._seed, epoch, len(self._examples))


def _is_in(found: np.ndarray, sorted_keys: np.ndarray) -> np.ndarray:
    if not len(sorted_keys):
        return np.zeros(len(found), bool)
    place = np.searchsorted(sorted_keys, found)
    return sorted_keys[np.minimum(place, len(sorted_keys) - 1)] == found
