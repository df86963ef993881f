"""Boards of the five synthetic tasks: accuracy, solved or not, and how long it took."""

from __future__ import annotations

import dataclasses
import json

from jaxbench.bench.leaderboard import (
    costs,
    notes_pentathlon,
    plots_cost,
    plots_pentathlon,
    plots_pile,
    plots_quality,
    solving,
)
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import Column, show
from jaxbench.bench.leaderboard.read import Run, numbers
from jaxbench.bench.leaderboard.solving import EXAMPLES, FLOPS, STEPS, Unit
from jaxbench.bench.leaderboard.splits import Split, splits
from jaxbench.bench.leaderboard.task_board import (
    MEMORY,
    QUALITY,
    SPEED,
    SeedFact,
    Shown,
    TaskBoard,
    View,
    plain_metric,
)

METRICS = {
    "loss": Shown("loss", "score", ("quality",), "nats an answer", "low"),
    "accuracy": Shown(
        "right answers", "score", ("quality",), "every answer alike", "high"
    ),
    "mean_accuracy": Shown(
        "right in a sequence",
        "score",
        (),
        "share of right answers in a sequence, averaged over sequences",
        "high",
    ),
    "last_accuracy": Shown(
        "last right", "score", ("quality",), "last answer of a sequence", "high"
    ),
    "sequence_accuracy": Shown(
        "all right", "score", ("quality",), "sequences without an error", "high"
    ),
    "relative_error": Shown(
        "relative error",
        "score",
        ("quality",),
        "how far off the last answer is, over the right one",
        "low",
    ),
    "within_1_percent": Shown(
        "within 1 %", "score", ("quality",), "last answers at most 1 % off", "high"
    ),
}
# Of an accuracy this high the errors say more.
NEAR_ONE = 0.95


def metric(section: Section, name: str) -> Shown:
    """Accuracies of answers and of sequences, and errors of numbers."""
    return METRICS.get(name) or plain_metric(section, name)


def variant(section: Section) -> str:
    """The level, and the options that make it another task: "L3 A5", "L1 dp"."""
    options = json.loads(section.key.options)
    words = [section.key.level]
    words += [str(options[name]) for name in ("group", "target") if options.get(name)]
    if options.get("filler") == "random":
        words.append("random filler")
    if options.get("train_mix") is True and "+mix" not in section.key.level:
        words.append("mixed training")
    return " ".join(filter(None, words))


def columns(section: Section) -> list[Column]:
    """Solved or not, how long it took, size, test splits, speed, memory."""
    return [
        _rescaled(section),
        *_solved(section),
        *_to_solve(section, STEPS, "overview"),
        *_to_solve(section, FLOPS, "overview"),
        *_to_solve(section, EXAMPLES, "quality"),
        _sooner(section),
        *_size(section),
        *_tests(section),
        *_out_of_overview(costs.speed(section)),
        *costs.memory(),
    ]


def _rescaled(section: Section) -> Column:
    def value(row: Row) -> float | None:
        score = row.score()
        return None if score is None else section.rescaled(score)

    return Column(
        "rescaled",
        "floor to ceiling",
        "percent",
        value,
        ("quality",),
        "(accuracy - floor) / (ceiling - floor), with the best floor; 0 below it",
        "high",
    )


def _size(section: Section) -> list[Column]:
    """Parameters and state; the state is a headline here: it holds what is recalled."""
    return [
        dataclasses.replace(column, views=("overview", "memory"))
        if column.key == "state_bytes"
        else column
        for column in costs.size(section)
    ]


def _out_of_overview(found: list[Column]) -> list[Column]:
    return [
        dataclasses.replace(c, views=tuple(v for v in c.views if v != "overview"))
        for c in found
    ]


def _solved(section: Section) -> list[Column]:
    def of(name: str):
        def value(row: Row) -> float | None:
            found = solving.solved_share(section, row)
            return None if found is None else getattr(found, name)

        return value

    return [
        Column(
            "solved",
            "solved",
            "percent",
            of("rate"),
            ("overview", "quality"),
            "runs that solved the task of all that ended or failed, 95 % Wilson "
            "interval",
            "high",
            text=lambda row: solving.solved_text(section, row),
        ),
        *(
            Column(f"solved_{key}", f"solved, {key}", kind, of(name))
            for key, kind, name in (
                ("runs", "count", "solved"),
                ("of_runs", "count", "runs"),
                ("low", "percent", "low"),
                ("high", "percent", "high"),
            )
        ),
    ]


def _to_solve(section: Section, unit: Unit, view: str) -> list[Column]:
    def of(name: str):
        def value(row: Row) -> float | None:
            found = solving.to_solve(section, row, unit)
            return None if found is None else getattr(found, name)

        return value

    key = f"{unit.name.lower()}_to_solve"
    return [
        Column(
            key,
            f"{unit.name} to solve",
            unit.kind,
            of("median"),
            (view,),
            "Kaplan-Meier median over runs, 95 % interval; runs that ended unsolved "
            "are censored there",
            "low",
            text=lambda row: solving.to_solve_text(section, row, unit),
        ),
        *(
            Column(f"{key}_{name}", f"{unit.name}, {name}", unit.kind, of(name))
            for name in ("low", "high", "watched")
        ),
    ]


def _sooner(section: Section) -> Column:
    def beaten(row: Row) -> str | None:
        names = [
            pair.b if pair.a == row.name else pair.a
            for pair in solving.told_apart(section)
            if pair.sooner == row.name
        ]
        return "; ".join(names) or None

    return Column(
        "solves_sooner_than",
        "solves sooner than",
        "text",
        beaten,
        ("quality",),
        "log-rank tests of the steps to solve, Holm over all pairs",
    )


def _tests(section: Section) -> list[Column]:
    found: list[Column] = []
    for split in splits(section):
        found += _test(section, split)
    return found


def _test(section: Section, split: Split) -> list[Column]:
    """Columns of one test split: its accuracy, its errors, its other metrics."""
    name, primary = split.name, section.metric

    def score(row: Row) -> float | None:
        return row.median("scores", name, primary)

    def errors(row: Row) -> list[float]:
        scores = (run.number("scores", name, primary) for run in row.scored)
        return [1.0 - score for score in scores if score is not None]

    def error(row: Row) -> float | None:
        found = score(row)
        return None if found is None else 1.0 - found

    view = "heads" if split.length is None else "changes"
    both = ("heads", "changes") if name == "test" else (view,)
    known = [s for row in section.rows if (s := score(row)) is not None]
    near = (view,) if max(known, default=0.0) >= NEAR_ONE else ()
    columns = [
        Column(
            f"scores/{name}", split.title, "score", score, both,
            f"{section.metric_name}, median over seeds", "high",
        ),
        Column(
            f"errors/{name}", f"errors, {split.title}", "rate", error, near,
            "1 - accuracy, median over seeds", "low",
        ),
        Column(
            f"worst_errors/{name}", f"worst, {split.title}", "rate",
            lambda row: max(errors(row), default=None), near,
            "1 - accuracy of the worst seed", "low",
        ),
    ]  # fmt: skip
    others: dict[str, None] = {}
    for row in section.rows:
        for run in row.scored:
            others |= dict.fromkeys(numbers(run.get("scores", name)))
    for other in others:
        shown = METRICS.get(other)
        if shown is not None and other not in (primary, "loss"):
            columns.append(_other_metric(name, split, other, shown))
    return columns


def _other_metric(name: str, split: Split, other: str, shown: Shown) -> Column:
    return Column(
        f"scores/{name}/{other}",
        f"{shown.title}, {split.title}",
        shown.kind,
        lambda row: row.median("scores", name, other),
        ("heads",) if name == "test" and shown.views else (),
        shown.about,
        shown.better,
    )


def _stages(run: Run) -> str:
    """When the levels of a curriculum were passed."""
    stages = run.get("solved", "stages")
    if not isinstance(stages, dict) or len(stages) < 2:
        return ""
    parts = []
    for name, step in stages.items():
        at = show("count", step) if isinstance(step, int | float) else "-"
        parts.append(f"{name}: {at}")
    return ", ".join(parts)


SEED_FACTS = (
    SeedFact("best", lambda run: show("score", run.score())),
    SeedFact("at step", lambda run: show("count", run.number("best", "step"))),
    SeedFact("last", lambda run: show("score", run.score("last"))),
    SeedFact(
        "test", lambda run: show("score", run.number("scores", "test", run.metric))
    ),
    SeedFact("solved at", lambda run: show("count", run.number("solved", "step"))),
    SeedFact("levels passed at", _stages),
    SeedFact("steps", lambda run: show("count", run.number("steps"))),
    SeedFact("examples", lambda run: show("count", run.number("examples"))),
    SeedFact(
        "steps/s", lambda run: show("rate", run.number("throughput", "steps_per_s"))
    ),
    SeedFact("train s", lambda run: show("rate", run.number("seconds", "train"))),
    SeedFact(
        "peak memory", lambda run: show("bytes", run.number("memory", "peak_bytes"))
    ),
)


BOARD = TaskBoard(
    views=(
        QUALITY,
        View("heads", "Test splits", button="Tests"),
        View("changes", "Length generalisation", button="Lengths"),
        SPEED,
        MEMORY,
    ),
    metric=metric,
    columns=columns,
    seed_facts=SEED_FACTS,
    plots={
        "quality": plots_quality.quality,
        "curves": plots_pentathlon.curves,
        "solving": plots_pentathlon.solving_times,
        "lengths": plots_pentathlon.lengths,
        "state": plots_pentathlon.against_state,
        "size": plots_pile.against_size,
        "speed": plots_cost.speed,
        "memory": plots_cost.memory,
    },
    data_notes=notes_pentathlon.data_notes,
    variant=variant,
)
