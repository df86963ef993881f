"""What a board may claim and what it may not, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.column import plural
from jaxbench.bench.leaderboard.read import Run
from jaxbench.bench.leaderboard.tasks import task_board
from jaxbench.bench.terms import text_size

# Sizes are solved to a budget within 1 % up or down.
SIZE_SPREAD = 0.02


def section_notes(section: Section) -> list[str]:
    """What is equal, the ranking's own notes, then what the runs give away."""
    return [
        *_about_the_budget(section),
        *section.ranking_notes,
        *_about_the_score(section),
        *_about_the_data(section),
        *_about_examples(section),
        *_about_sizes(section),
        *_about_updates(section),
        *_about_devices(section),
        *_about_left_out(section),
    ]


def _about_the_budget(section: Section) -> list[str]:
    """What the ranking holds equal, and what that left unequal."""
    budget = section.key.budget
    if not budget.unit:
        return []
    runs = [run for row in section.rows for run in row.scored]
    if budget.unit == "seconds":
        seen = [run.seen_bytes for run in runs if run.seen_bytes is not None]
        told = f"; rows read {_span(seen, text_size)} of text in it" if seen else ""
        return [f"{budget.sentence()}{told}."]
    seconds = [s for run in runs if (s := run.number("seconds", "train"))]
    told = f"; rows took {_span(seconds, '{:,.0f} s'.format)} for it" if seconds else ""
    return [f"{budget.sentence()}{told}."]


def _span(values: Sequence[float], told: Callable[[float], str]) -> str:
    low, high = told(min(values)), told(max(values))
    return low if low == high else f"{low} to {high}"


def _about_the_score(section: Section) -> list[str]:
    return [
        f"Ranks are by the best validation {section.metric_name} of each run "
        f"({'higher' if section.maximize else 'lower'} is better); choosing the best "
        "evaluation on the same split flatters all rows a little, so the last one is "
        "shown beside it. A rank is shared where the data do not tell rows apart."
    ]


def _about_the_data(section: Section) -> list[str]:
    if not section.key.source:
        return ["No run got as far as its data."]
    return task_board(section).data_notes(section)


def _about_examples(section: Section) -> list[str]:
    if section.key.budget.unit == "seconds":
        # Who reads more text in the same time has earned it.
        return []
    seen: dict[int | float, list[str]] = {}
    for row in section.rows:
        for run in row.scored:
            examples = run.number("examples")
            if run.number("solved", "step") is not None:
                # It ended because it needed no more.
                continue
            if examples is not None and row.name not in seen.setdefault(examples, []):
                seen[examples].append(row.name)
    if len(seen) < 2:
        return []
    parts = [
        f"{examples:,.0f} ({_names(names)})"
        for examples, names in sorted(seen.items(), reverse=True)
    ]
    return [
        "Training was not equal: examples seen were "
        + "; ".join(parts)
        + ". Ranks compare the runs as they are, not the backbones at one budget."
    ]


def _about_sizes(section: Section) -> list[str]:
    if not section.terms.equal_budgets:
        return []
    counts = ((row.fact("params", "total"), row.name) for row in section.rows)
    sizes = [(count, name) for count, name in counts if count]
    if not sizes:
        return []
    (least, small), (most, large) = min(sizes), max(sizes)
    if most <= (1 + SIZE_SPREAD) * least:
        return []
    return [
        f"Sizes differ by {100 * (most / least - 1):.0f} %: from {least:,.0f} "
        f"parameters ({small}) to {most:,.0f} ({large}). Part of a difference may be "
        "size; model.size brings backbones within 1 % of one."
    ]


def _about_updates(section: Section) -> list[str]:
    """Where runs diverged, and where updates were left out."""
    diverged, skipped = [], []
    for row in section.rows:
        for run in row.runs:
            name = row.name if len(row.runs) == 1 else f"{row.name} (seed {run.seed})"
            skips = _skips(run)
            if run.status == "diverged":
                after = f" after {skips}" if skips else ""
                diverged.append(f"{name} at step {run.number('steps') or 0:,}{after}")
            elif skips:
                skipped.append(f"{name} {skips}")
    notes = []
    if diverged:
        notes.append(f"Diverged: {'; '.join(diverged)}.")
    if skipped:
        notes.append(
            f"Updates that were not finite were left out: {'; '.join(skipped)}."
        )
    return notes


def _skips(run: Run) -> str:
    count, first = run.number("skips", "count"), run.number("skips", "first_step")
    if not count:
        return ""
    where = "" if first is None else f", the first at step {first:,}"
    return f"{plural(int(count), 'skipped update')}{where}"


def _about_devices(section: Section) -> list[str]:
    devices = section.devices
    if len(devices) < 2:
        return []
    return [
        f"Runs come from {len(devices)} devices ({', '.join(devices)}). Speed, memory "
        "and latency are compared within a device only; each row shows its own."
    ]


def _about_left_out(section: Section) -> list[str]:
    notes = [
        f"{run.shown} (seed {run.seed}, {run.status}) is not counted: {kept} is the "
        f"same seed of the same recipe of {run.backbone}."
        for run, kept in section.left_out
    ]
    waiting = [r for r in section.runs if r.status == "interrupted" and not r.is_sweep]
    if waiting:
        notes.append(
            f"{plural(len(waiting), 'run')} not finished (interrupted); neither scored "
            "nor counted as failed."
        )
    if section.unreadable:
        notes.append(
            f"{plural(len(section.unreadable), 'result file')} could not be read; "
            "listed under failures."
        )
    return notes


def _names(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
