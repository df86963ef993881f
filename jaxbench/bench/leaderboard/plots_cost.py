"""Plots of what rows cost: latency, training speed, memory."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

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
    shorten,
    svg,
)
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.plot_parts import (
    FRAME_MS,
    LEFT,
    WIDTH,
    Plot,
    axis_name,
    by_device,
    indexed,
    log_axis,
    score_range,
    tip,
)


def latency(section: Section, salt: str) -> list[Plot]:
    """Score over the p99 of a frame, a plot for each device it was measured on."""
    title = "Quality against latency"

    def p99(row: Row) -> float | None:
        return row.median("latency", "step", "p99_ms") if row.score() else None

    rows = indexed(section, p99)
    if not rows:
        return [Plot(title, "No latency was measured; `jaxbench latency` adds it.")]
    low, high, _ = score_range(section)
    found: list[Plot] = []
    for device, members in by_device(rows, _latency_device):
        figure, axes = new_figure(2 * WIDTH, 430, left=66, top=24)
        axes.grid(True, axis="both")
        points = []
        for i, row in members:
            x, score = p99(row) or 0.0, row.score() or 0.0
            y = min(high, max(low, score))
            mark = "o" if y == score else "^" if y < score else "v"
            axes.plot([x], [y], mark, color=ACCENT, ms=6, mew=0, gid=gid(i))
            points.append((x, y, row.name))
        log_axis(axes, [x for x, _, _ in points] + [FRAME_MS])
        axes.set_ylim(low - 0.02 * (high - low), high + 0.02 * (high - low))
        axes.axvline(FRAME_MS, color=WORSE, lw=1, ls=(0, (4, 3)))
        axes.text(
            FRAME_MS, 1.01, "60 fps, 16.7 ms", transform=axes.get_xaxis_transform(),
            color=WORSE, fontsize=9.5, ha="center",
        )  # fmt: skip
        _label_points(axes, points)
        axes.set_xlabel("p99 of one frame, batch 1, policy heads included (ms)")
        axes.set_ylabel(axis_name(section))
        axes.tick_params(axis="y", labelcolor=MUTED)
        made = sum((p99(row) or 0.0) < FRAME_MS for _, row in members)
        caption = (
            f"Streaming step on {device}; {made} of {len(members)} make 60 fps. Names "
            "where there is room; hover for the others. Triangles lie outside."
        )
        tips = {
            i: f"{tip(section, row)}\np99 {show('ms', p99(row))} ms"
            for i, row in members
        }
        name = title if not found else f"{title}, {device}"
        figure_svg = svg(figure, f"{salt}-{len(found)}", name, tips)
        found.append(Plot(name, caption, figure_svg, wide=True))
    return found


def _device(row: Row) -> str:
    return row.device or "an unknown device"


def _latency_device(row: Row) -> str:
    named = (r.text("latency", "device", "kind") for r in row.runs)
    return next((name for name in named if name), _device(row))


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


def speed(section: Section, salt: str) -> list[Plot]:
    """Examples per second, fastest first, a plot for each device."""
    title = "Training speed"
    keys = ("throughput", "steady") if section.steady() else ("throughput",)

    def rate(row: Row) -> float | None:
        return row.speed(*keys, "examples_per_s")

    how = "steady state" if section.steady() else "whole run without compilation"
    rows = sorted(indexed(section, rate), key=lambda pair: -(rate(pair[1]) or 0))
    if not rows:
        return [Plot(title, "No run has a speed.")]
    found: list[Plot] = []
    for device, members in by_device(rows, _device):
        height = 54 + ROW_HEIGHT * len(members)
        figure, axes = new_figure(WIDTH, height, left=LEFT)
        row_axis(axes, [row.name for _, row in members])
        rates = [rate(row) or 0.0 for _, row in members]
        log_axis(axes, rates)
        start = axes.get_xlim()[0]
        for y, ((i, _), value) in enumerate(zip(members, rates, strict=True)):
            axes.plot([start, value], [y, y], color=RULE, lw=1.2)
            axes.plot([value], [y], "o", color=ACCENT, ms=6, mew=0, gid=gid(i))
        axes.set_xlabel("examples/s (logarithmic)")
        tips = {
            i: f"{row.name}\n{show('rate', rate(row))} examples/s" for i, row in members
        }
        name = title if not found else f"{title}, {device}"
        found.append(
            Plot(
                name,
                f"On {device}, {how}, median over seeds.",
                svg(figure, f"{salt}-{len(found)}", name, tips),
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
    for device, members in by_device(rows, _device):
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
