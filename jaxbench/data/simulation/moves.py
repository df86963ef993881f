"""Action states and attacks of the simulated fighters, as tables by action id.

Ids are Melee's where a state corresponds. Character-specific states start at 341 in
Melee too, but there their meaning differs by character; here 341 and 342 throw a
projectile from the ground and from the air, and 343 is the recovery move. Attacks
are of Melee's kinds but hit harder, so that most games last one to two minutes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

ACTIONS = 400


class Action:
    """Action ids by name."""

    DEAD_DOWN, DEAD_LEFT, DEAD_RIGHT, DEAD_UP = 0, 1, 2, 4
    REBIRTH, REBIRTH_WAIT = 12, 13
    WAIT, WALK_SLOW, WALK_MIDDLE, WALK_FAST, TURN, TURN_RUN = 14, 15, 16, 17, 18, 19
    DASH, RUN, RUN_BRAKE, JUMP_SQUAT = 20, 21, 23, 24
    JUMP_F, JUMP_B, JUMP_AIR_F, JUMP_AIR_B, FALL = 25, 26, 27, 28, 29
    FALL_SPECIAL, DAMAGE_FALL = 35, 38
    SQUAT, SQUAT_WAIT, LANDING, LANDING_SPECIAL = 39, 40, 42, 43
    JAB_1, JAB_2, JAB_3, DASH_ATTACK = 44, 45, 46, 50
    TILT_S, TILT_HI, TILT_LW = 53, 56, 57
    SMASH_S, SMASH_HI, SMASH_LW = 60, 63, 64
    AIR_N, AIR_F, AIR_B, AIR_HI, AIR_LW = 65, 66, 67, 68, 69
    LANDING_AIR_N, LANDING_AIR_LW = 70, 74
    DAMAGE_N, DAMAGE_AIR = 78, 84
    FLY_N, FLY_LW, FLY_TOP, FLY_ROLL = 88, 89, 90, 91
    GUARD_ON, GUARD, GUARD_OFF, GUARD_HIT, GUARD_REFLECT = 178, 179, 180, 181, 182
    DOWN_BOUND, DOWN_WAIT, DOWN_STAND, DOWN_ATTACK = 183, 184, 186, 187
    DOWN_F, DOWN_B, TECH, TECH_F, TECH_B = 188, 189, 199, 200, 201
    DIZZY, CATCH, THROW_F, THROW_B, THROW_HI, THROW_LW = 211, 212, 219, 220, 221, 222
    ROLL_F, ROLL_B, SPOT_DODGE, AIR_DODGE, PASS = 233, 234, 235, 236, 244
    CLIFF_CATCH, CLIFF_WAIT, CLIFF_CLIMB = 252, 253, 255
    CLIFF_ATTACK, CLIFF_ROLL, TAUNT = 257, 259, 264
    ENTRY, ENTRY_START, ENTRY_END = 322, 323, 324
    SHOT, SHOT_AIR, RECOVERY = 341, 342, 343


A = Action  # short, because tables and rules are full of it


class Move(NamedTuple):
    """One attack: when and where it hits, and how hard.

    Attributes:
      action: its action id.
      span: frames it lasts.
      start, end: first and last frame of the hitbox.
      x, y, radius: centre of the hitbox ahead of and above the feet, half width.
      damage: percent added.
      angle: launch direction in degrees, 0 ahead, 90 up.
      base, growth: knockback constants.
      landing: frames of landing lag, for attacks in the air.
    """

    action: int
    span: int
    start: int
    end: int
    x: float
    y: float
    radius: float
    damage: float
    angle: float
    base: float
    growth: float
    landing: int = 0


MOVES = (
    Move(A.JAB_1, 17, 3, 5, 9, 8, 8, 7, 75, 15, 44),
    Move(A.JAB_2, 17, 3, 5, 10, 8, 8, 7, 75, 20, 44),
    Move(A.JAB_3, 24, 4, 7, 11, 8, 9, 12, 50, 45, 94),
    Move(A.DASH_ATTACK, 36, 6, 15, 9, 6, 9, 20, 65, 50, 88),
    Move(A.TILT_S, 28, 7, 10, 13, 7, 8, 21, 40, 20, 121),
    Move(A.TILT_HI, 27, 6, 12, 2, 16, 11, 20, 86, 45, 108),
    Move(A.TILT_LW, 24, 6, 9, 11, 2, 8, 18, 78, 40, 82),
    Move(A.SMASH_S, 40, 12, 16, 15, 8, 10, 34, 42, 35, 130),
    Move(A.SMASH_HI, 38, 9, 15, 1, 18, 12, 33, 85, 40, 130),
    Move(A.SMASH_LW, 40, 8, 14, 0, 4, 16, 31, 32, 40, 116),
    Move(A.AIR_N, 36, 4, 18, 2, 6, 10, 23, 45, 25, 112, 14),
    Move(A.AIR_F, 38, 6, 11, 11, 8, 9, 26, 45, 28, 117, 18),
    Move(A.AIR_B, 36, 5, 10, -11, 8, 9, 26, 140, 28, 119, 16),
    Move(A.AIR_HI, 34, 4, 11, 2, 17, 11, 23, 84, 32, 117, 14),
    Move(A.AIR_LW, 42, 10, 20, 1, -4, 9, 24, 285, 20, 105, 20),
    Move(A.DOWN_ATTACK, 48, 18, 22, 0, 4, 14, 12, 60, 60, 44),
    Move(A.CLIFF_ATTACK, 52, 26, 31, 14, 6, 10, 15, 60, 60, 44),
    Move(A.CATCH, 30, 7, 9, 10, 7, 8, 0, 45, 0, 0),
    Move(A.THROW_F, 30, -1, -1, 0, 0, 0, 15, 45, 60, 68),
    Move(A.THROW_B, 32, -1, -1, 0, 0, 0, 18, 135, 60, 75),
    Move(A.THROW_HI, 32, -1, -1, 0, 0, 0, 14, 88, 70, 70),
    Move(A.THROW_LW, 34, -1, -1, 0, 0, 0, 14, 70, 65, 46),
    # The hit of the projectile, whoever threw it and whatever they do by then.
    Move(A.SHOT, 32, -1, -1, 0, 0, 5, 10, 40, 10, 38),
    Move(A.RECOVERY, 32, 3, 14, 3, 10, 10, 16, 65, 50, 68),
)
THROWS = (A.THROW_F, A.THROW_B, A.THROW_HI, A.THROW_LW)

# action: (span, what follows on the ground, what follows in the air)
_SPANS = {
    A.DEAD_DOWN: (60, A.REBIRTH, A.REBIRTH),
    A.DEAD_LEFT: (60, A.REBIRTH, A.REBIRTH),
    A.DEAD_RIGHT: (60, A.REBIRTH, A.REBIRTH),
    A.DEAD_UP: (60, A.REBIRTH, A.REBIRTH),
    A.REBIRTH: (40, A.REBIRTH_WAIT, A.REBIRTH_WAIT),
    A.REBIRTH_WAIT: (180, A.FALL, A.FALL),
    A.TURN_RUN: (16, A.WAIT, A.FALL),
    A.DASH: (15, A.RUN, A.FALL),
    A.RUN_BRAKE: (12, A.WAIT, A.FALL),
    A.JUMP_F: (38, A.FALL, A.FALL),
    A.JUMP_B: (38, A.FALL, A.FALL),
    A.JUMP_AIR_F: (38, A.FALL, A.FALL),
    A.JUMP_AIR_B: (38, A.FALL, A.FALL),
    A.SQUAT: (7, A.SQUAT_WAIT, A.FALL),
    A.LANDING: (4, A.WAIT, A.FALL),
    A.LANDING_SPECIAL: (10, A.WAIT, A.FALL),
    **{action: (16, A.WAIT, A.FALL) for action in range(70, 75)},
    A.GUARD_ON: (8, A.GUARD, A.FALL),
    A.GUARD_REFLECT: (4, A.GUARD, A.FALL),
    A.GUARD_OFF: (14, A.WAIT, A.FALL),
    A.GUARD_HIT: (6, A.GUARD, A.FALL),
    A.DOWN_BOUND: (24, A.DOWN_WAIT, A.DAMAGE_FALL),
    A.DOWN_WAIT: (60, A.DOWN_STAND, A.DAMAGE_FALL),
    A.DOWN_STAND: (28, A.WAIT, A.FALL),
    A.DOWN_F: (34, A.WAIT, A.FALL),
    A.DOWN_B: (34, A.WAIT, A.FALL),
    A.TECH: (26, A.WAIT, A.FALL),
    A.TECH_F: (38, A.WAIT, A.FALL),
    A.TECH_B: (38, A.WAIT, A.FALL),
    A.DIZZY: (120, A.WAIT, A.FALL),
    A.ROLL_F: (31, A.WAIT, A.FALL),
    A.ROLL_B: (31, A.WAIT, A.FALL),
    A.SPOT_DODGE: (26, A.WAIT, A.FALL),
    A.AIR_DODGE: (44, A.WAIT, A.FALL_SPECIAL),
    A.PASS: (8, A.WAIT, A.FALL),
    A.CLIFF_CATCH: (7, A.CLIFF_WAIT, A.CLIFF_WAIT),
    A.CLIFF_WAIT: (300, A.FALL, A.FALL),
    A.CLIFF_CLIMB: (32, A.WAIT, A.WAIT),
    A.CLIFF_ROLL: (48, A.WAIT, A.WAIT),
    A.TAUNT: (60, A.WAIT, A.FALL),
    A.ENTRY: (5, A.ENTRY_START, A.ENTRY_START),
    A.ENTRY_START: (29, A.ENTRY_END, A.ENTRY_END),
    A.ENTRY_END: (30, A.FALL, A.FALL),
    A.SHOT_AIR: (32, A.WAIT, A.FALL),
}

# Frames on which nothing can hit, as (first, last).
_INTANGIBLE = {
    A.ROLL_F: (4, 19),
    A.ROLL_B: (4, 19),
    A.SPOT_DODGE: (2, 15),
    A.AIR_DODGE: (4, 26),
    A.TECH: (0, 20),
    A.TECH_F: (0, 20),
    A.TECH_B: (0, 20),
    A.DOWN_F: (0, 14),
    A.DOWN_B: (0, 14),
    A.DOWN_STAND: (0, 12),
    A.CLIFF_CATCH: (0, 400),
    A.CLIFF_CLIMB: (0, 24),
    A.CLIFF_ROLL: (0, 34),
    A.CLIFF_ATTACK: (0, 16),
}

# Ground speed ahead while the action's own animation moves the fighter.
_CARRIED = {
    A.ROLL_F: 1.3,
    A.ROLL_B: -1.3,
    A.DOWN_F: 1.1,
    A.DOWN_B: -1.1,
    A.TECH_F: 1.2,
    A.TECH_B: -1.2,
}
CARRIED_FRAMES = 22


def _flags(*actions: int) -> np.ndarray:
    flag = np.zeros(ACTIONS, bool)
    flag[list(actions)] = True
    return flag


def _column(name: str, dtype: type) -> np.ndarray:
    values: np.ndarray = np.zeros(ACTIONS, dtype)
    for move in MOVES:
        values[move.action] = getattr(move, name)
    return values


ALL_DEAD = (A.DEAD_DOWN, A.DEAD_LEFT, A.DEAD_RIGHT, A.DEAD_UP)
AERIALS = (A.AIR_N, A.AIR_F, A.AIR_B, A.AIR_HI, A.AIR_LW)
_WALKS = (A.WALK_SLOW, A.WALK_MIDDLE, A.WALK_FAST)

IS_DEAD = _flags(*ALL_DEAD)
IS_AWAY = _flags(
    *ALL_DEAD, A.REBIRTH, A.REBIRTH_WAIT, A.ENTRY, A.ENTRY_START, A.ENTRY_END
)
IS_HANGING = _flags(A.CLIFF_CATCH, A.CLIFF_WAIT)
IS_FIXED = IS_AWAY | IS_HANGING
IS_CLIMB = _flags(A.CLIFF_CLIMB, A.CLIFF_ROLL, A.CLIFF_ATTACK)
IS_GUARD = _flags(A.GUARD_ON, A.GUARD, A.GUARD_REFLECT)
IS_SHIELDED = IS_GUARD | _flags(A.GUARD_HIT)
IS_WALK = _flags(*_WALKS)
IS_DAMAGE = _flags(*range(75, 92))
IS_TUMBLE = _flags(*range(87, 92), A.DAMAGE_FALL)
IS_AERIAL = _flags(*AERIALS)
IS_THROW = _flags(*THROWS)
IS_ATTACK = _column("end", np.int32) > 0
IS_DOWN = _flags(A.DOWN_BOUND, A.DOWN_WAIT)
IS_FREE_GROUND = _flags(
    A.WAIT, *_WALKS, A.TURN, A.DASH, A.RUN, A.RUN_BRAKE, A.SQUAT, A.SQUAT_WAIT
)
IS_FREE_AIR = _flags(
    A.JUMP_F, A.JUMP_B, A.JUMP_AIR_F, A.JUMP_AIR_B, A.FALL, A.DAMAGE_FALL, A.PASS
)
IS_DRIFT = IS_FREE_AIR | IS_AERIAL | _flags(A.FALL_SPECIAL, A.SHOT_AIR, A.RECOVERY)
CAN_CATCH_CLIFF = IS_FREE_AIR | _flags(A.FALL_SPECIAL, A.RECOVERY)
# Everything else stops at an edge instead of leaving it.
CAN_SLIDE_OFF = IS_DAMAGE | _flags(A.DASH, A.RUN, A.LANDING_SPECIAL, A.GUARD_HIT)

SPAN = _column("span", np.int32)
NEXT_GROUND = np.full(ACTIONS, A.WAIT, np.int32)
NEXT_AIR = np.full(ACTIONS, A.FALL, np.int32)
for _action, (_span, _ground, _air) in _SPANS.items():
    SPAN[_action], NEXT_GROUND[_action], NEXT_AIR[_action] = _span, _ground, _air
NEXT_AIR[A.RECOVERY] = A.FALL_SPECIAL
NEXT_AIR[A.CLIFF_ATTACK] = A.WAIT

INTANGIBLE_FIRST = np.full(ACTIONS, 1, np.int32)
INTANGIBLE_LAST = np.zeros(ACTIONS, np.int32)
for _action, (_first, _last) in _INTANGIBLE.items():
    INTANGIBLE_FIRST[_action], INTANGIBLE_LAST[_action] = _first, _last

CARRIED = np.zeros(ACTIONS, np.float32)
for _action, _speed in _CARRIED.items():
    CARRIED[_action] = _speed

HIT_START = np.full(ACTIONS, 1, np.int32)
HIT_END = np.zeros(ACTIONS, np.int32)
for _move in MOVES:
    if _move.end > 0:
        HIT_START[_move.action], HIT_END[_move.action] = _move.start, _move.end
HIT_X, HIT_Y, HIT_RADIUS = (_column(name, np.float32) for name in ("x", "y", "radius"))
DAMAGE, BASE, GROWTH = (
    _column(name, np.float32) for name in ("damage", "base", "growth")
)
ANGLE_COS, ANGLE_SIN = np.zeros((2, ACTIONS), np.float32)
for _move in MOVES:
    ANGLE_COS[_move.action] = math.cos(math.radians(_move.angle))
    ANGLE_SIN[_move.action] = math.sin(math.radians(_move.angle))
LANDING_LAG = _column("landing", np.int32)
