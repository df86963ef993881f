"""Shows a suite while it runs: a live table, or lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.bench.suite.process import Child
from jaxbench.bench.terms import terms
from jaxbench.tasks.columns import declared
from jaxbench.tasks.rules import parse_budget

PLAIN_EVERY_SECONDS = 60.0
DONE_SHOWN = 12
COLOURS = {"ok": "green", "interrupted": "yellow"}


class SuiteView:
    """Shows which runs wait, how far those that train have come, and which are done.

    Args:
      request: what the suite was asked for.
      results: of the runs that have ended before.
      folder: of the suite.
    """

    def __init__(
        self,
        request: Request,
        results: Mapping[Cell, Mapping[str, Any]],
        folder: Path,
    ):
        self._request = request
        self._results = results
        self._folder = folder
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._before = len(results)
        self._recent: list[tuple[Cell, float]] = []
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> SuiteView:
        if self._before:
            self._say(f"{self._before} runs are done already")
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def started(self, child: Child) -> None:
        """A run begins."""
        if self._live is None:
            self._say(f"start  {child}")

    def ended(self, cell: Cell, result: Mapping[str, Any], seconds: float) -> None:
        """A run has ended, one way or another."""
        self._recent.append((cell, seconds))
        if self._live is None:
            self._say(
                f"[{len(self._results)}/{self._total()}] {result['status']:11} {cell}: "
                f"{outcome_text(result)}, {clock(seconds)}"
            )

    def update(self, children: Sequence[Child], waiting: Sequence[Cell]) -> None:
        """Shows the present state; called a few times a second."""
        if self._live is not None:
            self._live.update(self._render(children, waiting))
        elif time.monotonic() - self._printed > PLAIN_EVERY_SECONDS:
            self._printed = time.monotonic()
            for child in children:
                content, _ = child.heartbeat()
                doing = doing_text(content, budget_unit(child.config))
                self._say(f"       {child}: {doing}")

    def _render(self, children: Sequence[Child], waiting: Sequence[Cell]) -> Group:
        counts = Counter(r["status"] for r in self._results.values())
        done = ", ".join(f"{n} {status}" for status, n in counts.items()) or "none"
        head = (
            f"suite {self._folder}: {len(self._results)} of {self._total()} done "
            f"({done}), {clock(time.monotonic() - self._began)}"
            f"{self._left(waiting, children)}"
        )
        table = Table(title=head, title_justify="left", expand=True)
        table.add_column("run", ratio=3)
        table.add_column("state")
        table.add_column("progress", ratio=2)
        table.add_column("facts", ratio=4)
        table.add_column("time", justify="right")
        for cell, seconds in self._recent[-DONE_SHOWN:]:
            result = self._results[cell]
            status = Text(result["status"], COLOURS.get(result["status"], "red"))
            table.add_row(
                Text(str(cell)), status, "", Text(outcome_text(result)), clock(seconds)
            )
        for child in children:
            content, _ = child.heartbeat()
            bar = ProgressBar(
                total=max(content.get("total", 1), 1), completed=content.get("step", 0)
            )
            table.add_row(
                Text(str(child)),
                Text("running", "cyan"),
                bar,
                Text(doing_text(content, budget_unit(child.config))),
                clock(child.seconds),
            )
        if waiting:
            names = ", ".join(str(cell) for cell in waiting[:4])
            more = f" and {len(waiting) - 4} more" if len(waiting) > 4 else ""
            table.add_row(
                Text(f"{len(waiting)} runs"), "waiting", "", Text(names + more), ""
            )
        return Group(table)

    def _total(self) -> str:
        """Runs of the whole suite; a "+" where a best rate at an edge adds more."""
        total, open_ended = self._request.planned(self._results)
        return f"{total}+" if open_ended else f"{total}"

    def _left(self, waiting: Sequence[Cell], children: Sequence[Child]) -> str:
        """The time left, from the pace of the runs this call has finished."""
        if not self._recent:
            return ""
        pace = (time.monotonic() - self._began) / len(self._recent)
        return f", about {clock(pace * (len(waiting) + len(children) / 2))} left"

    def _say(self, line: str) -> None:
        print(f"suite: {line}", file=sys.stderr, flush=True)


def outcome_text(result: Mapping[str, Any]) -> str:
    """A run's outcome in a few words."""
    if result["status"] != "ok":
        return str(result["reason"])
    metric, words = result["primary"]["metric"], terms(result["task"])
    shows = declared(result["task"])
    name = shows.labels.get(metric, (metric,))[0] if shows else metric
    value = result["best"]["metrics"][metric]
    rate = words.speed(result["throughput"])
    speed = f", {rate}" if rate else ""
    skips = (result.get("skips") or {}).get("count")
    skipped = f", {skips} updates skipped" if skips else ""
    memory = result["memory"]
    fitted = (
        f", remat, {memory['micro_batches']} micro-batches"
        if len(memory["tried"]) > 1 and memory["remat"]
        else ""
    )
    return f"best {name} {value:.4f}{speed}{skipped}{fitted}"


def doing_text(content: Mapping[str, Any], unit: str = "steps") -> str:
    """What a running run does, in a few words; "~" before a total that is a guess."""
    if "step" not in content:
        return str(content.get("phase", "starting"))
    about = "~" if unit == "seconds" else ""
    step = f"step {content['step']}/{about}{content['total']}"
    if content.get("phase") == "evaluate":
        return f"{step}, evaluating"
    return (
        f"{step}, "
        f"loss {content['loss']:.4f}, "
        f"{content['steps_per_s']:.1f} steps/s, {clock(content['seconds_left'])} left"
    )


def budget_unit(config: Mapping[str, Any]) -> str:
    """In what the budget of a run is counted: "seconds" or "steps"."""
    budget = config["train"].get("budget")
    unit = parse_budget(budget)[1] if budget else "steps"
    return "seconds" if unit == "seconds" else "steps"


def clock(seconds: float) -> str:
    """Seconds as people read them: 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
