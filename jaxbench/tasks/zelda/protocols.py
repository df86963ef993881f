"""Which games and players train, validate and test, under either protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxbench.data.characters import plays
from jaxbench.data.game import Game
from jaxbench.data.replays import select_players
from jaxbench.errors import InputError
from jaxbench.tasks.zelda import compat, frames, windows


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides which examples there are, under the names that results have.

    The keys of configs/zelda.py; `seed` is its `data.split_seed`, and `split`, below
    `splits`, says which of so many ways of holding games out a run of its `seed` has.
    """

    character: str
    window: int
    stride: int
    delay: int
    readout: str
    drop_idle: bool
    validation_fraction: float
    seed: int
    max_delay: int
    test_fraction: float = 0.0
    splits: int = 1
    split: int = 0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Options:
        """Those of a resolved recipe."""
        given = config["data"] | {
            "readout": config["model"]["readout"],
            "seed": config["data"]["split_seed"],
            "split": config["seed"] % config["data"]["splits"],
        }
        return cls(
            **{field.name: given[field.name] for field in dataclasses.fields(cls)}
        )

    def facts(self) -> dict[str, Any]:
        """The options as data, those that are off left out.

        Without `split`: runs that differ in it alone are of one board.
        """
        facts = dataclasses.asdict(self)
        del facts["split"]
        off = {"max_delay": 0, "test_fraction": 0, "splits": 1}
        return {k: v for k, v in facts.items() if k not in off or v != off[k]}


@dataclasses.dataclass(frozen=True)
class Data:
    """What the protocols make of games.

    Attributes:
      arrays, splits, gather: as in `Task`.
      labels: split name -> scored frames, see `windows.clean_labels`.
      parts: split name -> names of its games.
      left_out: {"game", "reason"} of games and players not used.
      facts: further entries of `Task.source`.
    """

    arrays: dict[str, np.ndarray]
    splits: dict[str, np.ndarray]
    gather: windows.Gather
    labels: dict[str, windows.Labels]
    parts: dict[str, list[str]]
    left_out: list[dict[str, str]]
    facts: dict[str, Any]


def clean(games: Sequence[Game], options: Options) -> Data:
    """Every human player of the character, in two-player games, split by file.

    A seeded permutation of the games gives validation its first share and test the
    next, at least one game each; all perspectives of a game are in one split. Two games
    are too few for a test split. A player may be in several splits: who played is not
    read.
    """
    selected, left_out = _select(games, options.character)
    chosen = sorted({g for g, _ in selected})
    if len(chosen) < 2:
        raise _too_few(games, chosen, options.character, left_out)
    key = [options.seed, options.split] if options.split else options.seed
    shuffled = np.random.default_rng(key).permutation(chosen).tolist()
    share = round(options.validation_fraction * len(chosen))
    held_out = min(max(1, share), len(chosen) - 1)
    tested = 0
    if options.test_fraction:
        share = max(1, round(options.test_fraction * len(chosen)))
        tested = min(share, len(chosen) - held_out - 1)
    split_of = dict.fromkeys(shuffled, "train")
    split_of |= dict.fromkeys(shuffled[:held_out], "validation")
    split_of |= dict.fromkeys(shuffled[held_out : held_out + tested], "test")
    arrays, perspectives = frames.store(
        games,
        selected,
        delay=max(options.delay, options.max_delay),
        drop_idle=options.drop_idle,
    )
    splits, parts, labels = {}, {}, {}
    for name in ("train", "validation", "test")[: 3 if tested else 2]:
        inside = [p for p, it in enumerate(perspectives) if split_of[it.game] == name]
        examples = windows.clean_examples(arrays, perspectives, inside, options.stride)
        held = sorted({perspectives[p].game for p in inside})
        parts[name] = [games[g].name for g in held]
        longest = max(perspectives[p].length for p in inside)
        if options.window > longest:
            raise InputError(
                f"data.window={options.window} is longer than every {name} game, the "
                f"longest has {longest} frames; shorten it or add longer replays"
            )
        _require_examples(name, examples, parts[name], longest, 2 + options.delay)
        splits[name] = examples
        labels[name] = windows.clean_labels(
            arrays,
            examples,
            window=options.window,
            delay=options.delay,
            readout=options.readout,
        )
    gather = windows.clean_gather(options.window, options.delay, options.readout)
    facts: dict[str, Any] = {
        "games_used": len(chosen),
        "perspectives": len(perspectives),
        "split_by": "game",
    }
    if options.splits > 1:
        facts["split"] = options.split
    return Data(arrays, splits, gather, labels, parts, left_out, facts)


def original(games: Sequence[Game], options: Options) -> Data:
    """Port 1 against port 2, the first trunc((1 - fraction) games) train (compat)."""
    fraction = options.validation_fraction
    count = int((1 - fraction) * len(games))
    if not 0 < count < len(games):
        raise InputError(
            f"protocol=compat trains on the first trunc((1 - {fraction}) x "
            f"{len(games)}) = {count} games and validates on the rest, neither may be "
            "empty; add replays"
        )
    arrays, bounds = windows.compat_arrays(games, options.delay)
    splits, labels, parts = {}, {}, {}
    for name, part, begin, end in (
        ("train", games[:count], 0, bounds[count]),
        ("validation", games[count:], bounds[count], bounds[-1]),
    ):
        parts[name] = [game.name for game in part]
        first = begin + options.window - 1
        examples = np.arange(first, end, options.stride, dtype=np.int32)
        _require_examples(name, examples, parts[name], end - begin, options.window)
        splits[name] = examples
        labels[name] = windows.compat_labels(arrays, examples)
    left_out = [
        {"game": game.name, "reason": "no player in port 1"}
        for game in games
        if compat.port(game, 1) is None
    ]
    facts = {
        "games_used": len(games) - len(left_out),
        "perspectives": len(games) - len(left_out),
        "port_1_is_another_character": _others(games, options.character),
    }
    gather = windows.compat_gather(options.window)
    return Data(arrays, splits, gather, labels, parts, left_out, facts)


def _select(
    games: Sequence[Game], character: str
) -> tuple[list[tuple[int, int]], list[dict[str, str]]]:
    """The human players of a character in usable games, and what is left out."""
    selected, left_out = [], []
    reasons = [frames.unusable(game) for game in games]
    for g, p in select_players(games, character):
        player = games[g].players[p]
        reason = reasons[g]
        if reason is None and player.kind != "human":
            reason = f"port {player.port} is a {player.kind} player, not a human"
        if reason is None:
            selected.append((g, p))
        elif {"game": games[g].name, "reason": reason} not in left_out:
            left_out.append({"game": games[g].name, "reason": reason})
    return selected, left_out


def _too_few(
    games: Sequence[Game],
    chosen: Sequence[int],
    character: str,
    left_out: Sequence[Mapping[str, str]],
) -> InputError:
    have = f"{len(chosen)} of {len(games)}"
    if chosen:
        have += f" ({games[chosen[0]].name})"
    why = f"; {left_out[0]['game']}: {left_out[0]['reason']}" if left_out else ""
    return InputError(
        f"imitating {character} needs at least two games, one of them to validate, "
        f"but only {have} can be used{why}; add replays"
    )


def _require_examples(
    split: str, examples: np.ndarray, names: Sequence[str], longest: int, need: int
) -> None:
    if len(examples) == 0:
        raise InputError(
            f"the {split} games ({', '.join(names[:3])}) hold no window: {longest} "
            f"frames can be used, at least {need} in which the player can act are "
            "needed; add longer replays"
        )


def _others(games: Sequence[Game], character: str) -> int:
    """Games whose port 1, the ego of the original, does not play the character."""
    if character.strip().lower() == "any":
        return 0
    egos = [compat.port(game, 1) for game in games]
    return sum(ego is None or not plays(ego, character) for ego in egos)
