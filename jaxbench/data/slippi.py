"""One `.slp` recording into a `Game`, read by peppi-py."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxbench.data.game import Character, Game, Items, Player, identity
from jaxbench.data.slp_events import (
    HEADER_BYTES,
    Fighter,
    closed,
    recorded_frames,
    repaired,
)
from jaxbench.errors import InputError, printable

# Every recording is a UBJSON object whose first key is "raw", an array of bytes.
_MAGIC = b"{U\x03raw[$U#l"

# From here on a recording marks where each frame ends.
_FRAME_END_VERSION = (3, 0, 0)

# Set while hitstun lasts; only then does misc_as hold the frames of it that are left.
_HITSTUN_FLAG = 0x02

_PRE = {
    "joystick_x": "joystick.x",
    "joystick_y": "joystick.y",
    "cstick_x": "cstick.x",
    "cstick_y": "cstick.y",
    "trigger": "triggers",
    "trigger_l": "triggers_physical.l",
    "trigger_r": "triggers_physical.r",
    "buttons": "buttons_physical",
    "state": "state",
}
_POST = {
    "character": "character",
    "state": "state",
    "position_x": "position.x",
    "position_y": "position.y",
    "direction": "direction",
    "percent": "percent",
    "shield": "shield",
    "stocks": "stocks",
    "state_age": "state_age",
    "flags_0": "state_flags.0",
    "flags_1": "state_flags.1",
    "flags_2": "state_flags.2",
    "flags_3": "state_flags.3",
    "flags_4": "state_flags.4",
    "misc_as": "misc_as",
    "airborne": "airborne",
    "ground": "ground",
    "jumps": "jumps",
    "l_cancel": "l_cancel",
    "hurtbox_state": "hurtbox_state",
    "self_x_air": "velocities.self_x_air",
    "self_y": "velocities.self_y",
    "knockback_x": "velocities.knockback_x",
    "knockback_y": "velocities.knockback_y",
    "self_x_ground": "velocities.self_x_ground",
    "hitlag": "hitlag",
    "last_attack_landed": "last_attack_landed",
    "combo_count": "combo_count",
    "last_hit_by": "last_hit_by",
}
_ITEM = {
    "type": "type",
    "state": "state",
    "direction": "direction",
    "velocity_x": "velocity.x",
    "velocity_y": "velocity.y",
    "position_x": "position.x",
    "position_y": "position.y",
    "timer": "timer",
    "owner": "owner",
    "id": "id",
}

# What a value can be, with a wide margin over what 96 public recordings hold (in
# brackets). Anything else, and all that is not finite, is damage.
_FINITE = (-1e9, 1e9)
_RANGES = {
    "joystick_x": (-1, 1),
    "joystick_y": (-1, 1),
    "cstick_x": (-1, 1),
    "cstick_y": (-1, 1),
    "trigger": (0, 1),
    "trigger_l": (0, 1),
    "trigger_r": (0, 1),
    "state": (0, 1023),  # (0 to 372)
    "character": (0, 32),
    "position_x": (-10_000, 10_000),  # (-260 to 271)
    "position_y": (-10_000, 10_000),  # (-150 to 252)
    "direction": (-1, 1),
    "percent": (0, 999),
    "shield": (0, 100),  # (0 to 60)
    "stocks": (0, 99),
    "self_x_air": (-1_000, 1_000),  # (-19 to 19)
    "self_y": (-1_000, 1_000),
    "knockback_x": (-1_000, 1_000),
    "knockback_y": (-1_000, 1_000),
    "self_x_ground": (-1_000, 1_000),
}
# So few frames are left out however short the game is.
_FEW_FRAMES = 3


class _Recording(NamedTuple):
    start: Any
    end: Any
    frames: Any
    item: Any
    # The last frame that no rollback can change; None where a version lacks it.
    final: int | None


def parse(path: Path | str) -> Game:
    """Reads one replay; about 700,000 recorded rows a second on one core.

    Of the rows that rollbacks recorded again the last one per frame id is kept, and
    none after the last frame that the recording calls final (3.7 and later).
    Frames on which a fighter does not exist have `present_t` false and zeros, in
    the field's own type; where the parser misplaces them (see `slp_events`) they are
    put back. The game slot behind `misc_as` is hitstun only while the
    hitstun flag (bit 0x02 of flags_3) is set; elsewhere it holds other data, which
    need not be a number, and what is not finite there reads 0. A version that does
    not say whether the game is PAL has "start.is_pal" in `missing`.

    What is mended is said in `Game.remarks`: a stream that the parser rejects is
    rewritten from its whole frames (`slp_events.repaired`); physical triggers outside
    [0, 1], as versions before 1.2 record them, give way to the processed one; a frame
    with a value that the game cannot have (see `_RANGES`) counts as one on which the
    fighter does not exist. More than one frame in a hundred of those is a damaged
    recording, which is refused.

    The parser sees neither the metadata, whose nesting could overflow its stack, nor
    the file's name, which it cannot read unless it is UTF-8.

    Raises:
      InputError: one line, file name first: not a replay, rejected by the parser and
        beyond repair, fewer than two ports, no frames, frames missing in between,
        too many impossible values.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    data = path.read_bytes()
    name = printable(path.name)
    try:
        if not data:
            raise InputError("the file is empty")
        if not data.startswith(_MAGIC):
            raise InputError("not a Slippi replay (it does not start as one)")
        try:
            game = _game(_read(_without_metadata(data)), data)
        except InputError as rejection:
            game = _salvaged(data, rejection)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    return dataclasses.replace(game, name=name, sha256=sha256)


class _RejectedError(InputError):
    """The parser cannot read it; what the stream holds may be good all the same."""


def _salvaged(data: bytes, rejection: InputError) -> Game:
    """Reads what is whole of a recording that the parser rejects."""
    if not isinstance(rejection, _RejectedError):
        raise rejection
    try:
        mended, version, amiss = repaired(data)
        game = _game(_read(mended), mended)
    except InputError as error:
        raise InputError(f"{rejection}; nor can it be salvaged: {error}") from error
    remarks = (f"salvaged: {amiss}", *game.remarks)
    return dataclasses.replace(game, version=version, remarks=remarks)


def _without_metadata(data: bytes) -> bytes:
    """Returns the events alone; a file whose length is not true stays as it is."""
    length = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "big")
    if not length or HEADER_BYTES + length > len(data):
        return data
    return closed(data[HEADER_BYTES : HEADER_BYTES + length])


def _read(data: bytes) -> _Recording:
    """Runs the parser; whatever it raises, panics included, is one `_RejectedError`."""
    # Here, so that a start from the cache never loads the parser.
    import peppi_py

    with tempfile.NamedTemporaryFile(suffix=".slp") as file:
        file.write(data)
        file.flush()
        try:
            try:
                from peppi_py import (
                    End,
                    Start,
                    _read_slippi,
                    dc_from_json,
                    frames_from_sa,
                )
            except ImportError:
                # The private names that give items have gone; the rest is public.
                game = peppi_py.read_slippi(file.name)
                return _Recording(game.start, game.end, game.frames, None, None)
            raw = _read_slippi(file.name, False)
            names = {field.name for field in raw.frames.type}
            return _Recording(
                dc_from_json(Start, raw.start),
                dc_from_json(End, raw.end) if raw.end else None,
                frames_from_sa(raw.frames),
                raw.frames.field("item") if "item" in names else None,
                _last_final(raw.frames.field("end")) if "end" in names else None,
            )
        except BaseException as error:
            # A panic of the Rust parser derives from BaseException alone.
            rejects = isinstance(error, Exception)
            rejects = rejects and not isinstance(error, MemoryError)
            if not rejects and type(error).__name__ != "PanicException":
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
            raise _RejectedError(f"the parser rejects it ({reason})") from error


def _last_final(end: Any) -> int | None:
    names = {field.name for field in end.type}
    if "latest_finalized_frame" not in names or not len(end):
        return None
    final = end.field("latest_finalized_frame")
    return int(final.to_numpy(zero_copy_only=False).max())


def _game(recording: _Recording, data: bytes) -> Game:
    start, end, frames, item, final = recording
    if len(start.players) < 2:
        raise InputError(f"it has {len(start.players)} port(s), it takes two or more")
    if frames is None or len(frames.id) == 0:
        raise InputError("it has no frames")
    row_t, frame_t = _last_rows(frames.id.to_numpy())
    remarks: list[str] = []
    if final is not None and (frame_t > final).any():
        row_t, frame_t = row_t[frame_t <= final], frame_t[frame_t <= final]
    if not len(frame_t):
        raise InputError("it has no frame that is final")
    missing: set[str] = set() if start.is_pal is not None else {"start.is_pal"}
    players = _players(recording, data, row_t, frame_t, missing)
    players = _plausible(players, frame_t, remarks)
    items = None if item is None else _items(item, row_t, missing)
    if items is None:
        missing.add("items")
    else:
        items = _plausible_items(items, frame_t, remarks)
    return Game(
        name="",
        sha256="",
        version=_version(start),
        stage=int(start.stage),
        is_teams=bool(start.is_teams),
        is_pal=bool(start.is_pal),
        end="none" if end is None else end.method.name.lower(),
        frame_t=frame_t,
        players=players,
        items=items,
        missing=frozenset(missing),
        rows=len(frames.id),
        remarks=tuple(remarks),
    )


def _version(start: Any) -> tuple[int, int, int]:
    major, minor, patch = start.slippi.version
    return int(major), int(minor), int(patch)


def _players(
    recording: _Recording,
    data: bytes,
    row_t: np.ndarray,
    frame_t: np.ndarray,
    missing: set[str],
) -> tuple[Player, ...]:
    """Joins who holds each port with what its fighters did, in port order."""
    start, frames = recording.start, recording.frames
    players = sorted(start.players, key=lambda player: player.port)
    if len({player.port for player in players}) != len(frames.ports):
        raise InputError(
            f"it announces {len(players)} players and records {len(frames.ports)}"
        )
    fighters = {
        (int(player.port), follower): fighter
        for player, both in zip(players, frames.ports, strict=True)
        for follower, fighter in ((False, both.leader), (True, both.follower))
        if fighter is not None
    }
    rows = {who: _rows(fighter, row_t) for who, fighter in fighters.items()}
    absences = any((fighter_t < 0).any() for fighter_t in rows.values())
    if absences and _version(start) < _FRAME_END_VERSION:
        rows = _put_back(rows, frame_t, recorded_frames(data))
    read = {who: _fighter(it, rows[who], missing) for who, it in fighters.items()}
    return tuple(
        Player(
            port=int(player.port) + 1,
            kind=player.type.name.lower(),
            character=int(player.character),
            team=int(player.team.color) if start.is_teams and player.team else -1,
            leader=read[int(player.port), False],
            nana=read.get((int(player.port), True)),
            who=identity(getattr(player.netplay, "code", None)),
        )
        for player in players
    )


def _last_rows(id_r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row that holds the final version of each frame, and its id."""
    frame_t, from_end = np.unique(id_r[::-1], return_index=True)
    step = np.diff(frame_t.astype(np.int64))
    if (step != 1).any():
        gap = int(np.argmax(step != 1))
        raise InputError(
            f"frame ids jump from {frame_t[gap]} to {frame_t[gap + 1]}, "
            "frames are missing in between"
        )
    return len(id_r) - 1 - from_end, frame_t.astype(np.int32)


def _leaf(data: Any, path: str) -> Any:
    """Follows a dotted path; None where the version lacks any part of it."""
    for part in path.split("."):
        if data is None:
            return None
        data = data[int(part)] if part.isdigit() else getattr(data, part)
    return data


def _values(leaf: Any, row_t: np.ndarray) -> np.ndarray:
    # Through numpy alone, nulls would turn an integer column into float64.
    if leaf.null_count:
        leaf = leaf.fill_null(0)
    return leaf.to_numpy(zero_copy_only=False)[row_t]


def _rows(data: Any, row_t: np.ndarray) -> np.ndarray:
    """Returns the parser's row of a fighter at each frame, -1 where it is absent."""
    valid = [
        leaf.is_valid().to_numpy(zero_copy_only=False)
        for leaf in (data.pre.state, data.post.state)
    ]
    return np.where((valid[0] & valid[1])[row_t], row_t, -1)


def _put_back(
    rows: dict[Fighter, np.ndarray],
    frame_t: np.ndarray,
    recorded: dict[Fighter, np.ndarray],
) -> dict[Fighter, np.ndarray]:
    """Assigns each fighter's rows to the frames on which they were recorded."""
    placed = {}
    for who, row_t in rows.items():
        ids = recorded.get(who, np.zeros(0, np.int32))
        present_t = np.isin(frame_t, ids)
        kept = row_t[row_t >= 0]
        if not np.array_equal(frame_t[present_t], ids) or len(kept) != len(ids):
            raise InputError(f"the parser misplaces frames of port {who[0] + 1}")
        placed[who] = np.full_like(row_t, -1)
        placed[who][present_t] = kept
    return placed


def _fighter(data: Any, row_t: np.ndarray, missing: set[str]) -> Character:
    present_t = row_t >= 0
    parts: dict[str, dict[str, np.ndarray]] = {"pre": {}, "post": {}}
    for part, table in (("pre", _PRE), ("post", _POST)):
        for name, path in table.items():
            leaf = _leaf(getattr(data, part), path)
            if leaf is None:
                missing.add(f"{part}.{name}")
                continue
            values = _values(leaf, row_t)
            parts[part][name] = np.where(present_t, values, values.dtype.type(0))
    post = parts["post"]
    if "misc_as" in post and "flags_3" in post:
        in_hitstun = (post["flags_3"] & _HITSTUN_FLAG) != 0
        other_data = ~in_hitstun & ~np.isfinite(post["misc_as"])
        post["misc_as"][other_data] = 0
    return Character(present_t, parts["pre"], post)


def _items(item: Any, row_t: np.ndarray, missing: set[str]) -> Items:
    """Flattens the list of items of each kept row, in frame order."""
    offset_r = item.offsets.to_numpy()
    first_t, count_t = offset_r[row_t], np.diff(offset_r)[row_t]
    frame_i = np.repeat(np.arange(len(row_t), dtype=np.int32), count_t)
    within_i = np.arange(len(frame_i)) - (np.cumsum(count_t) - count_t)[frame_i]
    value_i = first_t[frame_i] + within_i
    fields = {}
    for name, path in _ITEM.items():
        leaf = item.values
        for part in path.split("."):
            known = leaf is not None and part in {field.name for field in leaf.type}
            leaf = leaf.field(part) if known else None
        if leaf is None:
            missing.add(f"items.{name}")
        else:
            fields[name] = _values(leaf, value_i)
    return Items(frame_i, fields)


def _plausible(
    players: tuple[Player, ...], frame_t: np.ndarray, remarks: list[str]
) -> tuple[Player, ...]:
    """Mends triggers, and takes fighters off the frames that cannot be true."""

    def mended(fighter: Character | None, who: str) -> Character | None:
        if fighter is None:
            return None
        pre, post = _true_triggers(fighter.pre, who, remarks), fighter.post
        values = {f"pre.{name}": value for name, value in pre.items()}
        values |= {f"post.{name}": value for name, value in post.items()}
        bad_t = _impossible(values, f" of {who}", frame_t, remarks)
        if not bad_t.any():
            return Character(fighter.present_t, pre, post)
        clean = [
            {name: np.where(bad_t, v.dtype.type(0), v) for name, v in part.items()}
            for part in (pre, post)
        ]
        return Character(fighter.present_t & ~bad_t, *clean)

    checked = []
    for player in players:
        leader = mended(player.leader, f"P{player.port}")
        assert leader is not None
        nana = mended(player.nana, f"P{player.port} (Nana)")
        checked.append(dataclasses.replace(player, leader=leader, nana=nana))
    return tuple(checked)


def _true_triggers(
    pre: dict[str, np.ndarray], who: str, remarks: list[str]
) -> dict[str, np.ndarray]:
    physical = [pre[name] for name in ("trigger_l", "trigger_r") if name in pre]
    if all(((value >= 0) & (value <= 1)).all() for value in physical):
        return pre
    remarks.append(f"physical triggers replaced by the processed one: {who}")
    other = {"trigger_l": pre["trigger"], "trigger_r": np.zeros_like(pre["trigger"])}
    return pre | other


def _plausible_items(items: Items, frame_t: np.ndarray, remarks: list[str]) -> Items:
    bad_i = _impossible(
        {f"items.{name}": value for name, value in items.fields.items()},
        "",
        frame_t[items.frame_i],
        remarks,
    )
    if not bad_i.any():
        return items
    kept = {name: value[~bad_i] for name, value in items.fields.items()}
    return Items(items.frame_i[~bad_i], kept)


def _impossible(
    values: dict[str, np.ndarray], who: str, frame_t: np.ndarray, remarks: list[str]
) -> np.ndarray:
    """Says at which frames some value is not finite or outside its range."""
    bad_t, example = np.zeros(len(frame_t), bool), ""
    for name, value_t in values.items():
        field = name.partition(".")[2]
        low, high = _RANGES.get(field, _FINITE)
        # Written so that NaN is outside.
        outside = ~((value_t >= low) & (value_t <= high))
        if outside.any() and not example:
            first = int(np.argmax(outside))
            example = f"{name}{who} is {value_t[first]} at frame {frame_t[first]}"
        bad_t |= outside
    if example:
        count = int(bad_t.sum())
        if count > max(_FEW_FRAMES, len(frame_t) // 100):
            raise InputError(
                f"{example}, and {count} frames hold values that cannot be: the "
                "recording is damaged"
            )
        remarks.append(f"impossible values left out: {count} frame(s), {example}")
    return bad_t
