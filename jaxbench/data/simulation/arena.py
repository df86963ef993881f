"""Where the simulated fights happen and who fights: geometry and attributes.

Units are Melee's: distances in game units, speeds in units per frame (1/60 s),
weights as in its knockback formula. The values are of the size of Melee's, rounded;
they are not its tables.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Stage(NamedTuple):
    """A flat main floor at height 0 and up to three platforms above it.

    Attributes:
      id: in-game stage id.
      edge: the main floor spans -edge to edge; its ends can be grabbed.
      platforms: (left, right, height) of each.
      side, top, bottom: blast zones, at -side and side, top, and bottom.
      spawn: (x, y) of the right-hand fighter; the other one is its mirror image.
    """

    id: int
    edge: float
    platforms: tuple[tuple[float, float, float], ...]
    side: float
    top: float
    bottom: float
    spawn: tuple[float, float]


# In-game id, edge, side, top, bottom, spawn; then the ends and height of platforms.
_STAGES = """
31 68.4 224 200 -108.8 38.8 35.2  -57.6 -20.0 27.2  20.0 57.6 27.2  -18.8 18.8 54.4
32 85.5 246 188 -140.0 60.0 10.0
8  56.0 174 168  -91.0 42.0 26.6  -59.5 -28.0 23.4  28.0 59.5 23.4  -15.7 15.7 42.0
28 77.3 255 250 -123.0 46.6 37.2  -61.4 -31.7 30.1  31.7 61.4 30.1  -19.0 19.0 51.4
3  87.7 230 180 -111.0 40.0 32.0  -55.0 -25.0 25.0  25.0 55.0 25.0
"""


def _stage(line: str) -> Stage:
    id_, *numbers = line.split()
    edge, side, top, bottom, x, y, *ends = map(float, numbers)
    platforms = tuple(zip(ends[::3], ends[1::3], ends[2::3], strict=True))
    return Stage(int(id_), edge, platforms, side, top, bottom, (x, y))


STAGES = tuple(_stage(line) for line in _STAGES.strip().splitlines())


class Fighter(NamedTuple):
    """Attributes of one character.

    Attributes:
      name: canonical character name.
      walk, dash, run: ground speeds.
      friction: ground deceleration, units per frame squared.
      gravity: fall acceleration.
      fall, fast_fall: greatest fall speeds.
      air: greatest horizontal air speed; air acceleration is a twelfth of it.
      jump, short_hop, double_jump: take-off speeds.
      squat: frames between the jump input and take-off.
      jumps: jumps in all, the one from the ground included.
      weight: divides knockback.
      item: item id of the projectile; shot: its speed.
    """

    name: str
    walk: float
    dash: float
    run: float
    friction: float
    gravity: float
    fall: float
    fast_fall: float
    air: float
    jump: float
    short_hop: float
    double_jump: float
    squat: float
    jumps: float
    weight: float
    item: float
    shot: float


# Columns as in `Fighter`.
_TABLE = """
zelda           0.9 1.5  1.4  0.1 0.073  1.4 1.85 0.95 2.5 1.7 2.3 6 2  90 108 2.0
sheik           1.2 1.7  1.8 0.08  0.12 2.13  3.0  0.8 2.9 2.1 2.7 3 2  90  79 4.0
fox             1.6 2.0  2.2 0.08  0.23  2.8  3.4 0.83 3.7 2.1 4.0 3 2  75  54 5.0
falco           1.4 1.9  1.5 0.08  0.17  3.1  3.5 0.83 4.1 1.9 3.8 5 2  80  55 4.0
marth           1.6 1.6  1.8 0.06 0.085  2.2  2.5  0.9 2.4 1.5 2.2 4 2  87  49 2.5
captain_falcon 0.85 2.0  2.3 0.08  0.13  2.9  3.5 1.12 3.1 1.9 2.8 4 2 104  49 2.5
peach           0.9 1.5  1.4  0.1  0.08  1.5  2.0  1.1 2.4 1.6 2.2 5 2  90  99 2.0
samus           1.0 1.6  1.4 0.06 0.066  1.4  2.3 0.89 2.1 1.7 2.0 3 2 110  94 2.2
luigi           1.1 1.5 1.35 0.03 0.069  1.6  2.0 0.68 2.4 1.5 2.1 4 2 100  49 1.8
ganondorf       0.8 1.5  1.4 0.07  0.13  2.0  2.6 0.78 2.9 2.0 2.7 6 2 109  49 1.8
jigglypuff      0.8 1.4  1.3 0.09 0.064  1.3  1.6 1.35 2.0 1.4 1.6 5 6  60  49 1.8
pikachu        1.24 1.8  1.8 0.09  0.11  1.9  2.7 0.85 2.7 1.8 2.6 3 2  80  86 2.5
"""


def _fighter(line: str) -> Fighter:
    name, *numbers = line.split()
    return Fighter(name, *(float(number) for number in numbers))


FIGHTERS = tuple(_fighter(line) for line in _TABLE.strip().splitlines())

FIGHTER_INDEX = {fighter.name: index for index, fighter in enumerate(FIGHTERS)}
STAGE_INDEX = {stage.id: index for index, stage in enumerate(STAGES)}

# One row of an array per stage or fighter, so that a batch gathers its own.
FLOORS = 4
LEFT_SF, RIGHT_SF, HEIGHT_SF = (
    np.array(
        [
            [
                ((-stage.edge, stage.edge, 0.0), *stage.platforms)[floor][column]
                if floor <= len(stage.platforms)
                else (1.0, -1.0, -np.inf)[column]
                for floor in range(FLOORS)
            ]
            for stage in STAGES
        ],
        np.float32,
    )
    for column in range(3)
)
EDGE_S, SIDE_S, TOP_S, BOTTOM_S = (
    np.array([getattr(stage, name) for stage in STAGES], np.float32)
    for name in ("edge", "side", "top", "bottom")
)
SPAWN_S2 = np.array([stage.spawn for stage in STAGES], np.float32)


def attribute(name: str, dtype: type = np.float32) -> np.ndarray:
    """Returns one attribute of every fighter, in the order of `FIGHTERS`."""
    return np.array([getattr(fighter, name) for fighter in FIGHTERS], dtype)
