"""Compressed files as streams of bytes that notice when the file was cut off."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

SUFFIXES = (".xz", ".gz", ".zst")

# What reading a damaged file raises; `reason` puts it into words. Plain OSErrors of
# the disk are among them.
DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)

_INPUT = 1 << 16
_WINDOW = 1 << 31
_MAGIC = {
    b"\xfd7zXZ\x00": ".xz",
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"BZh": ".bz2",
    b"7z\xbc\xaf": ".7z",
}


def looks_compressed(head: bytes) -> str | None:
    """The suffix that belongs to the first bytes of a file, None for plain bytes."""
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    return None


class _Metered(io.RawIOBase):
    """A file that tells after each read how many bytes were read, and what they are."""

    def __init__(self, path: Path, read: Callable[[memoryview], None]):
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._read(memoryview(buffer)[:count])
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


@contextlib.contextmanager
def open_stream(path: Path, read: Callable[[memoryview], None]) -> Iterator[BinaryIO]:
    """Opens a file, decompressed by its suffix (.xz, .gz, .zst; others as they are).

    Args:
      path: the file.
      read: called with each piece of the file itself, before it is decompressed.

    Raises:
      One of `DAMAGE`, here or at a later read: among them EOFError where the file ends
      too early.
    """
    with io.BufferedReader(_Metered(path, read), _INPUT) as raw:
        suffix = path.suffix.lower()
        if suffix == ".xz":
            yield io.BufferedReader(_Parts(raw, _xz, align=4), _INPUT)
        elif suffix == ".gz":
            yield cast(BinaryIO, gzip.open(raw))
        elif suffix == ".zst":
            yield io.BufferedReader(_Parts(raw, _zst), _INPUT)
        else:
            yield raw


def _xz() -> Any:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


def _zst() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()


def reason(error: BaseException, path: Path) -> str:
    """Says in words why a file could not be read, `error` being one of `DAMAGE`."""
    if isinstance(error, EOFError):
        return "is cut off: it ends in the middle of its compressed data"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    return f"is not a {path.suffix.lower()} file or is damaged ({error})"


class _Parts(io.RawIOBase):
    """The streams of a .xz file, or the frames of a .zst file, one after another.

    The libraries' own readers end without a word where a frame of .zst is cut off, and
    where what follows the first stream of .xz is no stream. Here each part says whether
    it has ended, and what follows it must be another.

    Args:
      raw: the file.
      decompressor: makes what reads one part: `decompress`, `eof`, `unused_data`.
      align: between parts of .xz may lie zeros, in multiples of so many; 0 for none.
    """

    def __init__(self, raw: BinaryIO, decompressor: Callable[[], Any], align: int = 0):
        super().__init__()
        self._raw, self._new, self._align = raw, decompressor, align
        self._part: Any = decompressor()
        # Whether any of the part has been read, and whether it is the first.
        self._begun, self._first = False, True
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not (self._begun or self._first):
                self._skip_zeros()
            self._read()
            if not self._input:
                if self._begun:
                    raise EOFError("inside a part")
                return 0
            self._output = memoryview(self._part.decompress(self._input))
            self._begun, self._first, self._input = True, False, b""
            if self._part.eof:
                self._input = self._part.unused_data
                self._part, self._begun = self._new(), False
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count

    def _read(self) -> None:
        if not self._input:
            # Small pieces: one of zeros grows by four orders of magnitude.
            self._input = self._raw.read(1 << 14)

    def _skip_zeros(self) -> None:
        zeros = 0
        while self._align:
            self._read()
            rest = self._input.lstrip(b"\0")
            zeros += len(self._input) - len(rest)
            ended, self._input = not self._input, rest
            if rest or ended:
                break
        if self._align and zeros % self._align:
            raise lzma.LZMAError(f"{zeros} zeros lie behind a stream")
