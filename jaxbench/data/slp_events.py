"""The event stream of a recording, read without the parser.

A recording's first element, "raw", is a row of events: one byte of kind and as many
bytes of payload as the table in the first event announces. Two things need the
stream itself. `recorded_frames` says which fighter is recorded on which frame, which
peppi-py 0.8.6 loses before version 3.0. `repaired` rewrites a stream that the parser
rejects although its frames are whole: cut off in the middle, with events of size zero,
with one of a pair of events lost, or with fewer fields than its version announces.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxbench.errors import InputError

# "{U\x03raw[$U#l" and the length of the array that follows.
HEADER_BYTES = 15

_PAYLOADS, _START, _PRE, _POST, _END = 0x35, 0x36, 0x37, 0x38, 0x39
_FRAME_START, _ITEM, _FRAME_END = 0x3A, 0x3B, 0x3C
_FRAME_HEAD = struct.Struct(">BiB?")
_FRAME_KINDS = (_PRE, _POST)

Version = tuple[int, int, int]
# Payload bytes of an event -> the last version whose events are so short.
_LAST_VERSION: dict[int, dict[int, Version]] = {
    _PRE: {58: (1, 1, 0), 59: (1, 3, 0), 63: (3, 14, 0), 64: (3, 16, 0)},
    _POST: {
        **{33: (0, 1, 0), 37: (1, 99, 0), 51: (2, 0, 0), 52: (3, 4, 0)},
        **{72: (3, 7, 0), 76: (3, 10, 0), 80: (3, 15, 0)},
    },
    _ITEM: {37: (3, 1, 0), 41: (3, 5, 0), 42: (3, 15, 0)},
}
# In 3.0 to 3.6 the event at the end of a frame has no field of its own, over which
# peppi-py 0.8.6 panics. It gets the field of 3.7, the last frame that is final, and
# the game start the two bytes of its own that 3.7 added.
_EMPTY_FRAME_END, _FRAME_END_37, _VERSION_37 = 4, 8, (3, 7, 0)

Fighter = tuple[int, bool]


class Event(NamedTuple):
    """Kind, and where it begins and ends in the file."""

    kind: int
    begin: int
    end: int


class Stream(NamedTuple):
    """The whole events of a file, payload sizes by kind, and where it breaks off."""

    events: list[Event]
    sizes: dict[int, int]
    broken_at: int | None


def read_stream(data: bytes) -> Stream:
    """Walks the events of a whole file; about 10 ms for an eight-minute game."""
    length = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "big")
    at, end = HEADER_BYTES, HEADER_BYTES + length if length else len(data)
    sizes: dict[int, int] = {}
    events: list[Event] = []
    try:
        while at < end:
            kind = data[at]
            if kind == _PAYLOADS:
                size = data[at + 1]
                sizes = dict(struct.iter_unpack(">BH", data[at + 2 : at + 1 + size]))
            else:
                size = sizes[kind]
            if at + 1 + size > len(data):
                break
            events.append(Event(kind, at, at + 1 + size))
            at += 1 + size
            # A file that was never closed (length 0) goes on into its metadata.
            if kind == _END and not length:
                end = at
    except (IndexError, KeyError, struct.error):
        pass
    return Stream(events, sizes, None if at == end else at)


def recorded_frames(data: bytes) -> dict[Fighter, np.ndarray]:
    """Returns (port from 0, is follower) -> int32 frame ids, in recorded order.

    About 25 ms for an eight-minute game, so it is for the recordings that need it.

    Raises:
      InputError: the stream breaks off or has an unknown event, or a fighter's
        inputs and states are not recorded on the same frames.
    """
    stream = read_stream(data)
    if stream.broken_at is not None:
        raise InputError(f"its event stream breaks off at byte {stream.broken_at}")
    frames: dict[int, dict[Fighter, list[int]]] = {_PRE: {}, _POST: {}}
    for kind, begin, _ in stream.events:
        if kind in frames:
            _, frame, port, follower = _FRAME_HEAD.unpack_from(data, begin)
            frames[kind].setdefault((port, follower), []).append(frame)
    if frames[_PRE] != frames[_POST]:
        raise InputError("it has inputs without states, or states without inputs")
    return {fighter: np.array(ids, np.int32) for fighter, ids in frames[_PRE].items()}


def repaired(data: bytes) -> tuple[bytes, Version, str]:
    """Returns a file of the whole frames of `data`, its version, and what was amiss.

    A frame is whole if each fighter on it has an input and a state. Events that no
    frame needs (gecko codes, moving platforms) are left out, and the version in the
    file becomes the last one whose events are as short as these.

    Raises:
      InputError: the stream has no game start or not one whole frame.
    """
    stream = read_stream(data)
    starts = [event for event in stream.events if event.kind == _START]
    if not starts:
        raise InputError("its event stream has no game start")
    begin, end = starts[0].begin, starts[0].end
    start = bytearray(data[begin:end])
    recorded: Version = tuple(start[1:4])  # type: ignore[assignment]
    version, sizes = recorded, dict(stream.sizes)
    for kind, last in _LAST_VERSION.items():
        version = min(version, last.get(sizes.get(kind, 0), version))
    pads = sizes.get(_FRAME_END) == _EMPTY_FRAME_END
    if pads:
        version, sizes[_FRAME_END] = _VERSION_37, _FRAME_END_37
        start += bytes(2)
        sizes[_START] += 2
    start[1:4] = bytes(version)

    body, lost = [bytes(start)], 0
    rows = list(_rows(data, stream, has_ends=_FRAME_END in sizes))
    for row in rows:
        whole = _whole(data, row)
        lost += len(row) - len(whole)
        for kind, begin, end in whole:
            body.append(data[begin:end])
            if kind == _FRAME_END and pads:
                body.append(data[begin + 1 : begin + 5])
    if len(body) == 1:
        raise InputError("its event stream has not one whole frame")
    ends = [event for event in stream.events if event.kind == _END]
    body += [data[event.begin : event.end] for event in ends[:1]]
    kept = (_START, _PRE, _POST, _END, _FRAME_START, _ITEM, _FRAME_END)
    table = [struct.pack(">BH", kind, sizes[kind]) for kind in kept if kind in sizes]
    head = bytes([_PAYLOADS, 1 + 3 * len(table)]) + b"".join(table)
    raw = head + b"".join(body)
    if stream.broken_at is not None:
        amiss = f"cut off at byte {stream.broken_at:,} of {len(data):,}"
    elif not int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "big"):
        amiss = "the file was never closed"
    elif lost:
        amiss = f"{lost} event(s) without the other of their pair"
    elif version != recorded:
        amiss = f"events of version {'.'.join(map(str, version))}"
    else:
        amiss = "events that the parser does not know"
    return closed(raw), recorded, amiss


def closed(raw: bytes) -> bytes:
    """Returns a file of these events without any metadata."""
    return b"{U\x03raw[$U#l" + struct.pack(">i", len(raw)) + raw + b"}"


def _rows(data: bytes, stream: Stream, has_ends: bool) -> Iterator[list[Event]]:
    """Yields the events of each recorded row of frames, in order.

    From 3.0 on a row lies between two events; before, it is a run of one frame id, and
    the last one of a file that was cut off may be a part.
    """
    row: list[Event] = []
    current = None
    for event in stream.events:
        if has_ends:
            if event.kind == _FRAME_START:
                row = [event]
            elif event.kind in (*_FRAME_KINDS, _ITEM) and row:
                row.append(event)
            elif event.kind == _FRAME_END and row:
                yield [*row, event]
                row = []
        elif event.kind in _FRAME_KINDS:
            frame = _FRAME_HEAD.unpack_from(data, event.begin)[1]
            if frame != current and row:
                yield row
                row = []
            current = frame
            row.append(event)
    if row and not has_ends and stream.broken_at is None:
        yield row


def _whole(data: bytes, row: list[Event]) -> list[Event]:
    """Leaves out the inputs that have no state, and the states without inputs."""
    seen: dict[int, set[Fighter]] = {_PRE: set(), _POST: set()}
    who = {}
    for event in row:
        if event.kind in seen:
            _, _, port, follower = _FRAME_HEAD.unpack_from(data, event.begin)
            who[event] = (port, follower)
            seen[event.kind].add((port, follower))
    both = seen[_PRE] & seen[_POST]
    if not both:
        return []
    return [event for event in row if event not in who or who[event] in both]
