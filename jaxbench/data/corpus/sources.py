"""What a path means, and its bytes: a file, shards of documents, Python's sources."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
import stat
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from jaxbench.data.corpus import decompress
from jaxbench.data.corpus.splits import NAMES, Splits
from jaxbench.data.corpus.windows import SEPARATOR
from jaxbench.errors import InputError, printable

SHARDS = tuple(f".jsonl{suffix}" for suffix in ("", *decompress.SUFFIXES))

_END = bytes([SEPARATOR])
_PIECE = 1 << 20
_LONGEST_LINE = 1 << 30
_SAMPLE = 1 << 16
# Tests come with some installations of Python only, packages are the user's own.
_LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests"}
_LEFT_OUT |= {"idle_test", "lib-dynload"}

Say = Callable[[str], None]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Source:
    """Where the bytes of a corpus come from.

    Attributes:
      kind: "raw" (as they are on disk), "packed", "shards" or "python".
      name: what to call it: the name of the file or folder, without its path.
      root: the file, the folder, or where the standard library is.
      files: the files, in the order of their bytes.
      sizes: of the files, in bytes on disk.
      stamp: changes with a name, a size, a time of change or a sample of the bytes.
    """

    kind: str
    name: str
    root: Path
    files: tuple[Path, ...]
    sizes: tuple[int, ...]
    stamp: str

    def label(self, path: Path) -> str:
        """A file's name below the root."""
        return printable(path.name if path == self.root else _below(self.root, path))

    def unchanged(self) -> bool:
        """Whether the files are still what they were when they were found."""
        try:
            now = _source(self.kind, self.name, self.root, list(self.files))
        except OSError:
            return False
        return now.stamp == self.stamp


@dataclass
class Sink:
    """Bytes on their way into a file: counted, hashed, and taken back if need be.

    Attributes:
      file: where they go.
      guard: around each use of the file, for what its disk refuses.
      size: bytes so far.
      ends: how many of them are 0x1e.
      last: the last one.
      sha256: of all of them.
    """

    file: BinaryIO
    guard: Callable[[], AbstractContextManager[None]]
    size: int = 0
    ends: int = 0
    last: bytes = b""
    sha256: Any = field(default_factory=hashlib.sha256)

    def write(self, data: bytes | memoryview) -> None:
        if not data:
            return
        data = bytes(data)
        with self.guard():
            self.file.write(data)
        self.sha256.update(data)
        self.size += len(data)
        self.ends += data.count(_END)
        self.last = data[-1:]

    def mark(self) -> tuple[Any, ...]:
        """Remembers this place for `take_back`."""
        return self.size, self.ends, self.last, self.sha256.copy()

    def take_back(self, mark: tuple[Any, ...]) -> None:
        """Forgets all that was written since the mark."""
        self.size, self.ends, self.last, self.sha256 = mark
        with self.guard():
            self.file.seek(self.size)
            self.file.truncate()

    def facts(self) -> dict[str, Any]:
        """Digest, size and documents: pieces between 0x1e bytes."""
        return {
            "sha256": self.sha256.hexdigest(),
            "bytes": self.size,
            "documents": self.ends + (self.last not in (b"", _END)),
        }


def find(path: str) -> Source:
    """Finds out what `path` is; "" is Python's standard library.

    Raises:
      InputError: nothing there, a folder without shards, an empty file, compressed
        bytes under a name that does not say so.
    """
    if not path:
        return _python()
    root = Path(os.path.expanduser(path))
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder(root)
        if not stat.S_ISREG(mode):
            raise InputError(f"{root}: is neither a file nor a folder; give a corpus")
        if root.stat().st_size == 0:
            raise InputError(f"{root}: is empty; give a file with text in it")
        if root.name.lower().endswith(SHARDS):
            return _source("shards", root.name, root, [root])
        if root.suffix.lower() in decompress.SUFFIXES:
            return _source("packed", root.name, root, [root])
        with root.open("rb") as file:
            suffix = decompress.looks_compressed(file.read(8))
    except FileNotFoundError:
        raise InputError(
            f"{root}: no such file or folder; give a text file, a folder of .jsonl.zst "
            'shards, or "" for the sources of Python'
        ) from None
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror})") from None
    if suffix is not None:
        what = "rename it" if suffix in decompress.SUFFIXES else "unpack it first"
        raise InputError(f"{root}: holds {suffix} data under another name; {what}")
    return _source("raw", root.name, root, [root])


def unpack(source: Source, sink: Sink, say: Say, progress: Progress) -> dict[str, Any]:
    """Writes all bytes of a corpus and returns what else there is to know about it.

    Raises:
      InputError: a damaged file, or no shard that can be used.
    """
    meter = _Meter(sum(source.sizes), progress)
    if source.kind == "shards":
        return {"skipped": _unpack_shards(source, sink, meter, say)}
    if source.kind == "python":
        return {"splits": _unpack_python(source, sink, meter)}
    digest = hashlib.sha256()
    meter.also = digest.update
    try:
        with decompress.open_stream(source.root, meter.read) as stream:
            while piece := stream.read(_PIECE):
                sink.write(piece)
    except decompress.DAMAGE as error:
        why = decompress.reason(error, source.root)
        advice = "" if why.startswith("cannot") else "; get the file again"
        raise InputError(f"{source.root}: {why}{advice}") from None
    if not sink.size:
        raise InputError(f"{source.root}: holds no bytes; give a file with text in it")
    return {"file_sha256": digest.hexdigest()}


class _Meter:
    def __init__(self, total: int, progress: Progress):
        self.total = total
        self.done = 0
        self.also: Callable[[memoryview], object] = len
        self._progress = progress

    def read(self, piece: memoryview) -> None:
        self.done += len(piece)
        self.also(piece)
        self._progress(self.done, self.total)


def _folder(root: Path) -> Source:
    shards = sorted(
        path
        for path in root.rglob("*")
        if path.name.lower().endswith(SHARDS)
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not shards:
        raise InputError(
            f"{root}: holds no shards, in folders below neither; a shard is named "
            "*.jsonl.zst (or .jsonl, .jsonl.gz, .jsonl.xz), each line a JSON object "
            'with the field "text"'
        )
    return _source("shards", root.resolve().name, root, shards)


def _python() -> Source:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in _LEFT_OUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    files.sort(key=lambda path: _below(root, path))
    if not files:
        raise InputError(
            "this installation of Python comes without the sources of its standard "
            "library; name a corpus"
        )
    name = f"Python {platform.python_version()} standard library"
    return _source("python", name, root, files)


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _source(kind: str, name: str, root: Path, files: list[Path]) -> Source:
    name = printable(name)
    digest = hashlib.sha256(b"%s\n%s\n" % (kind.encode(), os.fsencode(name)))
    sizes = []
    for path in files:
        seen = path.stat()
        where = os.fsencode("" if path == root else _below(root, path))
        digest.update(b"%s\n%d\n%d\n" % (where, seen.st_size, seen.st_mtime_ns))
        if kind != "python":
            digest.update(_sample(path, seen.st_size))
        sizes.append(seen.st_size)
    return Source(kind, name, root, tuple(files), tuple(sizes), digest.hexdigest())


def _sample(path: Path, size: int) -> bytes:
    """Beginning, middle and end: times of change are not always kept apart."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            for place in (0, size // 2, max(0, size - _SAMPLE)):
                file.seek(place)
                digest.update(file.read(_SAMPLE))
    except OSError:
        # Whoever reads the whole file tells.
        return b"unreadable"
    return digest.digest()


def _unpack_shards(
    source: Source, sink: Sink, meter: _Meter, say: Say
) -> dict[str, str]:
    skipped: dict[str, str] = {}
    for number, path in enumerate(source.files):
        mark = sink.mark()
        why = None
        try:
            with decompress.open_stream(path, meter.read) as stream:
                for text in _documents(stream):
                    sink.write(text)
            if sink.size == mark[0]:
                why = "holds no documents"
        except _LineError as error:
            why = str(error)
        except decompress.DAMAGE as error:
            why = decompress.reason(error, path)
        meter.done = sum(source.sizes[: number + 1])
        meter.read(memoryview(b""))
        if why is not None:
            sink.take_back(mark)
            skipped[source.label(path)] = why
            say(f"skipped {source.label(path)}: {why}")
    if not sink.size:
        first, why = next(iter(skipped.items()))
        raise InputError(
            f"{source.root}: none of its {len(skipped)} shards can be used; "
            f"{first}: {why}"
        )
    return skipped


class _LineError(Exception):
    pass


def _documents(stream: BinaryIO) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = stream.readline(_LONGEST_LINE)
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise _LineError(f"line {number} is longer than {_LONGEST_LINE:,} bytes")
        if line.isspace():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _LineError(f"line {number} is not JSON ({error})") from None
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise _LineError(f'line {number} has no field "text" that is a string')
        # Half of a surrogate pair is no character; it becomes a question mark.
        yield _document(text.encode("utf-8", "replace"))


def _document(text: bytes) -> bytes:
    """A document with its end; an end inside it becomes the end of a line."""
    return text.replace(_END, b"\n") + _END


def _unpack_python(source: Source, sink: Sink, meter: _Meter) -> Splits:
    """Writes each split's files one after another, 90, 5 and 5 % of the bytes.

    Which split a file is in follows from the hash of its path below the root: files in
    the order of their hashes, cut where the bytes reach 90 and 95 %.
    """
    sizes = dict(zip(source.files, source.sizes, strict=True))
    names = {path: source.label(path) for path in source.files}
    order = sorted(names, key=lambda p: hashlib.sha256(names[p].encode()).digest())
    chosen: dict[str, list[Path]] = {name: [] for name in NAMES}
    done, total = 0, sum(source.sizes)
    for path in order:
        share = done / total
        chosen[NAMES[(share >= 0.9) + (share >= 0.95)]].append(path)
        done += sizes[path]
    found: Splits = {}
    for split, paths in chosen.items():
        start = sink.size
        for path in sorted(paths, key=names.__getitem__):
            try:
                data = path.read_bytes()
                data.decode("utf-8")
            except (OSError, UnicodeDecodeError):
                # A file in another encoding, or removed by now: not this text.
                data = b""
            if data:
                sink.write(_document(data))
            meter.read(memoryview(data))
        found[split] = (start, sink.size)
    return found
