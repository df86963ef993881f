"""Windows of bytes: the right bytes, the same for everybody, found by step alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from jaxbench.data.corpus import (
    RandomWindows,
    SequentialChunks,
    byte_counts,
    consecutive_windows,
    unigram_nats,
)
from jaxbench.errors import InputError

SAMPLERS = (RandomWindows, SequentialChunks)
PINNED = {"window": 512, "batch_size": 5, "seed": 42}
PINNED_OFFSETS = (
    [203109, 710343, 807564, 355669, 16933],
    [594007, 595149, 133176, 995630, 959950],
)


def some_bytes(size: int, seed: int = 0) -> np.ndarray:
    """Bytes with short documents, long ones and empty ones."""
    draw = np.random.default_rng(seed)
    bytes_n = draw.integers(32, 256, size).astype(np.uint8)
    bytes_n[draw.integers(0, size, size // 90)] = 0x1E
    bytes_n[size // 3 : size // 3 + 3] = 0x1E
    bytes_n[size // 2 : size // 2 + 200] = 65
    return bytes_n


@pytest.fixture
def mapped(tmp_path) -> np.ndarray:
    path = tmp_path / "bytes"
    path.write_bytes(some_bytes(5000).tobytes())
    return np.memmap(path, np.uint8, "r")


# ---- both samplers ------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_is_a_function_of_its_number(sampler, mapped):
    def fresh(seed: int = 3):
        return sampler(mapped, (100, 4700), window=16, batch_size=6, seed=seed)

    once = fresh()
    whole = once.steps(0, 40, 40)
    assert whole.shape == (40, 6, 17) and whole.dtype == np.int16
    assert once.example == ((17,), np.int16) and once.steps_per_epoch == 0
    for start, count in ((39, 1), (0, 1), (7, 5), (13, 26)):
        np.testing.assert_array_equal(
            fresh().steps(start, count, count), whole[start : start + count]
        )
        np.testing.assert_array_equal(
            once.steps(start, count, count), whole[start : start + count]
        )
    assert not np.array_equal(fresh(4).steps(0, 40, 40), whole)
    far = fresh().steps(10**9, 2, 2)
    np.testing.assert_array_equal(far[1:], fresh().steps(10**9 + 1, 1, 1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_rows_past_the_count_repeat_the_last_step(sampler, mapped):
    one = sampler(mapped, (0, 5000), window=8, batch_size=3, seed=0)
    padded = one.steps(5, 2, 6)
    np.testing.assert_array_equal(padded[:2], one.steps(5, 2, 2))
    for row in padded[2:]:
        np.testing.assert_array_equal(row, padded[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_split_shorter_than_a_window_is_refused(sampler):
    bytes_n = some_bytes(300)
    sampler(bytes_n, (0, 17), window=16, batch_size=2, seed=0).steps(0, 3, 3)
    with pytest.raises(InputError, match=r"16 bytes, fewer than one window of 16 \+ 1"):
        sampler(bytes_n, (0, 16), window=16, batch_size=2, seed=0)
    with pytest.raises(InputError, match="fewer than one window"):
        consecutive_windows(bytes_n, (280, 296), window=16)


# ---- random windows -----------------------------------------------------------------


def test_random_windows_are_the_bytes_at_their_offsets(mapped):
    one = RandomWindows(mapped, (100, 4700), window=16, batch_size=7, seed=11)
    rows, offsets = one.steps(4, 50, 50), one.offsets(4, 50)
    for row, offset in zip(rows.reshape(-1, 17), offsets.ravel(), strict=True):
        assert row.tolist() == [int(mapped[offset + i]) for i in range(17)]


def test_random_windows_reach_every_place_of_the_split_equally_and_no_other():
    bytes_n = np.arange(200, dtype=np.uint8)
    one = RandomWindows(bytes_n, (50, 90), window=9, batch_size=30, seed=0)
    offsets = one.offsets(0, 2000)
    # 31 windows lie inside; 60,000 draws give each 1,935, standard deviation 43.
    values, counts = np.unique(offsets, return_counts=True)
    assert values.tolist() == list(range(50, 81))
    assert abs(counts - 60_000 / 31).max() < 5 * math.sqrt(60_000 / 31)
    # Neighbours in a batch and in time know nothing of each other.
    flat = offsets - offsets.mean()
    for shifted in (flat[1:] * flat[:-1], flat[:, 1:] * flat[:, :-1]):
        assert abs(shifted.mean()) < 5 * flat.var() / math.sqrt(shifted.size)


def test_random_offsets_are_pinned():
    """A later version must draw the same batches, or old results mean another run."""
    one = RandomWindows(np.zeros(10**6, np.uint8), (0, 10**6), **PINNED)
    assert one.offsets(0, 1).tolist() == [PINNED_OFFSETS[0]]
    assert one.offsets(1000, 1).tolist() == [PINNED_OFFSETS[1]]


# ---- sequential chunks --------------------------------------------------------------


def read_on(text: bytes, size: int, seed: int) -> Iterator[list[int]]:
    """The original's loop, byte by byte, over a text whose last byte is 0x1e."""
    place = np.random.RandomState(seed).randint(0, max(1, len(text) - 1000))
    while place < len(text) and text[place] != 0x1E:
        place += 1
    place = place + 1 if place < len(text) else 0
    held: list[int] = []
    while True:
        place = 0 if place >= len(text) else place
        byte = text[place]
        place += 1
        if byte != 0x1E:
            held.append(byte)
        if len(held) == size or (byte == 0x1E and held):
            yield held + [0] * (size - len(held))
            held = []


@pytest.mark.parametrize("seed", [42, 0, 7])
@pytest.mark.parametrize("window, batch", [(16, 4), (1, 3), (37, 5)])
def test_chunks_are_those_of_the_original(seed, window, batch):
    bytes_n = some_bytes(4000, seed)
    bytes_n[[99, 3899]] = 0x1E
    one = SequentialChunks(
        bytes_n, (100, 3900), window=window, batch_size=batch, seed=seed
    )
    steps = 2 * 3800 // (batch * min(window, 16))  # more than once around
    rows = one.steps(0, steps, steps).reshape(-1, window + 1)
    expected = read_on(bytes_n[100:3900].tobytes(), window + 1, seed)
    for row in rows:
        assert row.tolist() == next(expected)


def test_chunks_of_a_split_that_ends_inside_a_document():
    bytes_n = np.frombuffer(b"\x1eab\x1ecdefg\x1e\x1ehi" + b"xyz", np.uint8)
    one = SequentialChunks(bytes_n, (0, 13), window=2, batch_size=1, seed=42)
    rows = [bytes(row.astype(np.uint8)) for row in one.steps(0, 8, 8)[:, 0]]
    assert rows == [b"ab\0", b"cde", b"fg\0", b"hi\0"] * 2
    with pytest.raises(InputError, match="all 0x1e"):
        SequentialChunks(
            np.full(50, 0x1E, np.uint8), (0, 50), window=2, batch_size=1, seed=0
        )


# ---- evaluation ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [17, 32, 33, 64, 100])
def test_every_byte_is_a_target_once_and_follows_its_input(size, mapped):
    split = (100, 100 + size)
    rows = consecutive_windows(mapped, split, window=16)
    assert rows.shape == (-(-size // 16), 17) and rows.dtype == np.int16
    targets, inputs = rows[:, 1:].ravel(), rows[:, :-1].ravel()
    assert targets[:size].tolist() == mapped[100 : 100 + size].tolist()
    assert (targets[size:] == -1).all()
    assert inputs[:size].tolist() == [0x1E, *mapped[100 : 99 + size].tolist()]
    limited = consecutive_windows(mapped, (100, 4900), window=16, limit=size)
    np.testing.assert_array_equal(limited, rows)
    beyond = consecutive_windows(mapped, split, window=16, limit=10**9)
    np.testing.assert_array_equal(beyond, rows)


def test_counts_and_entropy(mapped, monkeypatch):
    monkeypatch.setattr("jaxbench.data.corpus.windows._BLOCK", 64)
    counts = byte_counts(mapped, (10, 4321))
    held = mapped[10:4321].tolist()
    assert counts.tolist() == [held.count(byte) for byte in range(256)]
    entropy = sum(
        -held.count(b) / len(held) * math.log(held.count(b) / len(held))
        for b in set(held)
    )
    assert unigram_nats(counts) == pytest.approx(entropy, rel=1e-12)
    assert unigram_nats(np.ones(256)) == pytest.approx(math.log(256))
    assert unigram_nats(np.eye(256)[3]) == 0
