"""In what terms the results of each task are told. Imports no jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Terms:
    """What people call the things in a result, and what they compare.

    Attributes:
      token: what a model reads one after the other.
      rate: the speed of training to quote: its key in `throughput`, and its unit.
      rate_format: how that number is printed.
      names: of metrics, where theirs are not for people.
      headlines: metrics that come first, as far as a result has them.
      equal_budgets: whether runs are only compared at one budget, of one unit; without
        it a board says how budgets differ and leaves the rest to its reader.
    """

    token: str = "token"
    rate: tuple[str, str] = ("steps_per_s", "steps/s")
    rate_format: str = ",.1f"
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    headlines: tuple[str, ...] = ()
    equal_budgets: bool = False

    @property
    def counts_examples(self) -> bool:
        """Whether examples, not their tokens, are what people count."""
        return self.rate[0] != "tokens_per_s"

    def name(self, metric: str) -> str:
        """A metric's name for people."""
        return self.names.get(metric, metric)

    def speed(self, throughput: Mapping[str, Any]) -> str:
        """The rate with its unit; empty where there is none."""
        key, unit = self.rate
        value = throughput.get(key)
        return f"{value:{self.rate_format}} {unit}" if value else ""


_QUARTERS = {
    f"nats_per_byte/quarter_{i}": f"nats/byte, quarter {i}" for i in (1, 2, 3, 4)
}
TERMS = {
    "zelda": Terms(
        token="frame",
        headlines=("loss", "accuracy/all", "f1/buttons_micro", "change/any"),
    ),
    "pile": Terms(
        token="byte",
        rate=("tokens_per_s", "bytes/s"),
        rate_format=",.0f",
        names={
            "nats_per_byte": "nats/byte",
            "bits_per_byte": "bits/byte",
            "bytes": "scored bytes",
            **_QUARTERS,
        },
        headlines=("nats_per_byte", "bits_per_byte"),
        equal_budgets=True,
    ),
    "world": Terms(
        token="frame",
        names={"distance": "distance, units"},
        headlines=("state_error", "distance", "action_state_accuracy"),
    ),
}
_ANSWERS = Terms(
    names={
        "last_accuracy": "last-answer accuracy",
        "sequence_accuracy": "whole-sequence accuracy",
        "mean_accuracy": "accuracy of a sequence",
    },
    headlines=("accuracy", "last_accuracy", "sequence_accuracy"),
)
TERMS |= dict.fromkeys(
    ("mqar", "flip_flop", "knapsack", "word_problem", "edit_distance"), _ANSWERS
)
_OTHER = Terms()


def terms(task: str) -> Terms:
    """The terms of a task; plain ones for a task this house does not know."""
    return TERMS.get(task, _OTHER)


def seen_bytes(result: Mapping[str, Any]) -> int | None:
    """Bytes of text a language model was trained on; None where that is not known.

    A window that was drawn twice counts twice.
    """
    options = (result.get("data") or {}).get("options") or {}
    examples, window = result.get("examples"), options.get("window")
    if not (isinstance(examples, int) and isinstance(window, int)):
        return None
    return examples * window


def data_name(data: Mapping[str, Any]) -> str:
    """What the data is called: its kind, and its name where it has one."""
    source, name = str(data.get("source") or ""), data.get("name")
    if not isinstance(name, str):
        return source
    return name if name.lower().startswith(source.lower()) else f"{source} {name}"


def text_size(count: float) -> str:
    """Bytes of text as budgets name them, in powers of ten: 50.0 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"
