"""Shows the user how far training has come: a bar, or lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

PLAIN_EVERY_SECONDS = 15.0


class TrainingProgress:
    """A bar with steps, rate, loss and time left; plain lines without a terminal.

    Args:
      total: steps of the whole run, 0 while that is not known.
      start: steps done before this process started.
      label: what is being trained.
      report: told (step, total, loss, steps a second, seconds left) at every update.
      report_phase: told "evaluate" as long as that goes on.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        label: str = "train",
        report: Callable[[int, int, float, float, float], None] | None = None,
        report_phase: Callable[[str], None] | None = None,
    ):
        self._report = report
        self._report_phase = report_phase
        self.total = total
        self.start = start
        self.label = label
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._printed = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._printed = time.monotonic()
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                self.label, total=self.total or None, completed=self.start, facts=""
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self, step: int, loss: float, total: int, rate: float, left: float
    ) -> None:
        """Shows that `step` of `total` updates are done, and the newest loss.

        Args:
          step, loss, total: of the run.
          rate: updates a second while it trains.
          left: seconds until its end, validations among them.
        """
        self.total = max(step, total)
        now = time.monotonic()
        if self._report is not None:
            self._report(step, self.total, loss, rate, left)
        facts = f"loss {loss:.4f}  {rate:.1f} steps/s  {left:.0f} s left"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=self.total, facts=facts)
        elif now - self._printed >= PLAIN_EVERY_SECONDS or step >= self.total:
            self._printed = now
            self.say(f"step {step}/{self.total}  {facts}")

    def evaluating(self) -> None:
        """Reports that an evaluation goes on: a long one must not look like a hang."""
        if self._report_phase is not None:
            self._report_phase("evaluate")

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        if self._bar is not None:
            self._console.print(f"{self.label}: {line}", highlight=False, markup=False)
        else:
            print(f"{self.label}: {line}", file=sys.stderr, flush=True)
