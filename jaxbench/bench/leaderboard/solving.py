"""How many runs of a row solved its task, and how long that took them."""

from __future__ import annotations

import dataclasses

from jaxbench.bench.leaderboard.board import Row, Section, median
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.read import FAILURES, Run
from jaxbench.bench.statistics.scores import SuccessRate, success_rate
from jaxbench.bench.statistics.survival import (
    MedianTime,
    Times,
    TimesPair,
    compare_times,
    median_time,
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """What the way to a solution is counted in.

    Attributes:
      name: "steps", ...
      key: of the field in a result's `solved`.
      kind: how it is printed, a key of `column.FORMATS`.
    """

    name: str
    key: str
    kind: str


STEPS = Unit("steps", "step", "count")
EXAMPLES = Unit("examples", "examples", "count")
FLOPS = Unit("FLOPs", "flops", "flops")


def counted(section: Section, row: Row) -> list[Run]:
    """Runs that tried: those that ended well, and those that failed by themselves.

    None where no run of the section says whether it solved anything.
    """
    if not any(run.get("solved") for run in section.runs):
        return []
    return [
        run
        for run in row.runs
        if run.status in FAILURES or (run.ok and run.get("solved"))
    ]


def solved_share(section: Section, row: Row) -> SuccessRate | None:
    """How many runs of a row solved the task; failed ones did not."""
    runs = counted(section, row)
    hits = sum(_at(run, STEPS) is not None for run in runs)
    return success_rate(hits, len(runs))


def solved_text(section: Section, row: Row) -> str:
    """As "4/5 (38 to 96 %)"."""
    found = solved_share(section, row)
    if found is None:
        return ""
    bounds = f"{100 * found.low:.0f} to {100 * found.high:.0f} %"
    return f"{found.solved}/{found.runs} ({bounds})"


def times(section: Section, row: Row, unit: Unit) -> Times | None:
    """When the runs of a row solved the task, others censored where they ended.

    A run that failed by itself did not stop being watched: the same recipe would fail
    again, so it stays unsolved to the end of its budget. Were it censored where it
    failed, a row would look the faster the earlier its runs diverge.
    """
    hits, ends = [], []
    for run in counted(section, row):
        if _at(run, STEPS) is None:
            per_step = _per_step(row, run, unit)
            if per_step is None:
                return None
            ends.append(_end(section, run) * per_step)
            continue
        found = _at(run, unit)
        if found is None:
            return None
        hits.append(float(found))
    return Times(tuple(hits), tuple(ends)) if hits or ends else None


def to_solve(section: Section, row: Row, unit: Unit) -> MedianTime | None:
    """The median of `times` and its interval."""
    found = times(section, row, unit)
    return None if found is None else median_time(found)


def to_solve_text(section: Section, row: Row, unit: Unit) -> str:
    """As "1,250 (1,000 to 2,000)", or "not reached in 10,000"."""
    found = to_solve(section, row, unit)
    if found is None:
        return ""
    if found.median is None:
        return f"not reached in {show(unit.kind, found.watched)}"
    low = show(unit.kind, found.low)
    end = "or more" if found.high is None else f"to {show(unit.kind, found.high)}"
    return f"{show(unit.kind, found.median)} ({low} {end})"


def told_apart(section: Section) -> list[TimesPair]:
    """Log-rank tests of the steps to solve, of all pairs of rows."""
    found = {row.name: times(section, row, STEPS) for row in section.rows}
    return compare_times({name: t for name, t in found.items() if t is not None})


def _at(run: Run, unit: Unit) -> float | None:
    return run.number("solved", unit.key)


def _end(section: Section, run: Run) -> float:
    """The step until which an unsolved run says that it was unsolved."""
    steps = run.number("steps") or 0
    if run.ok:
        return float(steps)
    if run.text("budget", "unit") == "steps":
        return float(max(steps, run.number("budget", "total") or 0))
    return float(max([steps, *(other.number("steps") or 0 for other in section.runs)]))


def _per_step(row: Row, run: Run, unit: Unit) -> float | None:
    """How many of a unit a step is; from other runs where a run does not know."""
    if unit is STEPS:
        return 1.0

    def of(other: Run) -> float | None:
        if unit is FLOPS:
            return other.number("step_flops")
        steps, examples = other.number("steps"), other.number("examples")
        return examples / steps if steps and examples else None

    own = of(run)
    return median(map(of, row.runs)) if own is None else own
