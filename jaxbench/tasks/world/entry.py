"""Describes the world model's task: rules and words. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxbench.errors import InputError
from jaxbench.tasks.entry import Entry, Terms
from jaxbench.tasks.games import RULES, open_games

if TYPE_CHECKING:
    from jaxbench.tasks.task import Task


def _build(config: Mapping[str, Any], width: int, say: Callable[[str], None]) -> Task:
    from jaxbench.tasks.world import next_frame

    games, source = open_games(config["data"], say)
    return next_frame.build(games, config, width, source)


def _check(config: Mapping[str, Any]) -> None:
    if config["protocol"] != "clean":
        raise InputError(
            f"protocol={config['protocol']!r}: the world model has no original to "
            "compare with; use protocol=clean"
        )


ENTRY = Entry(
    build=_build,
    rules=RULES,
    check=_check,
    emits="frame",
    data_path="replays",
    data_is="folder",
    terms=Terms(token="frame"),
)
