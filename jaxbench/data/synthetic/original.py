"""The five generators of the pentathlon's first report, by the name of their task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaxbench.data.synthetic.original_event import EPOCH, Instance, OriginalEvent
from jaxbench.data.synthetic.original_laws import (
    OriginalEditDistance,
    OriginalFlipFlop,
    OriginalKnapsack,
    OriginalMqar,
)
from jaxbench.data.synthetic.original_words import OriginalWordProblem

__all__ = ["EPOCH", "ORIGINALS", "Instance", "OriginalEvent"]

ORIGINALS: Mapping[str, Callable[..., OriginalEvent]] = {
    "mqar": OriginalMqar,
    "flip_flop": OriginalFlipFlop,
    "knapsack": OriginalKnapsack,
    "word_problem": OriginalWordProblem,
    "edit_distance": OriginalEditDistance,
}
