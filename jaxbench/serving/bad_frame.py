"""Validation of the frames a policy is given: one line on what is wrong with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxbench.data.characters import INTERNAL_NAME, STAGE_NAME, internal_ids
from jaxbench.data.game import Character, Items
from jaxbench.errors import InputError
from jaxbench.tasks.zelda import frames
from jaxbench.tasks.zelda.view import FIGHTERS, NEEDED, View

# What is stored as unsigned must be a number such a type can hold.
_LARGEST = {"state": 65535, "stocks": 255, "jumps": 255}
_MASKS = ("buttons", "flags_1", "flags_3")
_CHARACTERS = np.isin(np.arange(256), sorted(INTERNAL_NAME))
_STAGES = np.isin(np.arange(256), sorted(STAGE_NAME))


class BadFrame(InputError):  # noqa: N818
    """A frame with missing or impossible values, on which a policy must not act."""


def raise_first(found: Sequence[str | None]) -> None:
    """Raises the first of the problems found, if there is any.

    Raises:
      BadFrame: one line.
    """
    for game, reason in enumerate(found):
        if reason is not None:
            where = f" (game {game})" if len(found) > 1 else ""
            raise BadFrame(f"{reason}{where}; read the frame again, or leave it out")


def wrong_character(view: View, character: str) -> list[str | None]:
    """Lists each game whose own fighter is not the character a policy learned to play.

    One reason for each game, None where the fighter is right. The view must be one
    without `problems` in the own fighter's id.
    """
    found: list[str | None] = [None] * len(view)
    who_b = np.asarray(view.own.post["character"])
    for game in np.flatnonzero(~np.isin(who_b, list(internal_ids(character)))).tolist():
        found[game] = (
            f"frame {int(view.frame_b[game])}: the own fighter is "
            f"{INTERNAL_NAME.get(int(who_b[game]), who_b[game])} and the policy "
            f"imitates {character}; a policy loaded with any_character=True plays on"
        )
    return found


def problems(view: View) -> list[str | None]:
    """Validates a frame of B games: one reason for each game, None where it is valid.

    A frame is bad where a field is missing that every version of a recording has, a
    value is not finite or outside what its type holds, the character or the stage is
    none of Melee's, or an array has not one value for each game. A missing group of
    `frames.AVAILABLE` is not bad: its bit says so, as in training. A stage off the
    tournament list is what training calls another stage.
    """
    if not isinstance(view, View):
        return [f"the frame is of the type {type(view).__name__}, not a View"]
    try:
        count = len(view.frame_b)
    except TypeError:
        return ["frame_b is no array of frame ids"]
    whole = _misshapen(view, count)
    if whole is not None:
        return [whole] * count
    found: list[str | None] = [None] * count

    def note(bad_b: np.ndarray, text: str, values: np.ndarray) -> None:
        # Almost always there is nothing, and this is asked a dozen times a frame.
        for game in np.flatnonzero(bad_b).tolist() if bad_b.any() else ():
            if found[game] is None:
                frame = int(view.frame_b[game])
                found[game] = f"frame {frame}: {text} is {values[game]}"

    stage_b = np.asarray(view.stage_b)
    note(~_known(stage_b, _STAGES), "the stage", stage_b)
    port_b = np.asarray(view.own_port)
    note((port_b < 1) | (port_b > 4), "own_port", port_b)
    for name in FIGHTERS:
        fighter = getattr(view, name)
        if fighter is not None:
            for text, bad_b, values in _bad_values(fighter):
                note(bad_b, f"{name}.{text}", values)
    items = frames.usable_items(view.items)
    if items is not None:
        for text, bad_i, values in _bad_items(items):
            bad_b = np.zeros(count, bool)
            bad_b[items.frame_i[bad_i]] = True
            first = values[bad_i][0] if bad_i.any() else 0
            note(bad_b, text, np.full(count, first))
    return found


def _misshapen(view: View, count: int) -> str | None:
    """Checks types, fields and shapes of a whole view; a reason, or None."""
    for name in ("frame_b", "stage_b", "own_port"):
        values = getattr(view, name)
        if not _well_formed(values, count, "iu"):
            return _form(name, values, count)
    for name in FIGHTERS:
        fighter = getattr(view, name)
        if fighter is None:
            if name.endswith("nana"):
                continue
            return f"there is no {name} fighter"
        if not isinstance(fighter, Character):
            return f"{name} is of the type {type(fighter).__name__}, not a Character"
        if not _well_formed(fighter.present_t, count, "b"):
            return _form(f"{name}.present_t", fighter.present_t, count)
        for part, needed in NEEDED.items():
            fields: Mapping[str, np.ndarray] = getattr(fighter, part)
            for field in needed:
                if field not in fields:
                    return f"{name}.{part}.{field} is missing"
            for field, values in fields.items():
                kinds = "biu" if field in _MASKS else "biuf"
                if not _well_formed(values, count, kinds):
                    return _form(f"{name}.{part}.{field}", values, count)
    if not isinstance(view.items, Items | None):
        return f"items is of the type {type(view.items).__name__}, not Items"
    items = frames.usable_items(view.items)
    if items is None:
        return None
    rows = np.asarray(items.frame_i)
    if rows.ndim != 1 or ((rows < 0) | (rows >= count)).any():
        return f"items.frame_i names games that are none of the {count}"
    for field in frames.ITEM_FIELDS:
        values = items.fields[field]
        if not _well_formed(values, len(rows), "biuf"):
            return _form(f"items.{field}", values, len(rows))
    return None


def _well_formed(values: object, count: int, kinds: str) -> bool:
    return (
        isinstance(values, np.ndarray)
        and values.shape == (count,)
        and values.dtype.kind in kinds
    )


def _form(name: str, values: object, count: int) -> str:
    """Describes the error of an array that `_well_formed` refuses."""
    if isinstance(values, np.ndarray) and values.shape == (count,):
        return f"{name} holds {values.dtype}, which cannot be read as its numbers"
    shape = getattr(values, "shape", type(values).__name__)
    return f"{name} is {shape}, not an array of {count}"


def _known(ids: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Whether each id, of any size and sign, is true in a table of booleans."""
    inside = (ids >= 0) & (ids < len(table))
    return inside & table[np.where(inside, ids, 0).astype(np.intp)]


def _bad_values(fighter: Character) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Each checked field of a fighter: name, bool [B] where it is invalid, values."""
    here, post = fighter.present_t, fighter.post
    found = []
    names, columns = [], []
    for part in ("pre", "post"):
        for field, values in getattr(fighter, part).items():
            if values.dtype.kind == "f" and field != "misc_as":
                names.append(f"{part}.{field}")
                columns.append(values)
    if "misc_as" in post and "flags_3" in post:
        # Elsewhere the slot holds other data, which is not read.
        names.append("post.misc_as")
        columns.append(np.where(post["flags_3"] & 0x02, post["misc_as"], 0))
    # They are stored as float32, where a larger number is not finite either.
    with np.errstate(over="ignore"):
        table = np.stack(columns, dtype=np.float32, casting="unsafe")
    # Almost always all are finite, and one sum tells.
    if not np.isfinite(table.sum(dtype=np.float64)):
        for name, values in zip(names, table, strict=True):
            found.append((name, here & ~np.isfinite(values), values))
    for field, largest in _LARGEST.items():
        if field in post:
            values = post[field]
            outside = here & ((values < 0) | (values > largest))
            found.append((f"post.{field}", outside, values))
    who = post["character"]
    found.append(("post.character", here & ~_known(who, _CHARACTERS), who))
    return found


def _bad_items(items: Items) -> list[tuple[str, np.ndarray, np.ndarray]]:
    fields = items.fields
    found = [
        (f"items.{name}", ~np.isfinite(fields[name]), fields[name])
        for name in frames.ITEM_FIELDS
        if fields[name].dtype.kind == "f"
    ]
    return [*found, ("items.type", fields["type"] < 0, fields["type"])]
