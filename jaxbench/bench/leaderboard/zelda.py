"""Boards of the task `zelda`: the controller's parts, 60 frames a second, Melee."""

from __future__ import annotations

import json
from typing import Any

from jaxbench.bench.leaderboard import (
    costs,
    exports,
    play,
    plots_cost,
    plots_curves,
    plots_exports,
    plots_quality,
)
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import Column, Value, show
from jaxbench.bench.leaderboard.plot_parts import FRAME_MS, Plot
from jaxbench.bench.leaderboard.plots_scatter import Against, device_of, scatter
from jaxbench.bench.leaderboard.task_board import (
    MEMORY,
    QUALITY,
    SEED_FACTS,
    SPEED,
    PublishedTable,
    Shown,
    TaskBoard,
    View,
    score_or_status,
)
from jaxbench.tasks.zelda import published

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


def metric(section: Section, name: str) -> Shown:
    """Losses of the controller's parts, F1, and accuracy where something changed."""
    group, _, part = name.partition("/")
    is_head = name in section.heads()
    ratio = group in ("accuracy", "f1", "change", "place") and part != "frames"
    # Without a loss in nats, accuracies are all there is of the parts.
    decoded = section.metric != "loss"
    views: tuple[str, ...] = ()
    if name in ("f1/buttons_micro", "change/any"):
        views = ("overview", "heads", "changes")
    elif is_head or group in ("f1", "place") or (decoded and group == "accuracy"):
        views = ("heads",)
    elif group == "change" and ratio:
        views = ("changes",)
    better = "high" if ratio or section.maximize else "low"
    return Shown(
        TITLES.get(name, part if group in ("change", section.metric) else name),
        "percent" if ratio else "score",
        views,
        ABOUT.get(name, ""),
        better if ratio or is_head else "",
    )


def variant(section: Section) -> str:
    """The policy type, where it learns chunks of controllers: "diffusion"."""
    head = json.loads(section.key.options).get("head")
    return head if isinstance(head, str) else ""


EXPORTED = (
    exports.Quality("loss", "loss", "score", "low"),
    exports.Quality("accuracy/all", "whole controller", "percent", "high"),
    exports.Quality("accuracy/buttons_exact", "all 8 buttons", "percent", "high"),
    exports.Quality("accuracy/main_x", "main stick x", "percent", "high"),
    exports.Quality("change/any", "changes", "percent", "high"),
)


def columns(section: Section) -> list[Column]:
    """Play, size, speed, memory, how long a frame takes, and exported files."""
    return [
        *play.columns(section),
        *costs.size(section),
        *costs.speed(section),
        *costs.memory(),
        *latency(),
        *exports.columns(EXPORTED),
    ]


def latency() -> list[Column]:
    """Time of one frame, and whether that makes 60 fps."""

    def time(mode: str, name: str) -> Value:
        if name == "max_ms":
            return lambda row: max(_latencies(row, mode, name), default=None)
        return lambda row: row.speed("latency", mode, name)

    def verdict(row: Row) -> Any:
        found = [
            run.get("latency", "step", "makes_60fps")
            for run in row.runs
            if run.get("latency", "step")
        ]
        return ("yes" if all(found) else "no") if found else None

    modes = {"step": "streaming", "window": "30-frame window"}
    return [
        *(
            Column(
                f"latency_{mode}_{name}",
                f"{name.removesuffix('_ms')} ms"
                + (", window" if mode == "window" else ""),
                "ms",
                time(mode, name),
                ("overview", "latency")
                if (mode, name) == ("step", "p99_ms")
                else ("latency",),
                f"one frame, batch 1, {about}, policy heads included",
                "low",
            )
            for mode, about in modes.items()
            for name in ("p50_ms", "p99_ms", "max_ms")
        ),
        Column(
            "makes_60fps",
            "60 fps",
            "text",
            verdict,
            ("overview", "latency"),
            "p99 of the streaming step below 16.7 ms",
        ),
        Column(
            "share_of_frame",
            "of a frame",
            "percent",
            lambda row: row.speed("latency", "step", "share_of_frame"),
            ("latency",),
            "p99 over a frame's 16.7 ms",
            "low",
        ),
    ]


def _latencies(row: Row, mode: str, name: str) -> list[float]:
    found = (run.number("latency", mode, name) for run in row.scored)
    return [value for value in found if value is not None]


def data_notes(section: Section) -> list[str]:
    """What imitation can show, and what simulated games cannot."""
    if section.key.source == "simulated":
        said = "The games are simulated: nothing here says how a backbone plays Melee."
    else:
        said = (
            "Validation loss is a proxy: it says how well recorded inputs are "
            "predicted, not how well a policy plays."
        )
    return [said, *play.notes(section), *exports.notes(section)]


def _p99(row: Row) -> float | None:
    return row.median("latency", "step", "p99_ms")


def _caption(device: str, rows: list[Row]) -> str:
    made = sum((_p99(row) or 0.0) < FRAME_MS for row in rows)
    return f"Streaming step on {device}; {made} of {len(rows)} make 60 fps."


def against_latency(section: Section, salt: str) -> list[Plot]:
    """Score over the p99 of a frame, a plot for each device it was measured on."""
    return scatter(
        section,
        salt,
        Against(
            title="Quality against latency",
            label="p99 of one frame, batch 1, policy heads included (ms)",
            value=_p99,
            told=lambda row: f"p99 {show('ms', _p99(row))} ms",
            caption=_caption,
            missing="No latency was measured; `jaxbench latency` adds it.",
            place=lambda row: device_of(row, "latency"),
            mark=(FRAME_MS, "60 fps, 16.7 ms"),
        ),
    )


PUBLISHED_HEADER = [
    "backbone",
    "their name",
    "their place",
    "their last",
    "our place",
    "our last",
    "our best",
    "their ms",
    "our p99 (ms)",
    "their batch, rate",
    "remark",
]


def published_table(section: Section) -> PublishedTable | None:
    """The published rows in their order, ours beside them; under compat only."""
    if section.key.protocol != "compat":
        return None
    lines = []
    for place, (name, theirs) in enumerate(published.ROWS.items(), start=1):
        row = section.row_of(name)
        lines.append(
            [
                name,
                theirs.name,
                str(place) if theirs.loss else "",
                show("score", theirs.loss),
                str(row.place.rank) if row and row.place else "",
                show("score", row.score("last")) if row else "",
                score_or_status(row),
                show("ms", theirs.latency_ms),
                show("ms", row.speed("latency", "step", "p99_ms")) if row else "",
                f"{theirs.batch}, {theirs.learning_rate:g}",
                theirs.note,
            ]
        )
    return PublishedTable(
        (list(PUBLISHED_HEADER), lines),
        range(2, 9),
        (*published.DIFFERENCES, published.LATENCY_NOTE),
    )


BOARD = TaskBoard(
    views=(
        QUALITY,
        View("heads", "Parts of the loss, F1", floors=True),
        View("changes", "Accuracy where the player changed something", floors=True),
        View("play", "Play in the simulation"),
        SPEED,
        MEMORY,
        View("latency", "Latency"),
        exports.VIEW,
    ),
    metric=metric,
    columns=columns,
    seed_facts=SEED_FACTS,
    plots={
        "quality": plots_quality.quality,
        "heads": plots_quality.heads_map,
        "play": play.against_play,
        "latency": against_latency,
        "export": plots_exports.steps,
        "curves": plots_curves.curves,
        "speed": plots_cost.speed,
        "memory": plots_cost.memory,
    },
    data_notes=data_notes,
    floor="copy_previous",
    variant=variant,
    published=published_table,
)
