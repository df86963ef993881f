"""Progress of a command, shown on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 15.0


@contextmanager
def counting(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar on a terminal, or prints a line every 15 s elsewhere.

    Args:
      total: number of things to do.
      label: what is being counted.

    Yields:
      `advance(done)`, to be called with the number that is done.
    """
    console = Console(stderr=True)
    told = time.monotonic()
    # The first call came after whatever was compiled.
    began, first = told, -1
    with Progress(
        TextColumn(label),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(label, total=total)

        def advance(done: int) -> None:
            nonlocal told, began, first
            bar.update(task, completed=done)
            now = time.monotonic()
            if first < 0:
                began, first = now, done
            elif not console.is_terminal and now - told >= _LINE_SECONDS:
                told = now
                left = (total - done) * (now - began) / (done - first)
                print(
                    f"{label}: {done}/{total}  {left:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )

        yield advance
