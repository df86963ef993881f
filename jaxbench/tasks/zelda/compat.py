"""The 288 numbers per frame that the original benchmark fed its backbones.

What its code did is reproduced, not what its documents said:

- the ego is port 1 and the opponent port 2, whatever they play;
- facing is the constant +1 (any non-zero direction counts as right);
- "hitstun" is hitlag; "invulnerable" reads bits 0x04 and 0x10 of the first flag byte;
- the previous action, the projectiles and Nana are zero, the name is always name 0;
- every stage has its ledge at 85 units;
- action states and characters are raw integers, characters above 25 are -1;
- the vector is bfloat16, so action states above 256 lose their lowest bit.

47 of the 288 columns can vary (`INFORMATIVE`). Only those and the opponent's facing
(-1 when port 2 is empty, else +1) are stored; `WIDE` and `TEMPLATE` hold the rest.

One difference remains: the original kept rows that a rollback replaced later; a `Game`
no longer has them. Where port 2 is empty the opponent's ids are taken to be 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Character, Game, Player

WIDE = 288
PLAYER = 56
STAGES = (2, 3, 8, 28, 31, 32)
LEDGE = 85.0
LAST_CHARACTER = 25

_OWN = (0, *range(2, 17))
_OPPONENT = tuple(PLAYER + i for i in range(17))
_STAGE = tuple(range(112, 119))
_SPATIAL = (244, 245, 246, 247)
_IDS = (283, 284, 285, 286)
STORED = (*_OWN, *_OPPONENT, *_STAGE, *_SPATIAL, *_IDS)
INFORMATIVE = tuple(i for i in STORED if i != PLAYER + 1)

TEMPLATE = np.zeros(WIDE, np.float32)
TEMPLATE[1] = 1  # own facing
TEMPLATE[132] = 1  # name 0 of the 112 player names

_SPEEDS = ("self_x_air", "self_x_ground", "self_y", "knockback_x", "knockback_y")


def port(game: Game, number: int) -> Player | None:
    """The player in a port, None when it is empty."""
    return next((p for p in game.players if p.port == number), None)


def rows(game: Game) -> np.ndarray:
    """The frames at which port 1 exists, as indices into `game.frame_t`."""
    ego = port(game, 1)
    return np.flatnonzero(ego.leader.present_t) if ego else np.zeros(0, np.int64)


def columns(game: Game) -> np.ndarray:
    """The stored columns of every row of a game, bfloat16 [rows, len(STORED)].

    Computed in float32 and rounded once, like the original's cast.
    """
    kept = rows(game)
    ego, rival = port(game, 1), port(game, 2)
    assert ego is not None
    own = _block(ego.leader, kept)
    opponent = _block(rival.leader if rival else None, kept)
    dx = opponent["x"] - own["x"]
    dy = opponent["y"] - own["y"]
    stage = np.zeros((len(kept), len(STAGES) + 1), np.float32)
    stage[:, _stage_class(game.stage)] = 1
    parts = [
        own["block"][:, [i for i in range(17) if i != 1]],
        opponent["block"],
        stage,
        np.clip(np.sqrt(dx * dx + dy * dy) / 200, 0, 1.5)[:, None],
        np.clip(dx / 200, -10, 10)[:, None],
        np.clip(dy / 100, -10, 10)[:, None],
        np.clip(game.frame_t[kept].astype(np.float32) / 28800, 0, 1)[:, None],
        own["action"][:, None],
        opponent["action"][:, None],
        own["character"][:, None],
        opponent["character"][:, None],
    ]
    return np.concatenate(parts, axis=1).astype(jnp.bfloat16)


def vector(stored: jnp.ndarray) -> jnp.ndarray:
    """The whole vectors [..., 288] of stored columns [..., 48], same dtype."""
    base = jnp.broadcast_to(
        jnp.asarray(TEMPLATE, stored.dtype), (*stored.shape[:-1], WIDE)
    )
    return base.at[..., np.array(STORED)].set(stored)


def _stage_class(stage: int) -> int:
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


def _block(leader: Character | None, kept: np.ndarray) -> dict[str, np.ndarray]:
    """First 17 columns of a player's block, its position and ids, at the kept rows."""
    count = len(kept)
    here = leader.present_t[kept] if leader else np.zeros(count, bool)
    post = {k: v[kept] for k, v in leader.post.items()} if leader else {}

    def read(name: str, missing: float = 0.0) -> np.ndarray:
        """A field, with the value that the original assumed where there is none."""
        if name not in post:
            return np.where(here, np.float32(missing), np.float32(0))
        return np.where(here, post[name].astype(np.float32), np.float32(0))

    x, y = read("position_x"), read("position_y")
    block = np.stack(
        [
            np.clip(read("percent") * np.float32(0.01), 0, 5),
            np.where(here, np.float32(1), np.float32(-1)),
            np.clip(x * np.float32(0.05), -10, 10),
            np.clip(y * np.float32(0.05), -10, 10),
            _wrong_invulnerable(post, here),
            np.minimum(read("jumps", 2) / 6, 1),
            np.clip(read("shield") * np.float32(0.01), 0, 1),
            (here & (read("airborne") == 0)).astype(np.float32),
            *[np.clip(read(name) / 2, -10, 10) for name in _SPEEDS],
            np.clip(read("hitlag") / 120, 0, 1),
            np.clip(np.floor(read("state_age") + np.float32(0.5)) / 60, 0, 2),
            np.clip(read("stocks") / 4, 0, 1),
            np.clip((LEDGE - np.abs(x)) / LEDGE, -10, 10),
        ],
        axis=1,
    )
    character = read("character")
    known = np.where(character > LAST_CHARACTER, np.float32(-1), character)
    state = read("state")
    return {"block": block, "x": x, "y": y, "action": state, "character": known}


def _wrong_invulnerable(post: Mapping[str, np.ndarray], here: np.ndarray) -> np.ndarray:
    if "flags_0" not in post:
        return np.zeros(len(here), np.float32)
    return (here & ((post["flags_0"] & 0x14) != 0)).astype(np.float32)
