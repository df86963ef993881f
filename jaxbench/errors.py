"""The one exception that means: the user can fix this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used: a name, a folder, a file, a value.

    Every command catches it, prints the message as one line and exits with
    code 2, so the message must say what is wrong, where, and what to do.
    """


def nearest(name: str, valid: Iterable[str], count: int = 3) -> str:
    """Returns the valid names closest to `name`, for an error message."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.4)
    return ", ".join(close or names[:count])


def printable(text: str) -> str:
    """Returns a file's name fit for one line: no newline, escape or stray byte."""
    return "".join(char if char.isprintable() else "?" for char in text)
