"""Which bytes of a corpus train, validate and test."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.data.corpus.windows import SEPARATOR
from jaxbench.errors import InputError, nearest

NAMES = ("train", "validation", "test")
ENWIK8_BYTES = 100_000_000

Splits = dict[str, tuple[int, int]]

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_REACH = 1 << 24
_FORM = "train=0:90M,validation=90M:95M,test=95M:100M"


def parse_splits(text: str, size: int, name: str) -> Splits:
    """Reads "train=0:90M,validation=90M:95M,test=95M:100M" (k, M, G: decimal).

    Raises:
      InputError: not of that form, an unknown or missing name, offsets that are
        reversed, overlap or lie outside the `size` bytes of the corpus `name`.
    """
    found: Splits = {}
    for part in text.split(","):
        key, _, offsets = part.partition("=")
        key = key.strip()
        if key not in NAMES:
            raise InputError(
                f"splits: there is no split {key!r}; nearest: {nearest(key, NAMES)}; "
                f"the form is {_FORM}"
            )
        if key in found:
            raise InputError(f"splits: {key} is given twice")
        start, colon, stop = offsets.partition(":")
        if not colon:
            raise InputError(f"splits: {part.strip()!r} lacks the colon of {_FORM}")
        found[key] = (_offset(start, part), _offset(stop, part))
    absent = [key for key in NAMES if key not in found]
    if absent:
        raise InputError(f"splits: {' and '.join(absent)} missing; the form is {_FORM}")
    return _checked({key: found[key] for key in NAMES}, size, name)


def default_splits(
    bytes_n: np.ndarray, path: Path | None, name: str, compressed: tuple[str, ...]
) -> Splits:
    """The splits of a corpus for which none are given.

    A file NAME.xz with a NAME.split.json beside it is split as that says: for each of
    train, val (or validation) and test either [start, stop] or a list of
    [document, offset, length], offsets counted from the split's own beginning, the
    splits one after another. Exactly 100,000,000 bytes are cut at 90 and 95 million,
    as is usual for enwik8. Anything else is cut at 90 and 95 %, moved on by at most
    one percent (or 16 MiB) to where a document (0x1e) begins, or else a line.

    Raises:
      InputError: an unusable NAME.split.json, or a corpus too small to be split.
    """
    size = len(bytes_n)
    beside = None if path is None else _beside(path, compressed)
    if beside is not None:
        return _from_file(beside, size, name)
    cuts = [size * 90 // 100, size * 95 // 100]
    if size != ENWIK8_BYTES:
        cuts = [_move(bytes_n, cut, min(size // 100, _REACH)) for cut in cuts]
    edges = [0, *cuts, size]
    found = dict(zip(NAMES, itertools.pairwise(edges), strict=True))
    if any(start >= stop for start, stop in found.values()):
        raise InputError(
            f"{name}: {size:,} bytes are too few to be split into train, validation "
            "and test"
        )
    return found


def _offset(text: str, part: str) -> int:
    match = re.fullmatch(r"(\d[\d_]*)([kmg]?)", text.strip().lower())
    if match is None:
        raise InputError(
            f"splits: {text.strip()!r} in {part.strip()!r} is no byte offset; write "
            "90000000 or 90M"
        )
    return int(match[1].replace("_", "")) * _SUFFIXES[match[2]]


def _checked(splits: Splits, size: int, name: str) -> Splits:
    for key, (start, stop) in splits.items():
        where = f"splits: {key}={start}:{stop}"
        if start >= stop:
            raise InputError(f"{where} is empty or reversed; the stop must be larger")
        if stop > size:
            raise InputError(f"{where} ends outside {name}, which has {size:,} bytes")
    ordered = sorted(splits.items(), key=lambda item: item[1])
    for (first, (_, stop)), (second, (start, _)) in itertools.pairwise(ordered):
        if start < stop:
            raise InputError(
                f"splits: {first} and {second} overlap in bytes {start} to {stop}; "
                "what is trained on must not be tested"
            )
    return splits


def _beside(path: Path, compressed: tuple[str, ...]) -> Path | None:
    names = [path.name]
    if path.suffix.lower() in compressed:
        names.append(path.stem)
    for name in names:
        found = path.with_name(f"{name}.split.json")
        if found.is_file():
            return found
    return None


def _from_file(beside: Path, size: int, name: str) -> Splits:
    advice = "mend or remove it, or give the splits yourself"
    try:
        told: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        found: Splits = {}
        end = 0
        for key in NAMES:
            rows = told["val" if key not in told and key == "validation" else key]
            if all(isinstance(row, int) for row in rows):
                start, stop = rows
            else:
                _, offset, length = rows[-1]
                start, stop = end, end + offset + length
            found[key] = (int(start), int(stop))
            end = found[key][1]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise InputError(
            f"{beside}: does not say where train, val and test lie; {advice}"
        ) from None
    try:
        return _checked(found, size, name)
    except InputError as error:
        raise InputError(f"{beside}: {error}; {advice}") from None


def _move(bytes_n: np.ndarray, cut: int, reach: int) -> int:
    """The next place that follows a 0x1e, or else a newline, at `cut` or behind it."""
    if cut == 0:
        return cut
    block = np.asarray(bytes_n[cut - 1 : cut + reach])
    for byte in (SEPARATOR, ord("\n")):
        found = np.flatnonzero(block == byte)[:1]
        if len(found):
            return cut + int(found[0])
    return cut
