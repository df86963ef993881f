"""A recording as a real `.slp` file: the events of Slippi 3.14.0, byte for byte.

Layout after the public Slippi replay specification (project-slippi/slippi-wiki,
SPEC.md): a UBJSON object {raw: bytes, metadata: object}; `raw` holds big-endian
events of fixed size, announced by the first of them. The gecko code list, which
Melee itself needs and no reader of frames does, is left out.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

VERSION = (3, 14, 0)
FIRST_FRAME = -123

_PAYLOADS, _START, _PRE, _POST, _END = 0x35, 0x36, 0x37, 0x38, 0x39
_FRAME_START, _ITEM, _BOOKEND = 0x3A, 0x3B, 0x3C
_START_BYTES = 760
_TIMER_COUNTS_DOWN, _STOCK_MODE = 0x02, 0x20
_END_METHOD = {"time": 1, "game": 2, "no_contest": 7}

_FRAME_START_DTYPE = np.dtype(
    [("event", "u1"), ("frame", ">i4"), ("random_seed", ">u4"), ("counter", ">u4")]
)
_PRE_DTYPE = np.dtype(
    [
        ("event", "u1"),
        ("frame", ">i4"),
        ("port", "u1"),
        ("follower", "u1"),
        ("random_seed", ">u4"),
        ("state", ">u2"),
        ("position_x", ">f4"),
        ("position_y", ">f4"),
        ("direction", ">f4"),
        ("joystick_x", ">f4"),
        ("joystick_y", ">f4"),
        ("cstick_x", ">f4"),
        ("cstick_y", ">f4"),
        ("trigger", ">f4"),
        ("buttons_processed", ">u4"),
        ("buttons", ">u2"),
        ("trigger_l", ">f4"),
        ("trigger_r", ">f4"),
        ("raw_analog_x", "i1"),
        ("percent", ">f4"),
    ]
)
_POST_DTYPE = np.dtype(
    [
        ("event", "u1"),
        ("frame", ">i4"),
        ("port", "u1"),
        ("follower", "u1"),
        ("character", "u1"),
        ("state", ">u2"),
        ("position_x", ">f4"),
        ("position_y", ">f4"),
        ("direction", ">f4"),
        ("percent", ">f4"),
        ("shield", ">f4"),
        ("last_attack_landed", "u1"),
        ("combo_count", "u1"),
        ("last_hit_by", "u1"),
        ("stocks", "u1"),
        ("state_age", ">f4"),
        ("flags_0", "u1"),
        ("flags_1", "u1"),
        ("flags_2", "u1"),
        ("flags_3", "u1"),
        ("flags_4", "u1"),
        ("misc_as", ">f4"),
        ("airborne", "u1"),
        ("ground", ">u2"),
        ("jumps", "u1"),
        ("l_cancel", "u1"),
        ("hurtbox_state", "u1"),
        ("self_x_air", ">f4"),
        ("self_y", ">f4"),
        ("knockback_x", ">f4"),
        ("knockback_y", ">f4"),
        ("self_x_ground", ">f4"),
        ("hitlag", ">f4"),
        ("animation_index", ">u4"),
    ]
)
_ITEM_DTYPE = np.dtype(
    [
        ("event", "u1"),
        ("frame", ">i4"),
        ("type", ">u2"),
        ("state", "u1"),
        ("direction", ">f4"),
        ("velocity_x", ">f4"),
        ("velocity_y", ">f4"),
        ("position_x", ">f4"),
        ("position_y", ">f4"),
        ("damage", ">u2"),
        ("timer", ">f4"),
        ("id", ">u4"),
        ("misc", "u1", (4,)),
        ("owner", "i1"),
    ]
)
_BOOKEND_DTYPE = np.dtype(
    [("event", "u1"), ("frame", ">i4"), ("latest_finalized", ">i4")]
)

_HEADER = ("event", "frame", "port", "follower")
PRE_FIELDS = tuple(n for n in _PRE_DTYPE.names or () if n not in _HEADER)
POST_FIELDS = tuple(n for n in _POST_DTYPE.names or () if n not in _HEADER)
ITEM_FIELDS = tuple(
    n for n in _ITEM_DTYPE.names or () if n not in ("event", "frame", "misc")
)


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a game recorder saw, row by row, rolled-back rows included.

    Attributes:
      frame_r: int32 [R], frame id of each row. A rollback records frames again, so
        ids may repeat and step back; the last row of an id is the final one.
      latest_finalized_r: int32 [R], newest frame that cannot be rolled back any more.
      ports: ports in play, 1 to 4, increasing.
      characters: external (character select) id of each port's fighter.
      costumes: costume index of each port's fighter.
      pre: `PRE_FIELDS` -> [R, P], P ports in the order of `ports`; `random_seed`
        of column 0 is also written as that of the frame.
      post: `POST_FIELDS` -> [R, P].
      items: `ITEM_FIELDS` -> [R, I], I slots.
      item_present_ri: bool [R, I], the slots that hold an item.
      stage: in-game stage id.
      stocks: stocks at the start.
      timer_seconds: what the game's clock counts down from.
      random_seed: the seed before the game.
      end: "game", "time" or "no_contest".
      placements: place of each port, 0 the winner.
      source: what made the recording, the `playedOn` of its metadata.
    """

    frame_r: np.ndarray
    latest_finalized_r: np.ndarray
    ports: tuple[int, ...]
    characters: tuple[int, ...]
    costumes: tuple[int, ...]
    pre: Mapping[str, np.ndarray]
    post: Mapping[str, np.ndarray]
    items: Mapping[str, np.ndarray]
    item_present_ri: np.ndarray
    stage: int
    stocks: int
    timer_seconds: int
    random_seed: int
    end: str
    placements: tuple[int, ...]
    source: str


def write_slp(path: Path | str, recording: Recording) -> None:
    """Writes one `.slp` file; it appears whole or not at all.

    The bytes depend on `recording` alone: no clock, no names. Some 200 MB/s.

    Raises:
      ValueError: a field is missing, unknown, or of another shape; the ports are not
        increasing numbers of 1 to 4; the end is not one of the three.
      OSError: the file cannot be written.
    """
    _check(recording)
    raw = b"".join(
        (
            _payload_sizes(),
            _game_start(recording),
            _frames(recording),
            _game_end(recording),
        )
    )
    data = b"".join(
        (b"{", _key("raw"), b"[$U#l", struct.pack(">i", len(raw)), raw)
    ) + b"".join((_key("metadata"), _metadata(recording), b"}"))
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _check(recording: Recording) -> None:
    ports = recording.ports
    if not ports or any(p not in (1, 2, 3, 4) for p in ports):
        raise ValueError(f"ports={ports}, expected numbers of 1 to 4")
    if list(ports) != sorted(set(ports)):
        raise ValueError(f"ports={ports} are not increasing")
    for name in ("characters", "costumes", "placements"):
        if len(getattr(recording, name)) != len(ports):
            raise ValueError(
                f"{name}={getattr(recording, name)} does not match ports={ports}"
            )
    if recording.end not in _END_METHOD:
        raise ValueError(f"end={recording.end!r} is not one of {sorted(_END_METHOD)}")
    rows = len(recording.frame_r)
    if rows == 0 or recording.frame_r[0] != FIRST_FRAME:
        raise ValueError(f"the first row must be frame {FIRST_FRAME}")
    slots = recording.item_present_ri.shape[1]
    for part, fields, columns in (
        ("pre", PRE_FIELDS, len(ports)),
        ("post", POST_FIELDS, len(ports)),
        ("items", ITEM_FIELDS, slots),
    ):
        given = getattr(recording, part)
        if set(given) != set(fields):
            raise ValueError(
                f"{part}: missing {sorted(set(fields) - set(given))}, "
                f"unknown {sorted(set(given) - set(fields))}"
            )
        for name, values in given.items():
            if values.shape != (rows, columns):
                raise ValueError(
                    f"{part}.{name} is {values.shape}, expected {(rows, columns)}"
                )


def _payload_sizes() -> bytes:
    sizes = {
        _START: _START_BYTES,
        _PRE: _PRE_DTYPE.itemsize - 1,
        _POST: _POST_DTYPE.itemsize - 1,
        _END: 6,
        _FRAME_START: _FRAME_START_DTYPE.itemsize - 1,
        _ITEM: _ITEM_DTYPE.itemsize - 1,
        _BOOKEND: _BOOKEND_DTYPE.itemsize - 1,
    }
    table = b"".join(struct.pack(">BH", event, size) for event, size in sizes.items())
    return struct.pack(">BB", _PAYLOADS, len(table) + 1) + table


def _game_start(recording: Recording) -> bytes:
    event = bytearray(1 + _START_BYTES)
    event[0] = _START
    event[1:5] = bytes((*VERSION, 0))
    info = memoryview(event)[0x05:0x13D]
    info[0x00] = _TIMER_COUNTS_DOWN | len(recording.ports) << 2 | _STOCK_MODE
    info[0x0B] = info[0x0C] = 0xFF  # items off; a self-destruct costs one point
    struct.pack_into(">HI", info, 0x0E, recording.stage, recording.timer_seconds)
    info[0x23:0x28] = b"\xff" * 5
    struct.pack_into(">f", info, 0x30, 1.0)
    by_port = dict(
        zip(
            recording.ports,
            zip(recording.characters, recording.costumes, strict=True),
            strict=True,
        )
    )
    for port in (1, 2, 3, 4):
        block = info[0x60 + 0x24 * (port - 1) :][:0x24]
        character, costume = by_port.get(port, (0, 0))
        kind = 0 if port in by_port else 3
        block[0x00:0x04] = bytes((character, kind, recording.stocks, costume))
        block[0x08] = 9  # handicap, unused: the value of every console game
        struct.pack_into(">fff", block, 0x18, 1.0, 1.0, 1.0)
    struct.pack_into(">I", event, 0x13D, recording.random_seed & 0xFFFFFFFF)
    event[0x1A2] = 1  # Pokemon Stadium does not transform
    event[0x1A3:0x1A5] = bytes((0x02, 0x08))  # minor and major scene: online
    event[0x2BD] = 1  # English
    return bytes(event)


def _game_end(recording: Recording) -> bytes:
    place = dict(zip(recording.ports, recording.placements, strict=True))
    places = [place.get(port, -1) for port in (1, 2, 3, 4)]
    return struct.pack(">BBb4b", _END, _END_METHOD[recording.end], -1, *places)


def _frames(recording: Recording) -> bytes:
    """Lays every row out at full width, then drops the bytes of absent items."""
    ports = len(recording.ports)
    slots = recording.item_present_ri.shape[1]
    dtype = np.dtype(
        [
            ("start", _FRAME_START_DTYPE),
            ("pre", _PRE_DTYPE, (ports,)),
            ("items", _ITEM_DTYPE, (slots,)),
            ("post", _POST_DTYPE, (ports,)),
            ("end", _BOOKEND_DTYPE),
        ]
    )
    row = np.zeros(len(recording.frame_r), dtype)
    frame = recording.frame_r
    row["start"]["event"] = _FRAME_START
    row["start"]["frame"] = frame
    row["start"]["random_seed"] = recording.pre["random_seed"][:, 0]
    row["start"]["counter"] = frame - FIRST_FRAME
    for part, event in (("pre", _PRE), ("post", _POST), ("items", _ITEM)):
        block = row[part]
        block["event"] = event
        block["frame"] = frame[:, None]
        if part != "items":
            block["port"] = np.array(recording.ports, np.uint8)[None] - 1
        for name, values in getattr(recording, part).items():
            block[name] = values
    row["end"]["event"] = _BOOKEND
    row["end"]["frame"] = frame
    row["end"]["latest_finalized"] = recording.latest_finalized_r
    keep = np.ones((len(row), dtype.itemsize), bool)
    first = _FRAME_START_DTYPE.itemsize + ports * _PRE_DTYPE.itemsize
    size = _ITEM_DTYPE.itemsize
    keep[:, first : first + slots * size] = np.repeat(
        recording.item_present_ri, size, axis=1
    )
    return row.view(np.uint8).reshape(len(row), -1)[keep].tobytes()


def _key(text: str) -> bytes:
    return b"U" + bytes((len(text),)) + text.encode("ascii")


def _metadata(recording: Recording) -> bytes:
    def integer(value: int) -> bytes:
        return b"l" + struct.pack(">i", value)

    parts = [b"{", _key("startAt"), b"S", _key("2001-11-21T00:00:00Z")]
    parts += [_key("lastFrame"), integer(int(recording.frame_r.max()))]
    parts += [_key("players"), b"{"]
    _, last_r = np.unique(recording.frame_r[::-1], return_index=True)
    for column, port in enumerate(recording.ports):
        played = recording.post["character"][::-1, column][last_r]
        parts += [_key(str(port - 1)), b"{", _key("characters"), b"{"]
        for character in np.unique(played):
            frames = int(np.count_nonzero(played == character))
            parts += [_key(str(character)), integer(frames)]
        parts += [b"}}"]
    parts += [b"}", _key("playedOn"), b"S", _key(recording.source), b"}"]
    return b"".join(parts)
