"""The levels a run trains on, from a text. Imports no jax."""

from __future__ import annotations

from collections.abc import Sequence

from jaxbench.errors import InputError, nearest

TO = ".."


def parse_levels(text: str, levels: Sequence[str]) -> tuple[str, ...]:
    """Reads "L2" as one level and "L1..L3" as a curriculum from the first to the last.

    Args:
      text: of `data.level`.
      levels: that the task has, the easiest first.

    Raises:
      InputError: a level that does not exist, or a curriculum without a beginning or
        an end, or one that leads backwards.
    """
    known = ", ".join(levels)
    first, dots, last = text.partition(TO)
    if dots and not last:
        raise InputError(
            f"data.level={text!r} is a curriculum without an end; name its last level, "
            f"for example {first or levels[0]}{TO}{levels[-1]} (levels: {known})"
        )
    if dots and not first:
        raise InputError(
            f"data.level={text!r} is a curriculum without a beginning; name its first "
            f"level, for example {levels[0]}{TO}{last} (levels: {known})"
        )
    for name in (first, last) if dots else (text,):
        if name not in levels:
            raise InputError(
                f"data.level={text!r}: there is no level {name!r}; nearest: "
                f"{nearest(name, levels)} (levels: {known})"
            )
    if not dots:
        return (text,)
    start, stop = levels.index(first), levels.index(last)
    if start >= stop:
        raise InputError(
            f"data.level={text!r} leads backwards; the levels are, easiest first: "
            f"{known}"
        )
    return tuple(levels[start : stop + 1])
