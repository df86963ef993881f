"""Floors of byte-level models: interpolated n-grams, and a compressor.

Both know nothing but the training text and, of a window, the bytes before the one they
predict, as models do.
"""

from __future__ import annotations

import lzma

import numpy as np

BYTES = 256
ORDERS = {2: "bigram", 3: "trigram", 4: "4-gram", 5: "5-gram"}
# Text that is counted, in slices evenly over the training split.
MOST_COUNTED, SLICES = 1 << 20, 64
# A compressor is ten times slower.
MOST_COMPRESSED = 1 << 17


def text_of(
    bytes_n: np.ndarray, where: tuple[int, int], most: int = MOST_COUNTED
) -> list[np.ndarray]:
    """At most so many bytes of a split, in slices evenly over it."""
    start, stop = where
    if stop - start <= most:
        return [np.asarray(bytes_n[start:stop])]
    size = most // SLICES
    firsts = np.linspace(start, stop - size, SLICES).astype(int)
    return [np.asarray(bytes_n[first : first + size]) for first in firsts]


def ngram_nats(slices: list[np.ndarray], rows: np.ndarray) -> dict[str, float]:
    """Nats a byte of n-grams of order 2 to 5, interpolated as Witten and Bell have it.

        p_n(x | c) = (N(c x) + T(c) p_{n-1}(x | c')) / (N(c) + T(c))

    with N the counts, T the number of different bytes seen after the context c, and c'
    the context without its oldest byte (Witten and Bell 1991; Chen and Goodman 1998,
    equation 2.9). p_0 is uniform. Where a context is new, p_n is p_{n-1}.

    Args:
      slices: of the training text; no n-gram goes from one to the next.
      rows: [N, T + 1] windows of scored text, -1 where they are padded.
    """
    ids, at = _positions(rows)
    p = np.full(len(at), 1 / BYTES)
    found = {}
    for order in range(1, max(ORDERS) + 1):
        keys, counts = np.unique(
            np.concatenate([_keys(part, order) for part in slices]), return_counts=True
        )
        # Keys that share a context are neighbours: the newest byte comes last.
        contexts, first = np.unique(keys >> 8, return_index=True)
        totals, types = np.add.reduceat(counts, first), np.diff(first, append=len(keys))
        known = at >= order - 1
        key = _keys_at(rows, ids[known], at[known], order)
        n_xc = _lookup(keys, counts, key)
        n_c, t_c = (_lookup(contexts, of, key >> 8) for of in (totals, types))
        with np.errstate(invalid="ignore"):
            new = (n_xc + t_c * p[known]) / (n_c + t_c)
        p[known] = np.where(n_c > 0, new, p[known])
        if order in ORDERS:
            found[ORDERS[order]] = float(-np.log(p).mean())
    return found


def _positions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row, and how many bytes of the window stand before, of each scored byte."""
    ids, before = np.nonzero(rows[:, 1:] >= 0)
    return ids, before + 1


def _keys(part: np.ndarray, order: int) -> np.ndarray:
    """Each n-gram of a text as a number, its newest byte last."""
    count = max(0, len(part) - order + 1)
    key = np.zeros(count, np.uint64)
    for k in range(order):
        key = (key << np.uint64(8)) | part[k : k + count].astype(np.uint64)
    return key.astype(np.int64)


def _keys_at(
    rows: np.ndarray, ids: np.ndarray, at: np.ndarray, order: int
) -> np.ndarray:
    key = np.zeros(len(ids), np.int64)
    for back in range(order - 1, -1, -1):
        key = (key << 8) | rows[ids, at - back].astype(np.int64)
    return key


def _lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The values of sorted keys, 0 for those that are not among them."""
    if not len(keys):
        return np.zeros(len(wanted))
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0).astype(float)


def lzma_nats(slices: list[np.ndarray], rows: np.ndarray) -> float:
    """Nats a byte that LZMA needs more for the scored text behind the training text.

    The scored text is one stream to it, where models begin anew at every window.
    """
    text = np.concatenate(slices)[-MOST_COMPRESSED:].astype(np.uint8).tobytes()
    scored = rows[:, 1:]
    more = scored[scored >= 0].astype(np.uint8).tobytes()
    sizes = [
        len(lzma.compress(t, format=lzma.FORMAT_RAW, filters=_FILTERS))
        for t in (text, text + more)
    ]
    return float((sizes[1] - sizes[0]) * 8 * np.log(2) / len(more))


_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9}]
