"""A small platform fighter after Melee: B fights at once, 60 steps a second.

It is the data when no replays are given, and the arena in which policies play. It
keeps Melee's action ids, controller and recorded fields; its moves and physics are
far simpler (two fighters, flat floors with vertical walls, one projectile each, no
items, no stale moves). Given the same seeds and controls a game is bit for bit the
same, alone or in any batch: every operation is elementwise and exactly rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxbench.data.simulation import arena, choose_action, hits, motion
from jaxbench.data.simulation.fight import (
    ARRAYS,
    NOBODY,
    SHIELD_MAX,
    Controls,
    Inputs,
    State,
    neutral_controls,
    quantize,
    read_inputs,
)
from jaxbench.data.simulation.moves import IS_DAMAGE, IS_TUMBLE, Action
from jaxbench.data.slp_writer import FIRST_FRAME
from jaxbench.errors import InputError, nearest

FRAMES_PER_SECOND = 60
FIRST_CONTROLLED_FRAME = -39
STOCKS = 4
SECONDS = 480
_NEVER = 255


class Score(NamedTuple):
    """How B games stand.

    Attributes:
      stocks: int32 [B, 2], stocks left.
      percent: float32 [B, 2], percent of the present stock.
      damage: float32 [B, 2], percent dealt over the whole game.
      over: bool [B], the game has ended.
      winner: int32 [B], 0 or 1, the player ahead by stocks, then by percent;
        -1 when level.
    """

    stocks: np.ndarray
    percent: np.ndarray
    damage: np.ndarray
    over: np.ndarray
    winner: np.ndarray


def reset(
    seeds: Sequence[int],
    fighters: Sequence[tuple[str, str]],
    stages: Sequence[int] | int = 31,
    seconds: int = SECONDS,
) -> State:
    """Returns B fights before their first frame.

    Args:
      seeds: [B] integers >= 0. A seed decides which player starts on the left, and
        names the game to whoever draws noise from it.
      fighters: B pairs of character names, players 0 and 1.
      stages: B in-game stage ids, or one for all.
      seconds: the clock, 1 to 480.

    Raises:
      InputError: a character or stage the simulation does not have, a wrong clock.
    """
    if not 1 <= seconds <= SECONDS:
        raise InputError(f"seconds={seconds} is not a clock of 1 to {SECONDS} seconds")
    batch = len(seeds)
    stage_ids = [stages] * batch if isinstance(stages, int) else list(stages)
    if len(fighters) != batch or len(stage_ids) != batch:
        raise ValueError(
            f"{batch} seeds, {len(fighters)} pairs of fighters, {len(stage_ids)} stages"
        )
    stage = np.array([_row(arena.STAGE_INDEX, "stage", id_) for id_ in stage_ids])
    fighter = np.array(
        [[_row(arena.FIGHTER_INDEX, "fighter", n) for n in pair] for pair in fighters]
    ).reshape(batch, 2)
    seed = np.asarray(seeds, np.uint64)
    left_first = (seed & np.uint64(1)) == 0
    side = np.where(left_first[:, None], [[-1, 1]], [[1, -1]]).astype(np.float32)
    spawn = arena.SPAWN_S2[stage]
    values = _blank(batch) | {
        "seed": seed,
        "frame": np.full(batch, FIRST_FRAME - 1, np.int32),
        "limit": np.full(batch, seconds * FRAMES_PER_SECOND, np.int32),
        "stage": stage.astype(np.int32),
        "over": np.zeros(batch, bool),
        "fighter": fighter.astype(np.int32),
        "x": spawn[:, :1] * side,
        "y": spawn[:, 1:] * np.ones((1, 2), np.float32),
        "facing": -side,
        "jumps": arena.attribute("jumps", np.int32)[fighter] - 1,
    }
    state = State(**values, controls=neutral_controls(batch))
    state.begin(np.ones((batch, 2), bool), Action.ENTRY)
    return state


def _blank(batch: int) -> dict[str, np.ndarray]:
    """Returns the [B, 2] arrays of fighters who stand nowhere yet."""
    first: dict[str, tuple[float, type]] = {name: (0, np.int32) for name in ARRAYS}
    for name in "vx vy kx ky percent damage shot_x shot_y shot_vx".split():
        first[name] = (0, np.float32)
    for name in "connected fast_falling".split():
        first[name] = (False, bool)
    for name in "guard_age tilt_x_age tilt_y_age".split():
        first[name] = (_NEVER, np.int32)
    first |= {
        "airborne": (True, bool),
        "ground": (-1, np.int32),
        "shield": (SHIELD_MAX, np.float32),
        "stocks": (STOCKS, np.int32),
        "last_hit_by": (NOBODY, np.int32),
    }
    return {name: np.full((batch, 2), *value) for name, value in first.items()}


def _row(table: dict, what: str, key: str | int) -> int:
    if key not in table:
        known = nearest(str(key), [str(name) for name in table], count=len(table))
        raise InputError(f"{what}={key!r} is not in the simulation; it has {known}")
    return table[key]


def step(state: State, controls: Controls) -> State:
    """Returns the fights one frame later; games that are over stay as they are.

    `controls` are first rounded to what a controller can produce, and ignored
    before frame -39, as in Melee; the result carries what was used. About 1 ms
    for batches of up to some hundred games.

    Raises:
      ValueError: a stick or trigger is not finite.
    """
    s = state.copy()
    s.frame += 1
    used = quantize(controls)
    ready = (s.frame >= FIRST_CONTROLLED_FRAME)[:, None]
    s.controls = Controls(*(np.where(ready, f, f.dtype.type(0)) for f in used))
    inputs = read_inputs(s.controls, state.controls)
    live = s.hitlag == 0
    _count_frames(s, inputs, live)
    choose_action.finish_actions(s, live, inputs)
    _end_hitstun(s, live)
    choose_action.choose_actions(s, live, inputs)
    motion.set_speeds(s, inputs, live)
    motion.move(s, inputs, live)
    motion.move_shots(s, live)
    hits.strike(s, inputs, live)
    hits.wear_shields(s, live)
    motion.leave_arena(s)
    s.over = (s.stocks == 0).any(axis=1) | (s.frame >= s.limit)
    if state.over.any():
        for name in ARRAYS:
            getattr(s, name)[state.over] = getattr(state, name)[state.over]
        for new, old in zip(s.controls, state.controls, strict=True):
            new[state.over] = old[state.over]
    return s


def _count_frames(s: State, inputs: Inputs, live: np.ndarray) -> None:
    s.age += live
    np.maximum(s.hitlag - 1, 0, out=s.hitlag)
    s.put(live, hitstun=np.maximum(s.hitstun - 1, 0))
    np.maximum(s.invulnerable - 1, 0, out=s.invulnerable)
    s.cliff_wait -= s.cliff_wait > 0
    for age, event in (
        (s.guard_age, inputs.guard),
        (s.tilt_x_age, inputs.flick_x),
        (s.tilt_y_age, inputs.flick_up | inputs.flick_down),
    ):
        np.minimum(age + 1, _NEVER, out=age)
        np.copyto(age, 0, where=event)
    s.l_cancel[:] = 0


def _end_hitstun(s: State, live: np.ndarray) -> None:
    done = live & IS_DAMAGE[s.action] & (s.hitstun == 0)
    if done.any():
        air = np.where(IS_TUMBLE[s.action], Action.DAMAGE_FALL, Action.FALL)
        s.begin(done, np.where(s.airborne, air, Action.WAIT))


def score(state: State) -> Score:
    """Returns how the games stand; see `Score`."""
    stocks, percent = state.stocks, state.percent
    lead = np.sign(stocks[:, 0] - stocks[:, 1])
    lead = np.where(lead == 0, np.sign(percent[:, 1] - percent[:, 0]), lead)
    winner = np.select([lead > 0, lead < 0], [0, 1], -1).astype(np.int32)
    return Score(stocks, percent, state.damage, state.over, winner)
