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
    split_by: str = "game"

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
        off = {"max_delay": 0, "test_fraction": 0, "splits": 1, "split_by": "game"}
        return {k: v for k, v in facts.items() if k not in off or v != off[k]}


@dataclasses.dataclass(frozen=True)
class Data:
    """What the protocols make of games.

    Attributes:
      arrays, splits, gather: as in `Task`.
      labels: split name -> scored frames, see `windows.clean_labels`.
      parts: split name -> names of its games.
      left_out: {"game", "reason"} of games and players not used.
      players: split name -> how many of its games are of a player who also trains, and
        of how many that is not known; without the split that trains.
      facts: further entries of `Task.source`.
    """

    arrays: dict[str, np.ndarray]
    splits: dict[str, np.ndarray]
    gather: windows.Gather
    labels: dict[str, windows.Labels]
    parts: dict[str, list[str]]
    left_out: list[dict[str, str]]
    facts: dict[str, Any]
    players: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


def clean(games: Sequence[Game], options: Options) -> Data:
    """Every human player of the character, in two-player games, split by file.

    A seeded permutation of the games gives validation its first share and test the
    next, at least one game each; all perspectives of a game are in one split. Two games
    are too few for a test split. With `split_by="player"` all games of one imitated
    player are in one split, see `_hold_out`; otherwise a player may be in several.
    """
    selected, left_out = _select(games, options.character)
    chosen = sorted({g for g, _ in selected})
    if len(chosen) < 2:
        raise _too_few(games, chosen, options.character, left_out)
    who: dict[int, set[str]] = {g: set() for g in chosen}
    for g, p in selected:
        who[g].add(games[g].players[p].who)
    split_of, tested = _hold_out(who, options)
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
        "split_by": options.split_by,
    }
    if options.splits > 1:
        facts["split"] = options.split
    players = _also_train(who, split_of)
    return Data(arrays, splits, gather, labels, parts, left_out, facts, players)


def _hold_out(
    who: Mapping[int, set[str]], options: Options
) -> tuple[dict[int, str], bool]:
    """Which split each game is in, and whether there is a test split.

    Units are games, or with `split_by="player"` all games that imitated players join,
    games of unknown players in training: nobody knows whether their players are those
    who are held out. In seeded order each goes to validation while its games fit into
    what that still lacks, then to test, then to training.

    Raises:
      InputError: players are too few, or have too many games, to hold one out.
    """
    chosen = list(who)
    validated = min(
        max(1, round(options.validation_fraction * len(chosen))), len(chosen) - 1
    )
    tested = 0
    if options.test_fraction:
        share = max(1, round(options.test_fraction * len(chosen)))
        tested = min(share, len(chosen) - validated - 1)
    units = [[g] for g in chosen]
    if options.split_by == "player":
        units = _units(who)
    lacks = {"validation": validated, "test": tested}
    key = [options.seed, options.split] if options.split else options.seed
    split_of = dict.fromkeys(chosen, "train")
    for k in np.random.default_rng(key).permutation(len(units)):
        unit = units[k]
        for name, count in lacks.items():
            if len(unit) <= count:
                lacks[name] -= len(unit)
                split_of |= dict.fromkeys(unit, name)
                break
    found = set(split_of.values())
    if not {"train", "validation", *(["test"] if tested else [])} <= found:
        unknown = sum("" in names for names in who.values())
        raise InputError(
            f"data.split_by=player: {len(units)} groups of games share no player "
            f"({unknown} of {len(chosen)} games are of players without a connect code "
            f"and can only train), too few or too large to hold out {validated} and "
            f"{tested} games; add replays, raise the fractions or use split_by=game"
        )
    return split_of, bool(tested)


def _units(who: Mapping[int, set[str]]) -> list[list[int]]:
    """Games in groups that no player joins; without those of unknown players."""
    units: list[tuple[set[str], list[int]]] = []
    for g, names in who.items():
        joined = [unit for unit in units if unit[0] & (names - {""})]
        units = [unit for unit in units if unit not in joined]
        merged = names.union(*(unit[0] for unit in joined))
        units.append((merged, sorted([g, *(g for _, of in joined for g in of)])))
    return [games for names, games in units if "" not in names]


def _also_train(
    who: Mapping[int, set[str]], split_of: Mapping[int, str]
) -> dict[str, dict[str, int]]:
    """Of each held-out split, how many games are of a player who also trains."""
    trains: set[str] = set().union(
        *(names for g, names in who.items() if split_of[g] == "train")
    )
    found: dict[str, dict[str, int]] = {}
    for g, name in split_of.items():
        if name == "train":
            continue
        counts = found.setdefault(name, {"also_train": 0, "unknown": 0})
        counts["also_train"] += bool(who[g] & (trains - {""}))
        counts["unknown"] += not who[g] & (trains - {""}) and "" in who[g]
    return found


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
