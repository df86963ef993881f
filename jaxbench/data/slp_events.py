"""Which fighter a recording has on which frame, from its event stream alone.

Recordings before 3.0 do not mark where a frame ends, and there peppi-py 0.8.6 moves
the rows of a fighter that was gone and came back (Nana, a shared stock) up to close
the gap: its columns then end in nulls that belong in the middle. The event stream
says where they belong.
"""

from __future__ import annotations

import struct

import numpy as np

from jaxbench.errors import InputError

# "{U\x03raw[$U#l" and the length of the array that follows.
_HEADER_BYTES = 15

_PAYLOADS, _PRE_FRAME, _POST_FRAME = 0x35, 0x37, 0x38
_FRAME_HEAD = struct.Struct(">BiB?")

Fighter = tuple[int, bool]


def recorded_frames(data: bytes) -> dict[Fighter, np.ndarray]:
    """Returns (port from 0, is follower) -> int32 frame ids, in recorded order.

    About 25 ms for an eight-minute game, so it is for the recordings that need it.

    Raises:
      InputError: the stream breaks off or has an unknown event, or a fighter's
        inputs and states are not recorded on the same frames.
    """
    frames: dict[int, dict[Fighter, list[int]]] = {_PRE_FRAME: {}, _POST_FRAME: {}}
    length = int.from_bytes(data[_HEADER_BYTES - 4 : _HEADER_BYTES], "big")
    at, end = _HEADER_BYTES, _HEADER_BYTES + length if length else len(data)
    sizes: dict[int, int] = {}
    try:
        while at < end:
            code = data[at]
            if code == _PAYLOADS:
                size = data[at + 1]
                table = struct.iter_unpack(">BH", data[at + 2 : at + 1 + size])
                sizes = dict(table)
            else:
                size = sizes[code]
            if code in frames:
                _, frame, port, follower = _FRAME_HEAD.unpack_from(data, at)
                frames[code].setdefault((port, follower), []).append(frame)
            at += 1 + size
    except (IndexError, KeyError, struct.error) as error:
        raise InputError(f"its event stream breaks off at byte {at}") from error
    if frames[_PRE_FRAME] != frames[_POST_FRAME]:
        raise InputError("it has inputs without states, or states without inputs")
    return {
        fighter: np.array(ids, np.int32) for fighter, ids in frames[_PRE_FRAME].items()
    }
