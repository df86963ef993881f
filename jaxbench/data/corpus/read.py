"""Opens a corpus: bytes, splits, and where they come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.data.corpus import decompress, sources, store
from jaxbench.data.corpus.splits import NAMES, default_splits, parse_splits
from jaxbench.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """Bytes to learn from.

    Attributes:
      bytes_n: uint8 [N], read-only: a memory map of a file, or an array.
      splits: "train", "validation" and "test" to [start, stop).
      source: what a result tells about its data, ready for JSON: source ("corpus" or
        "python"), name, fingerprint (sha256 over content and splits), sha256 (of the
        content), bytes, documents (pieces between 0x1e bytes), splits, skipped (shard
        to reason) and, of a compressed file, file_sha256.
    """

    bytes_n: np.ndarray
    splits: Mapping[str, tuple[int, int]]
    source: Mapping[str, Any]


def open_corpus(
    path: str,
    *,
    splits: str = "",
    cache: Path | None,
    say: Callable[[str], None],
    progress: Callable[[int, int | None], None] | None = None,
    expect: str | None = None,
) -> Corpus:
    """Opens text as one array of bytes that is never copied into memory as a whole.

    Args:
      path: "" for the sources of Python's standard library, split by file; a file of
        any bytes, mapped where it lies; a file .xz, .gz or .zst, decompressed; a file
        or folder of shards *.jsonl.zst (.jsonl, .jsonl.gz, .jsonl.xz), of whose lines
        the field "text" is taken, 0x1e after each (inside a text U+001E becomes a line
        feed). A damaged shard is left out whole.
      splits: "train=0:90M,validation=90M:95M,test=95M:100M"; "" takes NAME.split.json
        beside the file, else 90, 5 and 5 % (see `default_splits`).
      cache: folder for what is unpacked, and for digests of what need not be; None
        unpacks into memory.
      say: is told, a line each, what takes time and what is left out.
      progress: is told bytes read and, where known, bytes in all.
      expect: a fingerprint seen before; another one is an error.

    Raises:
      InputError: nothing usable at `path`, unusable splits, a full disk, or a corpus
        that is not the one expected.
    """
    source = sources.find(path)
    bytes_n, facts = store.load(source, cache, say, progress or _unheard)
    found = facts.pop("splits", None)
    if splits:
        found = parse_splits(splits, len(bytes_n), source.name)
    elif found is None:
        one = source.kind in ("raw", "packed")
        beside = source.root if one else None
        found = default_splits(bytes_n, beside, source.name, decompress.SUFFIXES)
    chosen = {name: (int(found[name][0]), int(found[name][1])) for name in NAMES}
    told = {
        "source": "python" if source.kind == "python" else "corpus",
        "name": source.name,
        "fingerprint": _fingerprint(facts["sha256"], chosen),
        **facts,
        "splits": {name: list(edges) for name, edges in chosen.items()},
        "skipped": facts.get("skipped", {}),
    }
    if expect is not None and expect != told["fingerprint"]:
        raise InputError(
            f"{path or source.name}: the corpus or its splits have changed: its "
            f"fingerprint is {told['fingerprint'][:12]}, expected {expect[:12]}; "
            "restore it, or start anew with what it is now"
        )
    return Corpus(bytes_n, chosen, told)


def _unheard(done: int, total: int | None) -> None:
    pass


def _fingerprint(sha256: str, splits: Mapping[str, tuple[int, int]]) -> str:
    text = json.dumps([sha256, splits], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
