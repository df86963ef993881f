"""A plot of exported steps: what jax, float32 and INT8 take, row by row."""

from __future__ import annotations

from jaxbench.bench.leaderboard import exports
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.canvas import (
    ACCENT,
    INK,
    LINES,
    MUTED,
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
    FRAME_MS,
    LEFT,
    WIDTH,
    Plot,
    by_device,
    indexed,
    log_axis,
)
from jaxbench.bench.leaderboard.plots_scatter import device_of

_MARKS = {"jax": ("D", MUTED), "onnx": ("o", ACCENT), "int8": ("s", LINES[1])}


def steps(section: Section, salt: str) -> list[Plot]:
    """p99 of a step by each implementation, the fastest row first, by device."""
    title = "Exported step"
    rows = indexed(section, lambda row: min(_p99(row).values(), default=None))
    if not rows:
        return [Plot(title, "No run was exported: jaxbench export.")]
    rows.sort(key=lambda pair: min(_p99(pair[1]).values()))
    found: list[Plot] = []
    for device, members in by_device(rows, lambda row: device_of(row, "export")):
        figure, axes = new_figure(WIDTH, 66 + ROW_HEIGHT * len(members), left=LEFT)
        row_axis(axes, [row.name for _, row in members])
        times = [ms for _, row in members for ms in _p99(row).values()]
        log_axis(axes, times)
        low, high = axes.get_xlim()
        for limit in (1.0, FRAME_MS):
            if low < limit < high:
                axes.axvline(limit, color=WORSE, lw=1, ls=(0, (4, 3)))
        for y, (i, row) in enumerate(members):
            of = _p99(row)
            axes.plot([min(of.values()), max(of.values())], [y, y], color=RULE, lw=1.6)
            for part, (kind, ms) in enumerate(of.items()):
                mark, color = _MARKS[kind]
                axes.plot([ms], [y], mark, color=color, ms=5.5, mew=0, gid=gid(i, part))
        shown = {kind for _, row in members for kind in _p99(row)}
        axes.legend(
            handles=[
                axes.plot([], [], mark, color=color, ms=5.5, mew=0)[0]
                for kind, (mark, color) in _MARKS.items()
                if kind in shown
            ],
            labels=[name for kind, name in exports.NAMES.items() if kind in shown],
            loc="lower right",
            frameon=False,
            labelcolor=INK,
        )
        axes.set_xlabel("ms (logarithmic)")
        tips = {
            i: "\n".join(
                (
                    row.name,
                    *(
                        f"{exports.NAMES[kind]} {show('rate', ms)} ms"
                        for kind, ms in _p99(row).items()
                    ),
                )
            )
            for i, row in members
        }
        name = title if not found else f"{title}, {device}"
        caption = (
            "p99 of one frame or byte, heads included, one thread, on "
            f"{device}; dashed: 1 ms and a frame of 60 fps where they are in range."
        )
        found.append(
            Plot(name, caption, svg(figure, f"{salt}-{len(found)}", name, tips))
        )
    return found


def _p99(row: Row) -> dict[str, float]:
    times = ((kind, exports.time(row, kind, "p99_ms")) for kind in exports.NAMES)
    return {kind: ms for kind, ms in times if ms is not None}
