"""Describes the five synthetic tasks: rules and words. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxbench.tasks.entry import Entry
from jaxbench.tasks.pentathlon.curriculum import parse_levels
from jaxbench.tasks.pentathlon.events import build_event, build_original
from jaxbench.tasks.rules import each, not_negative, one_of, seed

if TYPE_CHECKING:
    from jaxbench.tasks.task import Task


def _build(config: Mapping[str, Any], width: int, say: Callable[[str], None]) -> Task:
    from jaxbench.tasks.pentathlon import original, sequence

    del say
    if config["protocol"] == "compat":
        return original.build(build_original(config), config, width)
    return sequence.build(build_event(config), config, width)


def _positions(config: Mapping[str, Any]) -> int:
    """Raises InputError for options or a level that the generator does not have."""
    event = build_event(config)
    levels = parse_levels(config["data"]["level"], event.levels)
    return max(event.length(level) for level in levels)


def _check(config: Mapping[str, Any]) -> None:
    _positions(config)


ENTRY = Entry(
    build=_build,
    rules={
        "data.filler": one_of("zero", "random"),
        "data.group": one_of("A5", "A4xZ5", "Z60"),
        "model.positions": one_of("row", "none", "learned"),
        "data.seed": seed,
        **each("data.train_examples data.test_examples", not_negative),
        **each("data.pairs data.tokens", not_negative),
    },
    check=_check,
    positions=_positions,
)
