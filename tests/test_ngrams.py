"""Floors of byte-level models are what counting by hand gives."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from jaxbench.tasks.pile import ngrams


def by_hand(parts: list[bytes], rows: np.ndarray) -> dict[str, float]:
    """Witten and Bell's n-grams, a byte at a time."""
    counts = [Counter() for _ in range(6)]
    follow: list[dict[bytes, set[int]]] = [{} for _ in range(6)]
    for part in parts:
        for n in range(1, 6):
            for i in range(len(part) - n + 1):
                gram = part[i : i + n]
                counts[n][gram] += 1
                follow[n].setdefault(gram[:-1], set()).add(gram[-1])

    def p(x: int, context: bytes, n: int) -> float:
        if n == 0:
            return 1 / 256
        context = context[len(context) - (n - 1) :]
        lower = p(x, context[1:] if context else b"", n - 1)
        after = follow[n].get(context)
        if not after:
            return lower
        seen = sum(counts[n][context + bytes([y])] for y in after)
        hits = counts[n][context + bytes([x])]
        return (hits + len(after) * lower) / (seen + len(after))

    nats: dict[str, list[float]] = {name: [] for name in ngrams.ORDERS.values()}
    for row in rows:
        text = bytes(int(x) for x in row if x >= 0)
        for t in range(1, len(text)):
            for n, name in ngrams.ORDERS.items():
                order = min(n, t + 1)
                nats[name].append(-math.log(p(text[t], text[:t], order)))
    return {name: float(np.mean(found)) for name, found in nats.items()}


def test_ngrams_are_those_counted_by_hand():
    rng = np.random.default_rng(0)
    letters = rng.choice([97, 98, 99], (3, 60)).astype(np.uint8)
    rows = rng.choice([97, 98, 99, 100], (4, 9)).astype(np.int32)
    rows[-1, 6:] = -1
    found = ngrams.ngram_nats(list(letters), rows)
    theirs = by_hand([part.tobytes() for part in letters], rows)
    assert found == pytest.approx(theirs)


def test_longer_contexts_help_on_text_and_a_compressor_finds_repetitions():
    line = b"the cat sat on the mat and the dog sat on the cat. "
    text = np.frombuffer(line * 200, np.uint8)
    rows = text[:650].reshape(10, 65).astype(np.int32)
    found = ngrams.ngram_nats([text], rows)
    values = [found[name] for name in ngrams.ORDERS.values()]
    assert values == sorted(values, reverse=True) and values[-1] < 0.3
    assert ngrams.lzma_nats([text], rows) < 0.5
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    scored = noise[:1300].reshape(20, 65).astype(np.int32)
    assert ngrams.lzma_nats([noise[2000:]], scored) > 0.95 * math.log(256)


def test_text_is_taken_evenly_over_a_split():
    bytes_n = np.arange(10_000) // 100
    (whole,) = ngrams.text_of(bytes_n, (0, 500))
    assert len(whole) == 500
    parts = ngrams.text_of(bytes_n, (1000, 9000), most=640)
    assert len(parts) == 64 and sum(map(len, parts)) == 640
    assert parts[0][0] == 10 and parts[-1][-1] == 89
