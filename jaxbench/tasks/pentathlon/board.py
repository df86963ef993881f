"""What boards of the five synthetic tasks show: accuracy, solved or not, how soon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.tasks.columns import Column, Need, TaskBoard

_ACCURACIES = {
    "accuracy": ("right answers", "every answer alike"),
    "mean_accuracy": ("right in a sequence", "share in a sequence, over sequences"),
    "last_accuracy": ("last right", "last answer of a sequence"),
    "sequence_accuracy": ("all right", "sequences without an error"),
    "within_1_percent": ("within 1 %", "last answers at most 1 % off"),
}


def solved(result: Mapping[str, Any]) -> bool | None:
    """Whether a run solved its task; a failed run did not."""
    found = result.get("solved")
    if not found:
        return None if result.get("status") == "ok" else False
    return found.get("step") is not None


COLUMNS = (
    Column(
        "solved",
        solved,
        "solved",
        "%",
        "high",
        0,
        "score",
        "share of a row's runs that solved the task; failed ones did not",
        "share",
    ),
    *(
        Column(
            name,
            f"best.metrics.{name}",
            label,
            "%",
            "high",
            2,
            "parts",
            f"{explain}, validation",
            "mean",
        )
        for name, (label, explain) in _ACCURACIES.items()
    ),
    Column(
        "loss",
        "best.metrics.loss",
        "loss",
        "nats",
        "low",
        4,
        "parts",
        "an answer",
        "mean",
    ),
    Column(
        "relative_error",
        "best.metrics.relative_error",
        "relative error",
        "",
        "low",
        4,
        "parts",
        "how far off the last answer is, over the right one",
        "mean",
    ),
    Column(
        "scores/*",
        "scores.*.accuracy",
        "*",
        "%",
        "high",
        1,
        "parts",
        "right answers on this test split, scored once",
        "mean",
    ),
)


def variant(result: Mapping[str, Any]) -> str:
    """The level, and the options that make it another task: "L3 A5", "L1 dp"."""
    data = result.get("data") or {}
    options = data.get("options") or {}
    words = [data.get("level") or ""]
    words += [str(options[name]) for name in ("group", "target") if options.get(name)]
    if options.get("filler") == "random":
        words.append("random filler")
    if options.get("train_mix") is True and "+mix" not in words[0]:
        words.append("mixed training")
    return " ".join(filter(None, words))


def says_not(result: Mapping[str, Any]) -> list[str]:
    """What one level of a synthetic task cannot show."""
    return [
        "A row that solves this level at this size and budget may fail at longer "
        "sequences or more pairs, and one that does not may need more updates: nothing "
        "here is a limit of an architecture."
    ]


BOARD = TaskBoard(
    about="solve a synthetic task",
    scores=("accuracy", "last_accuracy"),
    maximize=("accuracy", "last_accuracy"),
    labels={
        "accuracy": ("right answers", "%", 2, "every answer alike"),
        "last_accuracy": ("last right", "%", 2, "last answer of a sequence"),
    },
    columns=COLUMNS,
    headlines=(
        "sequence_accuracy",
        "loss",
        "steps_to_target",
        "state_bytes",
        "steps_per_s",
    ),
    needs=(
        Need("answer right", "score"),
        Need("solve it in the fewest updates", "steps_to_target"),
        Need("carry the least from token to token", "state_bytes", exact=True),
    ),
    floors={
        "uniform": "guesses",
        "mode": "always says the commonest answer",
        "in_context_value": "says one of the values it was shown",
        "last_element": "says the last element",
        "previous_bit": "says the last bit",
        "greedy": "the greedy rule",
        "longer": "the length of the longer text",
        "difference": "the difference of the lengths",
    },
    says_not=says_not,
    variant=variant,
)
