"""The columns of a board, once for all of its forms."""

from __future__ import annotations

from typing import Any

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import VIEWS, Column, Value
from jaxbench.bench.leaderboard.read import finite
from jaxbench.bench.leaderboard.task_board import Shown
from jaxbench.bench.leaderboard.tasks import task_board


def columns(section: Section) -> list[Column]:
    """All columns that hold something in this section, in order."""
    found = [
        *_identity(),
        *_quality(section),
        *_metrics(section),
        *task_board(section).columns(section),
        *_origin(section),
    ]
    return [
        c for c in found if c.key == "rank" or any(c.says(row) for row in section.rows)
    ]


def _identity() -> list[Column]:
    def place(row: Row, name: str) -> Any:
        return None if row.place is None else getattr(row.place, name)

    return [
        Column(
            "rank",
            "rank",
            "count",
            lambda row: place(row, "rank"),
            VIEWS,
            "1 + backbones that are better beyond the noise; ties share a rank",
            "low",
        ),
        Column("backbone", "backbone", "text", lambda row: row.name, VIEWS, "row name"),
        Column("family", "family", "text", lambda row: row.family),
        Column("status", "status", "text", lambda row: row.status),
        Column(
            "n",
            "seeds",
            "count",
            lambda row: len(row.scored),
            ("quality",),
            "runs that ended well",
        ),
        Column(
            "failed",
            "failed",
            "count",
            lambda row: len(row.failed),
            ("quality",),
            "runs that diverged, ran out of memory or time, or crashed",
            "low",
        ),
        Column(
            "tied_with",
            "tied with",
            "text",
            lambda row: "; ".join(place(row, "tied_with") or ()) or None,
        ),
        Column("method", "method", "text", lambda row: place(row, "method")),
    ]


def _quality(section: Section) -> list[Column]:
    better = "high" if section.maximize else "low"

    def of(name: str) -> Value:
        return lambda row: row.place and finite(getattr(row.place, name))

    def ends(row: Row) -> Any:
        found = of("low")(row), of("high")(row)
        return None if None in found else found

    def floor(metrics: dict[str, float]) -> Any:
        return metrics.get(section.metric)

    return [
        Column(
            "best_median",
            f"{section.metric_name}, best",
            "score",
            lambda row: row.score(),
            ("overview", "quality"),
            "median over seeds of the best evaluation",
            better,
            floor,
        ),
        Column(
            "interval",
            "over seeds",
            "interval",
            ends,
            ("overview",),
            "seeds, 95 % interval of the median, median",
            better,
        ),
        Column("best_low", "low", "score", of("low"), ("quality",), "of the interval"),
        Column(
            "best_high", "high", "score", of("high"), ("quality",), "of the interval"
        ),
        Column("best_mean", "mean", "score", of("mean"), ("quality",), "", better),
        Column("best_sd", "sd", "score", of("sd"), ("quality",), "between seeds"),
        Column(
            "best_iqm",
            "IQM",
            "score",
            of("iqm"),
            ("quality",),
            "interquartile mean over seeds",
            better,
        ),
        Column(
            "best_scores",
            "each seed",
            "text",
            lambda row: "; ".join(map(repr, row.scores())) or None,
        ),
        Column(
            "last_median",
            _last_title(section),
            "score",
            lambda row: row.score("last"),
            ("overview", "quality"),
            "median over seeds of the last evaluation",
            better,
            floor,
        ),
        # Where a ceiling is known, shares of a floor say little.
        *(_gain(section, name) for name in section.floors if not section.ceiling),
    ]


def _last_title(section: Section) -> str:
    """Short where the metric has no unit that must be said again."""
    name = section.metric_name
    return "last" if name == section.metric else f"{name}, last"


def _gain(section: Section, floor: str) -> Column:
    return Column(
        f"gain_{floor}",
        f"over {floor.replace('_', '-')}",
        "percent",
        lambda row: section.gain(row, floor),
        ("overview",) * (floor == task_board(section).floor) + ("quality",),
        f"how much of the {section.metric_name} of the floor “{floor}” is saved",
        "high",
    )


def _metrics(section: Section) -> list[Column]:
    """Every other metric of the best evaluation; the page shows the telling ones."""
    names: dict[str, None] = {}
    for row in section.rows:
        for run in row.scored:
            names |= dict.fromkeys(run.metrics())
    return [
        _metric(name, task_board(section).metric(section, name))
        for name in names
        if name not in (section.metric, "objective")
    ]


def _metric(name: str, shown: Shown) -> Column:
    return Column(
        name,
        shown.title,
        shown.kind,
        lambda row: row.median("best", "metrics", name),
        shown.views,
        shown.about,
        shown.better,
        lambda metrics: metrics.get(name),
    )


def _origin(section: Section) -> list[Column]:
    def reason(row: Row) -> Any:
        return (
            "; ".join(f"{r.status}: {r.reason}" for r in row.runs if not r.ok) or None
        )

    return [
        Column(
            "learning_rate",
            "rate",
            "rate",
            lambda row: row.fact("learning_rate"),
            ("quality",),
            "learning rate",
        ),
        Column("steps", "steps", "count", lambda row: row.fact("steps")),
        Column(
            "examples",
            "examples",
            "count",
            lambda row: row.fact("examples"),
            ("speed",) if section.terms.counts_examples else (),
        ),
        Column("device", "device", "text", lambda row: row.device or None),
        Column("reason", "reason", "text", reason),
    ]
