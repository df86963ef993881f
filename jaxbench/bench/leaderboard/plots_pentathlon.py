"""Figures of the synthetic tasks: curves over seeds, times to solve, lengths."""

from __future__ import annotations

import statistics as average

from jaxbench.bench.leaderboard import plots_curves, solving
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.plots_curves import HIGHLIGHTED, Line, Panel
from jaxbench.bench.leaderboard.plots_scatter import over_state
from jaxbench.bench.leaderboard.solving import FLOPS, STEPS, Unit
from jaxbench.bench.leaderboard.splits import splits, trained_length
from jaxbench.bench.statistics.survival import Times, kaplan_meier

COLOURED = (
    f"The {HIGHLIGHTED} best rows are coloured and named; hover over a line or a table "
    "row to find the others."
)

Band = list[tuple[float, float, float]]


def bounds(section: Section) -> list[tuple[float, str]]:
    """Heights and names of the floors and the ceiling."""
    found = []
    for bound in section.bounds():
        value = bound.metrics.get(section.metric)
        if value is not None:
            name = bound.kind if bound.kind == "ceiling" else bound.name
            found.append((value, name.replace("_", "-")))
    return found


def curves(section: Section, salt: str) -> list[Plot]:
    """Validation by step: median and middle half of the seeds, a line for each row."""
    title = "Learning curves"
    lines: dict[int, Line] = {}
    bands: dict[int, Band] = {}
    for i, row in enumerate(section.rows):
        band = over_seeds([run.curve("validation") for run in row.scored])
        if band:
            lines[i] = [(step, middle) for step, middle, _, _ in band]
            bands[i] = [(step, low, high) for step, _, low, high in band]
    if not lines:
        return [Plot(title, "The results hold no curves.")]
    panel = Panel(
        f"validation {section.metric_name}",
        "step",
        lines,
        bands=bands,
        bounds=bounds(section),
    )
    caption = (
        "Line: median over seeds; band: the middle half of them. A run that has ended "
        f"keeps its last value. Dashed: floors and ceiling. {COLOURED}"
    )
    return [plots_curves.draw_panels(section, salt, title, caption, [panel])]


def over_seeds(runs: list[Line]) -> list[tuple[float, float, float, float]]:
    """(step, median, first and third quartile) over runs, once all have begun.

    A run keeps a value until its next one, and its last one to the end.
    """
    runs = [points for points in runs if points]
    if not runs:
        return []
    begun = max(points[0][0] for points in runs)
    steps = sorted({step for points in runs for step, _ in points if step >= begun})
    found = []
    for step in steps:
        values = [[y for x, y in points if x <= step][-1] for points in runs]
        first, middle, third = (
            average.quantiles(values, n=4, method="inclusive")
            if len(values) > 1
            else 3 * values
        )
        found.append((step, middle, first, third))
    return found


def solving_times(section: Section, salt: str) -> list[Plot]:
    """Share of runs that have solved the task, by steps and by FLOPs."""
    title = "Runs that have solved the task"
    panels = [_times_panel(section, unit) for unit in (STEPS, FLOPS)]
    if not any(panel.drawn for panel in panels):
        return [Plot(title, "No run says whether it solved the task.")]
    caption = (
        "1 minus the Kaplan-Meier curve of each row; upright ticks: runs that ended "
        "unsolved, censored where they ended; a failed run stays unsolved to the end "
        f"of its budget. {COLOURED}"
    )
    return [plots_curves.draw_panels(section, salt, title, caption, panels)]


def _times_panel(section: Section, unit: Unit) -> Panel:
    found = {
        i: times
        for i, row in enumerate(section.rows)
        if (times := solving.times(section, row, unit)) is not None
    }
    return Panel(
        "share of runs that have solved it",
        unit.name,
        {i: staircase(times) for i, times in found.items()},
        kind="flops" if unit is FLOPS else "",
        dots={i: censored(times) for i, times in found.items()},
        reach=(0.0, 1.0),
    )


def staircase(times: Times) -> Line:
    """The share of runs that have solved the task, with its corners."""
    curve = kaplan_meier(times)
    points, height = [(0.0, 0.0)], 0.0
    for at, unsolved in zip(curve.times, curve.share, strict=True):
        points += [(at, height), (at, 1.0 - unsolved)]
        height = 1.0 - unsolved
    return [*points, (times.watched, height)]


def censored(times: Times) -> Line:
    """Where runs ended unsolved, on the staircase."""
    curve = kaplan_meier(times)
    found = []
    for end in sorted(set(times.unsolved)):
        before = [s for t, s in zip(curve.times, curve.share, strict=True) if t <= end]
        found.append((end, 1.0 - (before[-1] if before else 1.0)))
    return found


def lengths(section: Section, salt: str) -> list[Plot]:
    """Accuracy by the length of test sequences, a panel for each kind of them."""
    title = "Length generalisation"
    known = splits(section)
    kinds = dict.fromkeys(s.kind for s in known if s.length is not None)
    if not kinds:
        return [Plot(title, "No run was scored on longer sequences.")]
    trained = trained_length(section)
    panels = []
    for kind in kinds:
        # The same law at training's own length, where a test split has it.
        places = {s.name: s.length for s in known if s.kind == kind and s.length}
        own = [s.name for s in known if s.kind == kind and s.length is None]
        if own and trained:
            places = {own[0]: trained} | places
        lines = {
            i: line
            for i, row in enumerate(section.rows)
            if len(line := _by_length(section, row, places)) > 1
        }
        ticks = sorted(set(places.values()) | ({trained} if trained else set()))
        panels.append(
            Panel(
                f"{section.metric_name}" + (f", {kind}" if kind else ""),
                "length",
                lines,
                ticks=ticks,
                log=True,
                bounds=bounds(section)[:1] if section.ceiling else [],
                mark=(trained, "trained") if trained else None,
            )
        )
    if not any(panel.drawn for panel in panels):
        return [Plot(title, "No row was scored at more than one length.")]
    caption = (
        "Test accuracy, median over seeds, with the best weights; upright: the length "
        f"of training; dashed across: the ceiling. {COLOURED}"
    )
    return [plots_curves.draw_panels(section, salt, title, caption, panels)]


def _by_length(section: Section, row: Row, places: dict[str, int]) -> Line:
    """Two splits of one length keep their order: training's own comes first."""
    found = [
        (float(length), row.median("scores", name, section.metric))
        for name, length in places.items()
    ]
    points = [(length, score) for length, score in found if score is not None]
    return sorted(points, key=lambda point: point[0])


def against_state(section: Section, salt: str) -> list[Plot]:
    """Accuracy over the bytes of state that one stream carries."""
    title = "Accuracy against state"
    return over_state(section, salt, title=title, carried="carry along")
