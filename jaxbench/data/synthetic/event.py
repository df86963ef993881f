"""What a synthetic task is made of: laws that draw examples, and rules that answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

# Target of a position that asks nothing.
IGNORE = -1


class Examples(NamedTuple):
    """Sequences and what they ask.

    The target of position t is what a model should say after it has read the tokens
    0 .. t; it is aligned, not shifted.

    Attributes:
      tokens_nt: int32 [N, T], what is read.
      targets_nt: int32 [N, T], token ids; `IGNORE` where nothing is asked.
    """

    tokens_nt: np.ndarray
    targets_nt: np.ndarray


class Test(NamedTuple):
    """A test split.

    Attributes:
      law: that its examples follow.
      examples: how many.
    """

    law: str
    examples: int


class Event(Protocol):
    """One synthetic task. A law is the name of a distribution of examples.

    Attributes:
      name: of the task, e.g. "mqar".
      version: raised whenever a law draws other examples from the same generator.
      vocabulary: token ids, inputs and answers together.
      levels: laws to train on, the easiest first.
      extra_laws: laws that only tests follow.
      scored: what counts as right: "labels" (the share of single answers), "last" (the
        last answer of a sequence) or "sequence" (all answers of a sequence).
      ceiling: the best share that any predictor can reach.
      values_v: float64 [vocabulary], the number that a token stands for as an answer,
        NaN for others; None where answers are no numbers.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def levels(self) -> tuple[str, ...]: ...

    @property
    def extra_laws(self) -> tuple[str, ...]: ...

    @property
    def scored(self) -> str: ...

    @property
    def ceiling(self) -> float: ...

    @property
    def values_v(self) -> np.ndarray | None: ...

    def length(self, law: str) -> int:
        """Tokens of a sequence; shorter ones are padded on the right."""

    def answers(self, law: str) -> int:
        """The most targets that a sequence of a law has."""

    def training_law(self, level: str) -> str:
        """What a level trains on; its validation follows the level itself."""

    def validation_examples(self, level: str) -> int:
        """How many examples the validation split of a level has."""

    def tests(self, level: str) -> Mapping[str, Test]:
        """The test splits of a model that was trained up to a level; "test" first."""

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        """Draws independent examples.

        They are a function of the generator's state and `count`, and arrays of their
        own: the first of many are not those of few.
        """

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The oracle: answers where `asked_nt`, from the tokens 0 .. t alone.

        It knows the task and nothing of how `draw` made the example: it reads tokens.

        Returns:
          int32 [N, T], token ids; `IGNORE` where nothing is asked.
        """

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Scores, as `scored` says, of rules that learn nothing that is asked.

        Args:
          law: of the examples.
          examples: to be scored.
          train: others of the same law, for rules that count (such as the mode).
        """
