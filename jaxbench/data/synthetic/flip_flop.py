"""Flip-flop language: remember the bit that was written last, ignore all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxbench.data.synthetic.event import IGNORE, Event, Examples, Test
from jaxbench.data.synthetic.rules import mode_share, said_where, share_right

WRITE, READ, SKIP, ZERO = 0, 1, 2, 3  # and ONE = 4


class _Law(NamedTuple):
    """Length, and the shares of `SKIP` of which each sequence has one."""

    tokens: int
    skipped: tuple[float, ...] = (0.8,)


_LEVELS = {"L1": 64, "L2": 128, "L3": 256, "L4": 512}
_SPARSE, _DENSE = (0.98,), (0.1,)
_MIX = (0.8, 0.1, 0.9, 0.98)


@dataclasses.dataclass(frozen=True)
class FlipFlop(Event):
    """Pairs of an instruction and a bit: write, read, or ignore; the first writes.

    Tokens: write 0, read 1, ignore 2, bits 3 and 4. The last instruction reads; those
    between are drawn independently, p of them ignore and (1 - p) / 2 each write and
    read. Bits are fair, but the one after a read is the one that was written last: it
    is the answer, stands at the read, and is read next. Nothing else is asked.

    Source: FFL(p) of Liu et al. 2023, arXiv:2306.00946, in its clean mode.
    Levels L1 to L4 have 64, 128, 256 and 512 tokens and p = 0.8. Tests at p = 0.8, 0.98
    (sparse) and 0.1 (dense), and at 1024 and 2048 tokens. Differences: 10,000 examples
    of a test, where the paper has more than 300,000.

    Attributes:
      train_mix: a level trains on sequences of p = 0.8, 0.1, 0.9 or 0.98, equally
        often (laws "L1+mix" and so on): the paper's most effective remedy. Validation
        and tests stay as they are.
    """

    train_mix: bool = False

    name = "flip_flop"
    vocabulary = 5
    levels = tuple(_LEVELS)

    def splits(self, level: str) -> tuple[int, int]:
        return 1000, 10_000

    def length(self, law: str) -> int:
        return self.law(law).tokens

    def answers(self, law: str) -> int:
        return self.length(law) // 2 - 1

    def training_law(self, level: str) -> str:
        return f"{level}+mix" if self.train_mix else level

    def tests(self, level: str) -> Mapping[str, Test]:
        test, *longer = super().tests(level).items()
        densities = {
            f"test_{density}": Test(f"{level}_{density}", self.splits(level)[1])
            for density in ("sparse", "dense")
        }
        return dict([test, *densities.items(), *longer])

    def longer(self, level: str) -> list[str]:
        return [law for law in self.laws if law.startswith("length")]

    def draw(self, law: str, count: int, generator: np.random.Generator) -> Examples:
        tokens, skipped = self.law(law)
        pairs = tokens // 2
        skip_n1 = np.array(skipped)[generator.integers(len(skipped), size=(count, 1))]
        chance_np = generator.random((count, pairs))
        told_np = np.full((count, pairs), READ, np.int32)
        told_np[chance_np < (1 + skip_n1) / 2] = WRITE
        told_np[chance_np < skip_n1] = SKIP
        told_np[:, 0], told_np[:, -1] = WRITE, READ
        bits_np = ZERO + generator.integers(2, size=(count, pairs), dtype=np.int32)
        written_np = np.where(told_np == WRITE, np.arange(pairs)[None], 0)
        latest_np = np.maximum.accumulate(written_np, axis=1)
        held_np = np.take_along_axis(bits_np, latest_np, axis=1)
        reads_np = told_np == READ
        tokens_nt = np.empty((count, tokens), np.int32)
        tokens_nt[:, 0::2] = told_np
        tokens_nt[:, 1::2] = np.where(reads_np, held_np, bits_np)
        targets_nt = np.full((count, tokens), IGNORE, np.int32)
        targets_nt[:, 0::2] = np.where(reads_np, held_np, IGNORE)
        return Examples(tokens_nt, targets_nt)

    def solve(self, tokens_nt: np.ndarray, asked_nt: np.ndarray) -> np.ndarray:
        """The token after the latest write."""
        place_t = np.arange(tokens_nt.shape[1])
        written_nt = np.where(tokens_nt == WRITE, place_t[None], -1)
        bit_nt = np.maximum.accumulate(written_nt, axis=1) + 1
        known_nt = asked_nt & (bit_nt > 0) & (bit_nt <= place_t[None])
        bit_nt = np.minimum(bit_nt, place_t[None])
        return said_where(known_nt, np.take_along_axis(tokens_nt, bit_nt, axis=1))

    def floors(self, law: str, examples: Examples, train: Examples) -> dict[str, float]:
        """Guesses: a fair coin, the most frequent bit, the bit just before."""
        before_nt = np.roll(examples.tokens_nt, 1, axis=1)
        return {
            "uniform": 1 / 2,
            "mode": mode_share(examples, train, self.scored),
            "previous_bit": share_right(before_nt, examples.targets_nt, self.scored),
        }

    @property
    def laws(self) -> dict[str, _Law]:
        """The levels, then the laws that only validation and tests follow."""
        plain = {name: _Law(tokens) for name, tokens in _LEVELS.items()}
        mixed = {f"{name}+mix": _Law(t, _MIX) for name, t in _LEVELS.items()}
        others = {}
        for name, tokens in _LEVELS.items():
            others[f"{name}_sparse"] = _Law(tokens, _SPARSE)
            others[f"{name}_dense"] = _Law(tokens, _DENSE)
        for tokens in (1024, 2048):
            others[f"length_{tokens}"] = _Law(tokens)
            others[f"length_{tokens}_sparse"] = _Law(tokens, _SPARSE)
        return plain | (mixed if self.train_mix else {}) | others
