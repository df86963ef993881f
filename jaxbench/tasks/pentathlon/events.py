"""From a resolved config to one of the five synthetic generators. Imports no jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxbench.data.synthetic.edit_distance import EditDistance
from jaxbench.data.synthetic.event import Event
from jaxbench.data.synthetic.flip_flop import FlipFlop
from jaxbench.data.synthetic.knapsack import Knapsack
from jaxbench.data.synthetic.mqar import Mqar
from jaxbench.data.synthetic.original_event import OriginalEvent
from jaxbench.data.synthetic.original_laws import (
    OriginalEditDistance,
    OriginalFlipFlop,
    OriginalKnapsack,
    OriginalMqar,
)
from jaxbench.data.synthetic.original_words import OriginalWordProblem
from jaxbench.data.synthetic.word_problem import WordProblem

EVENTS: dict[str, Callable[..., Event]] = {
    "mqar": Mqar,
    "flip_flop": FlipFlop,
    "knapsack": Knapsack,
    "word_problem": WordProblem,
    "edit_distance": EditDistance,
}
# Those of the pentathlon's first report.
ORIGINALS: dict[str, Callable[..., OriginalEvent]] = {
    "mqar": OriginalMqar,
    "flip_flop": OriginalFlipFlop,
    "knapsack": OriginalKnapsack,
    "word_problem": OriginalWordProblem,
    "edit_distance": OriginalEditDistance,
}


def build_event(config: Mapping[str, Any]) -> Event:
    """The event a config names, with the options its recipe has for it.

    Raises:
      InputError: an option out of its range.
    """
    if config["protocol"] == "compat":
        return build_original(config)
    kind = EVENTS[config["task"]]
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: v for k, v in config["data"].items() if k in names})


def build_original(config: Mapping[str, Any]) -> OriginalEvent:
    """The task as the report drew it."""
    return ORIGINALS[config["task"]]()
