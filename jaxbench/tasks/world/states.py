"""What a frame is to the world model: the numbers of two fighters, once on the device.

A row is one leader at one frame, a leader's rows are contiguous. Numbers are float32 in
the game's own units, as recorded; `Scales` turn them into what a model reads.

Reward of a player for the step from frame t to t + 1:

    harm(p)   = max(percent_p[t+1] - percent_p[t], 0) / 100 + stocks that p lost
    reward[t] = harm(opponent) - harm(own)

Done at t: a player lost a stock between t and t + 1, or t + 1 is the last frame of a
game that came to its end. An episode is a stretch in which both players can act: while
one is dead, is carried down or enters (`frames.IDLE`), nothing is predicted.

Items, Nana and platforms that move are left out: their effects are noise here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxbench.data.game import Character, Game
from jaxbench.tasks.zelda import controller, frames

# Of one fighter, in this order; the state of a frame is the own fighter's, then the
# opponent's.
FIELDS = (
    *("x", "y", *frames.SPEEDS, "percent", "shield", "stocks", "jumps"),
    *("facing", "airborne", "invulnerable", "state_age", "hitlag", "hitstun"),
)
FIGHTERS = ("own", "opponent")
STATE = len(FIGHTERS) * len(FIELDS)
# What errors are told of -> the fields they are over, and the unit.
GROUPS = {
    "position": (("x", "y"), "units"),
    "velocity": (frames.SPEEDS, "units/frame"),
    "percent": (("percent",), "%"),
    "shield": (("shield",), "points"),
    "stocks": (("stocks",), "stocks"),
    "jumps": (("jumps",), "jumps"),
    "facing": (("facing",), "-1 or 1"),
    "airborne": (("airborne",), "0 or 1"),
    "invulnerable": (("invulnerable",), "0 or 1"),
    "state_age": (("state_age",), "frames"),
    "hitlag": (("hitlag",), "frames"),
    "hitstun": (("hitstun",), "frames"),
}
_READ = {"x": "position_x", "y": "position_y", "hitstun": "misc_as"}
_NEEDED = (
    *("position_x", "position_y", *frames.SPEEDS, "percent", "shield", "stocks"),
    *("jumps", "direction", "airborne", "state_age", "hitlag", "misc_as", "flags_3"),
    *("state", "character"),
)
# Bits of `arrays["flags"]`.
ALIVE, DONE = 1, 2
# How a game ends that was played to its end.
ENDED = ("game", "time", "resolved")
# Columns of `arrays["perspective"]`.
OWN, OPPONENT, STAGE, LENGTH, GAME = range(5)


@dataclasses.dataclass(frozen=True)
class Perspective:
    """One leader as the player whose reward counts.

    Attributes:
      game: index into the games.
      start, rival: first rows of its own and of its opponent.
      length: stored frames of its game.
    """

    game: int
    start: int
    rival: int
    length: int


def columns(group: str) -> np.ndarray:
    """Columns of a state that belong to a group, int [2, fields]: own, opponent's."""
    fields = [FIELDS.index(name) for name in GROUPS[group][0]]
    return np.arange(len(FIGHTERS))[:, None] * len(FIELDS) + np.array(fields)[None]


def unusable(game: Game) -> str | None:
    """Why a game cannot be used, None if it can."""
    reason = frames.unusable(game)
    if reason is not None:
        return reason.replace("the clean protocol needs two", "two are needed")
    posts = [player.leader.post for player in game.players]
    lacking = [name for name in _NEEDED if any(name not in post for post in posts)]
    if lacking:
        return f"its version records no {lacking[0]}"
    if not all("hurtbox_state" in post or "flags_1" in post for post in posts):
        return "its version does not record who is invulnerable"
    return None


def fighter_state(leader: Character) -> np.ndarray:
    """The numbers of a leader, float32 [T, len(FIELDS)]; zeros where it is absent."""
    post = leader.post

    def read(name: str) -> np.ndarray:
        if name == "facing":
            return np.where(post["direction"] > 0, 1, -1)
        if name == "airborne":
            return post["airborne"] > 0
        if name == "invulnerable":
            hurtbox, flags = post.get("hurtbox_state"), post.get("flags_1")
            hidden = np.zeros(len(leader.present_t), bool)
            hidden = hidden if hurtbox is None else hidden | (hurtbox > 0)
            return hidden if flags is None else hidden | ((flags & 0x04) != 0)
        if name == "hitstun":
            return np.where((post["flags_3"] & 0x02) != 0, post["misc_as"], 0)
        return post[_READ.get(name, name)]

    state_tf = np.stack([read(name) for name in FIELDS], axis=1).astype(np.float32)
    state_tf[~leader.present_t] = 0
    return state_tf


def harm(leader: Character) -> np.ndarray:
    """What a fighter suffers from each frame to the next, float32 [T], the last 0.

    Damage taken over 100, and 1 for a stock.
    """
    percent_t = leader.post["percent"].astype(np.float64)
    taken = np.maximum(np.diff(percent_t), 0) / 100
    return np.append(taken + _stocks_lost(leader), 0).astype(np.float32)


def store(
    games: Sequence[Game], selected: Iterable[tuple[int, int]]
) -> tuple[dict[str, np.ndarray], list[Perspective]]:
    """Lays out the rows of the selected players' games and their perspectives.

    Args:
      games: usable games (`unusable` is None).
      selected: (game index, player index) pairs, in order.

    Returns:
      state float32 [R, F]; action_state uint16 [R]; character, flags uint8 [R];
      controller uint8 [R, 6], the one that acts on the frame; harm float32 [R];
      perspective int32 [P, 5]; and one `Perspective` per selected pair.
    """
    parts: list[dict[str, np.ndarray]] = []
    table, perspectives, row = [], [], 0
    by_game: dict[int, list[int]] = {}
    for g, p in selected:
        by_game.setdefault(g, []).append(p)
    for g, chosen in by_game.items():
        game = games[g]
        begin = int(np.searchsorted(game.frame_t, 0))
        length = len(game.frame_t) - begin
        leaders = [player.leader for player in game.players]
        done = np.append(np.maximum(*map(_stocks_lost, leaders)) > 0, False)
        # The step that leads to the last frame.
        done[-2:-1] |= game.end in ENDED
        for leader in leaders:
            alive = leader.present_t & ~np.isin(leader.post["state"], frames.IDLE)
            part = {
                "state": fighter_state(leader),
                "action_state": leader.post["state"].astype(np.uint16),
                "character": leader.post["character"].astype(np.uint8),
                "flags": (ALIVE * alive + DONE * done).astype(np.uint8),
                "controller": controller.encode(leader.pre, "clean"),
                "harm": harm(leader),
            }
            parts.append({name: values[begin:] for name, values in part.items()})
        starts = (row, row + length)
        row += 2 * length
        stage = frames.stage_class(game.stage)
        for p in chosen:
            own, rival = starts[p], starts[1 - p]
            table.append((own, rival, stage, length, g))
            perspectives.append(Perspective(g, own, rival, length))
    arrays = frames.joined(parts)
    arrays["perspective"] = np.array(table, np.int32).reshape(-1, 5)
    return arrays, perspectives


def steps(
    arrays: Mapping[str, np.ndarray], own: int, rival: int, length: int
) -> dict[str, np.ndarray]:
    """All steps of a perspective on the host, from frame t to t + 1, [length - 1].

    Returns:
      state_ts, next_ts float32 [L - 1, STATE]; reward_t float64; done_t, alive_t (both
      can act at t) and valid_t (at t + 1 too, and it is not done) bool; action_state_tn
      and next_action_state_tn; controller_tna, those that act on t + 1.
    """
    both = [slice(first, first + length) for first in (own, rival)]
    state = np.concatenate([arrays["state"][rows] for rows in both], axis=1)
    flags = np.stack([arrays["flags"][rows] for rows in both], axis=1)
    hurt = np.stack([arrays["harm"][rows] for rows in both], 1).astype(np.float64)
    ids = np.stack([arrays["action_state"][rows] for rows in both], axis=1)
    sent = np.stack([arrays["controller"][rows] for rows in both], axis=1)
    alive = ((flags & ALIVE) != 0).all(axis=1)
    done = ((flags & DONE) != 0).any(axis=1)
    return {
        "state_ts": state[:-1],
        "next_ts": state[1:],
        "reward_t": hurt[:-1, 1] - hurt[:-1, 0],
        "done_t": done[:-1],
        "alive_t": alive[:-1],
        "valid_t": alive[:-1] & alive[1:] & ~done[:-1],
        "action_state_tn": ids[:-1],
        "next_action_state_tn": ids[1:],
        "controller_tna": sent[1:],
    }


def _stocks_lost(leader: Character) -> np.ndarray:
    """Stocks lost from each frame to the next, [T - 1]."""
    return np.maximum(-np.diff(leader.post["stocks"].astype(np.int32)), 0)
