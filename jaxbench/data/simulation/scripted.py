"""Scripted players: what people do with a delay, by heart, and not twice in a row.

A player sees the opponent as it was 12 to 18 frames ago, answers with a timed input
that it then plays blind for up to 45 frames, and takes the next of three answers if
it has just given one. So what it does now follows from the last half second and not
from what can be seen now: a policy that remembers predicts it better than one that
does not. Five styles differ in delay, answers, rhythm and buttons. A little noise,
drawn from the game's seed, keeps them from being fully predictable.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from jaxbench.data.simulation import arena, moves, styles, timed_inputs
from jaxbench.data.simulation.fight import Controls, State
from jaxbench.data.simulation.moves import A
from jaxbench.data.simulation.styles import (
    AIR,
    AWAY,
    BUSY,
    DOWN,
    GROUND,
    HURT,
    LEDGE,
    OFF,
)

STYLE_COUNT = len(styles.STYLES)
_MEMORY_FRAMES = 30
_SIGHT = 32
_SPEED_SEEN = np.float32(2.0)
_WHIM, _SLIP = 0.06, 0.2
_FULL_STEPS = (80, 80, 80, 79, 78, 76, 73, 70)

_NEUTRAL, _ATTACK, _SHIELD, _AIR, _HURT, _AWAY = range(len(styles.CLASSES))
_CLASS = np.full(moves.ACTIONS, _NEUTRAL, np.int8)
_CLASS[moves.IS_FREE_AIR | moves.IS_DRIFT] = _AIR
_CLASS[moves.IS_ATTACK] = _ATTACK
_CLASS[[A.SHOT, A.SHOT_AIR]] = _ATTACK
_CLASS[moves.IS_SHIELDED] = _SHIELD
_CLASS[moves.IS_DAMAGE | moves.IS_TUMBLE | moves.IS_DOWN] = _HURT
_CLASS[[A.LANDING_SPECIAL, A.DIZZY, A.FALL_SPECIAL]] = _HURT
_CLASS[moves.IS_AWAY | moves.IS_HANGING] = _AWAY


@dataclasses.dataclass(slots=True)
class Memory:
    """What the players of B games remember. Functions return new memories.

    Attributes:
      style: int32 [B, 2], rows of `styles.STYLES`.
      clock: frames seen.
      seen_x, seen_y: float32 [32, B, 2], seen_class: int8 [32, B, 2]: a ring of both
        fighters' last frames.
      chosen: int32 [B, 2], the timed input being played.
      age: int32 [B, 2], frames into it; below 0 while it is late.
      situation: int32 [B, 2], the own situation it answers.
      side, full: float32 [B, 2], where its x points, how far the stick is pushed.
      turn, since: int32 [B, 2, situation], which answer was given last and frames
        since it ended.
    """

    style: np.ndarray
    clock: int
    seen_x: np.ndarray
    seen_y: np.ndarray
    seen_class: np.ndarray
    chosen: np.ndarray
    age: np.ndarray
    situation: np.ndarray
    side: np.ndarray
    full: np.ndarray
    turn: np.ndarray
    since: np.ndarray

    def copy(self) -> Memory:
        """Returns a memory whose arrays can be written."""
        names = (f.name for f in dataclasses.fields(self) if f.name != "clock")
        arrays = {name: getattr(self, name).copy() for name in names}
        return Memory(clock=self.clock, **arrays)


def noise(seed: np.ndarray, clock: int, stream: np.ndarray) -> np.ndarray:
    """Returns uniform [0, 1) noise, one value per seed and stream at `clock`.

    A hash (splitmix64, Steele et al. 2014) and no generator, so that a game's noise
    does not depend on the games beside it.
    """
    golden = 0x9E3779B97F4A7C15
    start = np.uint64((2 * clock + 1) * golden % 2**64)
    value = seed.astype(np.uint64) * np.uint64(golden) + start
    value = value + stream.astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return (value >> np.uint64(11)).astype(np.float64) / 2.0**53


def remember_nothing(state: State, style: npt.ArrayLike) -> Memory:
    """Returns the memories with which a game starts.

    Args:
      state: the fights before their first frame.
      style: int [B, 2], which of the `STYLE_COUNT` styles each player has.
    """
    style = np.asarray(style, np.int32)
    shape = state.x.shape
    if style.shape != shape or style.min() < 0 or style.max() >= STYLE_COUNT:
        raise ValueError(f"style must be {shape} integers of 0 to {STYLE_COUNT - 1}")
    situations = len(styles.SITUATIONS)
    return Memory(
        style=style,
        clock=0,
        seen_x=np.broadcast_to(state.x, (_SIGHT, *shape)).copy(),
        seen_y=np.broadcast_to(state.y, (_SIGHT, *shape)).copy(),
        seen_class=np.full((_SIGHT, *shape), _AWAY, np.int8),
        chosen=np.full(shape, timed_inputs.INPUT_INDEX["wait"], np.int32),
        age=np.zeros(shape, np.int32),
        situation=np.full(shape, AWAY, np.int32),
        side=np.ones(shape, np.float32),
        full=np.ones(shape, np.float32),
        turn=np.full((*shape, situations), styles.TURNS - 1, np.int32),
        since=np.full((*shape, situations), _MEMORY_FRAMES + 1, np.int32),
    )


def act(memory: Memory, state: State) -> tuple[Controls, Memory]:
    """Returns what both players of every game press next, and their memories.

    To let a policy play one side, replace that column of the controls. Pure: the
    same memory and state give the same controls. About 0.4 ms for a small batch.
    """
    m = memory.copy()
    slot = m.clock % _SIGHT
    m.seen_x[slot], m.seen_y[slot] = state.x, state.y
    m.seen_class[slot] = _CLASS[state.action]
    m.age += 1
    m.since += m.since < 255
    situation = _situation(state)
    game = np.arange(len(state.x))[:, None]
    then = (m.clock - styles.DELAY[m.style]) % _SIGHT
    other = np.array([[1, 0]])
    seen_x = m.seen_x[then, game, other]
    # People aim at where the opponent will be, not at where it was.
    speed = seen_x - m.seen_x[(then - 1) % _SIGHT, game, other]
    speed = np.clip(speed, -_SPEED_SEEN, _SPEED_SEEN)
    seen_x = seen_x + speed * styles.DELAY[m.style].astype(np.float32)
    seen_class = m.seen_class[then, game, other]
    gap = np.abs(seen_x - state.x)
    gap = np.maximum(gap, np.abs(m.seen_y[then, game, other] - state.y))
    reach = np.searchsorted(styles.RANGE_LIMITS, gap).astype(np.int32)
    over = m.age >= timed_inputs.LENGTH[m.chosen]
    forced = (situation >= HURT) & (situation <= AWAY) & (situation != m.situation)
    before = m.seen_class[(then - 1) % _SIGHT, game, other]
    alarmed = (seen_class == _ATTACK) & (before != _ATTACK) & (reach <= 1)
    alarmed &= timed_inputs.IS_LOOSE[m.chosen] & (situation == GROUND)
    change = over | forced | alarmed
    if change.any():
        _choose(m, state, change, situation, seen_x, seen_class, reach)
    m.clock += 1
    return _controls(m), m


def _situation(state: State) -> np.ndarray:
    action = state.action
    edge = arena.EDGE_S[state.stage][:, None]
    outside = state.airborne & ((np.abs(state.x) > edge + 1) | (state.y < -4))
    found = np.full(action.shape, BUSY, np.int32)
    np.copyto(found, GROUND, where=moves.IS_FREE_GROUND[action])
    np.copyto(found, GROUND, where=moves.IS_GUARD[action])
    np.copyto(found, AIR, where=moves.IS_FREE_AIR[action])
    np.copyto(found, OFF, where=outside)
    np.copyto(found, HURT, where=moves.IS_DAMAGE[action])
    np.copyto(found, DOWN, where=moves.IS_DOWN[action])
    np.copyto(found, LEDGE, where=moves.IS_HANGING[action])
    np.copyto(found, AWAY, where=moves.IS_AWAY[action])
    return found


def _choose(
    m: Memory,
    state: State,
    change: np.ndarray,
    situation: np.ndarray,
    seen_x: np.ndarray,
    seen_class: np.ndarray,
    reach: np.ndarray,
) -> None:
    """Starts the next timed input where `change`, in place."""
    game, player = np.nonzero(change)
    now = situation[game, player]
    ended = m.situation[game, player]
    m.since[game, player, ended] = 0
    stream = 8 * np.arange(4)[:, None] + player[None]
    draw = noise(state.seed[game][None], m.clock, stream)
    fresh = m.since[game, player, now] <= _MEMORY_FRAMES
    turn = np.where(fresh, (m.turn[game, player, now] + 1) % styles.TURNS, 0)
    whim = (draw[0] * styles.TURNS / _WHIM).astype(np.int32)
    turn = np.where(draw[0] < _WHIM, np.minimum(whim, styles.TURNS - 1), turn)
    own_x, own_y = state.x[game, player], state.y[game, player]
    jumps = state.jumps[game, player] > 0
    low = own_y < np.where(jumps, 12, -10)
    off_reach = np.where(low, np.where(jumps, 3, 2), np.where(jumps, 0, 1))
    near = np.where(now == OFF, off_reach, reach[game, player])
    seen = seen_class[game, player]
    chosen = styles.ANSWER[m.style[game, player], now, seen, near, turn]
    to_middle = (now == OFF) | (now == HURT) | (now == LEDGE)
    target = np.where(to_middle, 0, seen_x[game, player])
    late = np.where(draw[1] < _SLIP, 1 + (draw[2] * 3).astype(np.int32), 0)
    late = np.where((now == BUSY) | (now == OFF), 0, late)
    full = np.array(_FULL_STEPS, np.float32) / 80
    m.chosen[game, player] = chosen
    m.age[game, player] = -late
    m.situation[game, player] = now
    m.side[game, player] = np.where(target >= own_x, 1, -1)
    m.full[game, player] = full[(draw[3] * len(full)).astype(np.int32)]
    m.turn[game, player, now] = turn


def _controls(m: Memory) -> Controls:
    late = m.age < 0
    frame = np.clip(m.age, 0, timed_inputs.LONGEST - 1)
    analog = np.where(late[..., None], 0, timed_inputs.ANALOG[m.chosen, frame])
    x, y, cx, cy, trigger = np.moveaxis(analog.astype(np.float32), -1, 0)
    buttons = np.where(late, 0, styles.PRESSED[m.style, m.chosen, frame])
    left = styles.GUARDS_LEFT[m.style]
    none = np.float32(0)
    return Controls(
        stick_x=x * m.side * m.full,
        stick_y=y * m.full,
        cstick_x=cx * m.side,
        cstick_y=cy,
        trigger_l=np.where(left, trigger, none),
        trigger_r=np.where(left, none, trigger),
        buttons=buttons.astype(np.int32),
    )
