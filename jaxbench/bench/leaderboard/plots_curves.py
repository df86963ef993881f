"""Learning curves: one line per row, the best in colour."""

from __future__ import annotations

import dataclasses
import statistics as average
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.canvas import (
    LINES,
    MUTED,
    WORSE,
    gid,
    new_figure,
    shorten,
    svg,
)
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.plot_parts import WIDTH, Plot, tip
from jaxbench.bench.leaderboard.read import Run

HIGHLIGHTED = len(LINES)
HOW_TO_READ = (
    f"One line per row, of the seed nearest its median. The {HIGHLIGHTED} best are "
    "coloured and named; hover over a line or a table row to find the others."
)
NO_CURVES = "The results hold no curves (schema 1 did not keep them)."

Line = list[tuple[float, float]]


def _nothing() -> Any:
    return dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One of the plots side by side.

    Attributes:
      title: above it: what its lines show.
      label: of the axis across.
      lines: by the place of their row on the page.
      ticks: where to put ticks across; None where any round numbers do.
      log: whether the axis across is logarithmic.
      kind: of its numbers, a key of `column.FORMATS`; empty for plain ones.
      bands: (x, low, high) around the lines, by the same places.
      dots: marks on the lines, by the same places.
      bounds: heights of floors and ceiling, with their names.
      reach: heights that are in sight, whatever the lines do.
      mark: a place across, and what it is.
    """

    title: str
    label: str
    lines: dict[int, Line]
    ticks: Sequence[float] | None = None
    log: bool = False
    kind: str = ""
    bands: Mapping[int, list[tuple[float, float, float]]] = _nothing()
    dots: Mapping[int, Line] = _nothing()
    bounds: Sequence[tuple[float, str]] = ()
    reach: Sequence[float] = ()
    mark: tuple[float, str] | None = None

    @property
    def drawn(self) -> bool:
        """Whether there is more than points: a single evaluation is no curve."""
        return max(map(len, self.lines.values()), default=0) > 1


def representatives(section: Section) -> list[tuple[int, Row, Run]]:
    """Rows with a run that has curves, their places first."""
    runs = []
    for i, row in enumerate(section.rows):
        run = row.representative()
        if run is not None and (run.curve("train") or run.curve("validation")):
            runs.append((i, row, run))
    return runs


def curves(section: Section, salt: str) -> list[Plot]:
    """Training and validation by step; a panel is left out where it has no line."""
    title = "Learning curves"
    runs = representatives(section)
    if not runs:
        return [Plot(title, NO_CURVES)]
    panels = [
        Panel(
            "training loss, running median",
            "step",
            {i: _smooth(run.curve("train")) for i, _, run in runs},
        ),
        Panel(
            f"validation {section.metric_name}",
            "step",
            {i: run.curve("validation") for i, _, run in runs},
        ),
    ]
    return [draw_panels(section, salt, title, HOW_TO_READ, panels)]


def draw_panels(
    section: Section, salt: str, title: str, caption: str, panels: Sequence[Panel]
) -> Plot:
    """Panels side by side, without those that have no line; rows keep their colours."""
    panels = [panel for panel in panels if panel.drawn]
    if not panels:
        return Plot(title, "Every run was evaluated once: there is no curve to draw.")
    order = sorted({i for panel in panels for i in panel.lines})
    figure, first = new_figure(2 * WIDTH, 380, left=66, top=28, right=150)
    figure.delaxes(first)
    width = (2 * WIDTH - 66 - 150 - 60 * (len(panels) - 1)) / len(panels)
    for k, panel in enumerate(panels):
        left = 66 + k * (width + 60)
        axes = figure.add_axes(
            (left / (2 * WIDTH), 42 / 380, width / (2 * WIDTH), (380 - 28 - 42) / 380)
        )
        axes.grid(True, axis="both")
        axes.tick_params(axis="y", labelcolor=MUTED)
        axes.set_title(panel.title, loc="left", fontsize=11, color=MUTED)
        axes.set_xlabel(panel.label)
        _across(axes, panel)
        ends = _draw_curves(axes, panel, order)
        if k == len(panels) - 1:
            _label_ends(axes, [(y, c, section.rows[i].name) for i, y, c in ends])
    tips = {i: tip(section, section.rows[i]) for i in order}
    return Plot(title, caption, svg(figure, salt, title, tips), wide=True)


def _across(axes: Axes, panel: Panel) -> None:
    """Sets up the axis across, and draws what is marked on it."""
    if panel.log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    kind = panel.kind
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: show(kind, v) if kind else f"{v:,.10g}")
    )
    axes.xaxis.set_major_locator(
        MaxNLocator(5) if panel.ticks is None else FixedLocator(list(panel.ticks))
    )
    if panel.mark:
        x, text = panel.mark
        axes.axvline(x, color=WORSE, lw=1, ls=(0, (4, 3)))
        axes.annotate(
            text, (x, 0.0), xycoords=axes.get_xaxis_transform(), xytext=(4, 4),
            textcoords="offset points", color=WORSE, fontsize=9.5,
        )  # fmt: skip


def _draw_bounds(axes: Axes, bounds: Sequence[tuple[float, str]]) -> None:
    """Floors and ceiling as dashed lines; those close together share a name."""
    low, high = axes.get_ylim()
    groups: list[tuple[float, list[str]]] = []
    for y, name in sorted(bounds):
        axes.axhline(y, color=WORSE, lw=1, ls=(0, (4, 3)))
        if groups and y - groups[-1][0] < 0.05 * (high - low):
            groups[-1][1].append(name)
        else:
            groups.append((y, [name]))
    for y, names in groups:
        above = y < low + 0.5 * (high - low)
        axes.text(
            0.99, y, ", ".join(names), transform=axes.get_yaxis_transform(),
            color=WORSE, fontsize=9.5, ha="right", va="bottom" if above else "top",
        )  # fmt: skip


def _draw_curves(
    axes: Axes, panel: Panel, order: Sequence[int]
) -> list[tuple[int, float, str]]:
    """Draws the best in colour over the others in grey; returns where they end."""
    ends, curves = [], panel.lines
    values = [y for points in curves.values() for _, y in points[len(points) // 10 :]]
    values += [*panel.reach, *(y for y, _ in panel.bounds)]
    for place, i in reversed(list(enumerate(order))):
        points = curves.get(i)
        if not points:
            continue
        bright = place < HIGHLIGHTED
        color = LINES[place] if bright else MUTED
        x, y = zip(*points, strict=True)
        axes.plot(
            x, y, color=color, lw=1.8 if bright else 0.9, alpha=1 if bright else 0.35,
            gid=gid(i), solid_joinstyle="round",
        )  # fmt: skip
        if panel.dots.get(i):
            x, y_dots = zip(*panel.dots[i], strict=True)
            axes.plot(
                x, y_dots, "|", color=color, ms=8, mew=1.4, gid=gid(i, 1),
                alpha=1 if bright else 0.35,
            )  # fmt: skip
        if bright and panel.bands.get(i):
            at, under, over = zip(*panel.bands[i], strict=True)
            axes.fill_between(at, under, over, color=color, alpha=0.14, lw=0)
            values += [*under, *over]
        if bright:
            ends.append((i, y[-1], color))
    # The first steps fall from far above everything that follows.
    if values:
        low, high = min(values), max(values)
        pad = 0.05 * (high - low or 1.0)
        axes.set_ylim(low - pad, high + pad)
    _draw_bounds(axes, panel.bounds)
    return ends


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Names right of the plot, moved apart until they do not touch."""
    low, high = axes.get_ylim()
    step = 13 / 310 * (high - low)
    at = low
    for y, color, name in sorted(ends):
        at = max(at + step if at > low else y, y)
        axes.text(
            1.02, at, shorten(name), color=color, transform=axes.get_yaxis_transform(),
            va="center", fontsize=10,
        )  # fmt: skip


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Running median over a twentieth of the points: batches are noisy."""
    reach = max(1, len(points) // 40)
    return [
        (step, average.median(y for _, y in points[max(0, i - reach) : i + reach + 1]))
        for i, (step, _) in enumerate(points)
    ]
