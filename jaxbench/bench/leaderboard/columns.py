"""The columns of a board, once for all of its forms."""

from __future__ import annotations

from typing import Any

from jaxbench.bench.leaderboard import costs
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import VIEWS, Column, Value
from jaxbench.bench.leaderboard.read import finite


def columns(section: Section) -> list[Column]:
    """All columns that hold something in this section, in order."""
    found = [
        *_identity(),
        *_quality(section),
        *_metrics(section),
        *costs.size(),
        *costs.speed(section),
        *costs.memory(),
        *costs.latency(),
        *_origin(),
    ]
    return [
        c
        for c in found
        if c.key == "rank" or any(c.value(row) is not None for row in section.rows)
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
            f"{section.metric}, best",
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
            "last",
            "score",
            lambda row: row.score("last"),
            ("overview", "quality"),
            "median over seeds of the last evaluation",
            better,
            floor,
        ),
        *(_gain(section, name) for name in section.floors),
    ]


def _gain(section: Section, floor: str) -> Column:
    return Column(
        f"gain_{floor}",
        f"over {floor.replace('_', '-')}",
        "percent",
        lambda row: section.gain(row, floor),
        ("overview", "quality") if floor == "copy_previous" else ("quality",),
        f"how much of the {section.metric} of the floor “{floor}” is saved",
        "high",
    )


def _metrics(section: Section) -> list[Column]:
    """Every other metric of the best evaluation; the page shows the telling ones."""
    names: dict[str, None] = {}
    for row in section.rows:
        for run in row.scored:
            names |= dict.fromkeys(run.metrics())
    heads = section.heads()
    return [
        _metric(section, name, name in heads)
        for name in names
        if name not in (section.metric, "objective")
    ]


def _metric(section: Section, name: str, is_head: bool) -> Column:
    group, _, part = name.partition("/")
    ratio = group in ("accuracy", "f1", "change") and part != "frames"
    views: tuple[str, ...] = ()
    if name in ("f1/buttons_micro", "change/any"):
        views = ("overview", "heads", "changes")
    elif is_head or group == "f1":
        views = ("heads",)
    elif group == "change" and ratio:
        views = ("changes",)
    better = "high" if ratio or section.maximize else "low"
    return Column(
        name,
        TITLES.get(name, part if group in ("change", section.metric) else name),
        "percent" if ratio else "score",
        lambda row: row.median("best", "metrics", name),
        views,
        ABOUT.get(name, ""),
        better if ratio or is_head else "",
        lambda metrics: metrics.get(name),
    )


TITLES = {
    "f1/buttons_micro": "button F1",
    "f1/buttons_macro": "F1, macro",
    "change/any": "change acc.",
}
ABOUT = {
    "f1/buttons_micro": "F1 over all button presses",
    "f1/buttons_macro": "mean of the buttons' F1",
    "change/any": "all six groups right on frames where the player changed any; "
    "repeating the previous input scores 0",
}


def _origin() -> list[Column]:
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
            ("speed",),
        ),
        Column("device", "device", "text", lambda row: row.device or None),
        Column("reason", "reason", "text", reason),
    ]
