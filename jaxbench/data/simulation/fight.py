"""A batch of two-fighter fights as arrays: what is in play and what is pressed."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxbench.data.simulation import moves

# Button bits, as Slippi records them.
D_UP, Z, R, L = 0x0008, 0x0010, 0x0020, 0x0040
A_BUTTON, B_BUTTON, X_BUTTON, Y_BUTTON = 0x0100, 0x0200, 0x0400, 0x0800
BUTTONS = D_UP | Z | R | L | A_BUTTON | B_BUTTON | X_BUTTON | Y_BUTTON

STICK_STEPS, STICK_DEADZONE = 80, 23
TRIGGER_STEPS, TRIGGER_DEADZONE = 140, 43
SHIELD_MAX = 60.0
NOBODY = -1
HANGING = -1


class Controls(NamedTuple):
    """What both players hold on one frame; every field is [B, 2].

    Attributes:
      stick_x, stick_y, cstick_x, cstick_y: float32 in [-1, 1].
      trigger_l, trigger_r: float32 in [0, 1].
      buttons: int32, the bits of this module.
    """

    stick_x: np.ndarray
    stick_y: np.ndarray
    cstick_x: np.ndarray
    cstick_y: np.ndarray
    trigger_l: np.ndarray
    trigger_r: np.ndarray
    buttons: np.ndarray


def neutral_controls(batch_size: int) -> Controls:
    """Returns controls with nothing held."""
    dtypes = [np.float32] * 6 + [np.int32]
    return Controls(*(np.zeros((batch_size, 2), dtype) for dtype in dtypes))


def quantize(controls: Controls) -> Controls:
    """Returns the values a controller can produce that are nearest to `controls`.

    Sticks are multiples of 1/80 inside the unit circle, 0 inside the dead zone of
    each axis; triggers are multiples of 1/140; only the eight buttons remain. What
    is quantized already does not change.

    Raises:
      ValueError: a stick or trigger is not finite.
    """
    analog = np.stack([np.asarray(field, np.float32) for field in controls[:6]])
    if not np.isfinite(analog).all():
        raise ValueError("controls: a stick or trigger is not finite")
    steps = np.clip(np.rint(analog[:4] * STICK_STEPS), -STICK_STEPS, STICK_STEPS)
    square = np.square(steps)
    square = square[0::2] + square[1::2]
    if (square > STICK_STEPS**2).any():
        # Toward zero, so that a second pass finds nothing left to shorten.
        size = np.repeat(np.sqrt(np.maximum(square, STICK_STEPS**2)), 2, axis=0)
        short = np.trunc(steps * STICK_STEPS / size)
        steps = np.where(size > STICK_STEPS, short, steps)
    sticks = np.where(np.abs(steps) < STICK_DEADZONE, 0, steps) / STICK_STEPS
    sticks = sticks.astype(np.float32)
    triggers = np.rint(np.clip(analog[4:], 0, 1) * TRIGGER_STEPS) / TRIGGER_STEPS
    buttons = np.asarray(controls.buttons).astype(np.int32) & BUTTONS
    return Controls(*(*sticks, *triggers.astype(np.float32), buttons))


@dataclasses.dataclass(slots=True)
class State:
    """Everything that decides how B fights go on. Functions return new states.

    Attributes, [B]:
      seed: uint64, names the game: no two games of other seeds share their noise.
      frame: int32, id of the frame this state is after: -124 before the first.
      limit: int32, frame at which the clock ends the game.
      stage: int32, row of `arena.STAGES`.
      over: bool, the game has ended; its state no longer changes.
    Attributes, [B, 2], one column per player:
      fighter: int32, row of `arena.FIGHTERS`.
      action, age, span: int32, action id, frames since it began, frames it lasts
        (0: without end).
      connected: bool, this attack has hit already.
      x, y: float32 position of the feet. vx, vy: own speed. kx, ky: knockback.
      facing: float32, -1 or 1.
      percent, shield: float32; stocks, jumps (left), ground (floor last stood on,
        -1 none): int32; airborne, fast_falling: bool.
      hitlag, hitstun, invulnerable: int32, frames left of each.
      cliff_wait: int32, frames until an edge can be grabbed again, HANGING while
        one is held.
      guard_age, tilt_x_age, tilt_y_age: int32, frames since L or R was pressed and
        since the stick was pushed hard along x and y.
      l_cancel: int32, 1 or 2 on the frame an aerial landed with or without one.
      combo, last_attack, last_hit_by: int32 as Slippi has them; NOBODY for nobody.
      damage: float32, percent dealt to the other player over the whole game.
      shot_x, shot_y, shot_vx: float32; shot_left, shot_id: int32: the projectile,
        frames it has left (0: none), how many were thrown.
      controls: what was held on this frame.
    """

    seed: np.ndarray
    frame: np.ndarray
    limit: np.ndarray
    stage: np.ndarray
    over: np.ndarray
    fighter: np.ndarray
    action: np.ndarray
    age: np.ndarray
    span: np.ndarray
    connected: np.ndarray
    x: np.ndarray
    y: np.ndarray
    vx: np.ndarray
    vy: np.ndarray
    kx: np.ndarray
    ky: np.ndarray
    facing: np.ndarray
    percent: np.ndarray
    shield: np.ndarray
    stocks: np.ndarray
    jumps: np.ndarray
    ground: np.ndarray
    airborne: np.ndarray
    fast_falling: np.ndarray
    hitlag: np.ndarray
    hitstun: np.ndarray
    invulnerable: np.ndarray
    cliff_wait: np.ndarray
    guard_age: np.ndarray
    tilt_x_age: np.ndarray
    tilt_y_age: np.ndarray
    l_cancel: np.ndarray
    combo: np.ndarray
    last_attack: np.ndarray
    last_hit_by: np.ndarray
    damage: np.ndarray
    shot_x: np.ndarray
    shot_y: np.ndarray
    shot_vx: np.ndarray
    shot_left: np.ndarray
    shot_id: np.ndarray
    controls: Controls

    def copy(self) -> State:
        """Returns a state whose arrays can be written."""
        arrays = {name: getattr(self, name).copy() for name in ARRAYS}
        held = Controls(*(field.copy() for field in self.controls))
        return State(**arrays, controls=held)

    def put(self, mask: np.ndarray, **values: Any) -> None:
        """Writes values into the fields of these names where `mask`, in place."""
        for name, value in values.items():
            np.copyto(getattr(self, name), value, where=mask)

    def begin(self, mask: np.ndarray, action: np.ndarray | int) -> None:
        """Starts `action` where `mask`, in place."""
        self.put(mask, action=action)
        self.put(mask, age=0, span=moves.SPAN[self.action], connected=False)


ARRAYS = tuple(f.name for f in dataclasses.fields(State) if f.name != "controls")


class Inputs(NamedTuple):
    """Controls read as a game reads them; every field is [B, 2].

    `attack`, `special`, `grab`, `jump`, `guard`, `taunt` and the flicks are true on
    the first frame only; the `held` ones as long as they last.
    """

    x: np.ndarray
    y: np.ndarray
    cx: np.ndarray
    cy: np.ndarray
    attack: np.ndarray
    special: np.ndarray
    grab: np.ndarray
    jump: np.ndarray
    guard: np.ndarray
    taunt: np.ndarray
    jump_held: np.ndarray
    guard_held: np.ndarray
    flick_x: np.ndarray
    flick_down: np.ndarray
    flick_up: np.ndarray
    flick_c: np.ndarray


def read_inputs(now: Controls, before: Controls) -> Inputs:
    """Compares this frame's controls with the last frame's."""
    pressed = now.buttons & ~before.buttons
    trigger = np.maximum(now.trigger_l, now.trigger_r)
    digital = (now.buttons & (L | R)) != 0

    def far(stick: Controls) -> np.ndarray:
        return np.maximum(np.abs(stick.cstick_x), np.abs(stick.cstick_y)) >= 0.6

    return Inputs(
        x=now.stick_x,
        y=now.stick_y,
        cx=now.cstick_x,
        cy=now.cstick_y,
        attack=(pressed & A_BUTTON) != 0,
        special=(pressed & B_BUTTON) != 0,
        grab=(pressed & Z) != 0,
        jump=(pressed & (X_BUTTON | Y_BUTTON)) != 0,
        guard=(pressed & (L | R)) != 0,
        taunt=(pressed & D_UP) != 0,
        jump_held=(now.buttons & (X_BUTTON | Y_BUTTON)) != 0,
        guard_held=digital | (trigger >= TRIGGER_DEADZONE / TRIGGER_STEPS),
        flick_x=(np.abs(now.stick_x) >= 0.8)
        & ((np.abs(before.stick_x) < 0.8) | (now.stick_x * before.stick_x < 0)),
        flick_down=(now.stick_y <= -0.66) & (before.stick_y > -0.66),
        flick_up=(now.stick_y >= 0.66) & (before.stick_y < 0.66),
        flick_c=far(now) & ~far(before),
    )
