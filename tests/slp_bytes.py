"""Reads and edits recordings byte by byte, without any parser; compares games."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxbench.data.game import Game
from jaxbench.data.replay_report import Outcome
from jaxbench.data.replays import load_replays

HEADER = 15


def events(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (code, offset of the event, size after the code) of a recording."""
    end = HEADER + int.from_bytes(data[11:15], "big")
    assert data[HEADER] == 0x35
    count = (data[HEADER + 1] - 1) // 3
    sizes = {}
    for i in range(count):
        at = HEADER + 2 + 3 * i
        sizes[data[at]] = int.from_bytes(data[at + 1 : at + 3], "big")
    at = HEADER
    while at < end:
        code = data[at]
        size = data[at + 1] if code == 0x35 else sizes[code]
        yield code, at, size
        at += 1 + size


def frames_of(data: bytes, code: int) -> dict[tuple[int, int, int], list[int]]:
    """(frame id, port from 0, is follower) -> offsets of its events, in file order."""
    found: dict[tuple[int, int, int], list[int]] = {}
    for kind, at, _ in events(data):
        if kind == code:
            key = (*struct.unpack(">iB", data[at + 1 : at + 6]), data[at + 6])
            found.setdefault(key, []).append(at)
    return found


TYPES = {"B": ">u1", "H": ">u2", "f": ">f4"}
# (part, field) -> struct code and offset inside the pre (0x37) or post (0x38) event.
OFFSETS = {
    ("pre", "state"): ("H", 0x0B),
    ("pre", "joystick_x"): ("f", 0x19),
    ("pre", "cstick_y"): ("f", 0x25),
    ("pre", "trigger"): ("f", 0x29),
    ("pre", "buttons"): ("H", 0x31),
    ("pre", "trigger_l"): ("f", 0x33),
    ("post", "character"): ("B", 0x07),
    ("post", "state"): ("H", 0x08),
    ("post", "position_x"): ("f", 0x0A),
    ("post", "position_y"): ("f", 0x0E),
    ("post", "direction"): ("f", 0x12),
    ("post", "percent"): ("f", 0x16),
    ("post", "stocks"): ("B", 0x21),
    ("post", "flags_3"): ("B", 0x29),
    ("post", "misc_as"): ("f", 0x2B),
    ("post", "airborne"): ("B", 0x2F),
    ("post", "knockback_y"): ("f", 0x41),
    ("post", "hitlag"): ("f", 0x49),
}


def check_against_bytes(game: Game, data: bytes) -> int:
    """Compares every fighter with the last event of each frame; counts rewrites."""
    bytes_n = np.frombuffer(data, np.uint8)

    def read_all(kind: str, places: list[int]) -> np.ndarray:
        size = struct.calcsize(">" + kind)
        rows_ns = bytes_n[np.array(places, int)[:, None] + np.arange(size)]
        return np.ascontiguousarray(rows_ns).view(TYPES[kind])[:, 0]

    rewritten = 0
    for code, part in ((0x37, "pre"), (0x38, "post")):
        found = frames_of(data, code)
        for player in game.players:
            for follower, fighter in ((0, player.leader), (1, player.nana)):
                if fighter is None:
                    continue
                keys = [(int(t), player.port - 1, follower) for t in game.frame_t]
                present = np.array([key in found for key in keys])
                np.testing.assert_array_equal(fighter.present_t, present)
                rows = [found[key] for key in keys if key in found]
                for (where, name), (kind, offset) in OFFSETS.items():
                    if where != part or f"{part}.{name}" in game.missing:
                        continue
                    if name == "trigger_l" and any(
                        "triggers" in r for r in game.remarks
                    ):
                        continue
                    last, first = (
                        read_all(kind, [row[i] + offset for row in rows])
                        for i in (-1, 0)
                    )
                    got = getattr(fighter, part)[name]
                    np.testing.assert_array_equal(got[present], last, name)
                    assert not got[~present].any(), name
                    rewritten += int((first != last).sum())
    return rewritten


@functools.cache
def games_of(folder: Path) -> tuple[list[Game], list[Outcome]]:
    """What `load_replays` returns, read once a process."""
    return load_replays(folder, progress=False)


def patched(data: bytes, at: int, kind: str, value: float) -> bytes:
    new = bytearray(data)
    struct.pack_into(">" + kind, new, at, value)
    return bytes(new)


def without(data: bytes, drop: Callable[[int, int | None], bool]) -> bytes:
    """The same recording without the events that `drop(code, frame)` chooses."""
    kept = bytearray()
    end = HEADER
    for code, at, size in events(data):
        end = at + 1 + size
        frame = struct.unpack(">i", data[at + 1 : at + 5])[0] if size >= 4 else None
        if not drop(code, frame):
            kept += data[at:end]
    return data[:11] + len(kept).to_bytes(4, "big") + bytes(kept) + data[end:]


def assert_same(a: object, b: object) -> None:
    """Equal in every value, type and shape."""
    assert type(a) is type(b)
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for name in a:
            assert_same(a[name], b[name])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def copy_some(odd: Path, root: Path) -> Path:
    """Makes a nested folder of three readable games and two files that are none."""
    (root / "more").mkdir(parents=True)
    shutil.copy(odd / "v3_9_very_short.slp", root / "b.slp")
    shutil.copy(odd / "v3_12_ffa_4p_short.slp", root / "a.SLP")
    shutil.copy(odd / "v1_7_1_pal_short.slp", root / "more" / "c.slp")
    shutil.copy(odd / "not_slp_text.slp", root / "more" / "d.slp")
    shutil.copy(odd / "homerun_contest.slp", root / "e.slp")
    (root / "notes.txt").write_text("not a replay")
    return root
