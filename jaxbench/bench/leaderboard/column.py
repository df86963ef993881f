"""What a column of a board is, and how its values are printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxbench.bench.leaderboard.board import Row
from jaxbench.bench.terms import text_size

Value = Callable[[Row], Any]

# Views of the page; a column can be in several.
VIEWS = ("overview", "quality", "heads", "changes", "speed", "memory", "latency")


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
      floor: the value for a floor's metrics, where floors have one.
    """

    key: str
    title: str
    kind: str
    value: Value
    views: tuple[str, ...] = ()
    about: str = ""
    better: str = ""
    floor: Callable[[dict[str, float]], Any] | None = None


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


FORMATS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "score": lambda value: f"{value:.4f}",
    "percent": lambda value: f"{100 * value:.1f} %",
    "count": lambda value: f"{value:,.0f}",
    "bytes": _bytes,
    "text size": text_size,
    "rate": _significant,
    "ms": lambda value: f"{value:.2f}",
    "interval": lambda ends: f"{ends[0]:.4f} to {ends[1]:.4f}",
}


def plural(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
