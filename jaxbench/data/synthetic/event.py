"""What a synthetic task is made of: laws that draw examples, and rules that answer."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxbench.errors import InputError, nearest

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


class Event(abc.ABC):
    """A synthetic task: what it asks, who draws its examples, and who answers them.

    A law is the name of a distribution of examples. Methods that are given a law or a
    level raise InputError where it does not exist.

    Attributes:
      name: of the task, e.g. "mqar".
      version: raised whenever a law draws other examples from the same generator.
      ceiling: the best share that any predictor can reach.
    """

    name: str
    version = 1
    ceiling = 1.0

    @property
    @abc.abstractmethod
    def laws(self) -> Mapping[str, Any]:
        """What the examples of each law are like, the levels first."""

    @property
    @abc.abstractmethod
    def levels(self) -> tuple[str, ...]:
        """Laws to train on, the easiest first."""

    @property
    def extra_laws(self) -> tuple[str, ...]:
        """Laws that only tests follow."""
        return tuple(law for law in self.laws if law not in self.levels)

    @property
    @abc.abstractmethod
    def vocabulary(self) -> int:
        """Token ids, inputs and answers together."""

    @property
    def scored(self) -> str:
        """What counts as right: "labels", "last" or "sequence".

        The share of single answers, of last answers of a sequence, or of sequences all
        of whose answers are right.
        """
        return "labels"

    @property
    def values_v(self) -> np.ndarray | None:
        """The number that each token stands for as an answer, float64 [vocabulary].

        NaN for others; None where answers are no numbers.
        """
        return None

    @abc.abstractmethod
    def length(self, law: str) -> int:
        """Tokens of a sequence; shorter ones are padded on the right."""

    @abc.abstractmethod
    def answers(self, law: str) -> int:
        """The most targets that a sequence of a law has."""

    def training_law(self, level: str) -> str:
        """What a level trains on; its validation follows the level itself."""
        return level

    @abc.abstractmethod
    def splits(self, level: str) -> tuple[int, int]:
        """Examples of the validation split of a level, and of its test split."""

    def validation_examples(self, level: str) -> int:
        """How many examples the validation split of a level has."""
        self.require(level, self.levels)
        return self.splits(level)[0]

    def tests(self, level: str) -> Mapping[str, Test]:
        """The test splits of a model that was trained up to a level; "test" first."""
        self.require(level, self.levels)
        others = {law: Test(law, 1000) for law in self.longer(level)}
        return {"test": Test(level, self.splits(level)[1])} | others

    def longer(self, level: str) -> Iterable[str]:
        """The laws of 1000 examples each that such a model is tested on besides."""
        del level
        return self.extra_laws

    @abc.abstractmethod
    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        """Draws independent examples.

        They are a function of the generator's state and `count`, and arrays of their
        own: the first of many are not those of few.
        """

    @abc.abstractmethod
    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The oracle: answers where `asked_nt`, from the tokens 0 .. t alone.

        It knows the task and nothing of how `draw` made the example: it reads tokens.

        Returns:
          int32 [N, T], token ids; `IGNORE` where nothing is asked.
        """

    @abc.abstractmethod
    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Scores, as `scored` says, of rules that learn nothing that is asked.

        Args:
          law: of the examples.
          examples: to be scored.
          train: others of the same law, for rules that count (such as the mode).
        """

    def law(self, name: str) -> Any:
        """What a law of this name draws."""
        self.require(name, self.laws)
        return self.laws[name]

    def require(self, law: str, laws: Iterable[str]) -> None:
        """Raises an InputError that names the nearest of `laws` if `law` is not one."""
        if law not in laws:
            raise InputError(
                f"{self.name}: there is no level {law!r}; nearest: {nearest(law, laws)}"
            )

    def require_option(self, option: str, valid: Iterable[str]) -> None:
        """Raises an InputError that names the nearest values of an option."""
        value = getattr(self, option)
        if value not in valid:
            raise InputError(
                f"{self.name}: {option}={value!r} is unknown; nearest: "
                f"{nearest(value, valid)}"
            )
