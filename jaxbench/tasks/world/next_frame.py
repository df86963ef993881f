"""Builds the world-model task: games in, `Task` out."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Game
from jaxbench.data.order import EpochOrder
from jaxbench.data.replays import select_players
from jaxbench.errors import InputError
from jaxbench.tasks.task import Task
from jaxbench.tasks.world import floors, frame, loss, states, windows
from jaxbench.tasks.world.modules import WorldEncoder, WorldHead

# Part of the fingerprint: change it when the same games give other examples.
SCHEMA = 1


def build(
    games: Sequence[Game],
    config: Mapping[str, Any],
    width: int,
    source: Mapping[str, Any],
) -> Task:
    """The task of predicting the next frame from the frames and controllers before it.

    Every frame of a window is scored. Every player of `data.character` is a
    perspective: its game with itself as own fighter. The games are split by file;
    validation reads windows that do not overlap.

    Args:
      games: in the loader's order, without duplicates.
      config: the resolved recipe, configs/world.py, whose values were checked.
      width: of the encoder's output.
      source: what the games are; passed through into `Task.source`, which adds the
        fingerprint, options, splits, what was left out, and bytes held.

    Raises:
      InputError: fewer than two usable games, a split without a single window, or
        nobody plays the character.
    """
    data, residual = config["data"], config["model"]["residual"]
    character, window, stride = data["character"], data["window"], data["stride"]
    validation_fraction, seed = data["validation_fraction"], data["split_seed"]
    dtype = getattr(jnp, config["train"]["dtype"])
    selected, left_out = _select(games, character)
    held_out = _held_out(games, selected, validation_fraction, seed, left_out)
    arrays, perspectives = states.store(games, selected)
    splits, parts, inside = {}, {}, {}
    for name, spacing in (("train", stride), ("validation", window)):
        inside[name] = [
            p
            for p, seen in enumerate(perspectives)
            if (seen.game in held_out) == (name == "validation")
        ]
        splits[name] = windows.examples(
            arrays, perspectives, inside[name], window=window, stride=spacing
        )
        held = sorted({perspectives[p].game for p in inside[name]})
        parts[name] = [games[g].name for g in held]
        _require_windows(name, splits[name], parts[name], window)
    scales = frame.measure_scales(arrays, [perspectives[p] for p in inside["train"]])
    arrays |= scales.arrays()
    options = {
        "character": character,
        "window": window,
        "stride": stride,
        "residual": residual,
        "validation_fraction": validation_fraction,
        "seed": seed,
    }
    return Task(
        name="world",
        protocol=config["protocol"],
        encoder=WorldEncoder(width=width, dtype=dtype),
        head=WorldHead(dtype=dtype),
        readout="all",
        arrays=arrays,
        splits=splits,
        order=functools.partial(EpochOrder, splits["train"]),
        gather=windows.make_gather(window, residual),
        loss=loss.make(scales, residual),
        summarize=loss.summarize,
        primary="state_error",
        maximize=False,
        tokens_per_example=window,
        floors=floors.measure(
            arrays,
            perspectives,
            train=inside["train"],
            examples=splits["validation"],
            window=window,
            scales=scales,
        ),
        source={
            **source,
            "fingerprint": _fingerprint(games, options),
            "protocol": config["protocol"],
            "options": options,
            "games_used": len({seen.game for seen in perspectives}),
            "perspectives": len(perspectives),
            "left_out": left_out,
            "splits": {
                name: {"games": parts[name], "examples": len(rows)}
                for name, rows in splits.items()
            },
            "bytes": sum(array.nbytes for array in arrays.values()),
        },
    )


def _fingerprint(games: Sequence[Game], options: Mapping[str, Any]) -> str:
    """SHA-256 over the games' bytes, the options and the schema."""
    facts = {
        "task": "world",
        "schema": SCHEMA,
        "options": options,
        "games": sorted(game.sha256 for game in games),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _select(
    games: Sequence[Game], character: str
) -> tuple[list[tuple[int, int]], list[dict[str, str]]]:
    """The players of a character in usable games, and what is left out."""
    reasons = [states.unusable(game) for game in games]
    chosen = select_players(games, character)
    selected = [(g, p) for g, p in chosen if reasons[g] is None]
    left_out = [
        {"game": games[g].name, "reason": str(reasons[g])}
        for g in dict.fromkeys(g for g, _ in chosen)
        if reasons[g] is not None
    ]
    return selected, left_out


def _held_out(
    games: Sequence[Game],
    selected: Sequence[tuple[int, int]],
    fraction: float,
    seed: int,
    left_out: Sequence[Mapping[str, str]],
) -> set[int]:
    """Games of the validation split: the first share of a seeded permutation."""
    chosen = sorted({g for g, _ in selected})
    if len(chosen) < 2:
        why = f"; {left_out[0]['game']}: {left_out[0]['reason']}" if left_out else ""
        raise InputError(
            "a world model needs at least two games, one of them to validate, but only "
            f"{len(chosen)} of {len(games)} can be used{why}; add replays"
        )
    shuffled = np.random.default_rng(seed).permutation(chosen)
    share = round(fraction * len(chosen))
    return set(shuffled[: min(max(1, share), len(chosen) - 1)].tolist())


def _require_windows(
    split: str, examples: np.ndarray, names: Sequence[str], window: int
) -> None:
    if len(examples) == 0:
        raise InputError(
            f"the {split} games ({', '.join(names[:3])}) hold no window of "
            f"data.window={window} frames and one more in which both players can act; "
            "shorten it or add longer replays"
        )
