"""The heat map of backbones by tasks."""

from __future__ import annotations

from matplotlib.patches import Rectangle

from jaxbench.bench.leaderboard.across import HOLE, Across, strength
from jaxbench.bench.leaderboard.canvas import (
    ACCENT,
    INK,
    MUTED,
    figure_settings,
    new_figure,
    row_axis,
    svg,
)
from jaxbench.bench.leaderboard.plot_parts import LEFT, WIDTH, Plot
from jaxbench.bench.leaderboard.solving import solved_share

CELL_WIDTH, CELL_HEIGHT = 94, 32


def heat_map(board: Across, salt: str) -> Plot:
    """Median accuracy and solved runs of every backbone on every task."""
    title = f"Accuracy by backbone and task, {board.protocol} protocol"
    count = len(board.sections)
    width = max(WIDTH, LEFT + CELL_WIDTH * count + 16)
    height = 54 + CELL_HEIGHT * len(board.entries)
    with figure_settings():
        figure, axes = new_figure(width, height, left=LEFT, top=44, bottom=10)
        row_axis(axes, [entry.backbone for entry in board.entries])
        axes.set_ylim(len(board.entries) - 0.5, -0.5)
        axes.grid(False)
        axes.spines["bottom"].set_visible(False)
        names = [name.replace(" ", "\n", 1) for name in board.columns]
        axes.set_xticks(range(count), names)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.5, count - 0.5)
        for y, entry in enumerate(board.entries):
            cells = zip(board.sections, entry.rows, strict=True)
            for x, (section, row) in enumerate(cells):
                if row is None:
                    axes.text(x, y, HOLE, ha="center", va="center", color=MUTED)
                    continue
                axes.add_patch(
                    Rectangle(
                        (x - 0.48, y - 0.47), 0.96, 0.94, lw=0, facecolor=ACCENT,
                        alpha=0.06 + 0.5 * strength(section, row),
                    )
                )  # fmt: skip
                score = row.score()
                text = "failed" if score is None else f"{score:.3f}"
                axes.text(
                    x, y - 0.02, text, ha="center", va="bottom", color=INK, fontsize=10
                )
                share = solved_share(section, row)
                if share:
                    axes.text(
                        x, y + 0.06, f"{share.solved}/{share.runs}", ha="center",
                        va="top", color=INK, fontsize=9,
                    )  # fmt: skip
        caption = (
            "Median accuracy over seeds, and how many runs solved the task. Shaded by "
            "where it lies between the best floor and the ceiling; a dash: not run."
        )
        drawn = svg(figure, salt, title, {})
    return Plot(title, caption, drawn, wide=width > WIDTH)
