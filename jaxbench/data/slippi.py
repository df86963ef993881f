"""One `.slp` recording into a `Game`, read by peppi-py."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxbench.data.game import Character, Game, Items, Player
from jaxbench.data.slp_events import Fighter, recorded_frames
from jaxbench.errors import InputError

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


class _Recording(NamedTuple):
    start: Any
    end: Any
    frames: Any
    item: Any


def parse(path: Path | str) -> Game:
    """Reads one replay; about 700,000 recorded rows a second on one core.

    Of the rows that rollbacks recorded again the last one per frame id is kept.
    Frames on which a fighter does not exist have `present_t` false and zeros, in
    the field's own type; where the parser misplaces them (see `slp_events`) they are
    put back. The game slot behind `misc_as` is hitstun only while the
    hitstun flag (bit 0x02 of flags_3) is set; elsewhere it holds other data, which
    need not be a number, and what is not finite there reads 0. Any other
    non-finite value on a frame that is kept means a damaged recording, which is
    refused. A version that does not say whether the game is PAL has
    "start.is_pal" in `missing`.

    Raises:
      InputError: one line, file name first: not a replay, cut short, rejected by
        the parser, fewer than two ports, no frames, frames missing in between, a
        non-finite value.
      OSError: the file cannot be opened.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        if not head:
            raise InputError("the file is empty")
        if head != _MAGIC:
            raise InputError("not a Slippi replay (it does not start as one)")
        return _game(_read(path), path, sha256)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error


def _read(path: Path) -> _Recording:
    """Runs the parser; whatever it raises, panics included, is one `InputError`."""
    # Here, so that a start from the cache never loads the parser.
    import peppi_py

    try:
        try:
            from peppi_py import End, Start, _read_slippi, dc_from_json, frames_from_sa
        except ImportError:
            # The private names that give items have gone; the rest is public.
            game = peppi_py.read_slippi(str(path))
            return _Recording(game.start, game.end, game.frames, None)
        raw = _read_slippi(str(path), False)
        names = {field.name for field in raw.frames.type}
        return _Recording(
            dc_from_json(Start, raw.start),
            dc_from_json(End, raw.end) if raw.end else None,
            frames_from_sa(raw.frames),
            raw.frames.field("item") if "item" in names else None,
        )
    except BaseException as error:
        # A panic of the Rust parser derives from BaseException alone.
        rejects = isinstance(error, Exception) and not isinstance(error, MemoryError)
        if not rejects and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        if "failed to fill whole buffer" in reason:
            reason += "; cut short, or of a form it does not know"
        raise InputError(f"the parser rejects it ({reason})") from error


def _game(recording: _Recording, path: Path, sha256: str) -> Game:
    start, end, frames, item = recording
    if len(start.players) < 2:
        raise InputError(f"it has {len(start.players)} port(s), it takes two or more")
    if frames is None or len(frames.id) == 0:
        raise InputError("it has no frames")
    row_t, frame_t = _last_rows(frames.id.to_numpy())
    missing: set[str] = set() if start.is_pal is not None else {"start.is_pal"}
    players = _players(recording, path, row_t, frame_t, missing)
    items = None if item is None else _items(item, row_t, missing)
    if items is None:
        missing.add("items")
    game = Game(
        name=path.name,
        sha256=sha256,
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
    )
    _refuse_nonfinite(game)
    return game


def _version(start: Any) -> tuple[int, int, int]:
    major, minor, patch = start.slippi.version
    return int(major), int(minor), int(patch)


def _players(
    recording: _Recording,
    path: Path,
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
        (int(player.port), follower): data
        for player, both in zip(players, frames.ports, strict=True)
        for follower, data in ((False, both.leader), (True, both.follower))
        if data is not None
    }
    rows = {who: _rows(data, row_t) for who, data in fighters.items()}
    absences = any((fighter_t < 0).any() for fighter_t in rows.values())
    if absences and _version(start) < _FRAME_END_VERSION:
        rows = _put_back(rows, frame_t, recorded_frames(path.read_bytes()))
    read = {who: _fighter(data, rows[who], missing) for who, data in fighters.items()}
    return tuple(
        Player(
            port=int(player.port) + 1,
            kind=player.type.name.lower(),
            character=int(player.character),
            team=int(player.team.color) if start.is_teams and player.team else -1,
            leader=read[int(player.port), False],
            nana=read.get((int(player.port), True)),
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


def _refuse_nonfinite(game: Game) -> None:
    for player in game.players:
        for who, fighter in (("", player.leader), (" (Nana)", player.nana)):
            if fighter is None:
                continue
            for part in ("pre", "post"):
                for name, values in getattr(fighter, part).items():
                    where = f"{part}.{name} of P{player.port}{who}"
                    _refuse_first(where, values, game.frame_t)
    if game.items is not None:
        for name, values in game.items.fields.items():
            _refuse_first(f"items.{name}", values, game.frame_t[game.items.frame_i])


def _refuse_first(where: str, values: np.ndarray, frame_t: np.ndarray) -> None:
    if values.dtype.kind != "f":
        return
    bad = ~np.isfinite(values)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{where} is {values[first]} at frame {frame_t[first]} and not finite at "
            f"{int(bad.sum())} frames, the recording is damaged"
        )
