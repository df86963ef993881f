"""How fighters and projectiles move: speeds, floors, edges, blast zones."""

from __future__ import annotations

import numpy as np

from jaxbench.data.simulation import arena, moves
from jaxbench.data.simulation.fight import HANGING, NOBODY, SHIELD_MAX, Inputs, State
from jaxbench.data.simulation.moves import A

_WALK_F, _DASH_F, _RUN_F, _FRICTION_F = (
    arena.attribute(name) for name in ("walk", "dash", "run", "friction")
)
_GRAVITY_F, _FALL_F, _FAST_FALL_F, _AIR_F = (
    arena.attribute(name) for name in ("gravity", "fall", "fast_fall", "air")
)
_SHOT_F = arena.attribute("shot")
_JUMPS_F = arena.attribute("jumps", np.int32)

_KNOCKBACK_DECAY = np.float32(0.051)
_AIR_FRICTION = np.float32(0.02)
_DODGE_DECAY = np.float32(0.9)
_DODGE_FRAMES = 28
_SHOT_FRAME, _SHOT_FRAMES = 12, 60
_PUSH, _PUSH_REACH = np.float32(0.3), np.float32(5)
_CLIFF_REACH, _CLIFF_LOW, _CLIFF_HIGH = 10.0, -24.0, -4.0
_HANG_X, _HANG_Y = np.float32(2.5), np.float32(-18.0)
_CLIFF_INVULNERABLE = 30
_TECH_WINDOW, _L_CANCEL_WINDOW = 20, 7


def set_speeds(s: State, i: Inputs, live: np.ndarray) -> None:
    """Accelerates every fighter by what it does and holds, in place."""
    ground = live & ~s.airborne
    _ground_speed(s, i, ground)
    air = live & s.airborne & ~moves.IS_FIXED[s.action] & ~moves.IS_CLIMB[s.action]
    _air_speed(s, i, air)
    size = np.sqrt(s.kx * s.kx + s.ky * s.ky)
    keep = np.maximum(size - _KNOCKBACK_DECAY, 0) / np.maximum(size, np.float32(1e-6))
    s.put(air, kx=s.kx * keep, ky=s.ky * keep)
    slow = np.maximum(np.abs(s.kx) - _FRICTION_F[s.fighter], 0)
    s.put(ground, kx=np.copysign(slow, s.kx), ky=0)
    fixed = moves.IS_FIXED[s.action]
    s.put(fixed, vx=0, vy=0, kx=0, ky=0)


def _ground_speed(s: State, i: Inputs, ground: np.ndarray) -> None:
    friction = _FRICTION_F[s.fighter]
    carried = moves.CARRIED[s.action] * (s.age < moves.CARRIED_FRAMES)
    target = carried * s.facing
    gain = np.where(carried != 0, np.float32(2), friction)
    walk = moves.IS_WALK[s.action]
    target = np.where(walk, i.x * _WALK_F[s.fighter], target)
    dash = s.action == A.DASH
    target = np.where(dash, s.facing * _DASH_F[s.fighter], target)
    run = s.action == A.RUN
    target = np.where(run, i.x * _RUN_F[s.fighter], target)
    gain = np.where(walk | run, np.float32(0.15), gain)
    gain = np.where(dash, np.float32(1), gain)
    gain = np.where(s.action == A.DASH_ATTACK, friction * np.float32(0.4), gain)
    change = np.clip(target - s.vx, -gain, gain)
    s.put(ground, vx=s.vx + change, vy=0)


def _air_speed(s: State, i: Inputs, air: np.ndarray) -> None:
    dodge = s.action == A.AIR_DODGE
    gliding = dodge & (s.age < _DODGE_FRAMES)
    falling = air & ~gliding
    gravity = _GRAVITY_F[s.fighter]
    gravity = np.where(s.action == A.RECOVERY, np.float32(0.08), gravity)
    may_fast_fall = moves.IS_DRIFT[s.action] & (s.hitstun == 0) & (s.vy <= 0)
    fast = falling & may_fast_fall & i.flick_down & (s.action != A.RECOVERY)
    s.fast_falling |= fast
    most = np.where(s.fast_falling, _FAST_FALL_F[s.fighter], _FALL_F[s.fighter])
    down = np.where(s.fast_falling, -most, np.maximum(s.vy - gravity, -most))
    s.put(falling, vy=down)
    drift = falling & moves.IS_DRIFT[s.action] & (s.hitstun == 0)
    most_x = _AIR_F[s.fighter]
    gain = np.where(i.x == 0, _AIR_FRICTION, most_x / np.float32(12))
    change = np.clip(i.x * most_x - s.vx, -gain, gain)
    s.put(drift, vx=s.vx + change)
    s.put(air & gliding, vx=s.vx * _DODGE_DECAY, vy=s.vy * _DODGE_DECAY)


def move(s: State, i: Inputs, live: np.ndarray) -> None:
    """Moves fighters, then resolves walls, floors, ends of floors and edges."""
    x0, y0 = s.x.copy(), s.y.copy()
    s.put(live, x=s.x + s.vx + s.kx)
    s.put(live & s.airborne, y=s.y + s.vy + s.ky)
    _push_apart(s, live)
    edge = arena.EDGE_S[s.stage][:, None]
    loose = live & s.airborne & ~moves.IS_FIXED[s.action] & ~moves.IS_CLIMB[s.action]
    beside = (np.abs(x0) >= edge) & (y0 < 0) & (s.y < 0)
    inside = loose & beside & (np.abs(s.x) < edge)
    s.put(inside, x=np.copysign(edge, x0))
    left, right, height = (
        table[s.stage][:, None, :]
        for table in (arena.LEFT_SF, arena.RIGHT_SF, arena.HEIGHT_SF)
    )
    over = (s.x[..., None] >= left) & (s.x[..., None] <= right)
    crossed = over & (y0[..., None] >= height) & (s.y[..., None] <= height)
    # Held down, the stick passes through platforms, but not when helpless or hurt.
    through = (i.y < -0.66) & moves.IS_DRIFT[s.action] & ~s.fast_falling
    through |= s.action == A.PASS
    crossed[..., 1:] &= ~through[..., None]
    landing = loose & crossed.any(axis=-1) & (s.vy + s.ky <= 0)
    floor = np.where(crossed, height, -np.inf).argmax(axis=-1).astype(np.int32)
    _stay_on_floor(s, live & ~s.airborne, left, right)
    if landing.any():
        _land(s, i, landing, floor)
        s.put(landing, y=arena.HEIGHT_SF[s.stage[:, None], floor])
    _catch_cliff(s, i, loose & ~landing, edge)


def _push_apart(s: State, live: np.ndarray) -> None:
    """Fighters on the same floor do not stand inside each other."""
    gap = s.x - s.x[:, ::-1]
    near = (np.abs(gap) < _PUSH_REACH) & (np.abs(s.y - s.y[:, ::-1]) < 1)
    grounded = ~s.airborne & live
    both = near & grounded & grounded[:, ::-1]
    if both.any():
        order = np.array([[-1, 1]], np.float32)
        away = np.where(gap == 0, order, np.sign(gap))
        s.put(both, x=s.x + _PUSH * away)


def _stay_on_floor(
    s: State, ground: np.ndarray, left: np.ndarray, right: np.ndarray
) -> None:
    row = np.arange(len(s.stage))[:, None]
    floor = np.maximum(s.ground, 0)
    low, high = left[row, 0, floor], right[row, 0, floor]
    off = ground & ((s.x < low) | (s.x > high))
    if not off.any():
        return
    slide = moves.CAN_SLIDE_OFF[s.action] & ((np.abs(s.vx) > 0.4) | (s.kx != 0))
    fall = off & slide
    s.put(off & ~slide, x=np.clip(s.x, low, high), vx=0)
    s.put(fall, airborne=True, fast_falling=False)
    s.jumps -= fall & (s.jumps == _JUMPS_F[s.fighter])
    s.begin(fall & ~moves.IS_DAMAGE[s.action], A.FALL)


def _land(s: State, i: Inputs, landing: np.ndarray, floor: np.ndarray) -> None:
    action = s.action.copy()
    after = np.full_like(action, A.LANDING)
    span = np.full_like(action, moves.SPAN[A.LANDING])
    aerial = moves.IS_AERIAL[action]
    cancelled = s.guard_age <= _L_CANCEL_WINDOW
    lag = moves.LANDING_LAG[action]
    after = np.where(aerial, A.LANDING_AIR_N + action - A.AIR_N, after)
    span = np.where(aerial, np.where(cancelled, lag // 2, lag), span)
    s.put(landing & aerial, l_cancel=np.where(cancelled, 1, 2))
    helpless = (action == A.FALL_SPECIAL) | (action == A.RECOVERY)
    after = np.where(helpless | (action == A.AIR_DODGE), A.LANDING_SPECIAL, after)
    span = np.where(helpless, 26, span)
    span = np.where(action == A.AIR_DODGE, 10, span)
    tumble = moves.IS_TUMBLE[action]
    ahead = i.x * s.facing
    tech = np.where(ahead > 0.5, A.TECH_F, np.where(ahead < -0.5, A.TECH_B, A.TECH))
    in_time = s.guard_age <= _TECH_WINDOW
    after = np.where(tumble, np.where(in_time, tech, A.DOWN_BOUND), after)
    span = np.where(tumble, moves.SPAN[after], span)
    s.begin(landing, after)
    s.put(landing, span=span, airborne=False, fast_falling=False, ground=floor)
    s.put(landing, jumps=_JUMPS_F[s.fighter], hitstun=0)
    s.put(landing, vy=0, ky=0, kx=s.kx * np.float32(0.5))


def _catch_cliff(s: State, i: Inputs, loose: np.ndarray, edge: np.ndarray) -> None:
    able = loose & moves.CAN_CATCH_CLIFF[s.action] & (s.hitstun == 0)
    outside = np.abs(s.x) - edge
    near = (outside >= 0) & (outside <= _CLIFF_REACH)
    near &= (s.y >= _CLIFF_LOW) & (s.y <= _CLIFF_HIGH)
    able &= near & (s.cliff_wait == 0) & (i.y > -0.66)
    able &= (s.vy <= 0) | (s.action == A.RECOVERY)
    if not able.any():
        return
    other_hangs = (s.cliff_wait == HANGING)[:, ::-1]
    taken = other_hangs & (s.x[:, ::-1] * s.x > 0)
    # Two that reach the same edge on the same frame: the first player has it.
    both = able & able[:, ::-1] & (s.x[:, ::-1] * s.x > 0)
    both[:, 0] = False
    caught = able & ~taken & ~both
    side = np.sign(s.x)
    s.put(caught, facing=-side, x=side * (edge + _HANG_X), y=_HANG_Y)
    s.put(caught, vx=0, vy=0, kx=0, ky=0)
    s.put(caught, jumps=np.maximum(_JUMPS_F[s.fighter] - 1, 1), fast_falling=False)
    s.put(caught, cliff_wait=HANGING, invulnerable=_CLIFF_INVULNERABLE)
    s.begin(caught, A.CLIFF_CATCH)


def move_shots(s: State, live: np.ndarray) -> None:
    """Moves projectiles and throws new ones, in place."""
    flying = s.shot_left > 0
    s.shot_left -= flying
    s.put(flying, shot_x=s.shot_x + s.shot_vx)
    throwing = (s.action == A.SHOT) | (s.action == A.SHOT_AIR)
    thrown = live & throwing & (s.age == _SHOT_FRAME)
    if thrown.any():
        s.put(thrown, shot_x=s.x + 8 * s.facing, shot_y=s.y + np.float32(8))
        s.put(thrown, shot_vx=s.facing * _SHOT_F[s.fighter], shot_left=_SHOT_FRAMES)
        s.shot_id += thrown


def leave_arena(s: State) -> None:
    """Takes a stock from whoever is beyond a blast zone, in place."""
    stage = s.stage
    side = arena.SIDE_S[stage][:, None]
    playing = ~moves.IS_AWAY[s.action]
    left, right = s.x < -side, s.x > side
    below = s.y < arena.BOTTOM_S[stage][:, None]
    above = (s.y > arena.TOP_S[stage][:, None]) & (s.ky > 0)
    dead = playing & (left | right | below | above)
    if not dead.any():
        return
    how = np.where(left, A.DEAD_LEFT, np.where(right, A.DEAD_RIGHT, A.DEAD_UP))
    s.begin(dead, np.where(below, A.DEAD_DOWN, how))
    s.stocks -= dead
    s.put(dead, percent=0, shield=SHIELD_MAX, hitlag=0, hitstun=0, invulnerable=0)
    s.put(dead, combo=0, last_attack=0, last_hit_by=NOBODY, cliff_wait=0, shot_left=0)
    s.put(dead, fast_falling=False, airborne=True, vx=0, vy=0, kx=0, ky=0)
