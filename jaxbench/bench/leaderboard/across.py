"""One table over several of the five synthetic tasks, where a board holds them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from jaxbench.bench.leaderboard import solving
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.tasks import PENTATHLON, task_board
from jaxbench.bench.statistics.strata import StratifiedMean, stratified_iqm

HOLDS = 0.99
HOLE = "–"
NAME, BOTH = "rescaled IQM", "recall and state tracking"


@dataclasses.dataclass
class Entry:
    """A backbone on several tasks.

    Attributes:
      backbone: row of the zoo or pattern.
      rows: its row of each section; None where it has none with a score.
      mean: over its rescaled scores; None for an entry with a hole.
      place: by that mean; None for an entry with a hole.
      holds_both: whether it holds recall and state tracking; None where that is not
        known.
    """

    backbone: str
    rows: list[Row | None]
    mean: StratifiedMean | None
    place: int | None
    holds_both: bool | None


@dataclasses.dataclass(frozen=True)
class Across:
    """The tasks of one protocol, side by side.

    Attributes:
      protocol: of all of them.
      sections: a column for each.
    """

    protocol: str
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        """In a heading."""
        return f"Across tasks, {self.protocol} protocol"

    @cached_property
    def columns(self) -> list[str]:
        """Names of the sections: task and variant, numbered where two are alike."""
        names = [
            f"{s.key.task} {task_board(s).variant(s)}".strip() for s in self.sections
        ]
        counts = Counter(names)
        return [
            name if counts[name] == 1 else f"{name} {s.key.fingerprint[:6]} #{i}"
            for i, (name, s) in enumerate(zip(names, self.sections, strict=True), 1)
        ]

    @cached_property
    def entries(self) -> list[Entry]:
        """Complete ones by their mean, then those with holes by name."""
        names = {
            row.backbone
            for section in self.sections
            for row in section.rows
            if row.scored or row.failed
        }
        found = [self._entry(name) for name in sorted(names)]
        whole = [(e.mean.iqm, e) for e in found if e.mean]
        whole.sort(key=lambda pair: (-pair[0], pair[1].backbone))
        for mean, entry in whole:
            entry.place = 1 + sum(other > mean for other, _ in whole)
        return [e for _, e in whole] + [e for e in found if e.mean is None]

    def _entry(self, backbone: str) -> Entry:
        rows = [_row(section, backbone) for section in self.sections]
        scores = [
            rescaled(section, row) if row is not None else []
            for section, row in zip(self.sections, rows, strict=True)
        ]
        mean = stratified_iqm(scores) if all(scores) else None
        return Entry(backbone, rows, mean, None, self._holds_both(rows))

    def _holds_both(self, rows: Sequence[Row | None]) -> bool | None:
        wanted: dict[str, list[Row | None]] = {"mqar": [], "word_problem": []}
        for section, row in zip(self.sections, rows, strict=True):
            task = section.key.task
            a5 = json.loads(section.key.options).get("group") == "A5"
            if task == "mqar" or (task == "word_problem" and a5):
                wanted[task].append(row)
        if any(not found or None in found for found in wanted.values()):
            return None
        scores = [row.score() for found in wanted.values() for row in found if row]
        return all(score is not None and score >= HOLDS for score in scores)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """A line per backbone; a cell is the median, and how many runs solved it."""
        header = ["place", "backbone", NAME, "95 % interval", *self.columns, BOTH]
        lines = []
        for entry in self.entries:
            cells = [
                HOLE if row is None else _cell(section, row)
                for section, row in zip(self.sections, entry.rows, strict=True)
            ]
            mean, ends = HOLE, HOLE
            if entry.mean:
                mean = show("score", entry.mean.iqm)
            if entry.mean and entry.mean.low is not None:
                ends = show("interval", (entry.mean.low, entry.mean.high))
            place = HOLE if entry.place is None else str(entry.place)
            lines.append(
                [place, entry.backbone, mean, ends, *cells, _verdict(entry) or HOLE]
            )
        return header, lines

    def notes(self) -> list[str]:
        """How to read the table."""
        said = [
            "Cells: median over seeds of the best validation accuracy, and how many "
            "runs solved the task; failed: most of its runs did.",
            f"{NAME}: interquartile mean over the runs of all columns of (accuracy - "
            "floor) / (ceiling - floor), with the best floor of each column; a run "
            "below it or a failed one counts as 0. Its 95 % interval is a bootstrap "
            "over seeds within columns. Places follow it and claim nothing: where "
            "intervals overlap, the order may be chance.",
            f"{BOTH}: at least {HOLDS} on every mqar column and on every word_problem "
            "column of the group A5.",
        ]
        holes = [e.backbone for e in self.entries if e.place is None]
        if holes:
            said.append(
                f"Without a score on some column, so without a place: "
                f"{', '.join(holes)}."
            )
        several = [
            entry.backbone
            for entry in self.entries
            if any(
                sum(row.backbone == entry.backbone for row in s.rows) > 1
                for s in self.sections
            )
        ]
        if several:
            said.append(
                "Of several recipes of a backbone on a task the one that is first on "
                f"its board is shown: {', '.join(several)}."
            )
        return said

    def records(self) -> list[dict[str, Any]]:
        """Lines for the CSV."""
        found = []
        for entry in self.entries:
            mean = entry.mean
            found.append(
                {
                    "kind": "across",
                    "task": " + ".join(self.columns),
                    "protocol": self.protocol,
                    "backbone": entry.backbone,
                    "across_place": entry.place,
                    "across_iqm": mean and mean.iqm,
                    "across_low": mean and mean.low,
                    "across_high": mean and mean.high,
                    "across_holds_both": _verdict(entry) or None,
                }
            )
        return found


def boards(sections: Sequence[Section]) -> list[Across]:
    """A table for each protocol that has at least two of the five tasks."""
    by_protocol: dict[str, list[Section]] = {}
    for section in sections:
        if section.key.task in PENTATHLON and section.key.source:
            by_protocol.setdefault(section.key.protocol, []).append(section)
    return [
        Across(protocol, tuple(sorted(found, key=_order)))
        for protocol, found in by_protocol.items()
        if len({section.key.task for section in found}) > 1
    ]


def rescaled(section: Section, row: Row) -> list[float]:
    """`Section.rescaled` of each run, 0 for a failed one; empty where not known."""
    scores = [section.rescaled(score) for score in [*row.scores(), 0.0]]
    known = [score for score in scores[:-1] if score is not None]
    return [] if scores[-1] is None else [*known, *[0.0] * len(row.failed)]


def _verdict(entry: Entry) -> str:
    """Empty where it is not known."""
    if entry.holds_both is None:
        return ""
    return "yes" if entry.holds_both else "no"


def _order(section: Section) -> tuple[int, str]:
    return PENTATHLON.index(section.key.task), task_board(section).variant(section)


def strength(section: Section, row: Row) -> float:
    """Where the median lies between the best floor, 0, and the ceiling, 1."""
    score = row.score()
    found = None if score is None else section.rescaled(score)
    return min(1.0, found or 0.0)


def _row(section: Section, backbone: str) -> Row | None:
    """The best row of a backbone whose runs ended or failed; rows are in that order."""
    rows = (row for row in section.rows if row.backbone == backbone)
    return next((row for row in rows if row.scored or row.failed), None)


def _cell(section: Section, row: Row) -> str:
    score = row.score()
    told = "failed" if score is None else show("score", score)
    found = solving.solved_share(section, row)
    return f"{told}, {found.solved}/{found.runs} solved" if found else told
