"""What happened to each replay: progress while it happens, a table at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

_LINE_SECONDS = 10.0
_NAMES = 3


@dataclass(frozen=True)
class Outcome:
    """One file's fate.

    Attributes:
      name: the file, relative to the folder that was given.
      status: "read" (parsed now), "cached" (parsed earlier) or "skipped".
      reason: why it was skipped, else "".
      frames, rows: distinct frames kept and rows recorded, 0 when skipped.
      remarks: what was mended or left out, as `Game.remarks`.
    """

    name: str
    status: str
    reason: str = ""
    frames: int = 0
    rows: int = 0
    remarks: tuple[str, ...] = ()


class Meter:
    """Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, sizes: Sequence[int], shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown)
        self._files, self._bytes = len(sizes), sum(sizes)
        self._done = self._done_bytes = 0
        self._start = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("replays"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
        )
        self._task = self._bar.add_task("", total=self._files, speed="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, size: int) -> None:
        """Counts one more file of that many bytes as finished."""
        self._done += 1
        self._done_bytes += size
        now = time.monotonic()
        seconds = max(now - self._start, 1e-6)
        speed = f"{self._done_bytes / 1e6 / seconds:.1f} MB/s"
        self._bar.update(self._task, completed=self._done, speed=speed)
        if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = (self._bytes - self._done_bytes) * seconds / max(self._done_bytes, 1)
            self._print(
                f"replays: {self._done}/{self._files}, {speed}, {left:.0f} s left"
            )

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Prints what was read and what was skipped, and why."""
        seconds = time.monotonic() - self._start
        self._bar.stop()
        rows = summary(outcomes)
        head = f"replays: {self._bytes / 1e6:.1f} MB in {seconds:.1f} s"
        if not self._console.is_terminal:
            self._print(head)
            for row in rows:
                self._print("  " + "  ".join(filter(None, row)))
            return
        table = Table(title=head, title_justify="left")
        for column, right in (("", 0), ("files", 1), ("frames", 1), ("why", 0)):
            table.add_column(column, justify="right" if right else "left")
        for row in rows:
            # As text: a bracket in a file name is not markup.
            table.add_row(*map(Text, row))
        self._console.print(table)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, str]]:
    """Returns (status, files, frames, why and which) rows; skips group by reason."""
    rows = []
    for status in ("read", "cached"):
        chosen = [outcome for outcome in outcomes if outcome.status == status]
        if chosen:
            frames = sum(outcome.frames for outcome in chosen)
            rows.append((status, f"{len(chosen)}", f"{frames:,} frames", ""))
    mended: dict[str, list[str]] = defaultdict(list)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        for remark in outcome.remarks:
            what, _, detail = remark.partition(": ")
            mended[what].append(f"{outcome.name} ({detail})")
        if outcome.status == "skipped":
            by_reason[outcome.reason].append(outcome.name)
    for status, groups in (("mended", mended), ("skipped", by_reason)):
        for why, names in sorted(groups.items(), key=lambda item: -len(item[1])):
            some = ", ".join(names[:_NAMES])
            more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
            rows.append((status, f"{len(names)}", "", f"{why}: {some}{more}"))
    return rows
