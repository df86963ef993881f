"""What a recorder sees of a simulated fight: Slippi's fields of each frame."""

from __future__ import annotations

import numpy as np

from jaxbench.data.characters import EXTERNAL_ID, EXTERNAL_TO_INTERNAL
from jaxbench.data.simulation import arena, fight, hits, moves
from jaxbench.data.simulation.fight import NOBODY, Controls, State
from jaxbench.data.simulation.moves import A

_NOBODY_HIT, _NO_GROUND, _NO_ANIMATION = 6, 65535, np.uint32(0xFFFFFFFF)

EXTERNAL_F = np.array([EXTERNAL_ID[f.name] for f in arena.FIGHTERS], np.uint8)
INTERNAL_F = np.array(
    [EXTERNAL_TO_INTERNAL[int(external)] for external in EXTERNAL_F], np.uint8
)
ITEM_F = arena.attribute("item", np.uint16)

# Frames of the animations that start over; their recorded age starts over too, so
# it does not tell how long somebody has been standing, falling or shielding.
_LOOP = np.full(moves.ACTIONS, np.iinfo(np.int32).max, np.int32)
for _action, _frames in {
    A.WAIT: 60,
    A.WALK_SLOW: 30,
    A.WALK_MIDDLE: 24,
    A.WALK_FAST: 20,
    A.RUN: 16,
    A.FALL: 8,
    A.FALL_SPECIAL: 8,
    A.DAMAGE_FALL: 10,
    A.SQUAT_WAIT: 40,
    A.GUARD: 1,
    A.DOWN_WAIT: 20,
    A.CLIFF_WAIT: 30,
    A.REBIRTH_WAIT: 30,
}.items():
    _LOOP[_action] = _frames

# Melee's ids of attacks, by action.
_ATTACK_ID = np.zeros(moves.ACTIONS, np.uint8)
for _action, _id in {
    A.JAB_1: 2,
    A.JAB_2: 3,
    A.JAB_3: 4,
    A.DASH_ATTACK: 6,
    A.TILT_S: 7,
    A.TILT_HI: 8,
    A.TILT_LW: 9,
    A.SMASH_S: 10,
    A.SMASH_HI: 11,
    A.SMASH_LW: 12,
    A.AIR_N: 13,
    A.AIR_F: 14,
    A.AIR_B: 15,
    A.AIR_HI: 16,
    A.AIR_LW: 17,
    A.SHOT: 18,
    A.RECOVERY: 20,
    A.DOWN_ATTACK: 50,
    A.THROW_F: 53,
    A.THROW_B: 54,
    A.THROW_HI: 55,
    A.THROW_LW: 56,
    A.CLIFF_ATTACK: 61,
}.items():
    _ATTACK_ID[_action] = _id


def processed_buttons(controls: Controls) -> np.ndarray:
    """Returns uint32: the buttons, plus which way the sticks are off centre."""
    bits = controls.buttons.astype(np.uint32)
    for first, x, y in (
        (16, controls.stick_x, controls.stick_y),
        (20, controls.cstick_x, controls.cstick_y),
    ):
        for offset, off_centre in enumerate((y > 0, y < 0, x < 0, x > 0)):
            bits |= off_centre.astype(np.uint32) << np.uint32(first + offset)
    held = processed_trigger(controls) > 0
    return bits | held.astype(np.uint32) << np.uint32(31)


def processed_trigger(controls: Controls) -> np.ndarray:
    """Returns float32: the trigger as the game uses it."""
    trigger = np.maximum(controls.trigger_l, controls.trigger_r)
    limit = fight.TRIGGER_DEADZONE / fight.TRIGGER_STEPS
    trigger = np.where(trigger < np.float32(limit), np.float32(0), trigger)
    clicked = (controls.buttons & (fight.L | fight.R)) != 0
    return np.where(clicked, np.float32(1), trigger)


def pre_fields(before: State, controls: Controls) -> dict[str, np.ndarray]:
    """Returns Slippi's pre-frame fields, each of the shape of `before.x`.

    Args:
      before: the state at the end of the frame before.
      controls: what is held on the frame, as the state after it carries them.
    """
    return {
        "state": before.action.astype(np.uint16),
        "position_x": before.x,
        "position_y": before.y,
        "direction": before.facing,
        "joystick_x": controls.stick_x,
        "joystick_y": controls.stick_y,
        "cstick_x": controls.cstick_x,
        "cstick_y": controls.cstick_y,
        "trigger": processed_trigger(controls),
        "buttons_processed": processed_buttons(controls),
        "buttons": controls.buttons.astype(np.uint16),
        "trigger_l": controls.trigger_l,
        "trigger_r": controls.trigger_r,
        "raw_analog_x": np.rint(controls.stick_x * fight.STICK_STEPS).astype(np.int8),
        "percent": before.percent,
    }


def post_fields(s: State, ports: tuple[int, int] = (1, 2)) -> dict[str, np.ndarray]:
    """Returns Slippi's post-frame fields, each of the shape of `s.x`.

    Args:
      s: the state at the end of the frame.
      ports: of players 0 and 1, 1 to 4.
    """
    intangible = hits.intangible(s)
    invulnerable = s.invulnerable > 0
    frozen = s.hitlag > 0
    defending = frozen & moves.IS_DAMAGE[s.action]
    flags_1 = 0x04 * intangible + 0x08 * s.fast_falling + 0x10 * defending
    flags_1 = flags_1 + 0x20 * frozen
    hit_by = np.array([port - 1 for port in ports] + [_NOBODY_HIT], np.uint8)
    absent = moves.IS_AWAY[s.action]
    return {
        "character": INTERNAL_F[s.fighter],
        "state": s.action.astype(np.uint16),
        "position_x": s.x,
        "position_y": s.y,
        "direction": s.facing,
        "percent": s.percent,
        "shield": s.shield,
        "last_attack_landed": _ATTACK_ID[s.last_attack],
        "combo_count": np.minimum(s.combo, 255).astype(np.uint8),
        "last_hit_by": hit_by[np.where(s.last_hit_by == NOBODY, 2, s.last_hit_by)],
        "stocks": s.stocks.astype(np.uint8),
        "state_age": (s.age % _LOOP[s.action]).astype(np.float32),
        "flags_0": np.zeros(s.x.shape, np.uint8),
        "flags_1": flags_1.astype(np.uint8),
        "flags_2": (0x80 * moves.IS_SHIELDED[s.action]).astype(np.uint8),
        "flags_3": (0x02 * (s.hitstun > 0)).astype(np.uint8),
        "flags_4": (0x40 * moves.IS_DEAD[s.action]).astype(np.uint8),
        "misc_as": s.hitstun.astype(np.float32),
        "airborne": s.airborne.astype(np.uint8),
        "ground": np.where(s.ground < 0, _NO_GROUND, s.ground).astype(np.uint16),
        "jumps": s.jumps.astype(np.uint8),
        "l_cancel": s.l_cancel.astype(np.uint8),
        "hurtbox_state": np.where(intangible, 2, invulnerable).astype(np.uint8),
        "self_x_air": s.vx,
        "self_y": s.vy,
        "knockback_x": s.kx,
        "knockback_y": s.ky,
        "self_x_ground": np.where(s.airborne, np.float32(0), s.vx),
        "hitlag": s.hitlag.astype(np.float32),
        # The simulation has no animations apart from its actions.
        "animation_index": np.where(absent, _NO_ANIMATION, s.action.astype(np.uint32)),
    }


def item_fields(s: State, ports: tuple[int, int]) -> tuple[dict, np.ndarray]:
    """Returns Slippi's item fields of both projectiles, and which of them exist."""
    player = np.broadcast_to(np.arange(2, dtype=np.uint32), s.x.shape)
    zeros = np.zeros(s.x.shape, np.uint16)
    owner = np.array([port - 1 for port in ports], np.int8)
    fields = {
        "type": ITEM_F[s.fighter],
        "state": zeros.astype(np.uint8),
        "direction": np.sign(s.shot_vx),
        "velocity_x": s.shot_vx,
        "velocity_y": zeros.astype(np.float32),
        "position_x": s.shot_x,
        "position_y": s.shot_y,
        "damage": zeros,
        "timer": s.shot_left.astype(np.float32),
        "id": s.shot_id.astype(np.uint32) * 2 + player,
        "owner": owner[player],
    }
    return fields, s.shot_left > 0
