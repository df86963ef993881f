"""Multi-query associative recall: keys with values, then every key is asked again."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.rules import mode_share, said_where
from jaxbench.errors import InputError

FILLERS = ("zero", "random")
# Queries stand at slot g with a probability of (g + 1)^(POWER - 1).
POWER = 0.01
# Examples made at a time, so that a large set takes little memory.
BLOCK = 8192


class _Part(NamedTuple):
    """Sequences of one shape, and how many there are beside those of other parts."""

    tokens: int
    pairs: int
    share: int = 1


_LEVELS: dict[str, tuple[_Part, ...]] = {
    "L0": (_Part(32, 4),),
    "L1": (_Part(64, 4),),
    "L2": (_Part(128, 8),),
    "L3": (_Part(256, 16),),
    "L4": (_Part(512, 64),),
    "mixed": (
        _Part(64, 4, 5),
        _Part(128, 8),
        _Part(256, 16),
        _Part(256, 32),
        _Part(256, 64),
    ),
}
_LENGTHS: dict[str, tuple[_Part, ...]] = {
    "length_512": (_Part(512, 128),),
    "length_1024": (_Part(1024, 256),),
}


@dataclasses.dataclass(frozen=True)
class Mqar(Event):
    """The value of a key that was seen once: k_1 v_1 .. k_K v_K, then each key again.

    Keys are 1 .. V/2-1 and values V/2 .. V-1, both without repetition. After the 2K
    tokens of context come (T - 2K) // 2 slots of two tokens; every key is asked once,
    at the first token of a slot, and pair i takes the i-th slot drawn without
    replacement with p(g) ~ (g + 1)^(a - 1), a = 0.01. The answer stands at the key and
    is not fed back. All else is filler, and so is the padding of shorter sequences: 0.

    Source: Arora et al. 2023, arXiv:2312.04927, and its code: the shapes of figure 2
    (L1 to L4, from 4 pairs in 64 tokens to 64 in 512) and of a later mixture ("mixed":
    64 tokens with 4 pairs five times as often as 128 with 8 and as 256 with 16, 32 and
    64). Differences: a validation split, a generator of our own, and L0 (4 pairs in 32
    tokens) for machines without an accelerator.

    Attributes:
      vocabulary: V, keys and values together.
      filler: "zero", or "random" for any of the V tokens between the queries.
      pairs, tokens: K and T of a law of its own, "custom", then the only level; 0, 0
        for none.

    Raises:
      InputError: an unknown filler; one of `pairs` and `tokens` without the other; more
        pairs than the vocabulary or the sequence of a law holds.
    """

    vocabulary: int = 8192
    filler: str = "zero"
    pairs: int = 0
    tokens: int = 0

    name = "mqar"

    def __post_init__(self) -> None:
        self.require_option("filler", FILLERS)
        if min(self.pairs, self.tokens) < 0 or (self.pairs > 0) != (self.tokens > 0):
            raise InputError(
                f"mqar: pairs={self.pairs} and tokens={self.tokens} must both be above "
                "0 for a level of their own, or both 0"
            )
        if self.pairs:
            self._parts("custom")

    @property
    def laws(self) -> dict[str, tuple[_Part, ...]]:
        """The shapes of each law's sequences."""
        custom = {"custom": (_Part(self.tokens, self.pairs),)}
        return (custom if self.pairs else _LEVELS) | _LENGTHS

    @property
    def levels(self) -> tuple[str, ...]:
        return ("custom",) if self.pairs else tuple(_LEVELS)

    @property
    def extra_laws(self) -> tuple[str, ...]:
        """Longer sequences, as far as the vocabulary has keys for them."""
        return tuple(
            name for name, (part,) in _LENGTHS.items() if part.pairs <= self._keys
        )

    def length(self, law: str) -> int:
        return max(part.tokens for part in self._parts(law))

    def answers(self, law: str) -> int:
        return max(part.pairs for part in self._parts(law))

    def splits(self, level: str) -> tuple[int, int]:
        return (1000, 1000) if level == "L0" else (3000, 3000)

    def longer(self, level: str) -> list[str]:
        length = self.length(level)
        # L4 is as long as the shorter one, which holds twice as many pairs.
        return [
            law for law in self.extra_laws if length < self.length(law) or level == "L4"
        ]

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        parts, length = self._parts(law), self.length(law)
        tokens_nt = np.zeros((count, length), np.int32)
        targets_nt = np.full((count, length), IGNORE, np.int32)
        ends = np.cumsum([part.share for part in parts])
        ticket_n = generator.integers(ends[-1], size=count)
        part_n = np.searchsorted(ends, ticket_n, side="right")
        for index, part in enumerate(parts):
            rows = np.flatnonzero(part_n == index)
            for start in range(0, len(rows), BLOCK):
                block = rows[start : start + BLOCK]
                drawn = self._draw_part(part, len(block), generator)
                tokens_nt[block, : part.tokens] = drawn.tokens_nt
                targets_nt[block, : part.tokens] = drawn.targets_nt
        return Examples(tokens_nt, targets_nt)

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The token after the first occurrence of the token that is asked."""
        length = tokens_nt.shape[1]
        row_n1 = np.arange(len(tokens_nt))[:, None]
        _, first, inverse = np.unique(
            row_n1 * self.vocabulary + tokens_nt, return_index=True, return_inverse=True
        )
        first_nt = first[inverse].reshape(tokens_nt.shape) - row_n1 * length
        known_nt = asked_nt & (first_nt < np.arange(length)[None])
        after_nt = np.minimum(first_nt + 1, length - 1)
        return said_where(known_nt, np.take_along_axis(tokens_nt, after_nt, axis=1))

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Guesses: of any value, the most frequent one, any value of the context."""
        targets_nt = examples.targets_nt
        return {
            "uniform": 1 / (self.vocabulary - self.vocabulary // 2),
            "mode": mode_share(examples, train, self.scored),
            # K answers, each right with probability 1/K: one of a sequence.
            "in_context_value": len(targets_nt) / int((targets_nt != IGNORE).sum()),
        }

    @property
    def _keys(self) -> int:
        return self.vocabulary // 2 - 1

    def _parts(self, law: str) -> tuple[_Part, ...]:
        """The shapes of a law's sequences, all of which can be drawn."""
        parts: tuple[_Part, ...] = self.law(law)
        for tokens, pairs, _ in parts:
            if pairs > self._keys or 4 * pairs > tokens:
                raise InputError(
                    f"mqar {law}: {pairs} are more pairs than the vocabulary or the "
                    f"sequence holds: vocabulary={self.vocabulary} has "
                    f"{max(self._keys, 0)} keys (half of it, less one), {tokens} "
                    f"tokens hold {tokens // 4} pairs (four tokens each)"
                )
        return parts

    def _draw_part(
        self, part: _Part, count: int, generator: np.random.Generator
    ) -> Examples:
        """Examples of one shape."""
        length, pairs, _ = part
        half, context = self.vocabulary // 2, 2 * pairs
        keys_nk = 1 + distinct(generator, count, pairs, self._keys)
        values_nk = half + distinct(generator, count, pairs, self.vocabulary - half)
        weight_g = np.arange(1, (length - context) // 2 + 1) ** (POWER - 1)
        # Exponential clocks of rate p ring in the order of draws without replacement.
        rings_ng = generator.standard_exponential((count, len(weight_g)))
        rings_ng /= weight_g[None]
        place_nk = context + 2 * np.argsort(rings_ng, axis=1)[:, :pairs]
        tokens_nt = np.zeros((count, length), np.int32)
        if self.filler == "random":
            tokens_nt[:] = generator.integers(self.vocabulary, size=tokens_nt.shape)
        tokens_nt[:, 0:context:2] = keys_nk
        tokens_nt[:, 1:context:2] = values_nk
        np.put_along_axis(tokens_nt, place_nk, keys_nk, axis=1)
        targets_nt = np.full_like(tokens_nt, IGNORE)
        np.put_along_axis(targets_nt, place_nk, values_nk, axis=1)
        return Examples(tokens_nt, targets_nt)


def distinct(
    generator: np.random.Generator, count: int, picked: int, among: int
) -> np.ndarray:
    """Ordered draws without replacement of `picked` numbers below `among`, [count, K].

    Floyd's algorithm (Bentley and Floyd 1987): memory of the result alone, however
    large `among` is, and count * picked^2 / 2 comparisons.
    """
    drawn_kn = np.empty((picked, count), np.int32)
    for index in range(picked):
        last = among - picked + index
        new_n = generator.integers(last, size=count, dtype=np.int32, endpoint=True)
        taken_n = (drawn_kn[:index] == new_n[None]).any(axis=0)
        drawn_kn[index] = np.where(taken_n, last, new_n)
    # Which numbers are drawn is fair by now, but not their order.
    return generator.permuted(drawn_kn, axis=0).T
