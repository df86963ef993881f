"""Plots of score against cost: one point per row, and the rows nobody beats in both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.canvas import (
    ACCENT,
    INK,
    MUTED,
    WORSE,
    gid,
    new_figure,
    shorten,
    svg,
)
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.plot_parts import (
    WIDTH,
    Plot,
    axis_name,
    by_device,
    indexed,
    log_axis,
    row_device,
    score_range,
    tip,
)

# Values closer together than this have room on a linear axis, and few ticks on another.
NARROW = 2.0


@dataclasses.dataclass(frozen=True)
class Against:
    """What scores are drawn against.

    Attributes:
      title: of the figure.
      label: of the axis, with its unit.
      value: positive, from a row; None where there is none.
      told: the value in words, for a tooltip.
      caption: (device, rows drawn) -> first sentence below the figure.
      missing: why there is no figure, where no row has a value.
      place: what must not be mixed in one figure; None where all may be.
      mark: a value to draw as a line, and what it is.
      better: "low" or "high" draws the front: rows that no row beats in both.
      memory: whether values are bytes of memory.
    """

    title: str
    label: str
    value: Callable[[Row], float | None]
    told: Callable[[Row], str]
    caption: Callable[[str, list[Row]], str]
    missing: str
    place: Callable[[Row], str] | None = row_device
    mark: tuple[float, str] | None = None
    better: str = ""
    memory: bool = False


def scatter(section: Section, salt: str, against: Against) -> list[Plot]:
    """Score over a cost, a plot for each place."""

    def value(row: Row) -> float | None:
        found = against.value(row)
        return found if found and found > 0 and row.score() is not None else None

    rows = indexed(section, value)
    if not rows:
        return [Plot(against.title, against.missing)]
    found: list[Plot] = []
    for place, members in by_device(rows, against.place or (lambda row: "")):
        name = against.title if not found else f"{against.title}, {place}"
        points = [(i, row, value(row) or 0.0, row.score() or 0.0) for i, row in members]
        front = unbeaten(points, against.better, section.maximize)
        caption = against.caption(place, [row for _, row in members])
        names = ", ".join(row.name for _, row, _, _ in front)
        if len(front) == 1 and len(points) > 1:
            caption += f" By its medians {names} is ahead of every row in both."
        elif len(front) > 1:
            caption += (
                f" Line: the rows that none beats in both, by their medians: {names}."
            )
        caption += (
            " Names where there is room; hover for the others. Triangles lie outside."
        )
        figure = _draw(section, against, points, front)
        tips = {i: f"{tip(section, row)}\n{against.told(row)}" for i, row in members}
        figure_svg = svg(figure, f"{salt}-{len(found)}", name, tips)
        found.append(Plot(name, caption, figure_svg, wide=True))
    return found


_Point = tuple[int, Row, float, float]


def over_state(section: Section, salt: str, *, title: str, carried: str) -> list[Plot]:
    """Score over the bytes of state of one stream, what it has `carried`."""

    def state(row: Row) -> float | None:
        return row.fact("state_bytes")

    without = [row.name for row in section.rows if row.scored and state(row) == 0]
    also = f" Without a state: {', '.join(without)}." if without else ""
    return scatter(
        section,
        salt,
        Against(
            title=title,
            label="state of one stream",
            value=state,
            told=lambda row: f"state {show('bytes', state(row))}",
            caption=lambda _, rows: f"What {len(rows)} rows {carried}.{also}",
            missing=f"No row carries a state that is known.{also}",
            place=None,
            better="low",
            memory=True,
        ),
    )


def _draw(
    section: Section, against: Against, points: Sequence[_Point], front: list[_Point]
):
    low, high, _ = score_range(section)
    figure, axes = new_figure(2 * WIDTH, 430, left=66, top=24)
    axes.grid(True, axis="both")
    labels = []
    for i, row, x, score in points:
        y = min(high, max(low, score))
        mark = "o" if y == score else "^" if y < score else "v"
        axes.plot([x], [y], mark, color=ACCENT, ms=6, mew=0, gid=gid(i))
        labels.append((x, y, row.name))
    marked = [against.mark[0]] if against.mark else []
    label = _axis(axes, [x for x, _, _ in labels] + marked, against)
    axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    if against.mark:
        x, text = against.mark
        axes.axvline(x, color=WORSE, lw=1, ls=(0, (4, 3)))
        axes.text(
            x, 1.01, text, transform=axes.get_xaxis_transform(),
            color=WORSE, fontsize=9.5, ha="center",
        )  # fmt: skip
    if front:
        axes.plot(
            [x for _, _, x, _ in front],
            [min(high, max(low, score)) for _, _, _, score in front],
            color=ACCENT, lw=1.2, alpha=0.45, zorder=1,
        )  # fmt: skip
    _label_points(axes, labels)
    axes.set_xlabel(label)
    axes.set_ylabel(axis_name(section))
    axes.tick_params(axis="y", labelcolor=MUTED)
    return figure


def _axis(axes: Axes, values: Sequence[float], against: Against) -> str:
    """Sets the axis of the values up; returns its label."""
    low, high = min(values), max(values)
    wide = against.mark is not None or high / low >= NARROW
    if wide:
        log_axis(axes, values)
    else:
        pad = 0.06 * (high - low) or 0.02 * high
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.10g}"))
    if against.memory:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: show("bytes", v)))
        if wide:
            axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
    return against.label


def unbeaten(points: Sequence[_Point], better: str, maximize: bool) -> list[_Point]:
    """The points (.., cost, score) that none beats in one way and equals in the other.

    By cost; none where `better` does not say which cost is better.
    """
    if not better:
        return []
    cost = -1 if better == "high" else 1
    sign = -1 if maximize else 1
    front: list[_Point] = []
    for point in sorted(points, key=lambda p: (cost * p[2], sign * p[3])):
        if not front or sign * point[3] < sign * front[-1][3]:
            front.append(point)
    return front


def device_of(row: Row, measurement: str) -> str:
    """What a separate measurement of a row was made on."""
    named = (run.text(measurement, "device", "kind") for run in row.runs)
    return next((name for name in named if name), row_device(row))


def _label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside points, best first, where they cover neither points nor names."""
    figure = axes.figure
    place = axes.transData.transform
    dots = [place((x, y)) for x, y, _ in points]
    boxes = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    frame = axes.get_window_extent()
    for (x, y), (_, _, name) in zip(dots, points, strict=True):
        text = shorten(name, 18)
        # 6.2 units per letter at this size is on the wide side of most typefaces.
        width, tall = 6.2 * len(text), 10
        for dx, dy in ((7, -4), (-7 - width, -4), (-width / 2, 7), (-width / 2, -17)):
            box = (x + dx, y + dy, x + dx + width, y + dy + tall)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 + 10
            if inside and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                at = figure.transFigure.inverted().transform(box[:2])
                figure.text(at[0], at[1], text, fontsize=9, color=INK, va="bottom")
                break


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
