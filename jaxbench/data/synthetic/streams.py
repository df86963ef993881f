"""Independent streams of random numbers by name, and fingerprints of what was drawn."""

from __future__ import annotations

import hashlib

import numpy as np

from jaxbench.data.synthetic.event import Examples


def stream(
    seed: int, task: str, split: str, law: str, index: int = 0
) -> np.random.Generator:
    """A generator that depends on all its arguments and on nothing else.

    Words are folded in by a hash, so streams of other tasks, splits, laws and indices
    are independent, and any of them can be made without the ones before it.
    """
    words = hashlib.sha256("\0".join((task, split, law)).encode()).digest()[:16]
    entropy = [seed, int.from_bytes(words, "little"), index]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def fingerprint(examples: Examples) -> str:
    """The first 16 hex digits of the SHA-256 of examples: tokens, then targets."""
    digest = hashlib.sha256()
    for array in examples:
        digest.update(np.ascontiguousarray(array, "<i4").tobytes())
    return digest.hexdigest()[:16]


def keys(tokens_nt: np.ndarray) -> np.ndarray:
    """A 64-bit key of each sequence, to find sequences that two sets share.

    Two different sequences have the same key once in 2^64 pairs.
    """
    with np.errstate(over="ignore"):
        tokens_nt = tokens_nt.astype(np.uint64) + np.uint64(1)
        powers = np.random.Generator(np.random.Philox(0)).integers(
            1, 2**63, size=tokens_nt.shape[1], dtype=np.uint64
        )
        return (_mix(tokens_nt * powers * np.uint64(2) + powers)).sum(axis=1)


def _mix(words: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words that leaves no simple trace of its input."""
    words ^= words >> np.uint64(31)
    words *= np.uint64(0x7FB5D329728EA185)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x81DADEF4BC2DD44D)
    return words ^ (words >> np.uint64(33))
