"""Slippi Melee through libmelee: its frames as views, controllers as button presses.

libmelee (`pip install melee`) is read by attribute and never imported here, but for the
names of its buttons when one is pressed. What it calls by other numbers than a
recording does is put back:

- `stage` is the id of the stage select screen; a recording has the in-game one.
- `character` and `action` are a recording's own ids; `facing` is its sign.
- sticks are 0..1 and become -1..1.
- both shoulders are the one value that the game makes of them, while a recording has
  the physical ones, which training read; their labels differ on some 6 frames in 100.
  So a policy's own shoulder is what it pressed last, where `held` says that.
- `action_frame` is the action's age cut to a whole number, to which libmelee adds 1 for
  those actions of the leaders that count from 0; `zero_indices` of its console says
  which. Ages with a fraction (animations at another speed) stay cut: up to 1/60 of the
  feature's unit on some frames in five.
- `hitstun_frames_left` is read without its flag, and holds other data outside of
  hitstun; so it counts only in the actions of being hit (all frames of hitstun of a
  sample of recordings are in them, and none of the others).
- `invulnerable` is the hurtbox being anything but vulnerable; the bit of intangibility
  that a recording has besides, and training read, is not shown.
- a projectile's `owner` is a port; a recording counts from 0 and has -1 for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jaxbench.data.game import Character, Items
from jaxbench.errors import InputError
from jaxbench.serving.bad_frame import BadFrame
from jaxbench.serving.policy import Controller
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.view import View

INSTALL = "libmelee is not installed; pip install melee (Python 3.11 or 3.12)"
# Ids of the stage select screen -> in-game ids.
STAGES = {18: 3, 6: 8, 8: 2, 24: 31, 25: 32, 26: 28}
# States that hitstun can last in: hit on the ground or in the air, lying, and thrown
# against a wall or a ceiling.
_HIT = frozenset([*range(75, 92), 185, 193, 247, 248])
_HITSTUN_FLAG = 0x02
_BUTTONS = {
    mask: f"BUTTON_{name}"
    for mask, name in zip(controller.MASKS.tolist(), controller.BUTTONS, strict=True)
}
_FLOATS: Mapping[str, Callable[[Any], Any]] = {
    "position_x": lambda player: player.position.x,
    "position_y": lambda player: player.position.y,
    "percent": lambda player: player.percent,
    "shield": lambda player: player.shield_strength,
    "self_x_air": lambda player: player.speed_air_x_self,
    "self_y": lambda player: player.speed_y_self,
    "knockback_x": lambda player: player.speed_x_attack,
    "knockback_y": lambda player: player.speed_y_attack,
    "self_x_ground": lambda player: player.speed_ground_x_self,
    "hitlag": lambda player: player.hitlag_left,
}

ZeroIndices = Mapping[int, Collection[int]]


def view_of_gamestate(
    gamestate: Any,
    port: int,
    *,
    held: Controller | None = None,
    zero_indices: ZeroIndices | None = None,
) -> View:
    """One frame of a `melee.GameState` as the player in `port` sees it.

    Args:
      gamestate: of a two-player game, in game.
      port: 1 to 4.
      held: what was pressed for this frame in that port, None where that is not known.
      zero_indices: `melee.Console.zero_indices`, character id -> actions whose first
        frame libmelee numbers 1 and a recording 0. None leaves their age one frame
        (1/60 of the feature's unit) too old.

    Raises:
      BadFrame: the port is empty, there are not two players, or an attribute is not
        there or holds no number.
    """
    try:
        players = gamestate.players
        if port not in players or len(players) != 2:
            raise BadFrame(
                f"port {port} is not in a game of two, players are in ports "
                f"{sorted(players)}; give the port the policy holds"
            )
        other = next(p for p in players if p != port)
        own, opponent = (_fighter(players[p], zero_indices) for p in (port, other))
        nanas = [getattr(players[p], "nana", None) for p in (port, other)]
        if held is not None:
            own.pre["trigger_l"] = np.array([held.shoulder], np.float32)
            own.pre["trigger_r"] = np.zeros(1, np.float32)
        own_nana, opponent_nana = (
            None if nana is None else _fighter(nana, None) for nana in nanas
        )
        stage = _id(gamestate.stage)
        return View(
            frame_b=np.array([gamestate.frame], np.int32),
            # An id that is none of these stays one that `bad_frame` refuses.
            stage_b=np.array([STAGES.get(stage, -1)], np.int32),
            own=own,
            opponent=opponent,
            own_nana=own_nana,
            opponent_nana=opponent_nana,
            items=_items(gamestate.projectiles),
            own_port=np.array([port]),
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BadFrame):
            raise
        text = " ".join(str(error).split())[:120]
        raise BadFrame(
            f"the game state cannot be read ({text}); pass a melee.GameState of a game "
            "that is being played"
        ) from error


def press(held: Controller, pad: Any) -> None:
    """Holds a controller on a `melee.Controller`; other buttons are let go.

    Sticks go to its 0..1, and the shoulder to the left trigger. What is pressed is sent
    when the pad is flushed, as `melee.Console.step` does.

    Raises:
      InputError: libmelee is not installed.
    """
    try:
        import melee
    except ImportError as error:
        raise InputError(INSTALL) from error
    buttons = melee.Button
    for name in controller.BUTTONS:
        button = getattr(buttons, f"BUTTON_{name}")
        if name in held.buttons:
            pad.press_button(button)
        else:
            pad.release_button(button)
    pad.tilt_analog(buttons.BUTTON_MAIN, (held.main_x + 1) / 2, (held.main_y + 1) / 2)
    pad.tilt_analog(buttons.BUTTON_C, (held.c_x + 1) / 2, (held.c_y + 1) / 2)
    pad.press_shoulder(buttons.BUTTON_L, held.shoulder)
    pad.press_shoulder(buttons.BUTTON_R, 0.0)


def _id(member: Any) -> int:
    """The number of an enum's member, of libmelee's unknown ones, or of a number."""
    return int(getattr(member, "value", member))


def _fighter(player: Any, zero_indices: ZeroIndices | None) -> Character:
    who, action = _id(player.character), _id(player.action)
    late = zero_indices is not None and action in zero_indices.get(who, ())
    hitstun = float(player.hitstun_frames_left) if action in _HIT else 0.0
    floats = {name: float(read(player)) for name, read in _FLOATS.items()}
    floats |= {
        "direction": 1.0 if player.facing else -1.0,
        "state_age": float(player.action_frame) - late,
        "misc_as": hitstun,
    }
    integers = {
        "character": (who, np.uint8),
        "state": (action, np.uint16),
        "stocks": (int(player.stock), np.uint8),
        "jumps": (int(player.jumps_left), np.uint8),
        "airborne": (int(not player.on_ground), np.uint8),
        "hurtbox_state": (int(bool(player.invulnerable)), np.uint8),
        "flags_3": (_HITSTUN_FLAG if hitstun > 0 else 0, np.uint8),
    }
    post = {name: np.array([value], np.float32) for name, value in floats.items()}
    post |= {name: np.array([value], kind) for name, (value, kind) in integers.items()}
    return Character(np.ones(1, bool), _inputs(player.controller_state), post)


def _inputs(state: Any) -> dict[str, np.ndarray]:
    """The controller that acted on the frame, in a recording's units."""
    pressed = {_name(button): down for button, down in state.button.items()}
    mask = sum(bit for bit, name in _BUTTONS.items() if pressed.get(name))
    (main_x, main_y), (c_x, c_y) = state.main_stick, state.c_stick
    values = {
        "joystick_x": 2 * main_x - 1,
        "joystick_y": 2 * main_y - 1,
        "cstick_x": 2 * c_x - 1,
        "cstick_y": 2 * c_y - 1,
        "trigger_l": state.l_shoulder,
        "trigger_r": state.r_shoulder,
    }
    pre = {name: np.array([value], np.float32) for name, value in values.items()}
    return pre | {"buttons": np.array([mask], np.uint16)}


def _name(button: Any) -> str:
    return str(getattr(button, "name", button))


def _items(projectiles: Any) -> Items:
    there = list(projectiles)
    columns = {
        "position_x": [item.position.x for item in there],
        "position_y": [item.position.y for item in there],
        "velocity_x": [item.speed.x for item in there],
        "velocity_y": [item.speed.y for item in there],
    }
    fields = {name: np.array(found, np.float32) for name, found in columns.items()}
    fields["type"] = np.array([_id(item.type) for item in there], np.uint16)
    owners = [int(item.owner) - 1 if item.owner >= 1 else -1 for item in there]
    fields["owner"] = np.array(owners, np.int8)
    return Items(np.zeros(len(there), np.int32), fields)
