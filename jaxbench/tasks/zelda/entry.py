"""Describes the imitation task: rules and words. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxbench.errors import InputError
from jaxbench.tasks.entry import Entry, Terms
from jaxbench.tasks.games import RULES, open_games
from jaxbench.tasks.rules import (
    each,
    not_negative,
    one_of,
    parse_options,
    positive,
    within,
)
from jaxbench.tasks.zelda.chunks import options as chunks

if TYPE_CHECKING:
    from jaxbench.tasks.task import Task

# Keys that shape a loss over classes, and the values that leave it as it is.
_SHAPING = {
    "label_smoothing": 0,
    "focal_gamma": 0,
    "button_weight": 1,
    "stick_edge_weight": 1,
}


def _build(config: Mapping[str, Any], width: int, say: Callable[[str], None]) -> Task:
    from jaxbench.tasks.zelda import imitation

    model = config["model"]
    options = parse_options(model["head_options"], "model.head_options")
    hidden = chunks.resolve(model["head"], options).get("hidden", width)
    if hidden != width:
        say(
            f"head={model['head']} has a width of its own: hidden={hidden}, whatever "
            "the model's is; model.head_options sets it"
        )
    games, source = open_games(config["data"], say)
    return imitation.build(games, config, width, source)


def _check(config: Mapping[str, Any]) -> None:
    data, model = config["data"], config["model"]
    head, compat = model["head"], config["protocol"] == "compat"
    in_chunks = head in chunks.DEFAULTS
    chunks.resolve(head, parse_options(model["head_options"], "model.head_options"))
    if in_chunks and compat:
        raise InputError(
            f"model.head={head} needs protocol=clean: compat's windows do not say "
            "where a game ends, so there are no chunks; use head=independent"
        )
    if compat and model["readout"] != "last":
        raise InputError(
            f"model.readout={model['readout']!r}: protocol=compat scores the last "
            "frame of a window, use readout=last"
        )
    late, noisy = data["max_delay"], data["noise"] and data["noise_scale"]
    if late and late <= data["delay"]:
        raise InputError(
            f"data.max_delay={late} must be longer than data.delay={data['delay']}, or "
            "0 for that delay alone"
        )
    if compat and (late or data["mirror"] or noisy):
        raise InputError(
            "data.mirror, data.noise and data.max_delay need protocol=clean: compat "
            "trains on the original's windows as they are"
        )
    if compat and data["splits"] > 1:
        raise InputError(
            f"data.splits={data['splits']}: protocol=compat holds out the last games, "
            "as the original did; leave it at 1"
        )
    if compat and data["split_by"] != "game":
        raise InputError("data.split_by=player needs protocol=clean; use game")
    if late and in_chunks:
        raise InputError(
            f"data.max_delay={late}: head={head} learns chunks of one delay; leave it "
            "at 0"
        )
    for name, off in _SHAPING.items():
        value = config["train"][name]
        if in_chunks and value != off:
            raise InputError(
                f"train.{name}={value}: head={head} has no classes to shape a loss of; "
                f"leave it at {off}"
            )


ENTRY = Entry(
    build=_build,
    rules={
        **RULES,
        "data.splits": positive,
        "data.split_by": one_of("game", "player"),
        "data.test_fraction": within("[0, 1)"),
        **each("data.delay data.max_delay data.noise_scale", not_negative),
        **each("data.mirror data.noise", within("[0, 1]")),
        "train.label_smoothing": within("[0, 0.5)"),
        **each(
            "train.focal_gamma train.button_weight train.stick_edge_weight",
            within("[0, inf)"),
        ),
        "model.head": one_of("independent", "autoregressive", *chunks.DEFAULTS),
        "model.readout": one_of("last", "all"),
    },
    check=_check,
    emits="controller",
    seed_chooses_data=lambda config: config["data"]["splits"] > 1,
    data_path="replays",
    data_is="folder",
    terms=Terms(token="frame"),
)
