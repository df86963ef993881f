"""Which action a fighter goes into next: ends of actions, then what is pressed."""

from __future__ import annotations

import numpy as np

from jaxbench.data.simulation import arena, moves
from jaxbench.data.simulation.fight import HANGING, Inputs, State
from jaxbench.data.simulation.moves import A

_SQUAT_F = arena.attribute("squat", np.int32)
_JUMPS_F = arena.attribute("jumps", np.int32)
_JUMP_F = arena.attribute("jump")
_SHORT_F = arena.attribute("short_hop")
_DOUBLE_F = arena.attribute("double_jump")
_AIR_F = arena.attribute("air")

_DODGE_SPEED = np.float32(2.9)
_RECOVERY_RISE = np.float32(2.9)
_RESPAWN_HEIGHT = np.float32(62.0)
_RESPAWN_INVULNERABLE = 120
_CLIFF_REGRAB = 30


def finish_actions(s: State, live: np.ndarray, inputs: Inputs) -> None:
    """Moves on from actions whose last frame has passed, in place."""
    ended = live & (s.span > 0) & (s.age >= s.span)
    if not ended.any():
        return
    before = s.action.copy()
    after = np.where(s.airborne, moves.NEXT_AIR[before], moves.NEXT_GROUND[before])
    jump = ended & (before == A.JUMP_SQUAT)
    back = inputs.x * s.facing < -0.3
    after = np.where(jump, np.where(back, A.JUMP_B, A.JUMP_F), after)
    s.begin(ended, after)
    if jump.any():
        rise = np.where(inputs.jump_held, _JUMP_F[s.fighter], _SHORT_F[s.fighter])
        air = _AIR_F[s.fighter]
        s.put(jump, vy=rise, vx=np.clip(s.vx + inputs.x * air, -air, air))
        s.put(jump, airborne=True)
        s.jumps -= jump
    climbed = ended & moves.IS_CLIMB[before]
    s.put(climbed, airborne=False, jumps=_JUMPS_F[s.fighter], ground=0, y=0, vx=0, vy=0)
    reborn = ended & (s.action == A.REBIRTH)
    if reborn.any():
        _respawn(s, reborn)
    waited = ended & (before == A.REBIRTH_WAIT)
    s.put(waited, invulnerable=_RESPAWN_INVULNERABLE)


def _respawn(s: State, mask: np.ndarray) -> None:
    side = np.array([[-1, 1]], np.float32)
    s.put(mask, x=12 * side, y=_RESPAWN_HEIGHT, facing=-side)
    s.put(mask, vx=0, vy=0, kx=0, ky=0)
    s.put(mask, percent=0, airborne=True, jumps=_JUMPS_F[s.fighter] - 1, ground=-1)


def choose_actions(s: State, live: np.ndarray, inputs: Inputs) -> None:
    """Starts what the controls ask for where the fighter can act, in place.

    Rules run from the weakest to the strongest; the last that applies wins.
    """
    new = np.full_like(s.action, -1)
    face = s.facing.copy()
    again = np.zeros_like(live)
    ground = live & ~s.airborne
    _from_ground(s, inputs, ground & moves.IS_FREE_GROUND[s.action], new, face, again)
    _from_jab(s, inputs, ground, new)
    _from_shield(s, inputs, ground, new)
    _from_floor(s, inputs, ground, new)
    _from_air(s, inputs, live & s.airborne & moves.IS_FREE_AIR[s.action], new, again)
    _from_cliff(s, inputs, live & (s.action == A.CLIFF_WAIT), new)
    stirred = (np.abs(inputs.x) > 0.5) | (np.abs(inputs.y) > 0.5) | inputs.jump
    leave = live & (s.action == A.REBIRTH_WAIT) & stirred
    np.copyto(new, A.FALL, where=leave)
    s.put(leave, invulnerable=_RESPAWN_INVULNERABLE)
    start = (new >= 0) & ((new != s.action) | again)
    s.put(start, facing=face)
    s.begin(start, new)
    _launch(s, inputs, start)


def _from_ground(
    s: State,
    i: Inputs,
    free: np.ndarray,
    new: np.ndarray,
    face: np.ndarray,
    again: np.ndarray,
) -> None:
    ahead = i.x * s.facing
    side = np.where(i.x < 0, np.float32(-1), np.float32(1))
    dashing, running = s.action == A.DASH, s.action == A.RUN
    fast = dashing | running
    stand = free & ~fast & (s.action != A.RUN_BRAKE)
    np.copyto(new, A.WAIT, where=stand)
    gait = A.WALK_SLOW + (ahead > 0.5) + (ahead > 0.75)
    np.copyto(new, gait, where=stand & (ahead > 0))
    turn = stand & (ahead < 0)
    np.copyto(new, A.TURN, where=turn)
    low = free & ~fast & (i.y < -0.6)
    squatting = (s.action == A.SQUAT) | (s.action == A.SQUAT_WAIT)
    np.copyto(new, np.where(squatting, s.action, A.SQUAT), where=low)
    np.copyto(new, A.PASS, where=low & i.flick_down & (s.ground > 0))
    np.copyto(new, A.RUN_BRAKE, where=free & running & (ahead < 0.6))
    turn_run = free & running & (ahead < -0.6)
    np.copyto(new, A.TURN_RUN, where=turn_run)
    dash_back = free & dashing & (ahead < 0)
    dash = i.flick_x & ((free & ~fast) | dash_back)
    np.copyto(new, A.DASH, where=dash)
    np.copyto(again, True, where=dash & dashing)
    np.copyto(new, A.TAUNT, where=free & i.taunt)
    np.copyto(new, A.GUARD_ON, where=free & i.guard_held)
    np.copyto(new, A.JUMP_SQUAT, where=free & i.jump)
    attack = free & i.attack
    np.copyto(new, _attack_of(s, i, fast), where=attack)
    smash = free & i.flick_c
    flat = np.abs(i.cx) >= np.abs(i.cy)
    upward = np.where(i.cy > 0, A.SMASH_HI, A.SMASH_LW)
    np.copyto(new, np.where(flat, A.SMASH_S, upward), where=smash)
    np.copyto(new, A.CATCH, where=free & i.grab)
    np.copyto(new, np.where(i.y > 0.5, A.RECOVERY, A.SHOT), where=free & i.special)
    turned = (turn | turn_run | dash | attack) & (np.abs(i.x) > 0.28) & ~(attack & fast)
    np.copyto(face, side, where=turned)
    c_side = np.where(i.cx < 0, np.float32(-1), np.float32(1))
    np.copyto(face, c_side, where=smash & flat)
    np.copyto(face, s.facing, where=(new == A.SQUAT) | (new == A.GUARD_ON))


def _attack_of(s: State, i: Inputs, fast: np.ndarray) -> np.ndarray:
    flat = np.abs(i.x) >= np.abs(i.y)
    hard_x = flat & (np.abs(i.x) >= 0.8) & (s.tilt_x_age <= 3)
    hard_y = ~flat & (np.abs(i.y) >= 0.66) & (s.tilt_y_age <= 3)
    up = i.y > 0
    vertical = np.where(
        hard_y,
        np.where(up, A.SMASH_HI, A.SMASH_LW),
        np.where(up, A.TILT_HI, A.TILT_LW),
    )
    sideways = np.where(hard_x, A.SMASH_S, A.TILT_S)
    sideways = np.where(i.x == 0, A.JAB_1, sideways)
    chosen = np.where(flat, sideways, vertical)
    return np.where(fast & ~hard_x, A.DASH_ATTACK, chosen)


def _from_jab(s: State, i: Inputs, ground: np.ndarray, new: np.ndarray) -> None:
    jabbing = (s.action == A.JAB_1) | (s.action == A.JAB_2)
    chain = ground & jabbing & (s.age >= 6) & i.attack
    np.copyto(new, s.action + 1, where=chain)


def _from_shield(s: State, i: Inputs, ground: np.ndarray, new: np.ndarray) -> None:
    held = ground & moves.IS_GUARD[s.action]
    np.copyto(new, A.GUARD_OFF, where=held & ~i.guard_held & (s.action == A.GUARD))
    roll = np.where(i.x * s.facing > 0, A.ROLL_F, A.ROLL_B)
    np.copyto(new, roll, where=held & i.flick_x)
    np.copyto(new, A.SPOT_DODGE, where=held & i.flick_down)
    np.copyto(new, A.JUMP_SQUAT, where=held & i.jump)
    np.copyto(new, A.CATCH, where=held & (i.attack | i.grab))


def _from_floor(s: State, i: Inputs, ground: np.ndarray, new: np.ndarray) -> None:
    lying = ground & (s.action == A.DOWN_WAIT)
    ahead = i.x * s.facing
    np.copyto(new, A.DOWN_STAND, where=lying & (i.y > 0.5))
    np.copyto(new, A.DOWN_F, where=lying & (ahead > 0.6))
    np.copyto(new, A.DOWN_B, where=lying & (ahead < -0.6))
    np.copyto(new, A.DOWN_ATTACK, where=lying & i.attack)


def _from_air(
    s: State, i: Inputs, free: np.ndarray, new: np.ndarray, again: np.ndarray
) -> None:
    jump = free & i.jump & (s.jumps > 0)
    back = np.where(i.x * s.facing < -0.3, A.JUMP_AIR_B, A.JUMP_AIR_F)
    np.copyto(new, back, where=jump)
    np.copyto(again, True, where=jump)
    np.copyto(new, A.AIR_DODGE, where=free & i.guard)
    use_c = i.flick_c
    x = np.where(use_c, i.cx, i.x)
    y = np.where(use_c, i.cy, i.y)
    ahead = x * s.facing
    flat = np.abs(x) >= np.abs(y)
    sideways = np.where(ahead > 0, A.AIR_F, A.AIR_B)
    vertical = np.where(y > 0, A.AIR_HI, A.AIR_LW)
    aerial = np.where(flat, sideways, vertical)
    aerial = np.where(np.maximum(np.abs(x), np.abs(y)) < 0.3, A.AIR_N, aerial)
    np.copyto(new, aerial, where=free & (i.attack | i.grab | use_c))
    special = free & i.special
    np.copyto(new, np.where(i.y > 0.5, A.RECOVERY, A.SHOT_AIR), where=special)


def _from_cliff(s: State, i: Inputs, hanging: np.ndarray, new: np.ndarray) -> None:
    if not hanging.any():
        return
    ahead = i.x * s.facing
    drop = hanging & (i.flick_down | (i.flick_x & (ahead < 0)))
    np.copyto(new, A.FALL, where=drop)
    np.copyto(new, A.CLIFF_CLIMB, where=hanging & ((i.y > 0.6) | (ahead > 0.6)))
    np.copyto(new, A.CLIFF_ROLL, where=hanging & i.guard)
    np.copyto(new, A.CLIFF_ATTACK, where=hanging & i.attack)
    np.copyto(new, A.JUMP_F, where=hanging & i.jump)


def _launch(s: State, i: Inputs, start: np.ndarray) -> None:
    """Sets the speeds that actions begin with."""
    s.put(start & (s.action == A.JUMP_SQUAT), span=_SQUAT_F[s.fighter])
    released = (s.cliff_wait == HANGING) & ~moves.IS_HANGING[s.action]
    s.put(released, cliff_wait=_CLIFF_REGRAB)
    climb = start & moves.IS_CLIMB[s.action]
    if climb.any():
        reach = np.where(s.action == A.CLIFF_ROLL, np.float32(30), np.float32(9))
        span = np.maximum(s.span, 1).astype(np.float32)
        s.put(climb, vx=s.facing * reach / span, vy=-s.y / span)
    off_cliff = released & start & (s.action == A.JUMP_F)
    s.put(off_cliff, vy=_JUMP_F[s.fighter])
    double = start & ((s.action == A.JUMP_AIR_F) | (s.action == A.JUMP_AIR_B))
    if double.any():
        s.put(double, vy=_DOUBLE_F[s.fighter], vx=i.x * _AIR_F[s.fighter])
        s.jumps -= double
    dodge = start & (s.action == A.AIR_DODGE)
    if dodge.any():
        length = np.maximum(np.sqrt(i.x * i.x + i.y * i.y), np.float32(0.01))
        s.put(dodge, vx=_DODGE_SPEED * i.x / length, vy=_DODGE_SPEED * i.y / length)
    rise = start & (s.action == A.RECOVERY)
    if rise.any():
        s.put(rise, vy=_RECOVERY_RISE, vx=i.x * np.float32(1.3))
        s.put(rise, airborne=True, jumps=0)
    s.put(double | dodge | rise, fast_falling=False)
    through = start & (s.action == A.PASS)
    s.put(through, airborne=True, vy=np.float32(-0.5))
    s.jumps -= through & (s.jumps == _JUMPS_F[s.fighter])
