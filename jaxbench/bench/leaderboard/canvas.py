"""Figures as SVG that takes its colours and its type from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that the page's own variables replace, so that a figure turns dark with it.
INK, MUTED, RULE, ACCENT, WORSE = "#010101", "#020202", "#030303", "#040404", "#050505"
LINES = ("#060606", "#070707", "#080808", "#090909", "#0a0a0a")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    ACCENT: "accent",
    WORSE: "worse",
    **{color: f"line-{i}" for i, color in enumerate(LINES, start=1)},
}
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10.5,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
}
ROW_HEIGHT = 17
_MARK = re.compile(r'<g id="row:(\d+)(?::\d+)?"')
_ID = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(?:href="#|url\(#)([^")]+)')


@contextmanager
def figure_settings() -> Iterator[None]:
    """matplotlib's settings for the figures of a page, and only inside it."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(
    width: int, height: int, *, left: int, right: int = 16, top: int = 12, bottom=42
) -> tuple[Figure, Axes]:
    """A figure with one plot in it; all sizes in CSS pixels."""
    figure = Figure(figsize=(width / 72, height / 72))
    axes = figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - top - bottom) / height,
        )
    )
    return figure, axes


def row_axis(axes: Axes, names: Sequence[str]) -> None:
    """Names down the left side, the first on top."""
    axes.set_yticks(range(len(names)), [shorten(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def shorten(name: str, most: int = 22) -> str:
    """A name that fits beside a plot."""
    return name if len(name) <= most else name[: most - 1] + "…"


def gid(index: int, part: int = 0) -> str:
    """The id of a mark that belongs to a row of the board."""
    return f"row:{index}:{part}"


def svg(figure: Figure, salt: str, label: str, tips: Mapping[int, str]) -> str:
    """The figure as an element for a page.

    Args:
      figure: drawn with the colours of this module.
      salt: unique among the figures of a page; their internal names come from it.
      label: what a screen reader says.
      tips: tooltip of the marks of each row.
    """
    file = io.StringIO()
    none: Iterable[str] = ("Creator", "Date", "Format", "Type")
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        FigureCanvasSVG(figure).print_svg(file, metadata=dict.fromkeys(none))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    width, height = (round(float(v)) for v in figure.get_size_inches() * 72)
    head = (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(label)}">'
    )
    text = head + text[text.index(">") + 1 :]
    # Its global style would reach the whole page; the page's sheet has it instead.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _MARK.sub(lambda found: _mark(found, tips), text)
    used = set(_USED.findall(text))
    text = _ID.sub(lambda found: found[0] if found[1] in used else "", text)
    # The page's type, not matplotlib's guess of it.
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    text = text.replace("xlink:href", "href")
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _mark(found: re.Match[str], tips: Mapping[int, str]) -> str:
    index = int(found[1])
    # The title has to be the first child, so it waits for the group to open.
    return (
        f'<g class="mark" data-row="{index}" data-tip="{escape(tips.get(index, ""))}"'
    )
