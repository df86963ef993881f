"""What scripted players press: timed inputs, as tables.

A timed input is a list of pieces (frames, stick, buttons, ...), played blind once it
has begun, as people play what their hands know. Along x, 1 is toward the opponent,
toward the stage for whoever is off it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxbench.data.simulation import fight

LONGEST = 56
DIAGONAL = 0.7


class Piece(NamedTuple):
    """Controls held for some frames.

    Attributes:
      frames: how long.
      x, y, cx, cy: main stick and c-stick.
      press: letters: A, B, J jump, G guard (digital), Z, U taunt.
      trigger: analog guard.
    """

    frames: int
    x: float = 0
    y: float = 0
    cx: float = 0
    cy: float = 0
    press: str = ""
    trigger: float = 0


P = Piece


def _dance(period: int) -> list[Piece]:
    return [P(period, 1), P(period, -1)] * (3 if period < 6 else 2)


def _hop(x: float, y: float, rest: float) -> list[Piece]:
    """Short hop, aerial, fast fall, lag cancelled on landing."""
    return [
        P(2, press="J"),
        P(5, 0.8),
        P(2, x, y, press="A"),
        P(7, rest),
        P(5, y=-1),
        P(2, press="G"),
        P(4, -rest),
    ]


INPUTS: dict[str, list[Piece]] = {
    "wait": [P(1)],
    "idle": [P(5), P(3, 0.4)],
    "rest": [P(14)],
    "dance_4": _dance(4),
    "dance_6": _dance(6),
    "dance_9": _dance(9),
    "walk_in": [P(7, 0.5), P(5, 0.8)],
    "walk_out": [P(7, -0.45), P(4, -0.7)],
    "run_in": [P(14, 1), P(2)],
    "retreat": [P(11, -1), P(4, 1)],
    "crouch": [P(10, y=-1), P(3)],
    "jab_3": [P(2, press="A"), P(5)] * 3 + [P(3), P(9, -1)],
    "jab_2": [P(2, press="A"), P(5)] * 2 + [P(6, trigger=0.6), P(4, -1)],
    "dash_attack": [P(8, 1), P(2, 1, press="A"), P(9), P(8, -0.8), P(3)],
    "tilt_in": [P(2, 0.6, press="A"), P(6, 0.6), P(6), P(7, -1)],
    "tilt_up": [P(2, y=0.6, press="A"), P(6), P(9, 0.7)],
    "tilt_down": [P(2, y=-0.5, press="A"), P(5, y=-0.5), P(9, -1)],
    "smash_in": [P(2, 1, press="A"), P(9), P(8, 0.6), P(6)],
    "c_in": [P(3, cx=1), P(8), P(9, -0.9), P(7)],
    "c_up": [P(3, cy=1), P(10), P(8, 1), P(5)],
    "c_down": [P(3, cy=-1), P(12), P(10, -1), P(3)],
    "grab": [P(2, press="Z"), P(10, -1), P(8), P(5, 1)],
    "grab_down": [P(2, press="Z"), P(10, y=-1), P(9), P(5, -1)],
    "grab_run": [P(6, 1), P(2, 1, press="Z"), P(10, y=1), P(8), P(4, 1)],
    "shield": [P(11, press="G", trigger=1), P(3, trigger=0.4), P(4)],
    "shield_light": [P(10, trigger=0.5), P(3, trigger=0.35), P(3)],
    "shield_grab": [
        P(9, press="G", trigger=1),
        P(2, press="GA", trigger=1),
        P(10, 1),
        P(5),
    ],
    "shield_jump": [
        P(8, press="G", trigger=1),
        P(2, press="GJ", trigger=1),
        P(5, -0.6),
        P(2, -1, press="A"),
        P(7, 0.7),
        P(5),
    ],
    "spot_dodge": [
        P(3, press="G", trigger=1),
        P(3, y=-1, press="G", trigger=1),
        P(12),
        P(8, 1),
    ],
    "roll_in": [
        P(3, press="G", trigger=1),
        P(3, 1, press="G", trigger=1),
        P(14),
        P(9, -1),
    ],
    "roll_out": [
        P(3, press="G", trigger=1),
        P(3, -1, press="G", trigger=1),
        P(14),
        P(9, 1),
    ],
    "wave_in": [
        P(2, press="J"),
        P(5, 0.5),
        P(3, 0.86, -0.5, press="G", trigger=1),
        P(9),
        P(4, 1),
    ],
    "wave_out": [
        P(2, press="J"),
        P(5),
        P(3, -0.86, -0.5, press="G", trigger=1),
        P(9),
        P(4, 1),
    ],
    "hop_in": _hop(1, 0, 0.6),
    "hop_neutral": _hop(0, 0, 0.9),
    "hop_back": _hop(-1, 0, -0.4),
    "hop_down": _hop(0, -1, 0.5),
    "jump_up": [P(8, press="J"), P(3, 0.5), P(2, y=1, press="A"), P(10, 0.4), P(4, -1)],
    "jump_away": [P(9, -1, press="J"), P(9, -0.8), P(5, y=-1)],
    "shot": [P(2, press="B"), P(9), P(8, -0.5), P(7)],
    "hop_shot": [P(2, press="J"), P(6, -0.5), P(2, press="B"), P(10, 0.6), P(5, y=-1)],
    "taunt": [P(3), P(2, press="U"), P(24)],
    "fall": [P(5, y=-1), P(4, 0.5)],
    "drift_in": [P(7, 0.8), P(4, -0.5)],
    "drift_out": [P(7, -0.8), P(4, 0.5)],
    "air_neutral": [P(2, press="A"), P(8, 0.5), P(2, press="G"), P(3)],
    "air_in": [P(2, 1, press="A"), P(8, 0.7), P(5, y=-1), P(2, press="G")],
    "air_back": [P(2, -1, press="A"), P(8, -0.6), P(2, press="G"), P(3)],
    "air_up": [P(2, y=1, press="A"), P(7, 0.5), P(5, -0.5)],
    "air_c": [P(3, cx=1), P(9, 0.4), P(2, press="G")],
    "air_jump": [P(3, -1, press="J"), P(10, -0.8)],
    "air_dodge": [P(2, -DIAGONAL, -DIAGONAL, press="G", trigger=1), P(10)],
    "home_drift": [P(6, 1)],
    "home_jump": [P(3, 1, press="J"), P(15, 1)],
    "home_rise": [P(2, 0.6, 0.8, press="B"), P(24, 0.8, 0.5)],
    "home_late": [P(7, 0.9), P(2, 0.5, 0.8, press="B"), P(22, 1)],
    "hurt_in": [
        P(4),
        P(11, DIAGONAL, DIAGONAL),
        P(2, 1, press="G", trigger=1),
        P(12, 1),
    ],
    "hurt_out": [
        P(4),
        P(11, -DIAGONAL, DIAGONAL),
        P(2, -1, press="G", trigger=1),
        P(12, -1),
    ],
    "hurt_up": [P(6), P(5, y=1), P(5, 1), P(2, press="G", trigger=1), P(7, -0.5)],
    "ledge_climb": [P(10), P(3, y=1), P(22)],
    "ledge_jump": [P(12), P(3, press="J"), P(16, 1), P(3, y=-1)],
    "ledge_roll": [P(14), P(2, press="G", trigger=1), P(26)],
    "ledge_attack": [P(11), P(2, press="A"), P(26)],
    "ledge_drop": [P(9), P(2, y=-1), P(3, 0.8, press="J"), P(10, 1), P(2, press="A")],
    "down_in": [P(26), P(4, 1), P(16)],
    "down_out": [P(26), P(4, -1), P(16)],
    "down_attack": [P(27), P(2, press="A"), P(20)],
    "down_stand": [P(30), P(3, y=1), P(12)],
    "reborn": [P(14), P(3, y=-1), P(5, 0.6)],
}
INPUT_INDEX = {name: index for index, name in enumerate(INPUTS)}

# Dropped at once when an attack is seen to begin nearby.
_LOOSE = (
    "idle rest dance_4 dance_6 dance_9 walk_in walk_out run_in retreat crouch wait"
).split()
IS_LOOSE = np.array([name in _LOOSE for name in INPUTS])


LENGTH = np.array(
    [sum(piece.frames for piece in pieces) for pieces in INPUTS.values()], np.int32
)
assert LENGTH.max() <= LONGEST, LENGTH.max()


def _per_frame(values: list[list[tuple[float, ...]]], dtype: type) -> np.ndarray:
    table: np.ndarray = np.zeros((len(INPUTS), LONGEST, len(values[0][0])), dtype)
    for index, pieces in enumerate(INPUTS.values()):
        frames = [piece.frames for piece in pieces]
        table[index, : sum(frames)] = np.repeat(values[index], frames, axis=0)
    return table


# [input, frame, (x, y, cx, cy, trigger)]
ANALOG = _per_frame(
    [[(*piece[1:5], piece.trigger) for piece in pieces] for pieces in INPUTS.values()],
    np.float32,
)


def pressed_buttons(jump: int, guard: int) -> np.ndarray:
    """Returns button masks, int32 [input, frame], for one choice of buttons."""
    bit = {
        "A": fight.A_BUTTON,
        "B": fight.B_BUTTON,
        "J": jump,
        "G": guard,
        "Z": fight.Z,
        "U": fight.D_UP,
    }
    masks: list[list[tuple[float, ...]]] = [
        [(sum(bit[key] for key in piece.press),) for piece in pieces]
        for pieces in INPUTS.values()
    ]
    return _per_frame(masks, np.int32)[..., 0]
