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
from collections.abc import Iterable, Mapping, Sequence

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
# What a measure is divided by, and where it is cut off after that.
_SCALE = np.array([100, 100, 60, 20, 120, 2, 2, 2, 2, 2], np.float32)
_LOWEST = np.array([0, 0, 0, 0, 0, -10, -10, -10, -10, -10], np.float32)
_HIGHEST = np.array([5, 1, 2, 1, 1, 10, 10, 10, 10, 10], np.float32)
# Fields of `Character.post` that become numbers, the measures first: hitstun is in
# misc_as while its flag is set.
_READ = (
    *(name if name != "hitstun" else "misc_as" for name in MEASURES),
    *("position_x", "position_y", "jumps", "stocks", "character"),
    *("state", "direction", "airborne", "hurtbox_state"),
)
_POSITION = [_READ.index("position_x"), _READ.index("position_y")]
_COUNTS = [_READ.index(name) for name in ("jumps", "stocks", "character")]
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
    parts, tables = [nobody()], [no_item()]
    row, item_row = 1, 1
    table, known, perspectives = [], [], []
    by_game: dict[int, list[int]] = {}
    for g, p in selected:
        by_game.setdefault(g, []).append(p)
    for g, chosen in by_game.items():
        game = games[g]
        begin = int(np.searchsorted(game.frame_t, 0))
        length = len(game.frame_t) - begin
        items = _later_items(usable_items(game.items), begin)
        bits = available(
            [player.leader.post for player in game.players], items, game.stage
        )
        starts = {}
        for p, player in enumerate(game.players):
            leader = _later(player.leader, begin)
            slots = nearest_items(items, player.port, leader, item_row)
            starts[p, "leader"] = starts[p, "nana"] = 0
            for kind, fighter in (("leader", player.leader), ("nana", player.nana)):
                if fighter is not None:
                    part = fighter_rows(_later(fighter, begin), slots)
                    _mark_scored(part, delay, drop_idle)
                    parts.append(part)
                    starts[p, kind] = row
                    row += length
        tables.append(item_table(items))
        item_row += len(tables[-1]["item_type"])
        for p in chosen:
            own, rival = starts[p, "leader"], starts[1 - p, "leader"]
            nanas = (starts[p, "nana"], starts[1 - p, "nana"])
            first_id, stage = int(game.frame_t[begin]), stage_class(game.stage)
            table.append((own, rival, *nanas, first_id, stage))
            known.append(bits)
            perspectives.append(Perspective(g, own, length))
    arrays = joined(parts) | joined(tables)
    arrays["perspective"] = np.array(table, np.int32).reshape(-1, 6)
    arrays["available"] = np.array(known, np.uint8).reshape(-1, len(AVAILABLE))
    return arrays, perspectives


def available(
    posts: Sequence[Mapping[str, np.ndarray]], items: Items | None, stage: int
) -> list[bool]:
    """Which of the groups `AVAILABLE` a game's version and stage have.

    Args:
      posts: `Character.post` of every leader.
      items: from `usable_items`.
      stage: in-game id.
    """

    def has(*names: str) -> bool:
        return all(name in post for post in posts for name in names)

    return [
        *(has(*names) for names in GROUPS.values()),
        has("hurtbox_state") or has("flags_1"),
        items is not None,
        stage in STAGES,
    ]


def stage_class(stage: int) -> int:
    """Index of an in-game stage id in `STAGES`, the last of all others."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Rows one after the other, name by name."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def nobody() -> dict[str, np.ndarray]:
    """The row of a fighter that is not there."""
    return {
        "position": np.zeros((1, 2), np.float32),
        "measure": np.zeros((1, len(MEASURES)), np.float16),
        "status": np.zeros((1, 4), np.uint8),
        "action_state": np.zeros(1, np.uint16),
        "controller": controller.NEUTRAL[None],
        "item_slot": np.zeros((1, ITEM_SLOTS), np.int32),
    }


def fighter_rows(fighter: Character, slots: np.ndarray) -> dict[str, np.ndarray]:
    """A fighter's rows, one for each frame of its arrays; none is marked as scored.

    Args:
      fighter: T frames of one fighter, or one frame of T.
      slots: int32 [T, ITEM_SLOTS], from `nearest_items`.

    Returns:
      position float32 [T, 2]; measure float16 [T, len(MEASURES)]; status uint8 [T, 4]
      (bits, jumps, stocks, character); action_state uint16 [T]; controller uint8
      [T, 6]; item_slot.
    """
    here, post = fighter.present_t, fighter.post
    # In one array: a frame at play costs a few calls of numpy, not one for each field.
    read_tf = np.zeros((len(here), len(_READ)), np.float32)
    for i, name in enumerate(_READ):
        if name in post:
            read_tf[:, i] = post[name]
    read_tf[~here] = 0
    read = dict(zip(_READ, read_tf.T, strict=True))

    def bit(name: str, mask: int) -> np.ndarray:
        return (
            here & ((post[name] & mask) != 0) if name in post else np.zeros_like(here)
        )

    measures = read_tf[:, : len(MEASURES)] / _SCALE
    measures[~bit("flags_3", 0x02), MEASURES.index("hitstun")] = 0
    status_tf = np.empty((len(here), 4), np.float32)
    status_tf[:, 0] = (
        PRESENT * here
        + RIGHT * (here & (read["direction"] > 0))
        + AIRBORNE * (read["airborne"] > 0)
        + INVULNERABLE * ((read["hurtbox_state"] > 0) | bit("flags_1", 0x04))
    )
    status_tf[:, 1:] = read_tf[:, _COUNTS]
    sent = controller.encode(fighter.pre, "clean")
    return {
        "position": read_tf[:, _POSITION],
        "measure": np.clip(measures, _LOWEST, _HIGHEST).astype(np.float16),
        "status": status_tf.astype(np.uint8),
        "action_state": read["state"].astype(np.uint16),
        "controller": np.where(here[:, None], sent, controller.NEUTRAL[None]),
        "item_slot": slots,
    }


def _mark_scored(rows: dict[str, np.ndarray], delay: int, drop_idle: bool) -> None:
    """Sets the bit of frames t that have a label and at which the leader can act."""
    bits, ahead = rows["status"][:, 0], 1 + delay
    here = (bits & PRESENT) != 0
    labelled = np.zeros(len(here), bool)
    labelled[:-ahead] = here[ahead:]
    idle = np.isin(rows["action_state"], IDLE) if drop_idle else np.zeros_like(here)
    bits |= np.uint8(SCORED) * (here & labelled & ~idle)


def _later(fighter: Character, begin: int) -> Character:
    """The frames from index `begin` on."""
    pre, post = (
        {name: values[begin:] for name, values in part.items()}
        for part in (fighter.pre, fighter.post)
    )
    return Character(fighter.present_t[begin:], pre, post)


def _later_items(items: Items | None, begin: int) -> Items | None:
    """The items of the frames from index `begin` on, which becomes 0."""
    if items is None:
        return None
    kept = items.frame_i >= begin
    fields = {name: values[kept] for name, values in items.fields.items()}
    return Items(items.frame_i[kept] - begin, fields)


def no_item() -> dict[str, np.ndarray]:
    """The row of the item table that stands for none."""
    return {
        "item_position": np.zeros((1, 2), np.float32),
        "item_velocity": np.zeros((1, 2), np.float16),
        "item_type": np.zeros(1, np.uint8),
    }


def usable_items(items: Items | None) -> Items | None:
    """The items, None where the version has none or does not say whose they are."""
    has = items is not None and all(name in items.fields for name in ITEM_FIELDS)
    return items if has else None


def item_table(items: Items | None) -> dict[str, np.ndarray]:
    """The rows of items, as `no_item` names them, in their order."""
    if items is None:
        return {name: values[:0] for name, values in no_item().items()}
    field = items.fields
    velocity = np.stack([field["velocity_x"], field["velocity_y"]], axis=1) / 2
    return {
        "item_position": np.stack([field["position_x"], field["position_y"]], axis=1),
        "item_velocity": np.clip(velocity, -10, 10).astype(np.float16),
        "item_type": np.minimum(field["type"], ITEM_TYPES - 1).astype(np.uint8),
    }


def nearest_items(
    items: Items | None, port: int | np.ndarray, leader: Character, first: int
) -> np.ndarray:
    """Rows of the item table nearest to a leader and not its own, int32 [T, slots].

    Args:
      items: of the leader's T frames; None is none at all.
      port: the leader's, 1 to 4, a number or one for each frame.
      leader: T frames of one leader, or one frame of T.
      first: row of the first of these items in the table.
    """
    slots = np.zeros((len(leader.present_t), ITEM_SLOTS), np.int32)
    if items is None:
        return slots
    own_t = np.broadcast_to(np.asarray(port) - 1, slots.shape[:1])
    theirs = np.flatnonzero(items.fields["owner"] != own_t[items.frame_i])
    frame = items.frame_i[theirs]
    x, y = (items.fields[f"position_{axis}"][theirs] for axis in "xy")
    own_x, own_y = (leader.post[f"position_{axis}"][frame] for axis in "xy")
    order = np.lexsort((np.hypot(x - own_x, y - own_y), frame))
    frame = frame[order]
    rank = np.arange(len(frame)) - np.searchsorted(frame, frame)
    near = rank < ITEM_SLOTS
    slots[frame[near], rank[near]] = first + theirs[order][near]
    return slots
