"""What a column of a board is, and how its values are printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxbench.bench.leaderboard.board import Row
from jaxbench.bench.terms import text_size

Value = Callable[[Row], Any]

# Views of the page; a column can be in several.
VIEWS = (
    *("overview", "quality", "heads", "changes", "play", "speed", "memory"),
    *("latency", "export"),
)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      key: name in the CSV, stable.
      title: name for people, short.
      kind: how to print it, a key of `FORMATS`.
      value: from a row to its value; None where there is none.
      views: the views of the page that show it.
      about: one line for a tooltip.
      better: "low" or "high" where one of them is.
      floor: the value for the metrics of a floor or the ceiling, where they have one.
      text: from a row to what people read, where the value alone does not say it.
    """

    key: str
    title: str
    kind: str
    value: Value
    views: tuple[str, ...] = ()
    about: str = ""
    better: str = ""
    floor: Callable[[dict[str, float]], Any] | None = None
    text: Callable[[Row], str] | None = None

    def shown(self, row: Row) -> str:
        """What people read in the cell of a row."""
        return self.text(row) if self.text else show(self.kind, self.value(row))

    def says(self, row: Row) -> bool:
        """Whether the cell of a row holds anything."""
        return self.value(row) is not None or bool(self.text and self.text(row))


def show(kind: str, value: Any) -> str:
    """A value as people read it; nothing for None."""
    if value is None:
        return ""
    return FORMATS[kind](value)


def _significant(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:.3g}"


def _bytes(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return (
                f"{value / size:.3g} {unit}"
                if value < 1000 * size
                else (f"{value / size:,.0f} {unit}")
            )
    return f"{value:.0f} B"


def _flops(value: float) -> str:
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}FLOP"
    return f"{value:,.0f} FLOP"


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "score": lambda value: f"{value:.4f}",
    "percent": lambda value: f"{100 * value:.1f} %",
    "count": lambda value: f"{value:,.0f}",
    "bytes": _bytes,
    "flops": _flops,
    "text size": text_size,
    "rate": _significant,
    "ms": lambda value: f"{value:.2f}",
    "interval": lambda ends: f"{ends[0]:.4f} to {ends[1]:.4f}",
}


def plural(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
