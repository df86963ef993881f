"""Every fighter's frames once, in compact types: what the clean protocol stores.

A row is one fighter (a leader or Nana) at one frame; a fighter's rows are contiguous.
A perspective is one leader seen as the player to imitate: it points at its own rows, at
its opponent's and at both Nanas', so two perspectives of one game share all four.
Row 0 belongs to nobody: every fighter that is not there points at it.

Frames before the timer starts (id < 0) are not stored. Positions are float32, because
their differences matter at any distance from the origin. The other measures are
float16 after scaling to order one: its relative error of 2^-11 is below what a hit
changes, and below the precision of a bfloat16 or TF32 product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from jaxbench.data.game import Character, Game, Items
from jaxbench.tasks.zelda import controller

STAGES = (2, 3, 8, 28, 31, 32)
LEDGES = np.array([63.35, 87.75, 56.0, 77.27, 68.4, 85.57, 0.0], np.float32)
ITEM_SLOTS = 4
ITEM_TYPES = 256
ITEM_FIELDS = tuple("position_x position_y velocity_x velocity_y type owner".split())

# Bits of `status[:, 0]`.
PRESENT, RIGHT, AIRBORNE, INVULNERABLE, SCORED = 1, 2, 4, 8, 16
# Dead (0-10), asleep (11), carried down by the platform (12), entering (322-324):
# no input has an effect.
IDLE = np.array([*range(13), 322, 323, 324], np.uint16)

SPEEDS = ("self_x_air", "self_y", "knockback_x", "knockback_y", "self_x_ground")
MEASURES = ("percent", "shield", "state_age", "hitlag", "hitstun", *SPEEDS)
# Field groups that older versions lack -> the fields of `Character.post` they need.
GROUPS = {
    "state_age": ("state_age",),
    "movement": ("airborne", "jumps"),
    "hitstun": ("flags_3", "misc_as"),
    "velocity": SPEEDS,
    "hitlag": ("hitlag",),
}
AVAILABLE = (*GROUPS, "invulnerable", "items", "ledge")
# Columns of `arrays["perspective"]`.
EGO, OPPONENT, EGO_NANA, OPPONENT_NANA, FIRST_ID, STAGE = range(6)


@dataclasses.dataclass(frozen=True)
class Perspective:
    """One leader to imitate.

    Attributes:
      game: index into the games.
      start: its first row.
      length: stored frames of its game.
    """

    game: int
    start: int
    length: int


def unusable(game: Game) -> str | None:
    """Why a game cannot be used by the clean protocol, None if it can."""
    if len(game.players) != 2:
        return f"{len(game.players)} players, the clean protocol needs two"
    if np.any(np.diff(game.frame_t) != 1):
        return "frame ids are not consecutive"
    if not np.any(game.frame_t >= 0):
        return "it ends before the timer starts"
    return None


def store(
    games: Sequence[Game],
    selected: Iterable[tuple[int, int]],
    *,
    delay: int,
    drop_idle: bool,
) -> tuple[dict[str, np.ndarray], list[Perspective]]:
    """Lays out the rows of the selected players' games and their perspectives.

    Args:
      games: usable games (`unusable` is None).
      selected: (game index, player index) pairs, in order.
      delay: the label of frame t is the controller of frame t + 1 + delay.
      drop_idle: do not score frames at which the leader cannot act.

    Returns:
      The arrays of `Task.arrays`, and one `Perspective` per selected pair.
    """
    parts, items = [_nobody()], [_no_item()]
    row, item_row = 1, 1
    table, bits, perspectives = [], [], []
    by_game: dict[int, list[int]] = {}
    for g, p in selected:
        by_game.setdefault(g, []).append(p)
    for g, chosen in by_game.items():
        game = games[g]
        begin = int(np.searchsorted(game.frame_t, 0))
        length = len(game.frame_t) - begin
        starts = {}
        for p, player in enumerate(game.players):
            slots = _slots(game, p, begin, item_row)
            for kind, fighter in (("leader", player.leader), ("nana", player.nana)):
                starts[p, kind] = 0 if fighter is None else row
                if fighter is not None:
                    parts.append(_rows(fighter, begin, slots, delay, drop_idle))
                    row += length
        items.append(_item_table(_items(game), begin))
        item_row += len(items[-1]["item_type"])
        for p in chosen:
            own, rival = starts[p, "leader"], starts[1 - p, "leader"]
            nanas = (starts[p, "nana"], starts[1 - p, "nana"])
            first_id, stage = int(game.frame_t[begin]), _stage_class(game.stage)
            table.append((own, rival, *nanas, first_id, stage))
            bits.append(available(game))
            perspectives.append(Perspective(g, own, length))
    arrays = _joined(parts) | _joined(items)
    arrays["perspective"] = np.array(table, np.int32).reshape(-1, 6)
    arrays["available"] = np.array(bits, np.uint8).reshape(-1, len(AVAILABLE))
    return arrays, perspectives


def available(game: Game) -> list[bool]:
    """Which of the groups `AVAILABLE` a game's version and stage have."""

    def has(*names: str) -> bool:
        return all(name in p.leader.post for p in game.players for name in names)

    return [
        *(has(*names) for names in GROUPS.values()),
        has("hurtbox_state") or has("flags_1"),
        _items(game) is not None,
        game.stage in STAGES,
    ]


def _stage_class(stage: int) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _nobody() -> dict[str, np.ndarray]:
    return {
        "position": np.zeros((1, 2), np.float32),
        "measure": np.zeros((1, len(MEASURES)), np.float16),
        "status": np.zeros((1, 4), np.uint8),
        "action_state": np.zeros(1, np.uint16),
        "controller": controller.NEUTRAL[None],
        "item_slot": np.zeros((1, ITEM_SLOTS), np.int32),
    }


def _rows(
    fighter: Character, begin: int, slots: np.ndarray, delay: int, drop_idle: bool
) -> dict[str, np.ndarray]:
    here = fighter.present_t[begin:]
    post = {name: values[begin:] for name, values in fighter.post.items()}
    none = np.zeros(len(here), np.float32)

    def read(name: str) -> np.ndarray:
        return np.where(here, post.get(name, none).astype(np.float32), 0)

    def bit(name: str, mask: int) -> np.ndarray:
        return here & ((post[name] & mask) != 0) if name in post else none > 0

    hitstun = np.where(bit("flags_3", 0x02), read("misc_as"), 0)
    measures = [
        np.clip(read("percent") / 100, 0, 5),
        np.clip(read("shield") / 100, 0, 1),
        np.clip(read("state_age") / 60, 0, 2),
        np.clip(read("hitlag") / 20, 0, 1),
        np.clip(hitstun / 120, 0, 1),
        *[np.clip(read(name) / 2, -10, 10) for name in SPEEDS],
    ]
    state = read("state").astype(np.uint16)
    invulnerable = (read("hurtbox_state") > 0) | bit("flags_1", 0x04)
    status = (
        PRESENT * here
        + RIGHT * (here & (read("direction") > 0))
        + AIRBORNE * (read("airborne") > 0)
        + INVULNERABLE * invulnerable
        + SCORED * _scored(here, state, delay, drop_idle)
    )
    counts = [read(name) for name in ("jumps", "stocks", "character")]
    pre = {name: values[begin:] for name, values in fighter.pre.items()}
    sent = controller.encode(pre, "clean")
    return {
        "position": np.stack([read("position_x"), read("position_y")], axis=1),
        "measure": np.stack(measures, axis=1).astype(np.float16),
        "status": np.stack([status, *counts], axis=1).astype(np.uint8),
        "action_state": state,
        "controller": np.where(here[:, None], sent, controller.NEUTRAL[None]),
        "item_slot": slots,
    }


def _scored(
    here: np.ndarray, state: np.ndarray, delay: int, drop_idle: bool
) -> np.ndarray:
    """Frames t that are scored: they have a label, and the leader can act."""
    ahead = 1 + delay
    labelled = np.zeros(len(here), bool)
    labelled[:-ahead] = here[ahead:]
    idle = np.isin(state, IDLE) if drop_idle else np.zeros(len(here), bool)
    return here & labelled & ~idle


def _no_item() -> dict[str, np.ndarray]:
    return {
        "item_position": np.zeros((1, 2), np.float32),
        "item_velocity": np.zeros((1, 2), np.float16),
        "item_type": np.zeros(1, np.uint8),
    }


def _items(game: Game) -> Items | None:
    """The items, None where the version has none or does not say whose they are."""
    has = game.items is not None and all(n in game.items.fields for n in ITEM_FIELDS)
    return game.items if has else None


def _item_table(items: Items | None, begin: int) -> dict[str, np.ndarray]:
    if items is None:
        return {name: values[:0] for name, values in _no_item().items()}
    kept = items.frame_i >= begin
    field = {name: items.fields[name][kept] for name in ITEM_FIELDS}
    velocity = np.stack([field["velocity_x"], field["velocity_y"]], axis=1) / 2
    return {
        "item_position": np.stack([field["position_x"], field["position_y"]], axis=1),
        "item_velocity": np.clip(velocity, -10, 10).astype(np.float16),
        "item_type": np.minimum(field["type"], ITEM_TYPES - 1).astype(np.uint8),
    }


def _slots(game: Game, player: int, begin: int, first: int) -> np.ndarray:
    """Rows of the item table nearest to a player and not its own, int32 [T, slots].

    `first` is the row of the game's first stored item.
    """
    slots = np.zeros((len(game.frame_t) - begin, ITEM_SLOTS), np.int32)
    items, ego = _items(game), game.players[player]
    if items is None:
        return slots
    kept = np.flatnonzero(items.frame_i >= begin)
    theirs = np.flatnonzero(items.fields["owner"][kept] != ego.port - 1)
    frame = items.frame_i[kept[theirs]]
    x, y = (items.fields[f"position_{axis}"][kept[theirs]] for axis in "xy")
    own_x, own_y = (ego.leader.post[f"position_{axis}"][frame] for axis in "xy")
    order = np.lexsort((np.hypot(x - own_x, y - own_y), frame))
    frame = frame[order]
    rank = np.arange(len(frame)) - np.searchsorted(frame, frame)
    near = rank < ITEM_SLOTS
    slots[frame[near] - begin, rank[near]] = first + theirs[order][near]
    return slots
