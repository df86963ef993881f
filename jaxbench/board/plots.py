"""The first picture of a board as PNG: scores, intervals, floors, tiers."""

from __future__ import annotations

import io
import statistics
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxbench.board.write import Board, axis, mean_of, pictured, score_column

# Distinct in hue and lightness, readable on white; the page's style has the same.
COLORS = (
    "#1d5f8a", "#b4541c", "#3b7d4d", "#7a4f9c", "#93760f", "#b03a5b", "#20808d",
    "#6b5b4b", "#5566bb", "#7d8a1f", "#c05fa0", "#4d4d4d", "#a07a3c",
)  # fmt: skip
INK, MUTED, RULE, FLOOR = "#1c2024", "#666c74", "#dedad2", "#a64f2a"
WIDTH, ROW, MOST = 900, 19, 40
HEAD: dict[str, Any] = {"fontsize": 11, "weight": "bold", "color": INK}
SMALL: dict[str, Any] = {"fontsize": 8, "color": MUTED}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 11, "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.edgecolor": RULE, "xtick.color": MUTED, "axes.labelcolor": INK,
    "axes.formatter.useoffset": False,
}  # fmt: skip


def limits(board: Board, key: str) -> dict[str, Any]:
    """Ends of an axis that keep the bulk of the rows apart.

    Rows further from the middle half than four times its width do not stretch the axis,
    nor do floors that are far from all rows.

    Returns:
      low and high, and `outside`: names of the rows and floors that lie beyond.
    """
    found: dict[str, list[float]] = {}
    for row in board["rows"]:
        spread = (
            row["score"] if key == board["score"] else row.get("spread", {}).get(key)
        )
        spread = spread or {"mean": row["cells"].get(key)}
        if isinstance(spread["mean"], int | float):
            rest = [spread.get("low"), spread.get("high"), *spread.get("values", ())]
            found[row["name"]] = [spread["mean"], *(v for v in rest if v is not None)]
    if not found:
        return {"low": 0.0, "high": 1.0, "outside": []}
    middles = [values[0] for values in found.values()]
    # Quartiles of one value are that value.
    first, median, third = statistics.quantiles(2 * middles, n=4, method="inclusive")
    reach = 4 * (third - first or 0.05 * abs(median) or 1.0)
    outside = [name for name, v in found.items() if abs(v[0] - median) > reach]
    kept = [v for name, values in found.items() if name not in outside for v in values]
    # An interval of few seeds may be wider than everything else: it is cut off.
    low, high = max(min(kept), median - reach), min(max(kept), median + reach)
    near = 0.7 * (high - low or 0.05 * abs(high) or 1.0)
    for floor in board["floors"]:
        cells = {board["score"]: floor["value"]} | floor.get("cells", {})
        value = cells.get(key)
        if value is not None and low - near < value < high + near:
            low, high = min(low, value), max(high, value)
        elif value is not None:
            outside.append(floor["name"])
    pad = 0.04 * (high - low or near)
    return {"low": low - pad, "high": high + pad, "outside": outside}


def png(board: Board) -> bytes | None:
    """The first picture, 1800 pixels wide; None where no row has a score.

    A board that only holds others has the picture of the first of them that has one.
    """
    part = pictured(board)
    if part is None:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = _figure(part)
        file = io.BytesIO()
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": ""})
    return file.getvalue()


def _figure(board: Board) -> Figure:
    drawn = [row for row in board["rows"] if mean_of(row) is not None]
    rows = drawn[:MOST]
    families = list(dict.fromkeys(row["family"] for row in rows))
    colors = {family: COLORS[i % len(COLORS)] for i, family in enumerate(families)}
    top, bottom, inner = 92, 76 + 18 * ((len(families) - 1) // 3), ROW * len(rows)
    height = top + inner + bottom
    figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=200, facecolor="white")
    left = min(300, 22 + 7 * max(len(_short(row["name"])) for row in rows))
    width = WIDTH - left - 60
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, width / WIDTH, inner / height)
    )
    ends = limits(board, board["score"])
    axes.set_xlim(ends["low"], ends["high"])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [_short(row["name"]) for row in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=RULE, lw=0.6)
    axes.set_axisbelow(True)
    for y, row in enumerate(rows):
        _row(axes, y, row, colors[row["family"]], ends)
    _tiers(axes, rows)
    _floors(axes, board, ends)
    axes.set_xlabel(axis(score_column(board)), fontsize=9)
    told = (
        "Mean over seeds, 95 % interval, single seeds; hollow: takes part in no claim."
    )
    told += f" The first {MOST} of {len(drawn)} rows." if rows != drawn else ""
    for y, words, style in ((26, board["title"], HEAD), (46, told, SMALL)):
        figure.text(16 / WIDTH, 1 - y / height, words, **style)
    figure.legend(
        [Line2D([], [], marker="o", ls="", ms=5, color=colors[f]) for f in families],
        families, ncols=3, loc="lower left", bbox_to_anchor=(8 / WIDTH, 2 / height),
        fontsize=8, frameon=False, handletextpad=0.2, labelcolor=MUTED,
    )  # fmt: skip
    return figure


def _row(axes: Axes, y: int, row: Any, color: str, ends: Any) -> None:
    """Interval, seeds and mean; an arrow and the value where it lies outside."""
    score = row["score"]
    if not ends["low"] <= score["mean"] <= ends["high"]:
        over = score["mean"] > ends["high"]
        axes.annotate(
            f"{score['mean']:.4g} ▸" if over else f"◂ {score['mean']:.4g}",
            (1 if over else 0, y), xycoords=("axes fraction", "data"), color=color,
            ha="right" if over else "left", va="center", fontsize=8,
        )  # fmt: skip
        return
    if score["low"] is not None:
        axes.plot([score["low"], score["high"]], [y, y], color=color, lw=4, alpha=0.3)
    for seed in score["values"] if len(score["values"]) > 1 else ():
        axes.plot([seed], [y], "o", color=color, ms=2.2, alpha=0.6)
    face = color if row["takes_part"] else "white"
    axes.plot([score["mean"]], [y], "o", color=color, ms=5.5, mfc=face, mew=1.3)


def _tiers(axes: Axes, rows: list[Any]) -> None:
    """A bracket beside neighbours of one tier, over those in no tier."""
    across = axes.get_yaxis_transform()
    for tier, first, last in brackets([row["tier"] for row in rows]):
        x, ends = 1.02, (first - 0.35, last + 0.35)
        axes.plot([x - 0.006, x, x, x - 0.006], [ends[0], *ends, ends[1]], color=MUTED,
                  lw=1, transform=across, clip_on=False)  # fmt: skip
        middle = (first + last) / 2
        axes.text(1.03, middle, str(tier), transform=across, va="center", **SMALL)


def brackets(tiers: list[int | None]) -> list[tuple[int, int, int]]:
    """(tier, first, last) of every stretch of one tier; None does not end a stretch."""
    found: list[tuple[int, int, int]] = []
    for i, tier in enumerate(tiers):
        if tier is not None and found and found[-1][0] == tier:
            found[-1] = (tier, found[-1][1], i)
        elif tier is not None:
            found.append((tier, i, i))
    return found


def _floors(axes: Axes, board: Board, ends: Any) -> None:
    """Dashed lines; a name that would touch the one before it goes a line higher."""
    low, width = ends["low"], ends["high"] - ends["low"]
    taken: list[float] = []
    inside = [f for f in board["floors"] if ends["low"] <= f["value"] <= ends["high"]]
    for floor in sorted(inside, key=lambda f: f["value"]):
        share = (floor["value"] - low) / width
        half = 0.0052 * len(floor["name"])
        center = min(max(share, half), 1 - half)
        free = (i for i, end in enumerate(taken) if end < center - half)
        level = next(free, len(taken))
        taken[level : level + 1] = [center + half]
        axes.axvline(floor["value"], color=FLOOR, lw=1, ls=(0, (4, 3)))
        axes.annotate(floor["name"], (center, 1), xycoords="axes fraction",
                      xytext=(0, 3 + 10 * level), textcoords="offset points",
                      ha="center", fontsize=8, color=FLOOR)  # fmt: skip


def _short(name: str, most: int = 38) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
