"""How soon runs reach a stated score: updates, seconds, work; censored where never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxbench.board.read import Result, at, finite
from jaxbench.board.table import Row, seed_of
from jaxbench.tasks.columns import Column


def find_target(
    score: Column, rows: Sequence[Row], witness: Result
) -> tuple[float, str] | None:
    """A score worth reaching, and what it is; None where results state none.

    What the results call solved, otherwise the hardest floor that some run beats.
    """
    metric, high = _metric(score), score.better == "high"
    solved = witness.number("solved.threshold")
    if solved is not None:
        return solved, f"{metric} {solved:g}, the task solved"
    runs = [run for row in rows for run in row.ok]
    if any((run.text("primary.metric") or "loss") != metric for run in runs):
        return None
    reached = [v for run in runs for _, v in validations(run.content)]
    floors = []
    for name, metrics in (witness.get("floors") or {}).items():
        floor = finite(metrics.get(metric)) if isinstance(metrics, Mapping) else None
        if floor is not None and any((v > floor) == high for v in reached):
            floors.append((floor if high else -floor, name))
    if not floors:
        return None
    floor, name = max(floors)
    value = floor if high else -floor
    return value, f"{metric} {value:.4g}, the floor “{name.replace('_', ' ')}”"


def _metric(score: Column) -> str:
    return score.key.removeprefix("test ")


def columns(score: Column, target: tuple[float, str] | None) -> list[Column]:
    """Updates, seconds and operations to the target; "> 648" where not reached."""
    if target is None:
        return []
    high = score.better == "high"

    def amount(of_a_step: Any, form: str) -> Any:
        def value(result: Mapping[str, Any]) -> Any:
            each = of_a_step(result)
            if not each:
                return None
            found = steps_to(result, target[0], high)
            if found is None:
                return "> " + form.format(watched(result) * each)
            return found * each

        return value

    def seconds(result: Mapping[str, Any]) -> float | None:
        rate = finite(at(result, "throughput.steps_per_s"))
        return 1 / rate if rate else None

    told = f"until validation reaches {target[1]}"
    return [
        Column(key, path, label, unit, "low", digits, "cost", told, "censored")
        for key, path, label, unit, digits in (
            (
                "steps_to_target",
                amount(lambda r: 1, "{:,.0f}"),
                "target after",
                "updates",
                0,
            ),
            (
                "seconds_to_target",
                amount(seconds, "{:,.0f}"),
                "target after",
                "s",
                None,
            ),
            (
                "flops_to_target",
                amount(lambda r: finite(r.get("step_flops")), "{:.3g}"),
                "target after",
                "FLOP",
                None,
            ),
        )
    ]


def validations(result: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """(step, score) of every evaluation that has a number."""
    points = at(result, "curve.validation")
    for point in points if isinstance(points, list) else ():
        if isinstance(point, list) and len(point) == 2 and finite(point[1]) is not None:
            yield point[0], point[1]


def steps_to(result: Mapping[str, Any], target: float, high: bool) -> float | None:
    """The step of the first evaluation at the target or past it; None without one."""
    if at(result, "solved.threshold") == target:
        return finite(at(result, "solved.step"))
    for step, found in validations(result):
        if (found >= target) if high else (found <= target):
            return finite(step)
    return None


def watched(result: Mapping[str, Any]) -> float:
    """Until which step a run that did not reach the target is known not to have.

    A run that failed would fail again, so it counts to the end of its budget: were it
    censored where it failed, a row would look the faster the earlier its runs diverge.
    """
    steps = finite(result.get("steps")) or 0
    if result.get("status") == "ok" or at(result, "budget.unit") != "steps":
        return steps
    return max(steps, finite(at(result, "budget.total")) or 0)


def times(
    rows: Sequence[Row], score: Column, target: tuple[float, str]
) -> tuple[np.ndarray, np.ndarray]:
    """[R, K] of rows and seeds: updates to the target or watched, and which it was."""
    seeds = list(dict.fromkeys(seed_of(run) for row in rows for run in row.runs))
    times_rk = np.full((len(rows), max(1, len(seeds))), np.nan)
    reached_rk = np.zeros_like(times_rk, bool)
    for r, row in enumerate(rows):
        for run in row.ok + row.failed:
            k = seeds.index(seed_of(run))
            found = steps_to(run.content, target[0], score.better == "high")
            times_rk[r, k] = watched(run.content) if found is None else found
            reached_rk[r, k] = found is not None
    return times_rk, reached_rk
