"""Puts a board together: one dict, from which every form of it is written."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxbench.board import across, origin, words
from jaxbench.board import target as targets
from jaxbench.board.claims import FEWEST_SEEDS, Claims, decide, decide_times
from jaxbench.board.read import Result, at, clean, finite, read_results
from jaxbench.board.table import (
    Row,
    Table,
    by_board,
    expanded,
    key_of,
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
MOST_HEADLINES = 6


def make_board(folders: Sequence[Path]) -> dict[str, Any]:
    """What the results under some folders say, as `jaxbench leaderboard --json` prints.

    Results that cannot be compared (another task, protocol, level, data or budget) make
    boards of their own, under "parts" of a board that holds them together.

    Raises:
      InputError: no result can be read, or results are of several versions of a task.
    """
    results = read_results(folders)
    sources = dict.fromkeys(Path(result.source).resolve().name for result in results)
    command = shlex.join(["jaxbench", "leaderboard", *sources])
    parts = [
        _board(make_table(key, members), command)
        for key, members in by_board(results).items()
    ]
    return parts[0] if len(parts) == 1 else across.together(parts, command)


def board_of_run(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The board of one run alone, whatever it was for and however it ended."""
    said = str(content["status"]), str(content["reason"] or "")
    run = Result(folder.name, str(folder.parent), *said, clean(content))
    row = Row(run.text("backbone"), run.text("backbone"), {}, "", [run])
    return _board(Table(key_of(run), [row], [run], {}, []), "")


def _board(table: Table, command: str) -> dict[str, Any]:
    shows = table.key.shows
    witness = next((r for r in table.results if r.ok), table.results[0])
    rows = [row for row in table.rows if row.runs]
    score = _score_column(shows, [r for row in rows for r in row.ok], witness)
    rows.sort(key=lambda row: (not row.ok, row.name))
    target = targets.find_target(score, rows, witness)
    timing = targets.columns(score, target)
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
        "examples": {
            name: int(count)
            for name, count in (witness.get("data.examples") or {}).items()
            if finite(count) is not None
        },
        "needs": needs,
        "unknown": words.unknown(rows, claims, score),
        "columns": [_column(c) for c in columns],
        "score": score.key,
        "rows": [
            _row(rows[k], k, claims, score, columns, spreads, floors) for k in ordered
        ],
        "headlines": _headlines(shows, columns, score),
        "floors": floors,
        "views": _views(columns, score, needs),
        "figures": _figures(shows, columns, score, rows),
        "across": None,
        "parts": [],
        "sweep": origin.sweeps(table),
        "failures": origin.failures(table),
        "how": {
            "command": command,
            "data": origin.data(table, witness),
            "devices": origin.devices(table),
            "versions": origin.versions(table),
            "splits": origin.splits(witness, score),
            "statistics": words.statistics_in_words(claims, score),
            "left_out": table.left_out + origin.refused(table),
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


def _scores(rows: Sequence[Row], column: Column) -> np.ndarray:
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
    return scores_rk


def _claims(rows: Sequence[Row], column: Column) -> Claims:
    may = np.array([not row.why_not for row in rows], bool)
    return decide(_scores(rows, column), maximize=column.better == "high", may=may)


def _answer(
    need: Need,
    column: Column,
    rows: Sequence[Row],
    claims: Claims,
    score: Column,
    spreads: dict[str, Claims],
    target: tuple[float, str] | None,
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
        assert target is not None
        may = np.array([not row.why_not for row in rows], bool)
        found = decide_times(*targets.times(rows, score, target), may=may)
        return words.lead(need, column, rows, found)
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
    floors: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    takes_part = bool(claims.takes_part[k])
    mean = None if row.failed else row.cell(score)
    verdict, unbeaten = words.verdict(mean, score, floors)
    by_key = {column.key: column for column in columns}
    return {
        "name": row.name,
        "backbone": row.backbone,
        "title": row.title,
        "family": row.family,
        "status": row.status,
        "reason": row.reason,
        "verdict": verdict,
        "unbeaten": unbeaten,
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
    if row.seeds < FEWEST_SEEDS:
        have = words.plural(row.seeds, "seed")
        parts.append(f"it has {have}, {FEWEST_SEEDS} are needed")
    if row.why_not:
        parts.append(row.why_not)
    if not row.ok:
        parts.append("no run of it ended well")
    return "; ".join(parts)


def _curve(row: Row, score: Column) -> list[list[float]]:
    """The validation curve of the run whose score is in the middle of the row's.

    Empty where the run kept the curve of another metric than the one that sorts.
    """
    metric = score.key.removeprefix("test ")
    runs = [run for run in row.ok if value(run, score) is not None]
    runs = [r for r in runs if (r.text("primary.metric") or "loss") == metric]
    runs.sort(key=lambda run: value(run, score))
    middle = runs[len(runs) // 2].content if runs else {}
    return [[step, found] for step, found in targets.validations(middle)]


def _first(table: Table, path: str) -> Any:
    """What the first result that has anything there has."""
    return next((found for r in table.results if (found := r.get(path))), None)


def _floors(
    table: Table, shows: TaskBoard, score: Column, columns: Sequence[Column]
) -> list[dict[str, Any]]:
    """Predictors that learn nothing, and the best possible, hardest first."""
    metric = score.key.removeprefix("test ")
    prefix, floors = "best.metrics.", _first(table, "floors")
    if score.key.startswith("test ") and _first(table, "data.splits.test.floors"):
        # A task may measure them on its test split as well.
        prefix, floors = "scores.test.", _first(table, "data.splits.test.floors")
    if floors is None:
        return []
    found = {name: m for name, m in floors.items() if isinstance(m, Mapping)}
    explained = {name: shows.floors.get(name, "learns nothing") for name in found}
    ceiling = next((r.get("ceiling") for r in table.results if r.get("ceiling")), None)
    if ceiling:
        found[words.BEST_POSSIBLE] = ceiling
        explained[words.BEST_POSSIBLE] = "no model passes it"
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


def _headlines(shows: TaskBoard, columns: Sequence[Column], score: Column) -> list[str]:
    """The columns that a run's own last words show, the score first."""
    keys = [column.key for column in columns]
    wanted = shows.headlines or tuple(column.key for column in COMMON)
    return [score.key, *(key for key in wanted if key in keys)][:MOST_HEADLINES]


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
                "title": f"{score.label.removesuffix(', test')} while training",
                "kind": "curves",
                "x": "steps",
                "y": score.key,
                "log_x": False,
                "note": None,
            }
        )
    return found


def _title(table: Table, variant: str) -> str:
    key = table.key
    parts = [f"{key.task} {variant}".strip(), f"{key.protocol} protocol", key.budget]
    return ", ".join(filter(None, [*parts, _size(table)]))


def _size(table: Table) -> str:
    """The size to which all backbones were brought; empty where there is none."""
    for key, unit in (("parameters", "parameters"), ("flops", "FLOPs a token")):
        found = {run.text(f"config.model.{key}") for run in table.results}
        if len(found) == 1 and "" not in found:
            return f"backbones of {found.pop()} {unit}"
    return ""


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
