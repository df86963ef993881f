"""One recorded game of Melee as arrays, whatever wrote it."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import numpy as np

# "#" is recorded in its full width.
_CODE = re.compile(r"[^#＃]{1,8}[#＃]\d{1,5}")
_SALT = b"jaxbench player"


@dataclasses.dataclass(frozen=True)
class Character:
    """One fighter's rows: a player's leader, or Nana.

    Attributes:
      present_t: bool [T], whether the fighter exists at the frame. Values of the
        other arrays are 0 where it is false.
      pre: controller inputs that act on the frame, field name -> [T]. Names:
        joystick_x, joystick_y, cstick_x, cstick_y (processed, -1..1), trigger
        (processed, 0..1), trigger_l, trigger_r (physical, 0..1), buttons (physical
        mask, uint16), state (action state before the frame, uint16).
      post: state after the frame, field name -> [T]. Names: character (internal id,
        uint8), state (action state, uint16), position_x, position_y, direction,
        percent, shield, stocks, state_age, flags_0 .. flags_4 (uint8), misc_as,
        airborne, ground, jumps, l_cancel, hurtbox_state, self_x_air, self_y,
        knockback_x, knockback_y, self_x_ground, hitlag, last_attack_landed,
        combo_count, last_hit_by. A field that the recording's version lacks is
        absent here and named in `Game.missing`; it is never filled in.
    """

    present_t: np.ndarray
    pre: dict[str, np.ndarray]
    post: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Player:
    """One port: who holds it and what its fighters did.

    Attributes:
      port: 1 to 4, as printed on the console.
      kind: "human", "cpu" or "demo".
      character: external (character select) id at the start of the game.
      team: team id in team games, else -1.
      leader: the character.
      nana: the follower of the Ice Climbers, else None.
      who: a salted hash of the netplay connect code, to tell players apart; empty where
        there is none. Never shown: codes are short enough to be found by trying all.
    """

    port: int
    kind: str
    character: int
    team: int
    leader: Character
    nana: Character | None
    who: str = ""


@dataclasses.dataclass(frozen=True)
class Items:
    """Items and projectiles, flattened over frames.

    Attributes:
      frame_i: int32 [I], index into `Game.frame_t` of each row.
      fields: type (uint16), state (uint8), direction, velocity_x, velocity_y,
        position_x, position_y (float32), timer (float32), owner (int8, port 0-3 or
        -1), id (uint32) -> [I].
    """

    frame_i: np.ndarray
    fields: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Game:
    """A game after rolled-back rows are dropped: one row per frame id, in order.

    Attributes:
      name: file name without its folder (never player names or codes).
      sha256: hex digest of the file's bytes.
      version: Slippi version, three integers.
      stage: in-game stage id (2 Fountain of Dreams, 3 Pokemon Stadium, 8 Yoshi's
        Story, 28 Dream Land, 31 Battlefield, 32 Final Destination).
      is_teams, is_pal: as recorded.
      end: how it ended: "game", "time", "no_contest", "resolved", "unresolved", or
        "none" when the recording stops without a Game End event.
      frame_t: int32 [T], frame ids: -123 first, controls work from -39, the timer
        starts at 0.
      players: by port, in port order.
      items: None where the version has none.
      missing: names of the `pre.*`, `post.*`, `items` fields this version lacks.
      rows: rows recorded, rolled-back ones included.
      remarks: what was mended or left out while the file was read, a phrase each.
    """

    name: str
    sha256: str
    version: tuple[int, int, int]
    stage: int
    is_teams: bool
    is_pal: bool
    end: str
    frame_t: np.ndarray
    players: tuple[Player, ...]
    items: Items | None
    missing: frozenset[str]
    rows: int
    remarks: tuple[str, ...] = ()


def identity(code: str | None) -> str:
    """A salted hash of a connect code, "ABCD#123"; empty for anything else.

    Games record codes from 3.9 on, if they were played over the net. Tags that are
    entered at a console name nobody: many share one, or play under that of another.
    """
    if not code or not _CODE.fullmatch(code.strip()):
        return ""
    text = code.strip().upper().replace("＃", "#")
    return hashlib.blake2b(text.encode(), digest_size=8, salt=_SALT).hexdigest()
