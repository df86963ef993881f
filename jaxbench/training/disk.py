"""Recognises errors of a full disk, and words them. Imports no jax."""

from __future__ import annotations

import errno
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that a disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL_DISK:
            return True
        text = str(seen)
        if "No space left" in text or "File too large" in text:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_disk_message(folder: Path) -> str:
    """The line a user reads when a run's disk is full."""
    return (
        f"no space left on the disk of {folder}; free some and run the same command "
        "again: it goes on from the last checkpoint"
    )
