"""Who is who: character and stage ids of Melee, and the names users type."""

from __future__ import annotations

import functools
import re
import unicodedata
from types import MappingProxyType

from jaxbench.data.game import Player
from jaxbench.errors import InputError, nearest

# (name, external id, internal id). The game start event carries external ids
# (character select order), frames carry internal ones. "popo" is the Ice Climbers'
# leader playing alone, a slot no tournament uses; Nana is never selected herself.
_ROSTER = (
    ("captain_falcon", 0, 2),
    ("donkey_kong", 1, 3),
    ("fox", 2, 1),
    ("mr_game_and_watch", 3, 24),
    ("kirby", 4, 4),
    ("bowser", 5, 5),
    ("link", 6, 6),
    ("luigi", 7, 17),
    ("mario", 8, 0),
    ("marth", 9, 18),
    ("mewtwo", 10, 16),
    ("ness", 11, 8),
    ("peach", 12, 9),
    ("pikachu", 13, 12),
    ("ice_climbers", 14, 10),
    ("jigglypuff", 15, 15),
    ("samus", 16, 13),
    ("yoshi", 17, 14),
    ("zelda", 18, 19),
    ("sheik", 19, 7),
    ("falco", 20, 22),
    ("young_link", 21, 20),
    ("dr_mario", 22, 21),
    ("roy", 23, 26),
    ("pichu", 24, 23),
    ("ganondorf", 25, 25),
    ("master_hand", 26, 27),
    ("wireframe_male", 27, 29),
    ("wireframe_female", 28, 30),
    ("giga_bowser", 29, 31),
    ("crazy_hand", 30, 28),
    ("sandbag", 31, 32),
    ("popo", 32, 10),
)
NANA_INTERNAL = 11

EXTERNAL_NAME = MappingProxyType({external: name for name, external, _ in _ROSTER})
INTERNAL_NAME = MappingProxyType(
    {internal: name for name, _, internal in _ROSTER if name != "popo"}
    | {NANA_INTERNAL: "nana"}
)
EXTERNAL_ID = MappingProxyType({name: external for name, external, _ in _ROSTER})
EXTERNAL_TO_INTERNAL = MappingProxyType(
    {external: internal for _, external, internal in _ROSTER}
)
PLAYABLE = tuple(name for name, external, _ in _ROSTER if external <= 25)

_ALIASES = {
    "falcon": "captain_falcon",
    "cfalcon": "captain_falcon",
    "cptfalcon": "captain_falcon",
    "dk": "donkey_kong",
    "game_and_watch": "mr_game_and_watch",
    "mr_game_watch": "mr_game_and_watch",
    "gnw": "mr_game_and_watch",
    "gaw": "mr_game_and_watch",
    "koopa": "bowser",
    "ganon": "ganondorf",
    "ics": "ice_climbers",
    "ice_climber": "ice_climbers",
    "climbers": "ice_climbers",
    "icies": "ice_climbers",
    "nana": "ice_climbers",
    "puff": "jigglypuff",
    "jiggs": "jigglypuff",
    "purin": "jigglypuff",
    "doc": "dr_mario",
    "doctor_mario": "dr_mario",
    "ylink": "young_link",
    "yl": "young_link",
    "pika": "pikachu",
    "mew2": "mewtwo",
    "shiek": "sheik",
}

STAGE_NAME = MappingProxyType(
    {
        2: "fountain_of_dreams",
        3: "pokemon_stadium",
        4: "princess_peachs_castle",
        5: "kongo_jungle",
        6: "brinstar",
        7: "corneria",
        8: "yoshis_story",
        9: "onett",
        10: "mute_city",
        11: "rainbow_cruise",
        12: "jungle_japes",
        13: "great_bay",
        14: "hyrule_temple",
        15: "brinstar_depths",
        16: "yoshis_island",
        17: "green_greens",
        18: "fourside",
        19: "mushroom_kingdom",
        20: "mushroom_kingdom_2",
        22: "venom",
        23: "poke_floats",
        24: "big_blue",
        25: "icicle_mountain",
        27: "flat_zone",
        28: "dream_land",
        29: "yoshis_island_64",
        30: "kongo_jungle_64",
        31: "battlefield",
        32: "final_destination",
    }
)
TOURNAMENT_STAGES = (2, 3, 8, 28, 31, 32)


def _squash(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower().replace("&", "and"))


_BY_SQUASHED = {_squash(name): name for name in EXTERNAL_ID} | {
    _squash(alias): name for alias, name in _ALIASES.items()
}


def character_key(text: str) -> str:
    """Returns the canonical name of a character: "Captain Falcon" -> captain_falcon.

    Case, spaces, punctuation and accents do not matter; common short names work.

    Raises:
      InputError: nobody has that name; the message gives the nearest ones.
    """
    name = _BY_SQUASHED.get(_squash(text))
    if name is None:
        known = nearest(text.lower(), {*EXTERNAL_ID, *_ALIASES})
        raise InputError(
            f"character={text!r} is not a Melee character; nearest: {known}"
        )
    return name


def external_name(external_id: int) -> str:
    """Returns the name of a character select id, "character_40" if it has none."""
    return EXTERNAL_NAME.get(external_id, f"character_{external_id}")


def stage_name(stage_id: int) -> str:
    """Returns the name of a stage id, "stage_33" if it has none."""
    return STAGE_NAME.get(stage_id, f"stage_{stage_id}")


@functools.cache
def internal_ids(name: str) -> frozenset[int]:
    """Ids that frames carry of a player of that character; Zelda and Sheik are one.

    Raises:
      InputError: nobody has that name.
    """
    key = character_key(name)
    both = ("zelda", "sheik")
    names = both if key in both else (key,)
    return frozenset(EXTERNAL_TO_INTERNAL[EXTERNAL_ID[each]] for each in names)


def plays(player: Player, name: str) -> bool:
    """Whether a port is that character, at the start or on any frame.

    Zelda and Sheik are one player across a transform: a port that turns from one into
    the other plays both, and all its frames belong to it under either name.

    Raises:
      InputError: nobody has that name.
    """
    key = character_key(name)
    if external_name(player.character) == key:
        return True
    internal = EXTERNAL_TO_INTERNAL[EXTERNAL_ID[key]]
    leader = player.leader
    return bool((leader.post["character"][leader.present_t] == internal).any())
