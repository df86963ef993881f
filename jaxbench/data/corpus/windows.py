"""Which bytes make up which step: samplers that need nothing but the step's number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxbench.errors import InputError

SEPARATOR = 0x1E
PADDING = -1

# Second word of the Philox key, so that other draws of the same seed differ.
_WINDOWS = 0x77696E646F7773
_WORDS_PER_COUNT = 4
_BLOCK = 1 << 22
_TAIL = 1000


class Example(NamedTuple):
    """What one row of a batch is."""

    shape: tuple[int, ...]
    dtype: np.dtype


class RandomWindows:
    """Batches of windows at random offsets, the same for every model.

    A window is `window` + 1 consecutive bytes: inputs are its first `window`, targets
    its last. Offsets are uniform over all windows that lie inside the split and are
    drawn with replacement; 0x1e is an ordinary byte. Step s is a function of
    (seed, s) alone: its offsets are the words s * W ... of one Philox stream, so
    resuming costs nothing. There is no epoch.

    Args:
      bytes_n: uint8 [N], an array or a memory map.
      split: [start, stop) of the bytes to draw from.
      window: targets of one row.
      batch_size: rows of one step.
      seed: of the offsets, not negative.

    Raises:
      InputError: the split is shorter than one window.
    """

    steps_per_epoch = 0

    def __init__(
        self,
        bytes_n: np.ndarray,
        split: tuple[int, int],
        *,
        window: int,
        batch_size: int,
        seed: int,
    ):
        _check_window(split, window)
        self.window = window
        self.batch_size = batch_size
        self.seed = seed
        self.example = Example((window + 1,), np.dtype(np.int16))
        self._first = split[0]
        self._offsets = split[1] - split[0] - window
        self._windows_nt = np.lib.stride_tricks.sliding_window_view(
            np.asarray(bytes_n), window + 1
        )

    def offsets(self, start: int, count: int) -> np.ndarray:
        """Where the windows of steps start .. start+count-1 begin: int64 [count, b]."""
        counts = -(-self.batch_size // _WORDS_PER_COUNT)
        philox = np.random.Philox(key=[self.seed, _WINDOWS], counter=start * counts)
        words = philox.random_raw(count * counts * _WORDS_PER_COUNT)
        words_sb = words.reshape(count, -1)[:, : self.batch_size]
        # The upper 53 bits as a fraction: exact, and the same in any NumPy.
        fraction_sb = (words_sb >> np.uint64(11)) * 2.0**-53
        return self._first + (fraction_sb * self._offsets).astype(np.int64)

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1: int16 [pad_to, batch, window + 1].

        Rows past `count` repeat the last step; the program never reads them.
        """
        rows = np.empty((pad_to, self.batch_size, self.window + 1), np.int16)
        rows[:count] = self._windows_nt[self.offsets(start, count)]
        rows[count:] = rows[count - 1]
        return rows


class SequentialChunks:
    """Batches in the order of the original program, padding included.

    One cursor starts at the document after a random offset and reads on, from the end
    of the split at its beginning again. Each row is the next `window` + 1 bytes of the
    document, or fewer at its end, filled up with zeros, which are inputs and targets
    like any byte (the original counts them in its loss). A batch is `batch_size`
    consecutive rows of one text. The byte 0x1e ends a document and is in no row, and
    empty documents have no row.

    Differences from the original: a text that the split's end cuts off ends there; the
    original reads on at the split's beginning in the same row.

    Documents are listed once, in one pass (16 bytes of memory each); after that any
    step is found by binary search.

    Args:
      bytes_n: uint8 [N], an array or a memory map.
      split: [start, stop) of the bytes to read.
      window: targets of one row.
      batch_size: rows of one step.
      seed: of the first offset; 42 in the original.

    Raises:
      InputError: the split is shorter than one window, or holds no text.
    """

    steps_per_epoch = 0

    def __init__(
        self,
        bytes_n: np.ndarray,
        split: tuple[int, int],
        *,
        window: int,
        batch_size: int,
        seed: int,
    ):
        _check_window(split, window)
        self.window = window
        self.batch_size = batch_size
        self.example = Example((window + 1,), np.dtype(np.int16))
        self._bytes_n = np.asarray(bytes_n)
        begin_d, end_d = _documents(self._bytes_n, split)
        if not len(begin_d):
            raise InputError(
                f"bytes {split[0]:,} to {split[1]:,} of the corpus are all 0x1e: there "
                "is no text to train on"
            )
        self._begin_d, self._end_d = begin_d, end_d
        rows_d = -(-(end_d - begin_d) // (window + 1))
        # Number of the first row of each document, and of all rows.
        self._row_d = np.concatenate([[0], np.cumsum(rows_d)])
        size = split[1] - split[0]
        draw = np.random.RandomState(seed).randint(0, max(1, size - _TAIL))
        # The next separator ends the document skipped; -1 wraps to the first.
        behind = split[0] + draw
        after = np.flatnonzero(begin_d > behind)[:1]
        self._first = int(self._row_d[after[0]]) if len(after) else 0

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        """Rows of steps start .. start+count-1: int16 [pad_to, batch, window + 1].

        Rows past `count` repeat the last step; the program never reads them.
        """
        shape = (count, self.batch_size)
        number_r = start * self.batch_size + np.arange(shape[0] * shape[1])
        number_r = (self._first + number_r) % self._row_d[-1]
        document_r = np.searchsorted(self._row_d, number_r, side="right") - 1
        begin_r = self._begin_d[document_r]
        begin_r += (number_r - self._row_d[document_r]) * (self.window + 1)
        index_rt = begin_r[:, None] + np.arange(self.window + 1)[None]
        inside_rt = index_rt < self._end_d[document_r][:, None]
        bytes_rt = self._bytes_n[np.where(inside_rt, index_rt, begin_r[:, None])]
        rows = np.empty((pad_to, self.batch_size, self.window + 1), np.int16)
        rows[:count] = np.where(inside_rt, bytes_rt, 0).reshape(*shape, -1)
        rows[count:] = rows[count - 1]
        return rows


def consecutive_windows(
    bytes_n: np.ndarray, split: tuple[int, int], *, window: int, limit: int = 0
) -> np.ndarray:
    """Cuts a split so that each of its bytes is a target exactly once.

    Args:
      bytes_n: uint8 [N], an array or a memory map.
      split: [start, stop) of the bytes.
      window: targets of one row.
      limit: only the first so many bytes of the split; 0 for all.

    Returns:
      int16 [ceil(M / window), window + 1] for M bytes. Targets are row[1:], inputs
      row[:-1]: the byte before each target, 0x1e before the first. Behind the last
      byte follows -1, which is no byte: neither an input nor a target.

    Raises:
      InputError: the split is shorter than one window.
    """
    _check_window(split, window)
    start, stop = split
    stop = min(stop, start + limit) if limit else stop
    count = -(-(stop - start) // window)
    stream = np.full(count * window + 1, PADDING, np.int16)
    stream[0] = SEPARATOR
    stream[1 : 1 + stop - start] = bytes_n[start:stop]
    rows_nt = np.lib.stride_tricks.sliding_window_view(stream, window + 1)
    return np.ascontiguousarray(rows_nt[::window])


def byte_counts(bytes_n: np.ndarray, split: tuple[int, int]) -> np.ndarray:
    """How often each byte is in a split, int64 [256]: one pass, little memory."""
    counts = np.zeros(256, np.int64)
    for _, block in _blocks(bytes_n, split):
        counts += np.bincount(block, minlength=256)
    return counts


def unigram_nats(counts_256: np.ndarray) -> float:
    """Entropy -sum p log p of byte frequencies, in nats a byte."""
    counts = np.asarray(counts_256, np.float64)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _check_window(split: tuple[int, int], window: int) -> None:
    size = split[1] - split[0]
    if size < window + 1:
        raise InputError(
            f"bytes {split[0]:,} to {split[1]:,} of the corpus are {size:,} bytes, "
            f"fewer than one window of {window:,} + 1; lower the window, move the "
            "splits or take a larger corpus"
        )


def _blocks(
    bytes_n: np.ndarray, split: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(split[0], split[1], _BLOCK):
        yield start, np.asarray(bytes_n[start : min(start + _BLOCK, split[1])])


def _documents(
    bytes_n: np.ndarray, split: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Begins and ends of the documents that hold a byte, both int64 [documents]."""
    found = [
        start + np.flatnonzero(block == SEPARATOR)
        for start, block in _blocks(bytes_n, split)
    ]
    end_d = np.concatenate([*found, [split[1]]]).astype(np.int64)
    begin_d = np.concatenate([[split[0]], end_d[:-1] + 1])
    kept = begin_d < end_d
    return begin_d[kept], end_d[kept]
