"""The test splits of a synthetic task: what they are called, and how long they are."""

from __future__ import annotations

import dataclasses
import re

from jaxbench.bench.leaderboard.board import Section

# What the length of a test split is counted in: tokens of mqar and flip_flop, items,
# group elements, letters of a text. Here, what each level is trained at.
TRAINED = {
    "mqar": {"L0": 32, "L1": 64, "L2": 128, "L3": 256, "L4": 512, "mixed": 256},
    "flip_flop": {"L1": 64, "L2": 128, "L3": 256, "L4": 512},
    "knapsack": {"L1": 4, "L2": 6, "L3": 8, "L4": 10, "L5": 14},
    "word_problem": {"L1": 4, "L2": 8, "L3": 12, "L4": 16, "L5": 20, "L6": 25},
    "edit_distance": {"L1": 6, "L2": 12, "L3": 24},
}
_LENGTH = re.compile(r"length_(\d+)(?:_(\w+))?")


@dataclasses.dataclass(frozen=True)
class Split:
    """A test split.

    Attributes:
      name: in results: "test", "test_sparse", "length_1024_sparse".
      length: of its sequences where they are longer than those of training.
      kind: what else sets it apart, "sparse"; empty for the law of training.
    """

    name: str
    length: int | None
    kind: str

    @classmethod
    def of(cls, name: str) -> Split:
        """What a name says."""
        found = _LENGTH.fullmatch(name)
        if found:
            return cls(name, int(found[1]), found[2] or "")
        return cls(name, None, name.removeprefix("test").removeprefix("_"))

    @property
    def title(self) -> str:
        """For people, short."""
        if self.length is None:
            return self.name.replace("_", " ")
        return f"length {self.length}" + (f", {self.kind}" if self.kind else "")


def splits(section: Section) -> list[Split]:
    """Those that some run was scored on, as results order them."""
    found: dict[str, None] = {}
    for row in section.rows:
        for run in row.scored:
            found |= dict.fromkeys(run.get("scores") or {})
    return [Split.of(name) for name in found]


def trained_length(section: Section) -> int | None:
    """The length of training, in the unit of the splits; None where it is not known."""
    last = section.key.level.rpartition("..")[2].partition("+")[0]
    return TRAINED.get(section.key.task, {}).get(last)
