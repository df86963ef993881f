"""Styles of scripted players: which timed inputs answer which situation.

Each style answers a situation with one of three timed inputs in turn, see `scripted`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxbench.data.simulation import fight
from jaxbench.data.simulation.timed_inputs import INPUT_INDEX, pressed_buttons


@dataclasses.dataclass(frozen=True)
class Style:
    """How one kind of player plays.

    Attributes:
      delay: frames until the opponent's doings are seen, 12 to 18.
      jump, guard: the buttons used for them.
      answers: situation -> three timed inputs, over those of `_COMMON`. A situation
        is "what the opponent does/how far", see `CLASSES` and `RANGES`, or one of
        the own situations.
    """

    delay: int
    jump: int
    guard: int
    answers: dict[str, str]


# What the opponent was seen to do; how far away it was seen (limits in units).
CLASSES = ("neutral", "attack", "shield", "air", "hurt", "away")
RANGES = ("near", "mid", "far", "beyond")
RANGE_LIMITS = (15.0, 32.0, 62.0)

# Own situations. Only the first two depend on the opponent.
SITUATIONS = ("ground", "air", "hurt", "off", "ledge", "down", "away", "busy")
GROUND, AIR, HURT, OFF, LEDGE, DOWN, AWAY, BUSY = range(len(SITUATIONS))
# For "off": with a jump left or not, near stage height or below, in this order.
_OFF = ("jump/high", "no_jump/high", "no_jump/low", "jump/low")

_COMMON = {
    "neutral/near": "jab_3 shield_grab tilt_down",
    "neutral/mid": "dash_attack dance_4 hop_in",
    "neutral/far": "run_in hop_in dance_6",
    "neutral/beyond": "run_in dance_6 run_in",
    "attack/near": "shield spot_dodge shield_grab",
    "attack/mid": "hop_back shield dash_attack",
    "attack/far": "dance_6 run_in hop_neutral",
    "attack/beyond": "run_in dance_4 run_in",
    "shield/near": "grab jab_2 grab_down",
    "shield/mid": "grab_run dance_4 hop_neutral",
    "shield/far": "run_in grab_run dance_6",
    "shield/beyond": "run_in dance_4 run_in",
    "air/near": "tilt_up c_up shield",
    "air/mid": "hop_neutral jump_up dance_4",
    "air/far": "dance_6 run_in hop_in",
    "air/beyond": "run_in dance_4 shot",
    "hurt/near": "c_in tilt_up smash_in",
    "hurt/mid": "dash_attack hop_in grab_run",
    "hurt/far": "run_in hop_neutral run_in",
    "hurt/beyond": "run_in dance_9 run_in",
    "away/near": "idle walk_out dance_6",
    "away/mid": "idle taunt walk_out",
    "away/far": "dance_9 walk_in taunt",
    "away/beyond": "walk_in idle dance_9",
    "in_air/near": "air_neutral air_back air_c",
    "in_air/mid": "air_in drift_in fall",
    "in_air/far": "drift_in fall drift_out",
    "in_air/beyond": "fall drift_in fall",
    "hurt": "hurt_in hurt_out hurt_up",
    "off/jump/high": "home_drift home_jump home_drift",
    "off/no_jump/high": "home_drift home_late home_drift",
    "off/no_jump/low": "home_rise home_rise home_rise",
    "off/jump/low": "home_jump home_rise home_jump",
    "ledge": "ledge_climb ledge_jump ledge_roll",
    "down": "down_in down_out down_stand",
    "away": "reborn rest reborn",
    "busy": "wait wait wait",
}

STYLES = (
    Style(
        delay=12,
        jump=fight.X_BUTTON,
        guard=fight.R,
        answers={
            "neutral/mid": "dash_attack hop_in hop_neutral",
            "neutral/far": "run_in hop_in dance_4",
            "attack/mid": "hop_neutral shield dash_attack",
            "hurt/near": "c_in c_up smash_in",
            "ledge": "ledge_jump ledge_attack ledge_climb",
            "down": "down_attack down_in down_stand",
        },
    ),
    Style(
        delay=14,
        jump=fight.Y_BUTTON,
        guard=fight.L,
        answers={
            "neutral/near": "tilt_in wave_out grab_down",
            "neutral/mid": "dance_4 grab_run smash_in",
            "neutral/far": "run_in wave_in dance_4",
            "neutral/beyond": "run_in dance_6 run_in",
            "attack/near": "wave_out shield roll_out",
            "attack/mid": "wave_out dance_4 grab_run",
            "hurt/mid": "wave_in c_in dash_attack",
            "in_air/near": "air_back air_in air_dodge",
            "hurt": "hurt_out hurt_in hurt_out",
        },
    ),
    Style(
        delay=18,
        jump=fight.X_BUTTON,
        guard=fight.L,
        answers={
            "neutral/near": "shield_grab roll_out jab_2",
            "neutral/mid": "shield_light dash_attack smash_in",
            "neutral/far": "walk_in run_in dance_9",
            "attack/near": "shield_grab shield_jump spot_dodge",
            "attack/mid": "shield_grab shield_light roll_in",
            "attack/far": "shield_light crouch walk_in",
            "hurt/near": "smash_in c_down grab",
            "ledge": "ledge_roll ledge_climb ledge_drop",
            "down": "down_stand down_out down_attack",
        },
    ),
    Style(
        delay=16,
        jump=fight.Y_BUTTON,
        guard=fight.R,
        answers={
            "neutral/near": "tilt_down roll_out c_down",
            "neutral/mid": "hop_back shot dash_attack",
            "neutral/far": "shot run_in hop_in",
            "neutral/beyond": "shot run_in hop_shot",
            "attack/mid": "retreat jump_away c_in",
            "air/mid": "retreat c_up hop_neutral",
            "hurt/far": "shot run_in hop_shot",
            "shield/mid": "shot grab_run walk_out",
        },
    ),
    Style(
        delay=15,
        jump=fight.X_BUTTON,
        guard=fight.R,
        answers={
            "neutral/near": "hop_back jab_3 hop_neutral",
            "neutral/mid": "hop_in hop_back hop_down",
            "neutral/far": "hop_neutral run_in jump_up",
            "attack/near": "shield_jump jump_away spot_dodge",
            "air/near": "jump_up tilt_up hop_neutral",
            "air/mid": "jump_up hop_in jump_away",
            "hurt/near": "hop_in jump_up c_in",
            "hurt/mid": "hop_in jump_up dash_attack",
            "in_air/near": "air_neutral air_up air_back",
            "in_air/mid": "air_in air_jump air_c",
            "ledge": "ledge_drop ledge_jump ledge_attack",
        },
    ),
)
TURNS = 3


def _situation_key(situation: int, seen: int, reach: int) -> str:
    if situation == GROUND:
        return f"{CLASSES[seen]}/{RANGES[reach]}"
    if situation == AIR:
        return f"in_air/{RANGES[reach]}"
    if situation == OFF:
        return f"off/{_OFF[reach]}"
    return SITUATIONS[situation]


def _answer_table() -> np.ndarray:
    shape = (len(STYLES), len(SITUATIONS), len(CLASSES), len(RANGES))
    table = np.zeros((*shape, TURNS), np.int32)
    for style, *where in np.ndindex(*shape):
        key = _situation_key(*where)
        names = STYLES[style].answers.get(key, _COMMON[key]).split()
        table[(style, *where)] = [INPUT_INDEX[name] for name in names]
    return table


_unknown = {key for style in STYLES for key in style.answers} - set(_COMMON)
assert not _unknown, _unknown

# [style, own situation, seen class, range, turn] -> timed input.
ANSWER = _answer_table()
DELAY = np.array([style.delay for style in STYLES], np.int32)
# [style, timed input, frame]
PRESSED = np.stack([pressed_buttons(style.jump, style.guard) for style in STYLES])
GUARDS_LEFT = np.array([style.guard == fight.L for style in STYLES])
