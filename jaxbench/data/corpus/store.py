"""Unpacked corpora on disk: each unpacked once, found again by its source's stamp.

Of a corpus the cache holds NAME-STAMP.bytes, its bytes, and NAME-STAMP.json, what is
known about them; the second is written last, so a corpus is there whole or not at all.
Of a file that is used where it lies there is only the second, which spares the pass
that hashes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.data.corpus.sources import Progress, Say, Sink, Source, unpack
from jaxbench.errors import InputError

# Raise it whenever a source turns into other bytes than before.
LAYOUT = 2

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PIECE = 1 << 22


def load(
    source: Source, cache: Path | None, say: Say, progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    """The bytes of a source, read-only, and what is known about them.

    Raises:
      InputError: the source is damaged, or the cache cannot be written.
    """
    if source.kind == "raw":
        return _in_place(source, cache, say, progress)
    if cache is None:
        buffer = io.BytesIO()
        sink = Sink(buffer, contextlib.nullcontext)
        extra = unpack(source, sink, say, progress)
        _check_unchanged(source)
        bytes_n = np.frombuffer(buffer.getbuffer(), np.uint8)
        bytes_n.flags.writeable = False
        return bytes_n, sink.facts() | extra
    entry = _Entry(cache, source)
    facts = entry.read(lambda line: None)
    if facts is None:
        with _alone(entry, say):
            # Another process may have unpacked it while this one waited.
            facts = entry.read(say)
            if facts is None:
                facts = entry.write(source, say, progress)
    return _map(entry.bytes), facts


class _Entry:
    def __init__(self, cache: Path, source: Source):
        plain = re.sub(r"[^A-Za-z0-9._]+", "_", source.name)[:60]
        self.stem = f"{plain}-{source.stamp[:24]}-{LAYOUT}"
        self.cache = cache
        self.bytes = cache / f"{self.stem}.bytes"
        self.json = cache / f"{self.stem}.json"

    def read(self, say: Say) -> dict[str, Any] | None:
        """What is known about the bytes, if they are there and still the same."""
        try:
            facts = json.loads(self.json.read_text(encoding="utf-8"))
            seen = self.bytes.stat()
            whole = seen.st_size == facts["bytes"]
            if whole and seen.st_mtime_ns != facts["mtime_ns"]:
                # Copied or touched: only its bytes can tell.
                found = _facts(self.bytes, lambda done, total: None)
                whole = found["sha256"] == facts["sha256"]
                if whole:
                    with contextlib.suppress(OSError):
                        self.describe(facts)
            if whole:
                facts.pop("mtime_ns")
                return facts
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            whole = False
        say(f"{self.bytes}: is damaged, unpacking again")
        return None

    def describe(self, facts: dict[str, Any]) -> None:
        """Writes the description, at once."""
        stamped = facts | {"mtime_ns": self.bytes.stat().st_mtime_ns}
        _replace(self.json, json.dumps(stamped, indent=2))

    def write(self, source: Source, say: Say, progress: Progress) -> dict[str, Any]:
        """Unpacks the source; on any failure nothing stays."""
        amount = sum(source.sizes) / 1e6
        say(f"unpacking {source.name} ({amount:,.1f} MB) into {self.cache}, once")
        partial = self.cache / f"{self.stem}.{uuid.uuid4().hex}.partial"
        try:
            with self.guard(), partial.open("xb") as file:
                sink = Sink(file, self.guard)
                extra = unpack(source, sink, say, progress)
                _check_unchanged(source)
                file.flush()
                os.fsync(file.fileno())
            facts = sink.facts() | extra
            with self.guard():
                os.replace(partial, self.bytes)
                self.describe(facts)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return facts

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Turns what the disk refuses into one line."""
        try:
            yield
        except OSError as error:
            raise InputError(self.refusal(error)) from None

    def refusal(self, error: OSError) -> str:
        if error.errno in _FULL:
            return (
                f"no space left on the disk of {self.cache} for the unpacked corpus; "
                "free some, or name another cache"
            )
        return (
            f"the cache {self.cache} cannot be written ({error.strerror or error}); "
            "name another folder, or none to unpack into memory"
        )


@contextlib.contextmanager
def _alone(entry: _Entry, say: Say) -> Iterator[None]:
    """Holds the lock of an entry; it ends with this process, however that ends."""
    lock = entry.cache / f"{entry.stem}.lock"
    with contextlib.ExitStack() as stack:
        with entry.guard():
            entry.cache.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{lock}: another process unpacks this corpus, waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            # Nobody else is at work, so these were left by a process that was killed.
            for partial in entry.cache.glob(f"{entry.stem}.*.partial"):
                partial.unlink(missing_ok=True)
        yield


def _in_place(
    source: Source, cache: Path | None, say: Say, progress: Progress
) -> tuple[np.ndarray, dict[str, Any]]:
    """A file used where it lies; the cache remembers only its digest."""
    known = None
    if cache is not None:
        known = _Entry(cache, source).json
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            facts = json.loads(known.read_text(encoding="utf-8"))
            if facts["bytes"] == source.sizes[0]:
                return _map(source.root), facts
    facts = _facts(source.root, progress)
    _check_unchanged(source)
    if known is not None:
        try:
            known.parent.mkdir(parents=True, exist_ok=True)
            _replace(known, json.dumps(facts, indent=2))
        except OSError as error:
            say(
                f"{known.parent} cannot be written ({error.strerror}), going on without"
            )
    return _map(source.root), facts


def _facts(path: Path, progress: Progress) -> dict[str, Any]:
    """Reads a whole file for its digest, its size and its documents."""
    with open(os.devnull, "wb") as nowhere:
        sink = Sink(nowhere, contextlib.nullcontext)
        total = path.stat().st_size
        try:
            with path.open("rb") as file:
                while piece := file.read(_PIECE):
                    sink.write(piece)
                    progress(sink.size, total)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return sink.facts()


def _map(path: Path) -> np.ndarray:
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be mapped into memory ({error})") from None


def _check_unchanged(source: Source) -> None:
    if not source.unchanged():
        raise InputError(f"{source.root}: changed while it was read; start again")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
