"""Plots of what rows cost: training speed, memory."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter, LogLocator

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.canvas import (
    ACCENT,
    ROW_HEIGHT,
    RULE,
    WORSE,
    gid,
    new_figure,
    row_axis,
    svg,
)
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.plot_parts import (
    LEFT,
    WIDTH,
    Plot,
    by_device,
    indexed,
    log_axis,
    row_device,
)


def speed(section: Section, salt: str) -> list[Plot]:
    """Examples (of text: bytes) per second, fastest first, a plot for each device."""
    title = "Training speed"
    keys = ("throughput", "steady") if section.steady() else ("throughput",)
    name, unit = section.terms.rate
    if section.terms.counts_examples:
        # Steps of unequal batches do not compare.
        name, unit = "examples_per_s", "examples/s"

    def rate(row: Row) -> float | None:
        return row.speed(*keys, name)

    how = "steady state" if section.steady() else "whole run without compilation"
    rows = sorted(indexed(section, rate), key=lambda pair: -(rate(pair[1]) or 0))
    if not rows:
        return [Plot(title, "No run has a speed.")]
    found: list[Plot] = []
    for device, members in by_device(rows, row_device):
        height = 54 + ROW_HEIGHT * len(members)
        figure, axes = new_figure(WIDTH, height, left=LEFT)
        row_axis(axes, [row.name for _, row in members])
        rates = [rate(row) or 0.0 for _, row in members]
        log_axis(axes, rates)
        start = axes.get_xlim()[0]
        for y, ((i, _), value) in enumerate(zip(members, rates, strict=True)):
            axes.plot([start, value], [y, y], color=RULE, lw=1.2)
            axes.plot([value], [y], "o", color=ACCENT, ms=6, mew=0, gid=gid(i))
        axes.set_xlabel(f"{unit} (logarithmic)")
        tips = {
            i: f"{row.name}\n{show('rate', rate(row))} {unit}" for i, row in members
        }
        shown = title if not found else f"{title}, {device}"
        found.append(
            Plot(
                shown,
                f"On {device}, {how}, median over seeds.",
                svg(figure, f"{salt}-{len(found)}", shown, tips),
            )
        )
    return found


def memory(section: Section, salt: str) -> list[Plot]:
    """Planned and held bytes, smallest first, a plot for each device."""
    title = "Memory"

    def peak(row: Row) -> float | None:
        return row.speed("memory", "peak_bytes")

    def planned(row: Row) -> float | None:
        return row.fact("memory", "predicted_bytes")

    rows = indexed(section, lambda row: peak(row) or planned(row))
    rows.sort(key=lambda pair: planned(pair[1]) or peak(pair[1]) or 0)
    if not rows:
        return [Plot(title, "No run says what it held.")]
    found: list[Plot] = []
    for device, members in by_device(rows, row_device):
        height = 54 + ROW_HEIGHT * len(members)
        figure, axes = new_figure(WIDTH, height, left=LEFT)
        row_axis(axes, [row.name for _, row in members])
        values = [v for _, row in members for v in (peak(row), planned(row)) if v]
        log_axis(axes, values)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: show("bytes", v)))
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=7))
        for y, (i, row) in enumerate(members):
            top, plan = peak(row), planned(row)
            if top and plan:
                axes.plot([plan, top], [y, y], color=RULE, lw=1.6)
            if plan:
                axes.plot(
                    [plan], [y], "o", mfc="none", mec=ACCENT, mew=1.4, ms=6, gid=gid(i)
                )
            if top:
                axes.plot([top], [y], "o", color=ACCENT, ms=6, mew=0, gid=gid(i, 1))
        limit = next(
            (v for _, r in members if (v := r.fact("memory", "limit_bytes"))), 0
        )
        low, high = axes.get_xlim()
        if low < limit < high:
            axes.axvline(limit, color=WORSE, lw=1, ls=(0, (4, 3)))
        axes.set_xlabel("bytes (logarithmic)")
        tips = {
            i: f"{row.name}\npredicted {show('bytes', planned(row)) or 'unknown'}\n"
            f"peak {show('bytes', peak(row)) or 'unknown'}"
            for i, row in members
        }
        host = any(
            r.text("device", "platform") == "cpu"
            for _, row in members
            for r in row.runs
        )
        caption = f"Ring: the compiler's plan; filled: the peak, on {device}."
        if host:
            caption += (
                " On a CPU the peak is the whole process, with the data and the "
                "compiler in it, so it lies far above the plan."
            )
        name = title if not found else f"{title}, {device}"
        figure_svg = svg(figure, f"{salt}-{len(found)}", name, tips)
        found.append(Plot(name, caption, figure_svg))
    return found
