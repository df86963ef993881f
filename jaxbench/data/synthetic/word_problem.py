"""The word problem of a finite group: the product of all elements so far."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxbench.data.synthetic.event import Event, Examples
from jaxbench.data.synthetic.groups import GENERATORS, group
from jaxbench.data.synthetic.rules import mode_share, said_where, share_right

_LEVELS = {"L1": 4, "L2": 8, "L3": 12, "L4": 16, "L5": 20, "L6": 25}
_LENGTHS = {
    f"length_{tokens}": tokens
    for tokens in sorted({times * k for times in (2, 4) for k in _LEVELS.values()})
}
_LAWS = _LEVELS | _LENGTHS


@dataclasses.dataclass(frozen=True)
class WordProblem(Event):
    """Elements g_0 .. g_{k-1} of a group; after each, the product g_0 g_1 .. g_t.

    Elements are uniform and independent, a token each; token 0 is the identity. A
    product ab is first a, then b (see `groups`), so each new element multiplies the
    product so far from the right. Every position is asked, and no answer is read.

    Source: Merrill, Petty and Sabharwal 2024, arXiv:2404.08819, with its
    three groups of order 60: A5 is not solvable, so its word problem is complete for
    NC1; A4xZ5 is solvable and not commutative; Z60 is commutative. Levels L1 to L6 have
    4, 8, 12, 16, 20 and 25 elements, tests two and four times as many.

    Attributes:
      group: "A5", "A4xZ5" or "Z60".

    Raises:
      InputError: an unknown group.
    """

    group: str = "A5"

    name = "word_problem"
    vocabulary = 60
    laws = _LAWS
    levels = tuple(_LEVELS)

    def __post_init__(self) -> None:
        self.require_option("group", GENERATORS)

    def splits(self, level: str) -> tuple[int, int]:
        return 5000, 10_000

    def length(self, law: str) -> int:
        return self.law(law)

    def answers(self, law: str) -> int:
        return self.length(law)

    def longer(self, level: str) -> list[str]:
        return [f"length_{times * _LEVELS[level]}" for times in (2, 4)]

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        shape = (count, self.length(law))
        tokens_nt = generator.integers(self.vocabulary, size=shape, dtype=np.int32)
        return Examples(tokens_nt, self._products(tokens_nt))

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The running product."""
        return said_where(asked_nt, self._products(tokens_nt))

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Guesses: any element, the most frequent product, the element just read."""
        targets_nt = examples.targets_nt
        return {
            "uniform": 1 / self.vocabulary,
            "mode": mode_share(examples, train, self.scored),
            # Right at the first position, where the product is that element.
            "last_element": share_right(examples.tokens_nt, targets_nt, self.scored),
        }

    def _products(self, tokens_nt: np.ndarray) -> np.ndarray:
        table_gg = group(self.group).table_gg
        products_nt = np.empty(tokens_nt.shape, np.int32)
        product_n = np.zeros(len(tokens_nt), np.int32)
        for place, element_n in enumerate(tokens_nt.T):
            product_n = table_gg[product_n, element_n]
            products_nt[:, place] = product_n
        return products_nt
