"""What the plots of a section share."""

from __future__ import annotations

import dataclasses
import math
import statistics as average
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import show

WIDTH, LEFT = 640, 172
FRAME_MS = 1000 / 60


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure or the reason why there is none.

    Attributes:
      title: what it shows.
      caption: how to read it, or what is missing.
      svg: empty where there is no figure.
      wide: whether it needs the width of the page.
    """

    title: str
    caption: str
    svg: str = ""
    wide: bool = False


def indexed(section: Section, wanted: Callable[[Row], object]) -> list[tuple[int, Row]]:
    """Rows with their place on the page, for which `wanted` finds something."""
    return [(i, row) for i, row in enumerate(section.rows) if wanted(row) is not None]


def by_device(
    rows: Sequence[tuple[int, Row]], key: Callable[[Row], str]
) -> list[tuple[str, list[tuple[int, Row]]]]:
    """Groups of rows, the largest first: devices are never compared."""
    groups: dict[str, list[tuple[int, Row]]] = {}
    for index, row in rows:
        groups.setdefault(key(row), []).append((index, row))
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def row_device(row: Row) -> str:
    """What a row trained on, in words."""
    return row.device or "an unknown device"


def score_range(section: Section) -> tuple[float, float, list[str]]:
    """Limits that keep the bulk of the scores apart, and what they leave outside.

    Rows far from the middle half (by more than four times its width) do not stretch
    the range; a floor does where it is near.
    """
    medians = {r.name: value for r in section.rows if (value := r.score()) is not None}
    if not medians:
        return 0.0, 1.0, []
    first, middle, third = (
        average.quantiles(medians.values(), n=4, method="inclusive")
        if len(medians) > 1
        else 3 * tuple(medians.values())
    )
    reach = 4 * ((third - first) or 0.01 * abs(middle) or 1.0)
    kept = [
        r for r in section.rows if abs(medians.get(r.name, math.inf) - middle) <= reach
    ]
    values = [value for row in kept for value in row.scores()]
    low, high = min(values), max(values)
    near = 0.7 * ((high - low) or 0.02 * abs(high) or 1.0)
    outside = [f"{n} {v:.4f}" for n, v in medians.items() if abs(v - middle) > reach]
    for name, metrics in section.floors.items():
        floor = metrics.get(section.metric)
        if floor is not None and low - near < floor < high + near:
            low, high = min(low, floor), max(high, floor)
        elif floor is not None:
            outside.append(f"{name.replace('_', '-')} {floor:.4f}")
    pad = 0.06 * ((high - low) or near)
    return low - pad, high + pad, outside


def log_axis(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers and at least a few ticks."""
    low, high = min(values), max(values)
    axes.set_xscale("log")
    axes.set_xlim(low / 1.25, high * 1.25)
    wide = high / low > 30
    subs = (1.0,) if high / low > 1000 else (1.0, 3.0) if wide else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def axis_name(section: Section) -> str:
    """The metric that ranks, and which way is better."""
    better = "higher" if section.maximize else "lower"
    return f"validation {section.metric_name}, {better} is better"


def tip(section: Section, row: Row) -> str:
    """What a mark says when pointed at."""
    place = f"rank {row.place.rank}, " if row.place else ""
    score = (
        f"{section.metric_name} {show('score', row.score())}"
        if row.score() is not None
        else "failed"
    )
    return f"{row.name}\n{place}{score}"
