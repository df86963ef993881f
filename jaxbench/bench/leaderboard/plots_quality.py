"""Plots of how well rows predict: scores over seeds and parts of the loss."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.canvas import (
    ACCENT,
    INK,
    MUTED,
    ROW_HEIGHT,
    RULE,
    WORSE,
    gid,
    new_figure,
    row_axis,
    svg,
)
from jaxbench.bench.leaderboard.plot_parts import (
    LEFT,
    WIDTH,
    Plot,
    axis_name,
    indexed,
    score_range,
    tip,
)


def quality(section: Section, salt: str) -> list[Plot]:
    """Ordered scores: seeds, interval and median of every row, floors as lines."""
    title = f"Quality: best validation {section.metric_name}"
    rows = indexed(section, lambda row: row.score())
    if not rows:
        return [Plot(title, "No run has a score.")]
    height = 54 + ROW_HEIGHT * len(rows) + 14
    figure, axes = new_figure(WIDTH, height, left=LEFT, top=26, right=52)
    row_axis(axes, [row.name for _, row in rows])
    low, high, outside = score_range(section)
    axes.set_xlim(low, high)
    best = rows[0][1].score() or 0.0
    if section.noise_sd:
        reach = 2 * section.noise_sd
        axes.axvspan(best - reach, best + reach, color=ACCENT, alpha=0.09, lw=0)
    for y, (i, row) in enumerate(rows):
        _interval(axes, y, i, row, (low, high))
        if y and row.place.rank != rows[y - 1][1].place.rank:
            axes.axhline(y - 0.5, color=RULE, lw=0.8, xmin=-0.4, clip_on=False)
        if y == 0 or row.place.rank != rows[y - 1][1].place.rank:
            axes.text(
                1.02, y, f"{row.place.rank}", transform=axes.get_yaxis_transform(),
                va="center", color=MUTED, fontsize=10,
            )  # fmt: skip
    axes.text(1.02, -1.15, "rank", transform=axes.get_yaxis_transform(), color=MUTED)
    for name, metrics in section.floors.items():
        floor = metrics.get(section.metric)
        if floor is not None and low < floor < high:
            side = "right" if floor > low + 0.8 * (high - low) else "center"
            axes.axvline(floor, color=WORSE, lw=1, ls=(0, (4, 3)))
            axes.text(
                floor, -0.75, name.replace("_", "-"), color=WORSE, fontsize=9.5,
                ha=side, va="bottom",
            )  # fmt: skip
    axes.set_xlabel(axis_name(section))
    caption = (
        "Filled: median over seeds; small: every seed; bar: 95 % interval (from 3 "
        "seeds on); dashed: floors. Rules separate ranks: rows between two are tied."
    )
    if section.noise_sd:
        caption += (
            f" Shaded: the first row ± 2 standard deviations between seeds "
            f"({section.noise_sd:.2g})."
        )
    if outside:
        caption += f" Outside the plot: {', '.join(outside)}."
    tips = {i: tip(section, row) for i, row in rows}
    return [Plot(title, caption, svg(figure, salt, title, tips))]


def _interval(
    axes: Axes, y: int, index: int, row: Row, limits: tuple[float, float]
) -> None:
    """One row: seeds, interval, median; an arrow where it lies outside."""
    median = row.score()
    assert median is not None
    low, high = limits
    if not low <= median <= high:
        edge, arrow = (high, ">") if median > high else (low, "<")
        axes.plot([edge], [y], arrow, color=MUTED, ms=5, clip_on=False, gid=gid(index))
        axes.text(
            edge, y, f"{median:.4f}   ", color=MUTED, fontsize=9.5, va="center",
            ha="right" if arrow == ">" else "left",
        )  # fmt: skip
        return
    if row.place.low is not None:
        axes.plot(
            [row.place.low, row.place.high], [y, y], color=ACCENT, lw=4, alpha=0.3,
            solid_capstyle="round", gid=gid(index, 0),
        )  # fmt: skip
    seeds = row.scores()
    if len(seeds) > 1:
        axes.plot(
            seeds, [y] * len(seeds), "o", color=MUTED, ms=3, mew=0, alpha=0.65,
            gid=gid(index, 1),
        )  # fmt: skip
    axes.plot([median], [y], "o", color=ACCENT, ms=6.5, mew=0, gid=gid(index, 2))


def heads_map(section: Section, salt: str) -> list[Plot]:
    """What each row saves of a floor's loss, part by part, as a heat map."""
    title = "Parts of the loss against a floor"
    heads = section.heads()
    floors = sorted(section.floors, key=lambda name: name != "copy_previous")
    rows = indexed(section, lambda row: row.scores() or None)
    if not heads or not rows or not floors:
        lacking = "no parts of the loss" if not heads else "no scored run"
        return [Plot(title, f"The results hold {lacking if floors else 'no floors'}.")]
    floor = floors[0]
    height = 40 + ROW_HEIGHT * len(rows)
    figure, axes = new_figure(WIDTH, height, left=LEFT, top=30, bottom=10)
    row_axis(axes, [row.name for _, row in rows])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    names = [head.removeprefix(f"{section.metric}/") for head in heads]
    axes.set_xticks(range(len(heads)), names)
    axes.xaxis.tick_top()
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(heads) - 0.5)
    gains = {
        (y, x): gain
        for y, (_, row) in enumerate(rows)
        for x, head in enumerate(heads)
        if (gain := section.gain(row, floor, head)) is not None
    }
    # One outlier must not bleach the rest.
    sizes = sorted(abs(gain) for gain in gains.values())
    strongest = sizes[int(0.9 * (len(sizes) - 1))] if sizes else 1.0
    for (y, x), gain in gains.items():
        strength = min(1.0, abs(gain) / (strongest or 1.0))
        axes.add_patch(
            Rectangle(
                (x - 0.48, y - 0.46), 0.96, 0.92, lw=0, alpha=0.06 + 0.5 * strength,
                facecolor=ACCENT if gain >= 0 else WORSE, gid=gid(rows[y][0], x),
            )
        )  # fmt: skip
        axes.text(
            x,
            y,
            f"{100 * gain:+.0f}",
            ha="center",
            va="center",
            fontsize=9.5,
            color=INK,
        )
    caption = (
        f"Per cent of the loss of “{floor.replace('_', '-')}” that each row saves in "
        "each part, median over seeds; negative and in the other colour: worse than it."
    )
    tips = {i: tip(section, row) for i, row in rows}
    return [Plot(title, caption, svg(figure, salt, title, tips))]
