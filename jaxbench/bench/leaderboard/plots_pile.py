"""Figures of language models: by text, by time, by context, and against costs."""

from __future__ import annotations

from jaxbench.bench.leaderboard import plots_curves
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.plots_curves import Panel
from jaxbench.bench.leaderboard.plots_scatter import Against, over_state, scatter
from jaxbench.bench.leaderboard.read import Run

QUARTERS = tuple(f"nats_per_byte/quarter_{i}" for i in (1, 2, 3, 4))


def curves(section: Section, salt: str) -> list[Plot]:
    """Validation by text read and by seconds of training, side by side."""
    title = "Validation by text and by time"
    runs = plots_curves.representatives(section)
    if not runs:
        return [Plot(title, plots_curves.NO_CURVES)]
    name = f"validation {section.metric_name}"
    panels = [
        Panel(name, "text read (MB)", {i: by_text(run) for i, _, run in runs}),
        Panel(name, "training (s)", {i: by_seconds(run) for i, _, run in runs}),
    ]
    caption = f"{plots_curves.HOW_TO_READ} Seconds are of training alone."
    return [plots_curves.draw_panels(section, salt, title, caption, panels)]


def by_text(run: Run) -> list[tuple[float, float]]:
    """Validation against megabytes of text read until then."""
    steps, seen = run.number("steps"), run.seen_bytes
    if not steps or not seen:
        return []
    return [(seen / steps * s / 1e6, value) for s, value in run.curve("validation")]


def by_seconds(run: Run) -> list[tuple[float, float]]:
    """Validation against seconds of training until then.

    Counted back from the end at the run's rate: the first steps, which the clock leaves
    out, lie before 0 and are not drawn.
    """
    steps, rate = run.number("steps"), run.number("throughput", "steps_per_s")
    total = run.number("seconds", "train")
    if steps is None or not rate or total is None:
        return []
    found = [(total - (steps - s) / rate, y) for s, y in run.curve("validation")]
    return [(seconds, value) for seconds, value in found if seconds >= 0]


def context(section: Section, salt: str) -> list[Plot]:
    """Nats/byte by quarter of the window, a line for each row."""
    title = "What the context is worth"
    lines = {}
    for i, row in enumerate(section.rows):
        values = [row.median("best", "metrics", name) for name in QUARTERS]
        if None not in values:
            lines[i] = [(float(x), y or 0.0) for x, y in enumerate(values, start=1)]
    if not lines:
        return [Plot(title, "The results hold no scores by quarter of the window.")]
    panel = Panel(
        f"validation {section.metric_name}, by quarter of the window",
        "quarter of the window",
        lines,
        ticks=(1, 2, 3, 4),
    )
    caption = (
        "Bytes late in a window have more text before them: a line that falls is a "
        "backbone that uses it, a flat one does not. The best rows are coloured."
    )
    return [plots_curves.draw_panels(section, salt, title, caption, [panel])]


def against_speed(section: Section, salt: str) -> list[Plot]:
    """Score over training speed, a plot for each device."""
    keys = ("throughput", "steady") if section.steady() else ("throughput",)

    def rate(row: Row) -> float | None:
        return row.speed(*keys, "tokens_per_s")

    return scatter(
        section,
        salt,
        Against(
            title="Quality against training speed",
            label="training (bytes/s)",
            value=rate,
            told=lambda row: f"{show('rate', rate(row))} bytes/s",
            caption=lambda device, rows: f"{len(rows)} rows on {device}.",
            missing="No run has a speed.",
            better="high",
        ),
    )


def against_state(section: Section, salt: str) -> list[Plot]:
    """Score over what decoding carries from byte to byte."""
    title = "Quality against decode state"
    return over_state(section, salt, title=title, carried="carry to decode")


def against_size(section: Section, salt: str) -> list[Plot]:
    """Score over parameters."""

    def millions(row: Row) -> float | None:
        count = row.fact("params", "total")
        return None if count is None else count / 1e6

    return scatter(
        section,
        salt,
        Against(
            title="Quality against parameters",
            label="parameters (millions)",
            value=millions,
            told=lambda row: f"{row.fact('params', 'total') or 0:,.0f} parameters",
            caption=lambda _, rows: f"{len(rows)} rows.",
            missing="No run says how many parameters it has.",
            place=None,
            better="low",
        ),
    )
