"""One frame of games as a player sees it, in the very layout that training reads.

A view is what exists when a policy must answer: no frame before it, none after. It is
turned into rows by the functions that turn whole games into rows (`frames`), and
`features.inputs` reads those rows unchanged, so what a policy sees at play is what it
saw in training, bit for bit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Character, Game, Items
from jaxbench.errors import InputError
from jaxbench.tasks.zelda import features, frames

Rows = Mapping[str, np.ndarray]
FIGHTERS = ("own", "opponent", "own_nana", "opponent_nana")
# What every version records and the rows cannot do without; the rest comes in the
# groups of `frames.AVAILABLE`, which a frame may lack.
NEEDED = {
    "pre": (
        *("joystick_x", "joystick_y", "cstick_x", "cstick_y"),
        *("trigger_l", "trigger_r", "buttons"),
    ),
    "post": (
        *("character", "state", "position_x", "position_y", "direction"),
        *("percent", "shield", "stocks"),
    ),
}


@dataclasses.dataclass(frozen=True)
class View:
    """One frame of B games; the arrays of fighters are [B] where a game's are [T].

    Attributes:
      frame_b: int32 [B], frame ids; the timer starts at 0.
      stage_b: int32 [B], in-game stage ids, as `Game.stage`.
      own, opponent: the leaders.
      own_nana, opponent_nana: the followers, None where no game has one.
      items: `frame_i` is the index of the game; None where nothing is known of items,
        which is not the same as a frame without any.
      own_port: int [B], 1 to 4: whose items are its own.
    """

    frame_b: np.ndarray
    stage_b: np.ndarray
    own: Character
    opponent: Character
    own_nana: Character | None
    opponent_nana: Character | None
    items: Items | None
    own_port: np.ndarray

    def __len__(self) -> int:
        return len(self.frame_b)


def arrays(view: View) -> dict[str, np.ndarray]:
    """The rows of a view, laid out as `frames.store` lays out games.

    Row 0 is nobody's and row 0 of the item table no item's, as there. Then come those
    of `FIGHTERS` that are there, B rows each, and `frames.ITEM_SLOTS` items of each
    game. Both are filled up: the shapes depend on B alone, so that one compiled program
    reads them all.
    `perspective` has a row for each game, at frame 0 of which `features.inputs` finds
    the view. A view's `controller` is that of its frame; no row is marked as scored.
    """
    count = len(view)
    items = frames.usable_items(view.items)
    slots = frames.nearest_items(items, view.own_port, view.own, first=1)
    table = frames.joined([frames.no_item(), frames.item_table(items)])
    near = slots.reshape(-1)
    compact = {
        name: np.concatenate([rows[:1], rows[near]]) for name, rows in table.items()
    }
    index = np.arange(1, len(near) + 1, dtype=np.int32).reshape(slots.shape)
    slots = np.where(slots > 0, index, 0)

    there = [i for i, name in enumerate(FIGHTERS) if getattr(view, name) is not None]
    starts = np.zeros((count, len(FIGHTERS)), np.int32)
    starts[:, there] = 1 + count * np.arange(len(there)) + np.arange(count)[:, None]
    together = _together([getattr(view, FIGHTERS[i]) for i in there])
    parts = [frames.nobody()]
    for fighters, times in together:
        parts.append(frames.fighter_rows(fighters, np.tile(slots, (times, 1))))
    unused = count * (len(FIGHTERS) - len(there))
    parts.append({k: np.repeat(row, unused, axis=0) for k, row in parts[0].items()})
    posts = (view.own.post, view.opponent.post)
    stages = view.stage_b.tolist()
    of_stage = {stage: frames.available(posts, items, stage) for stage in set(stages)}
    known = [of_stage[stage] for stage in stages]
    classes = [frames.stage_class(stage) for stage in stages]
    facts = np.stack([view.frame_b, classes], axis=1)
    return {
        **frames.joined(parts),
        **compact,
        "perspective": np.concatenate([starts, facts], axis=1).astype(np.int32),
        "available": np.array(known, np.uint8).reshape(count, len(frames.AVAILABLE)),
    }


def inputs(rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What the encoder reads of a view but for the previous controller: [B, 1, ...].

    It is `features.inputs`, which training's windows are made by. Pure: for jit.
    """
    games = jnp.arange(rows["perspective"].shape[0], dtype=jnp.int32)
    return features.inputs(rows, games, jnp.zeros((len(games), 1), jnp.int32))


def own_controller(rows: Rows) -> np.ndarray:
    """Labels of the controllers that acted on the view's frame, uint8 [B, 6]."""
    return rows["controller"][1 : 1 + len(rows["perspective"])]


def blank(count: int) -> View:
    """A view of `count` games in which nobody is, for shapes and to warm up."""
    unsigned = {"character": np.uint8, "state": np.uint16, "stocks": np.uint8}
    types = {"buttons": np.uint16, **unsigned}
    pre, post = (
        {name: np.zeros(count, types.get(name, np.float32)) for name in names}
        for names in NEEDED.values()
    )
    nobody = Character(np.zeros(count, bool), pre, post)
    return View(
        frame_b=np.zeros(count, np.int32),
        stage_b=np.full(count, frames.STAGES[0], np.int32),
        own=nobody,
        opponent=nobody,
        own_nana=None,
        opponent_nana=None,
        items=None,
        own_port=np.ones(count, np.int32),
    )


def without(view: View, gone_b: np.ndarray) -> View:
    """The view with zeros for the games where `gone_b` is true: nobody is there."""

    def fighter(one: Any) -> Any:
        if one is None:
            return None
        pre, post = (
            {k: np.where(gone_b, np.zeros((), x.dtype), x) for k, x in part.items()}
            for part in (one.pre, one.post)
        )
        return Character(one.present_t & ~gone_b, pre, post)

    items = view.items
    if items is not None:
        kept = ~gone_b[items.frame_i]
        fields = {name: values[kept] for name, values in items.fields.items()}
        items = Items(items.frame_i[kept], fields)
    return dataclasses.replace(
        view,
        items=items,
        **{name: fighter(getattr(view, name)) for name in FIGHTERS},
    )


def view_of_replay(game: Game, player: int, t: int) -> View:
    """What a player of a recorded game sees of it at index `t` of `game.frame_t`.

    Raises:
      InputError: the game has other than two players, or no such player or frame.
    """
    if len(game.players) != 2:
        raise InputError(
            f"{game.name} has {len(game.players)} players; give a two-player replay"
        )
    if not 0 <= player < 2 or not 0 <= t < len(game.frame_t):
        raise InputError(
            f"{game.name} has players 0 and 1 and frames 0 to {len(game.frame_t) - 1}: "
            f"there is no player {player} at {t}"
        )
    own, opponent = game.players[player], game.players[1 - player]
    return View(
        frame_b=game.frame_t[t : t + 1],
        stage_b=np.array([game.stage], np.int32),
        own=_frame(own.leader, t),
        opponent=_frame(opponent.leader, t),
        own_nana=None if own.nana is None else _frame(own.nana, t),
        opponent_nana=None if opponent.nana is None else _frame(opponent.nana, t),
        items=None if game.items is None else _frame_items(game.items, t),
        own_port=np.array([own.port]),
    )


def joined(views: Sequence[View]) -> View:
    """Views as one, their games one after the other.

    Where only some have a Nana, or fields of one, she is absent from the others.

    Raises:
      InputError: none are given, or some leaders or items lack fields that others have:
        what is available is told for all of a view.
    """
    if not views:
        raise InputError("no views to join; give at least one")
    known = [frames.usable_items(view.items) for view in views]
    if len({items is None for items in known}) > 1:
        raise InputError("some views know their items and some do not; join them apart")
    begins = np.cumsum([0, *(len(view) for view in views)])
    items = None
    if known[0] is not None:
        # Checked above: all of them are there.
        there = [found for found in known if found is not None]
        items = Items(
            np.concatenate(
                [
                    found.frame_i + begin
                    for found, begin in zip(there, begins[:-1], strict=True)
                ]
            ),
            {
                name: np.concatenate([found.fields[name] for found in there])
                for name in frames.ITEM_FIELDS
            },
        )
    fighters: dict[str, Any] = {
        name: _joined_fighters(name, [getattr(view, name) for view in views], views)
        for name in FIGHTERS
    }
    return View(
        frame_b=np.concatenate([view.frame_b for view in views]),
        stage_b=np.concatenate([view.stage_b for view in views]),
        items=items,
        own_port=np.concatenate([view.own_port for view in views]),
        **fighters,
    )


def _together(fighters: Sequence[Character]) -> list[tuple[Character, int]]:
    """Fighters in a row that have the same fields as one, and how many they were."""
    groups: list[list[Character]] = []
    for fighter in fighters:
        if groups and _fields(groups[-1][0]) == _fields(fighter):
            groups[-1].append(fighter)
        else:
            groups.append([fighter])
    return [(_concatenated(group), len(group)) for group in groups]


def _fields(fighter: Character) -> tuple[set[str], set[str]]:
    return set(fighter.pre), set(fighter.post)


def _concatenated(fighters: Sequence[Character]) -> Character:
    """Fighters of the same fields as one, one after the other."""
    pre, post = (
        {
            name: np.concatenate([getattr(fighter, part)[name] for fighter in fighters])
            for name in getattr(fighters[0], part)
        }
        for part in ("pre", "post")
    )
    return Character(np.concatenate([f.present_t for f in fighters]), pre, post)


def _frame(fighter: Character, t: int) -> Character:
    """One frame of a fighter: arrays [1], nothing is copied."""
    pre, post = (
        {name: values[t : t + 1] for name, values in part.items()}
        for part in (fighter.pre, fighter.post)
    )
    return Character(fighter.present_t[t : t + 1], pre, post)


def _frame_items(items: Items, t: int) -> Items:
    first, last = np.searchsorted(items.frame_i, [t, t + 1])
    fields = {name: values[first:last] for name, values in items.fields.items()}
    return Items(np.zeros(last - first, np.int32), fields)


def _joined_fighters(
    name: str, fighters: Sequence[Character | None], views: Sequence[View]
) -> Character | None:
    there = [fighter for fighter in fighters if fighter is not None]
    if not there:
        return None
    first = there[0]
    for fighter in there:
        for part in ("pre", "post"):
            differ = set(getattr(first, part)) ^ set(getattr(fighter, part))
            if differ:
                raise InputError(
                    f"some views have {name}.{part}.{min(differ)} and some do not; "
                    "join them apart"
                )
    filled = [
        _absent(first, len(view)) if fighter is None else fighter
        for fighter, view in zip(fighters, views, strict=True)
    ]
    return _concatenated(filled)


def _absent(like: Character, count: int) -> Character:
    """A fighter that is not there, with the fields of another."""
    pre, post = (
        {name: np.zeros(count, values.dtype) for name, values in part.items()}
        for part in (like.pre, like.post)
    )
    return Character(np.zeros(count, bool), pre, post)
