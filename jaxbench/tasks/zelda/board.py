"""What boards of imitation show: prediction, changes, play, and a frame's time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.tasks.columns import Column, Need, TaskBoard
from jaxbench.tasks.zelda.published import published_table

FRAME_MS = 1000 / 60
GROUPS = ("buttons", "main_x", "main_y", "c_x", "c_y", "shoulder")
_EXPORTED = {"jax": "jax", "onnx": "float32", "int8": "INT8"}
_PLAYED = {
    "stocks_difference": ("stocks", "high", "stocks taken minus lost, a game"),
    "damage_ratio": ("dealt / taken", "high", "damage dealt over damage taken"),
    "wins": ("wins", "high", "share of games won"),
    "damage_dealt": ("dealt", "high", "per cent of damage, a game"),
    "damage_taken": ("taken", "low", "per cent of damage, a game"),
}


def _metric(name: str, label: str, explain: str, group: str = "parts") -> Column:
    return Column(
        name,
        f"best.metrics.{name}",
        label,
        "%",
        "high",
        1,
        group,
        explain,
        over_seeds="mean",
    )


def _error(kind: str) -> Column:
    def largest(result: Mapping[str, Any]) -> float | None:
        export = result.get("export") or {}
        found = [
            (export.get("parity") or {}).get(name, {}).get("largest")
            for name, file in (export.get("files") or {}).items()
            if file.get("kind") == kind
        ]
        return max((x for x in found if x is not None), default=None)

    return Column(
        f"export_{kind}_error",
        largest,
        f"error, {_EXPORTED[kind]}",
        better="low",
        group="export",
        explain="largest difference from jax of a logit, over the largest logit",
        over_seeds="max",
    )


def _file(kind: str) -> Column:
    def size(result: Mapping[str, Any]) -> float | None:
        files = (result.get("export") or {}).get("files") or {}
        for file in files.values():
            if (file.get("kind"), file.get("function")) == (kind, "step"):
                return file.get("bytes")
        return None

    label = f"file, {_EXPORTED[kind]}"
    return Column(f"export_{kind}_bytes", size, label, "B", "low", group="export")


COLUMNS = (
    Column(
        "last_loss",
        "last.metrics.loss",
        "loss, last",
        "nats",
        "low",
        4,
        "parts",
        "validation loss of the last evaluation",
        "mean",
    ),
    _metric(
        "change/any",
        "change acc.",
        "all six parts of the controller right on "
        "frames where the player changed one; repeating the last scores 0",
        "score",
    ),
    _metric("accuracy/all", "whole controller", "all six parts right"),
    _metric("accuracy/buttons_exact", "all 8 buttons", "every button right"),
    _metric("f1/buttons_micro", "button F1", "F1 over all button presses"),
    _metric("f1/buttons_macro", "F1, macro", "mean of the buttons' F1"),
    *(
        Column(
            f"loss/{part}",
            f"best.metrics.loss/{part}",
            f"loss, {part}",
            "nats",
            "low",
            4,
            "parts",
            over_seeds="mean",
        )
        for part in GROUPS
    ),
    *(_metric(f"accuracy/{p}", f"{p} right", "on all frames") for p in GROUPS),
    *(_metric(f"change/{p}", f"{p} changes", "where it changed") for p in GROUPS),
    Column(
        "place/*",
        "best.metrics.place/*",
        "frame *",
        "%",
        "high",
        1,
        "parts",
        "whole controller right at this place of a chunk",
        "mean",
    ),
    *(
        Column(
            f"play_{name}",
            f"play.{name}.value",
            label,
            better=better,
            digits=2,
            group="play",
            explain=f"{explain}, in the simulation",
            over_seeds="mean",
        )
        for name, (label, better, explain) in _PLAYED.items()
    ),
    *(
        Column(
            f"latency_{mode}_{name}",
            f"latency.{mode}.{name}_ms",
            f"{name}{words}",
            "ms",
            "low",
            2,
            "speed",
            f"one frame, batch 1, heads included; {about}",
            over_seeds="max",
        )
        for mode, words, about in (
            ("step", "", "streaming: state in, one frame, action out"),
            ("window", ", window", "the last 30 frames anew"),
        )
        for name in ("p50", "p99", "max")
    ),
    *(
        Column(
            f"export_{kind}_{name}_ms",
            f"export.timing.step.{kind}.{name}_ms",
            f"{name}, {words}",
            "ms",
            "low",
            3,
            "export",
            f"a step of {words}, batch 1, one thread, heads included",
            over_seeds="max",
        )
        for kind, words in _EXPORTED.items()
        for name in ("p50", "p99")
    ),
    *(
        Column(
            f"export_{kind}_{metric}",
            f"export.scores.step.{kind}.{metric}",
            f"{label}, {words}",
            unit,
            better,
            digits,
            "export",
            "on the frames of the export, the state carried",
        )
        for metric, label, unit, better, digits in (
            ("loss", "loss", "nats", "low", 4),
            ("accuracy/all", "controller", "%", "high", 1),
            ("change/any", "changes", "%", "high", 1),
        )
        for kind, words in _EXPORTED.items()
    ),
    *(_error(kind) for kind in ("onnx", "int8")),
    *(_file(kind) for kind in ("onnx", "int8")),
)


def says_not(result: Mapping[str, Any]) -> list[str]:
    """What imitation cannot show, and what this split of the games hides."""
    data = result.get("data") or {}
    said = []
    if data.get("source") == "simulated":
        said.append("The games are simulated: nothing here says how a row plays Melee.")
    said.append(
        "Loss says how well recorded inputs are predicted, and most of it is copying "
        "the last controller: choose by what you need."
    )
    splits = data.get("splits") or {}
    for name in ("validation", "test"):
        players = (splits.get(name) or {}).get("players")
        if players:
            count = len(splits[name]["games"])
            unknown = players["unknown"]
            said.append(
                f"{players['also_train']} of {count} {name} games are of a player "
                "who also trains"
                + (f"; of {unknown} nobody knows, they have no code" if unknown else "")
                + "."
            )
    games = (splits.get("validation") or {}).get("games")
    if isinstance(games, list) and "test" not in splits:
        said.append(
            f"There is no test split: the best evaluation is chosen and scored on the "
            f"same {len(games)} games."
        )
    return said


BOARD = TaskBoard(
    about="imitate a Melee player at 60 frames a second",
    scores=("loss", "accuracy/all", "accuracy/buttons_exact"),
    maximize=("accuracy/all", "accuracy/buttons_exact"),
    labels={
        "loss": ("loss", "nats", 4, "of the next controller, over its six parts"),
        "accuracy/all": ("whole controller", "%", 2, "all six parts right"),
        "accuracy/buttons_exact": ("all 8 buttons", "%", 2, "every button right"),
    },
    columns=COLUMNS,
    headlines=(
        "change/any",
        "accuracy/all",
        "f1/buttons_micro",
        "state_bytes",
        "steps_per_s",
    ),
    needs=(
        Need("predict the next controller", "score"),
        Need("tell when the player changes something", "change/any"),
        Need("win in the simulation", "play_stocks_difference"),
        Need(
            "act within a frame",
            "latency_step_p99",
            limit=FRAME_MS,
            limit_words="a frame of 16.7 ms",
            timed=True,
        ),
        Need("carry the least from frame to frame", "state_bytes", exact=True),
        Need("train in the least time", "train_seconds", timed=True),
    ),
    row_options=("head", "horizon"),
    floors={
        "marginal": "always says how often each input occurs",
        "copy_previous": "repeats the last controller",
    },
    says_not=says_not,
    published=published_table,
)
