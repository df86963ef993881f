"""What the generators of the pentathlon's first report share: streams, epochs, laws."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.rules import mode_share

# Instances of what the report calls an epoch, and of one evaluation.
EPOCH = 1000
VALIDATION = 200
# The report has no test split; this is one, of other streams than numpy's 42 + s.
TEST = 2000

# Seeds of the streams of run 0: run s trains on 42 + s, so that what run s is evaluated
# on is what run s + 1 trains on.
TRAIN_SEED = 42
VALIDATION_SEED = 43


class Instance(NamedTuple):
    """One sequence as the report's generators return it, before any padding.

    Attributes:
      input_t: int64 [T].
      target_t: int64 [T], what the report's loss compares with the output at t.
      mask_t: bool [T], true where loss and accuracy count.
    """

    input_t: np.ndarray
    target_t: np.ndarray
    mask_t: np.ndarray


class Law(NamedTuple):
    """One setting of a generator.

    Attributes:
      length: tokens of the longest sequence.
      answers: the most positions that count.
      vocabulary: V of the report's model, for its parameter count.
      positions: M, the report's longest sequence: rows of its position table.
    """

    length: int
    answers: int
    vocabulary: int
    positions: int


class OriginalEvent(Event):
    """A task of the report: what `Event` has, with numpy's legacy streams.

    The five tasks say `laws`, `instance`, `solve` and `floors`; the rest is here, since
    the report ran them all alike.
    """

    @property
    def levels(self) -> tuple[str, ...]:
        """All laws: the report tests what it trains on."""
        return tuple(self.laws)

    @property
    def vocabulary(self) -> int:
        """Of the largest model."""
        return max(law.vocabulary for law in self.laws.values())

    def splits(self, level: str) -> tuple[int, int]:
        """As many as the report evaluates after an epoch; it has no test split."""
        return VALIDATION, TEST

    @abc.abstractmethod
    def instance(self, state: np.random.RandomState, law: str) -> Instance:
        """Draws one sequence, with the report's calls in the report's order."""

    def draw_original(
        self, state: np.random.RandomState, count: int, law: str
    ) -> list[Instance]:
        """Draws sequences from a stream of the report, which moves on.

        Raises:
          InputError: a level that does not exist.
        """
        self.require(law, self.laws)
        return [self.instance(state, law) for _ in range(count)]

    def epoch(self, state: np.random.RandomState, law: str) -> Examples:
        """The next 1000 instances of a stream."""
        return self.to_examples(self.draw_original(state, EPOCH, law), law)

    def training_stream(self, seed: int) -> np.random.RandomState:
        """The stream that run `seed` trains on."""
        return np.random.RandomState(TRAIN_SEED + seed)

    def validation_stream(self, seed: int) -> np.random.RandomState:
        """The stream that run `seed` is evaluated on, 200 new instances an epoch."""
        return np.random.RandomState(VALIDATION_SEED + seed)

    def validation(self, seed: int, law: str) -> Examples:
        """The first 200 instances of the validation stream of run `seed`."""
        drawn = self.draw_original(self.validation_stream(seed), VALIDATION, law)
        return self.to_examples(drawn, law)

    def to_examples(self, instances: Sequence[Instance], law: str) -> Examples:
        """Pads on the right, tokens with 0 and targets with `IGNORE`.

        Targets that the mask leaves out are `IGNORE` too.
        """
        shape = (len(instances), self.length(law))
        tokens_nt = np.zeros(shape, np.int32)
        targets_nt = np.full(shape, IGNORE, np.int32)
        for n, (input_t, target_t, mask_t) in enumerate(instances):
            tokens_nt[n, : len(input_t)] = input_t
            targets_nt[n, : len(input_t)] = np.where(mask_t, target_t, IGNORE)
        return Examples(tokens_nt, targets_nt)

    def length(self, law: str) -> int:
        """Tokens of a sequence; shorter ones are padded on the right."""
        return self.law(law).length

    def answers(self, law: str) -> int:
        """The most targets that a sequence of a law has."""
        return self.law(law).answers

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        """Draws examples from a legacy stream that the generator seeds."""
        state = np.random.RandomState(int(generator.integers(2**32)))
        return self.to_examples(self.draw_original(state, count, law), law)


def counting_floors(examples: Examples, train: Examples) -> dict[str, float]:
    """A uniform guess among the answers seen in training, and their most frequent."""
    answers = train.targets_nt[train.targets_nt != IGNORE]
    return {
        "uniform": 1 / len(np.unique(answers)),
        "mode": mode_share(examples, train, "labels"),
    }
