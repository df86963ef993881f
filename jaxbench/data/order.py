"""Which examples make up which step: a function of the seed and the step alone."""

from __future__ import annotations

import numpy as np

from jaxbench.errors import InputError


def epoch_order(seed: int, epoch: int, examples: int) -> np.ndarray:
    """A full permutation of `examples` indices, the same for every backbone.

    Philox counts from (seed, epoch), so any epoch can be drawn without the others.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(examples)


class DrawnDelays:
    """An order whose examples end in a number drawn anew for each step.

    Args:
      order: of examples [N, k]; the last column is replaced.
      low, high: the numbers, both ends included, alike in probability.
      seed: of the draws, which depend on it and on the step alone.
    """

    def __init__(self, order: EpochOrder, *, low: int, high: int, seed: int):
        self._order, self._low, self._high, self._seed = order, low, high, seed
        self.steps_per_epoch = order.steps_per_epoch

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1 of one epoch: [pad_to, batch, k]."""
        rows = np.array(self._order.steps(start, count, pad_to))
        for place in range(pad_to):
            step = start + min(place, count - 1)
            # Another stream than the permutations', which count epochs. As a list, two
            # numbers of that size would become floats, and steps would share a key.
            key = np.array([self._seed, (1 << 63) + step], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key))
            size = rows.shape[1]
            rows[place, :, -1] = generator.integers(self._low, self._high + 1, size)
        return rows


class EpochOrder:
    """Batches by step: epoch after epoch of full permutations.

    The examples left over at an epoch's end (fewer than a batch) are skipped; another
    permutation leaves others out.

    Args:
      examples: int32 [N] or [N, k], the rows of the training split.
      batch_size: examples of one step.
      seed: of the permutations.

    Raises:
      InputError: fewer examples than a batch.
    """

    def __init__(self, examples: np.ndarray, *, batch_size: int, seed: int):
        if len(examples) < batch_size:
            raise InputError(
                f"the training split has {len(examples)} examples, fewer than one "
                f"batch of train.batch_size={batch_size}; lower it or add data"
            )
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.steps_per_epoch = len(examples) // batch_size
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1 of one epoch: [pad_to, batch, ...].

        Rows past `count` repeat the last step; the program never reads them.
        """
        epoch, first = divmod(start, self.steps_per_epoch)
        assert first + count <= self.steps_per_epoch, "steps cross an epoch"
        if epoch != self._epoch:
            self._order = epoch_order(self.seed, epoch, len(self.examples))
            self._epoch = epoch
        steps = np.minimum(first + np.arange(pad_to), first + count - 1)
        rows = steps[:, None] * self.batch_size + np.arange(self.batch_size)[None]
        return self.examples[self._order[rows]]
