"""What a board may claim and what it may not, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxbench.bench.leaderboard.board import Section


def section_notes(section: Section, ranking: list[str]) -> list[str]:
    """The ranking's own notes first, then what the runs themselves give away."""
    return [
        *ranking,
        *_about_the_score(section),
        *_about_the_data(section),
        *_about_budgets(section),
        *_about_devices(section),
        *_about_left_out(section),
    ]


def plural(count: int, noun: str) -> str:
    """ "1 run", "2 runs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _about_the_score(section: Section) -> list[str]:
    return [
        f"Ranks are by the best validation {section.metric} of each run "
        f"({'higher' if section.maximize else 'lower'} is better); choosing the best "
        "evaluation on the same split flatters all rows a little, so the last one is "
        "shown beside it. A rank is shared where the data do not tell rows apart."
    ]


def _about_the_data(section: Section) -> list[str]:
    source = section.key.source
    if source == "simulated":
        return [
            "The games are simulated: nothing here says how a backbone plays Melee."
        ]
    if not source:
        return ["No run got as far as its data."]
    return [
        "Validation loss is a proxy: it says how well recorded inputs are predicted, "
        "not how well a policy plays."
    ]


def _about_budgets(section: Section) -> list[str]:
    seen: dict[int | float, list[str]] = {}
    for row in section.rows:
        for run in row.scored:
            examples = run.number("examples")
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
