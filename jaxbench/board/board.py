"""Puts a board together: one dict, from which every form of it is written."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxbench.board import across, words
from jaxbench.board.claims import Claims, decide, decide_times
from jaxbench.board.read import Result, at, finite, read_results
from jaxbench.board.table import (
    Row,
    Table,
    by_board,
    expanded,
    make_table,
    seed_of,
    value,
)
from jaxbench.tasks.columns import COMMON, Column, Need, TaskBoard

# Views after the first: group of columns -> name.
VIEWS = {
    "parts": "parts of the score",
    "size": "size and memory",
    "cost": "training cost",
    "speed": "speed",
    "play": "play",
    "export": "exported files",
}
BESIDE = ("params_backbone", "params_total", "state_bytes")
FEWEST_CORRELATED = 5


def make_board(folders: Sequence[Path]) -> dict[str, Any]:
    """What the results under some folders say, as `jaxbench leaderboard --json` prints.

    Results that cannot be compared (another task, protocol, level, data or budget) make
    boards of their own, under "parts" of a board that holds them together.

    Raises:
      InputError: no result can be read, or results are of several versions of a task.
    """
    results = read_results(folders)
    sources = list(dict.fromkeys(result.source for result in results))
    command = shlex.join(["jaxbench", "leaderboard", *sources])
    parts = [
        _board(make_table(key, members), command)
        for key, members in by_board(results).items()
    ]
    return parts[0] if len(parts) == 1 else across.together(parts, command)


def _board(table: Table, command: str) -> dict[str, Any]:
    shows = table.key.shows
    witness = next((r for r in table.results if r.ok), table.results[0])
    rows = [row for row in table.rows if row.runs]
    score = _score_column(shows, [r for row in rows for r in row.ok], witness)
    rows.sort(key=lambda row: (not row.ok, row.name))
    target, timing = _target(score, rows, witness)
    columns = expanded([score, *shows.columns, *timing, *COMMON], table.results)
    columns = [c for c in columns if any(row.cell(c) is not None for row in rows)]
    if score not in columns:
        columns.insert(0, score)
    claims = _claims(rows, score)
    by_key = {column.key: column for column in columns}
    spreads: dict[str, Claims] = {}
    needs = []
    for need in shows.needs or (Need(shows.about, "score"),):
        column = by_key.get(score.key if need.column == "score" else need.column)
        if column is None:
            continue
        found = _answer(need, column, rows, claims, score, spreads, target)
        needs.append(found)
    ordered = _order(rows, claims, score)
    floors = _floors(table, shows, score, columns)
    variant = shows.variant(witness.content)
    board = {
        "title": _title(table, variant),
        "question": f"Which sequence backbone should I use to {shows.about}?",
        "task": table.key.task,
        "protocol": table.key.protocol,
        "task_version": witness.get("data.version"),
        "variant": variant,
        "needs": needs,
        "unknown": words.unknown(table, rows, claims, score),
        "columns": [_column(c) for c in columns],
        "score": score.key,
        "rows": [_row(rows[k], k, claims, score, columns, spreads) for k in ordered],
        "floors": floors,
        "views": _views(columns, score, needs),
        "figures": _figures(shows, columns, score, rows),
        "across": None,
        "parts": [],
        "sweep": _sweeps(table),
        "failures": _failures(table),
        "how": {
            "command": command,
            "data": _data(table, witness),
            "devices": words.devices(table),
            "versions": _versions(table),
            "splits": _splits(witness, score),
            "statistics": words.statistics_in_words(claims, score),
            "left_out": table.left_out + _refused(table),
            "does_not_say": [
                *shows.says_not(witness.content),
                *words.sizes(rows),
                *_goes_with(needs, by_key, score, rows),
            ],
        },
    }
    published = shows.published(board)
    board["published"] = published and dataclasses.asdict(published)
    return board


def _score_column(shows: TaskBoard, ok: Sequence[Result], witness: Result) -> Column:
    """The metric that all runs have, of the test split where all were scored on it."""
    primaries = {r.text("primary.metric") or "loss" for r in ok}
    own = witness.text("primary.metric") or "loss"
    candidates = [own] if len(primaries) <= 1 else [*shows.scores, *primaries]

    def everywhere(path: str, metric: str) -> bool:
        found = ((at(r.content, path) or {}).get(metric) for r in ok)
        return bool(ok) and all(finite(v) is not None for v in found)

    metric = next((m for m in candidates if everywhere("best.metrics", m)), own)
    maximize = metric in shows.maximize or (
        metric == own and bool(witness.get("primary.maximize"))
    )
    label, unit, digits, explain = shows.labels.get(metric, (metric, "", 4, ""))
    tested = everywhere("scores.test", metric)
    split = "test split, scored once" if tested else "validation split, best evaluation"
    return Column(
        metric if not tested else f"test {metric}",
        f"scores.test.{metric}" if tested else f"best.metrics.{metric}",
        f"{label}, test" if tested else label,
        unit,
        "high" if maximize else "low",
        digits,
        "score",
        ", ".join(filter(None, [explain, split])),
        "mean",
    )


def _scores(rows: Sequence[Row], column: Column) -> tuple[np.ndarray, list[str]]:
    """A line for each row, a column for each seed; infinite where a run failed."""
    seeds = list(dict.fromkeys(seed_of(run) for row in rows for run in row.runs))
    scores_rk = np.full((len(rows), max(1, len(seeds))), np.nan)
    for r, row in enumerate(rows):
        for run in row.runs:
            found = value(run, column) if run.ok else None
            if found is not None:
                scores_rk[r, seeds.index(seed_of(run))] = found
            elif run.failed:
                scores_rk[r, seeds.index(seed_of(run))] = np.inf
    return scores_rk, seeds


def _claims(rows: Sequence[Row], column: Column) -> Claims:
    scores_rk, _ = _scores(rows, column)
    may = np.array([not row.why_not for row in rows], bool)
    return decide(scores_rk, maximize=column.better == "high", may=may)


def _answer(
    need: Need,
    column: Column,
    rows: Sequence[Row],
    claims: Claims,
    score: Column,
    spreads: dict[str, Claims],
    target: float | None,
) -> dict[str, Any]:
    if need.limit is not None:
        return words.within(need, column, rows)
    if need.exact:
        return words.least(need, column, rows)
    if need.timed:
        return words.timed(need, column, rows)
    if column.key == score.key:
        return words.lead(need, column, rows, claims)
    if column.key == "steps_to_target":
        times_rk, reached_rk = _times(rows, score, target)
        may = np.array([not row.why_not for row in rows], bool)
        return words.lead(
            need, column, rows, decide_times(times_rk, reached_rk, may=may)
        )
    spreads[column.key] = _claims(rows, column)
    return words.lead(need, column, rows, spreads[column.key])


def _order(rows: Sequence[Row], claims: Claims, score: Column) -> list[int]:
    sign = -1 if score.better == "high" else 1

    def place(k: int) -> tuple[bool, bool, float, str]:
        mean = claims.mean[k]
        known = bool(np.isfinite(mean))
        return (
            not known,
            bool(rows[k].failed),
            sign * mean if known else 0.0,
            rows[k].name,
        )

    return sorted(range(len(rows)), key=place)


def _number(x: Any) -> float | None:
    return float(x) if x is not None and np.isfinite(x) else None


def _spread(claims: Claims, k: int, row: Row, column: Column) -> dict[str, Any] | None:
    values = [v for run in row.ok if (v := value(run, column)) is not None]
    if not values:
        return None
    return {
        "mean": _number(claims.mean[k]),
        "low": _number(claims.low[k]),
        "high": _number(claims.high[k]),
        "values": values,
    }


def _row(
    row: Row,
    k: int,
    claims: Claims,
    score: Column,
    columns: Sequence[Column],
    spreads: Mapping[str, Claims],
) -> dict[str, Any]:
    takes_part = bool(claims.takes_part[k])
    by_key = {column.key: column for column in columns}
    return {
        "name": row.name,
        "backbone": row.backbone,
        "title": row.title,
        "family": row.family,
        "status": row.status,
        "reason": row.reason,
        "takes_part": takes_part,
        "why_not": "" if takes_part else _why_not(row),
        "seeds": len(row.ok),
        "failed": len(row.failed),
        "swept": bool(row.rates),
        "edge": row.edge,
        "cells": {column.key: row.cell(column) for column in columns},
        "score": _spread(claims, k, row, score),
        "rank": [int(claims.rank_low[k]), int(claims.rank_high[k])]
        if takes_part
        else None,
        "tier": int(claims.tier[k]) if takes_part else None,
        "spread": {
            key: found
            for key, other in spreads.items()
            if (found := _spread(other, k, row, by_key[key]))
        },
        "curve": _curve(row, score),
        "runs": [run.shown for run in row.runs],
        "log": next(
            (run.get("log_tail") for run in row.failed if run.get("log_tail")), []
        ),
    }


def _why_not(row: Row) -> str:
    parts = []
    if len(row.runs) < 3:
        parts.append(f"it has {words.plural(len(row.runs), 'seed')}, three are needed")
    if row.why_not:
        parts.append(row.why_not)
    if not row.ok:
        parts.append("no run of it ended well")
    return "; ".join(parts)


def _curve(row: Row, score: Column) -> list[list[float]]:
    """The validation curve of the run whose score is in the middle of the row's."""
    runs = [run for run in row.ok if value(run, score) is not None]
    runs.sort(key=lambda run: value(run, score))
    points = runs[len(runs) // 2].get("curve.validation") if runs else None
    return [
        [step, found]
        for step, found in points or []
        if finite(step) is not None and finite(found) is not None
    ]


def _target(
    score: Column, rows: Sequence[Row], witness: Result
) -> tuple[float | None, list[Column]]:
    """A stated score and the columns of how soon runs validate so well.

    The score is what the results call solved, otherwise the hardest floor that any row
    beats. Runs that never get there are censored at their last step.
    """
    metric = score.key.removeprefix("test ")
    high = score.better == "high"
    target = witness.number("solved.threshold")
    words_of = f"{metric} {target:g}" if target is not None else ""
    if target is None:
        best = [p for row in rows for run in row.ok for p in _validations(run)]
        reached = (max if high else min)((v for _, v in best), default=None)
        own = all(
            (r.text("primary.metric") or "loss") == metric
            for row in rows
            for r in row.ok
        )
        found = []
        for name, metrics in (witness.get("floors") or {}).items():
            floor = (
                finite(metrics.get(metric)) if isinstance(metrics, Mapping) else None
            )
            if floor is not None and reached is not None:
                if (reached >= floor) if high else (reached <= floor):
                    found.append((floor if high else -floor, name, floor))
        if not found or not own:
            return None, []
        _, name, target = max(found)
        words_of = f"{metric} {target:.4g} ({name.replace('_', ' ')})"
    explain = f"until the validation {words_of} is reached; > where it is not"
    goal = target

    def steps(result: Mapping[str, Any]) -> float | None:
        return _steps_to(result, goal, high)

    def seconds(result: Mapping[str, Any]) -> float | None:
        found, rate = steps(result), finite(at(result, "throughput.steps_per_s"))
        return found / rate if found is not None and rate else None

    def flops(result: Mapping[str, Any]) -> float | None:
        found, each = steps(result), finite(result.get("step_flops"))
        return found * each if found is not None and each else None

    return target, [
        Column(
            "steps_to_target", steps, "updates to target", "", "low", 0, "cost", explain
        ),
        Column(
            "seconds_to_target",
            seconds,
            "s to target",
            "s",
            "low",
            None,
            "cost",
            explain,
        ),
        Column(
            "flops_to_target",
            flops,
            "work to target",
            "FLOP",
            "low",
            None,
            "cost",
            explain,
        ),
    ]


def _validations(run: Result) -> list[tuple[float, float]]:
    found = run.get("curve.validation")
    return (
        [
            (p[0], p[1])
            for p in found
            if isinstance(p, list) and len(p) == 2 and finite(p[1]) is not None
        ]
        if isinstance(found, list)
        else []
    )


def _steps_to(result: Mapping[str, Any], target: float, high: bool) -> float | None:
    """The first evaluation at or past the target; None where there is none."""
    if at(result, "solved.threshold") == target:
        return finite(at(result, "solved.step"))
    for step, found in at(result, "curve.validation") or []:
        if (found >= target) if high else (found <= target):
            return finite(step)
    return None


def _times(
    rows: Sequence[Row], score: Column, target: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """When each run reached the target, or until when it was watched; and whether."""
    _, seeds = _scores(rows, score)
    times_rk = np.full((len(rows), max(1, len(seeds))), np.nan)
    reached_rk = np.zeros_like(times_rk, bool)
    ends = [
        run.number("budget.total") or run.number("steps") or 0
        for row in rows
        for run in row.runs
    ]
    for r, row in enumerate(rows):
        for run in row.runs:
            if not (run.ok or run.failed):
                continue
            k = seeds.index(seed_of(run))
            found = (
                _steps_to(run.content, target, score.better == "high")
                if target is not None
                else None
            )
            # A run that failed would fail again: unsolved to the end of its budget.
            end = run.number("steps") if run.ok else max(ends)
            times_rk[r, k] = end if found is None else found
            reached_rk[r, k] = found is not None
    return times_rk, reached_rk


def _floors(
    table: Table, shows: TaskBoard, score: Column, columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """Predictors that learn nothing, and the best possible, hardest first."""
    metric = score.key.removeprefix("test ")
    witness = next((r for r in table.results if r.get("floors")), None)
    if witness is None:
        return []
    found = {
        name: m for name, m in witness.get("floors").items() if isinstance(m, Mapping)
    }
    explained = {name: shows.floors.get(name, "learns nothing") for name in found}
    ceiling = next((r.get("ceiling") for r in table.results if r.get("ceiling")), None)
    if ceiling:
        found["best possible"], explained["best possible"] = (
            ceiling,
            "no model passes it",
        )
    prefix = "best.metrics."
    lines = [
        {
            "name": name.replace("_", " "),
            "value": finite(metrics.get(metric)),
            "explain": explained[name],
            "cells": {
                c.key: finite(metrics[c.path.removeprefix(prefix)])
                for c in columns
                if isinstance(c.path, str)
                and c.path.startswith(prefix)
                and c.path.removeprefix(prefix) in metrics
            },
        }
        for name, metrics in found.items()
    ]
    lines = [line for line in lines if line["value"] is not None]
    return sorted(lines, key=lambda line: line["value"], reverse=score.better == "high")


def _column(column: Column) -> dict[str, Any]:
    return {
        "key": column.key,
        "label": column.label,
        "unit": column.unit,
        "better": column.better,
        "digits": column.digits,
        "group": column.group,
        "explain": column.explain,
    }


def _views(
    columns: Sequence[Column], score: Column, needs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The columns that are seen together; score and sizes stand in every view."""
    keys = [column.key for column in columns]
    asked = [need["column"] for need in needs if need["column"] in keys]
    scores = [c.key for c in columns if c.group == "score"]
    beside = [key for key in BESIDE if key in keys]
    first = dict.fromkeys([score.key, *scores, *asked, *beside, "rate"])
    found = [{"name": "score", "columns": [key for key in first if key in keys]}]
    for group, name in VIEWS.items():
        own = [c.key for c in columns if c.group == group]
        if own:
            members = list(dict.fromkeys([score.key, *own, *beside]))
            found.append({"name": name, "columns": members})
    return found


def _figures(
    shows: TaskBoard, columns: Sequence[Column], score: Column, rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Score against what else is needed, then learning curves."""
    by_key = {column.key: column for column in columns}
    wanted = {need.column: need for need in shows.needs}
    found = []
    for key in dict.fromkeys([*wanted, "params_backbone"]):
        column = by_key.get(key)
        if column is None or column.key == score.key:
            continue
        cells = [row.cell(column) for row in rows]
        numbers = [v for v in cells if isinstance(v, int | float)]
        if len(set(numbers)) < 2:
            continue
        need = wanted.get(key)
        note = None
        if need and need.limit is not None:
            note = {"value": need.limit, "text": need.limit_words}
        wide = min(numbers) > 0 and max(numbers) > 10 * min(numbers)
        found.append(
            {
                "title": f"{score.label} against {column.label}",
                "kind": "scatter",
                "x": key,
                "y": score.key,
                "log_x": wide,
                "note": note,
            }
        )
    if any(len(_curve(row, score)) > 1 for row in rows):
        found.append(
            {
                "title": f"validation {score.label.removesuffix(', test')} while training",
                "kind": "curves",
                "x": "steps",
                "y": score.key,
                "log_x": False,
                "note": None,
            }
        )
    return found


def _sweeps(table: Table) -> list[dict[str, Any]]:
    found = []
    for row in table.rows:
        runs = table.sweeps.get(row.link, [])
        points = [
            [
                rate,
                r.number(f"best.metrics.{r.text('primary.metric') or 'loss'}")
                if r.ok
                else None,
            ]
            for r in runs
            if (rate := r.number("learning_rate")) is not None
        ]
        if points:
            found.append(
                {
                    "backbone": row.name,
                    "points": sorted(points, key=lambda p: p[0]),
                    "best": row.facts["rate"],
                    "edge": row.edge,
                }
            )
    return sorted(found, key=lambda f: f["backbone"])


def _failures(table: Table) -> list[dict[str, Any]]:
    return [
        {
            "name": result.text("backbone") or result.shown,
            "seed": result.get("seed"),
            "status": result.status,
            "reason": result.reason,
            "folder": result.shown,
            "log": result.get("log_tail") or [],
        }
        for result in table.results
        if not result.ok and result.status != "interrupted"
    ]


def _refused(table: Table) -> list[str]:
    return [
        f"{r.shown} is not counted: {r.reason}."
        for r in table.results
        if r.status in ("refused", "unreadable")
    ]


def _title(table: Table, variant: str) -> str:
    key = table.key
    parts = [f"{key.task} {variant}".strip(), f"{key.protocol} protocol", key.budget]
    return ", ".join(filter(None, parts))


def _data(table: Table, witness: Result) -> list[str]:
    data = witness.get("data") or {}
    name = data.get("name")
    said = [f"{table.key.source or 'unknown'}{f' {name}' if name else ''}"]
    if table.key.fingerprint:
        said.append(f"fingerprint {table.key.fingerprint[:16]}")
    if isinstance(data.get("manifest"), str):
        said.append(f"manifest {data['manifest']}")
    for key, found in json.loads(table.key.options).items():
        said.append(f"{key} {found}")
    return said


def _versions(table: Table) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for result in table.results:
        for package, version in (result.get("versions") or {}).items():
            found.setdefault(package, {})[str(version)] = None
        commit = result.get("git")
        if isinstance(commit, str):
            found.setdefault("git", {})[
                commit[:12] + ("+changes" if "+" in commit else "")
            ] = None
    return [f"{name} {' / '.join(versions)}" for name, versions in found.items()]


def _splits(witness: Result, score: Column) -> str:
    splits = witness.get("data.splits") or {}
    parts = []
    for name, split in splits.items():
        if isinstance(split, Mapping):
            games = split.get("games")
            count = len(games) if isinstance(games, list) else games
            told = f"{count} games" if count else ""
            size = finite(split.get("examples"))
            more = f"{size:,.0f} examples" if size else ""
            parts.append(f"{name} {', '.join(filter(None, [told, more]))}")
        elif isinstance(split, list) and len(split) == 2:
            parts.append(f"{name} bytes {split[0]:,} to {split[1]:,}")
    by = witness.text("data.split_by")
    told = f"by {by}: " if by else ""
    scored = "test" if score.key.startswith("test ") else "validation"
    return (
        f"{told}{'; '.join(parts)}. Scored on {scored}."
        if parts
        else f"Scored on {scored}."
    )


def _goes_with(
    needs: Sequence[Mapping[str, Any]],
    by_key: Mapping[str, Column],
    score: Column,
    rows: Sequence[Row],
) -> list[str]:
    """Whether the score ranks rows as other needs do: Spearman's rank correlation."""
    said = []
    for need in needs:
        column = by_key[need["column"]]
        if column.key == score.key or column.group not in ("score", "play"):
            continue
        pairs = [(row.cell(score), row.cell(column)) for row in rows]
        pairs = [p for p in pairs if all(isinstance(v, int | float) for v in p)]
        if len(pairs) < FEWEST_CORRELATED or any(
            len(set(v)) < 2 for v in zip(*pairs, strict=True)
        ):
            continue
        found = stats.spearmanr(*zip(*pairs, strict=True))
        sign = 1 if column.better == score.better else -1
        said.append(f"{column.label} {sign * found.statistic:.2f}")
    if not said:
        return []
    return [
        f"{score.label.capitalize()} does not stand for everything: rank correlation "
        f"over rows, 1 where both order alike, with {', '.join(said)}."
    ]
