"""Files with random faults, read as a run would read them: part of `chaos.py`."""

from __future__ import annotations

import collections
import gzip
import json
import lzma
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from jaxbench.data.replay_worker import Rejection, Worker

BATCH = 100
# A file that takes longer has hung.
FILE_SECONDS = 20.0
READERS = {"replay": "jaxbench.data.slippi:parse", "corpus": "mutants:read_corpus"}


def read_corpus(path: Path) -> int:
    """Opens a corpus as a run does; returns its bytes. Called in a worker."""
    from jaxbench.data.corpus.read import open_corpus

    return len(open_corpus(str(path), cache=None, say=lambda line: None).bytes_n)


def originals(work: Path, replays: Path | None) -> dict[str, list[tuple[str, bytes]]]:
    """What is mutated: (suffix, content) of replays and of corpora."""
    if replays is None:
        from jaxbench.data.simulation.record import simulate_replays

        replays = work / "replays"
        if not replays.exists():
            simulate_replays(replays, games=3, seconds=5)
    files = sorted(replays.expanduser().glob("**/*.slp"))
    text = "".join(
        f"Line {i} of a text that is not long.\n" for i in range(600)
    ).encode()
    lines = b"".join(
        json.dumps({"text": f"text {i} " * 9}).encode() + b"\n" for i in range(300)
    )
    packed = zstandard.ZstdCompressor()
    return {
        "replay": [(".slp", path.read_bytes()) for path in files],
        "corpus": [
            (".txt", text),
            (".xz", lzma.compress(text)),
            (".xz", lzma.compress(text[:9000]) + lzma.compress(text[9000:])),
            (".gz", gzip.compress(text)),
            (".zst", packed.compress(text)),
            (".jsonl", lines),
            (".jsonl.zst", packed.compress(lines)),
        ],
    }


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four faults of random kinds."""
    made = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(made)
        kind, at = rng.integers(9), int(rng.integers(size + 1))
        # Half of the faults are near the start, where formats say what follows.
        at = at % 700 if rng.random() < 0.5 else at
        length = int(2 ** rng.uniform(0, 10))
        if kind == 0 and size:
            made[at % size] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            made[at : at + length] = rng.bytes(length)
        elif kind == 2:
            value = int(rng.choice([0x00, 0xFF, 0x7F, 0x80]))
            made[at : at + length] = bytes([value]) * length
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            del made[at : at + length]
        elif kind == 5:
            made[at:at] = made[at : at + length]
        elif kind == 6:
            made[at:at] = rng.bytes(length)
        elif kind == 7:
            made[at:] = other[int(rng.integers(len(other) + 1)) :]
        else:
            made[at : at + 4] = int(rng.integers(2**32)).to_bytes(4, "big")
    return bytes(made)


def read_mutants(
    work: Path,
    seeds: Mapping[str, list[tuple[str, bytes]]],
    rng: np.random.Generator,
    kind: str,
) -> dict[str, Any]:
    """Reads a batch of mutants in one worker; counts what became of them."""
    verdicts: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    found = seeds[kind]
    # Small files, as 1 / size, are read in less time and change more.
    weight = np.array([1 / (20_000 + len(data)) for _, data in found])
    worker = Worker(READERS[kind], FILE_SECONDS)
    try:
        for _ in range(BATCH):
            suffix, data = found[rng.choice(len(found), p=weight / weight.sum())]
            other = found[int(rng.integers(len(found)))][1]
            path = work / f"mutant{suffix}"
            path.write_bytes(mutated(data, other, rng))
            told = worker.read(path)
            verdict = verdict_of(told)
            verdicts[verdict] += 1
            if verdict not in ("read", "refused") and isinstance(told, Rejection):
                kept = work / f"{verdict.replace(' ', '-')}-{len(examples)}{suffix}"
                examples.setdefault(verdict, told.reason[:200])
                shutil.copy(path, kept)
    finally:
        worker.close()
        for path in work.glob("mutant.*"):
            path.unlink()
    return {"of": kind, "verdicts": dict(verdicts), "examples": examples}


def verdict_of(told: Any) -> str:
    """What became of a mutant, in two words."""
    if not isinstance(told, Rejection):
        return "read"
    if told.final:
        return "refused"
    if "no answer" in told.reason:
        return "hang"
    if "crashed" in told.reason or "ended its process" in told.reason:
        return "parser crashed"
    return "other exception"
