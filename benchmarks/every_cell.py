"""Every row of the zoo on every task: three updates and a validation each.

107 rows on zelda, pile, world and the five synthetic tasks, at width 16 and the row's
own depth. A cell is ok if its losses, its gradients and its validation are finite;
"refused" is what the row or the task says it cannot do; anything else is a fault. How a
cell is computed, and why that compiles little: `benchmarks/cell_pieces.py`.

    python benchmarks/every_cell.py
    python benchmarks/every_cell.py --rows=gru,mamba --tasks=zelda,mqar --jobs=1

Cells already in `--out`/cells.jsonl are not run again, so the command can be stopped
and repeated; a process that dies costs the cell it was at. Ends with the table, which
it writes to `--out`/README.md and cells.csv, and exit code 1 if any cell is at fault.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxbench.tasks.table import TASKS
from jaxbench.xla import ONCE, as_flags

ROOT = Path(__file__).resolve().parents[1]
MARKS = {"ok": "+", "refused": "refused"}
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # Cells compile much and compute little.
    "XLA_FLAGS": as_flags(ONCE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# Compiled programs take memory for good; a process that holds more ends after its row,
# and the one that follows finds what it needs in the compilation cache.
MOST_MEMORY = 3e9
PLAIN_EVERY_SECONDS = 30.0

Record = dict[str, Any]


def main() -> int:
    """Runs what is not done yet and writes the table."""
    from jaxbench.errors import InputError
    from jaxbench.models.backbone import canonical
    from jaxbench.models.zoo import ROWS

    options = _parser().parse_args()
    try:
        rows = [canonical(name) for name in options.rows.split(",") if name]
    except InputError as error:
        print(f"every_cell: error: {error}", file=sys.stderr)
        return 2
    tasks = [name for name in options.tasks.split(",") if name] or list(TASKS)
    unknown = set(tasks) - set(TASKS)
    if unknown:
        print(f"every_cell: error: no task {unknown.pop()!r}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.update(ENVIRONMENT)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str((options.out / "xla").resolve())
    os.chdir(ROOT)
    work = Work(rows or list(ROWS), tasks, options.out / "cells.jsonl")
    work.run(max(1, options.jobs), options.timeout)
    write(options.out, work.cells())
    print(summary(work.cells()), flush=True)
    return 1 if any(cell["status"] not in MARKS for cell in work.cells()) else 0


class Work:
    """Which cells there are, and which of them are done."""

    def __init__(self, rows: Sequence[str], tasks: Sequence[str], path: Path):
        self._path = path
        self._wanted = [(row, task) for row in rows for task in tasks]
        text = path.read_text() if path.exists() else ""
        # What was being written when the power went is no record.
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        self._done = {
            (c["row"], c["task"]): c for c in map(json.loads, whole.splitlines())
        }
        self._began, self._printed, self._ran = time.monotonic(), 0.0, 0

    def cells(self) -> list[Record]:
        """The records so far, in the order of rows and tasks."""
        return [self._done[cell] for cell in self._wanted if cell in self._done]

    def run(self, jobs: int, timeout: float) -> None:
        """Gives rows to `jobs` processes until there is nothing left."""
        left: dict[str, list[str]] = {}
        for row, task in self._wanted:
            if (row, task) not in self._done:
                left.setdefault(row, []).append(task)
        workers: list[Worker] = []
        with _bar(len(self._wanted)) as bar:
            self._show(bar)
            while left or workers:
                while left and len(workers) < jobs:
                    row = next(iter(left))
                    idle = Worker(timeout)
                    idle.give(row, left.pop(row))
                    workers.append(idle)
                wait([w.pipe for w in workers], timeout=1.0)
                for worker in list(workers):
                    for record in worker.records():
                        self._keep(record, bar)
                    if worker.row:
                        continue
                    # It may have died in the middle of its row.
                    if worker.tasks:
                        left[worker.tasks[0][0]] = [t for _, t in worker.tasks]
                    if worker.ended or not left:
                        worker.close()
                        workers.remove(worker)
                    else:
                        row = next(iter(left))
                        worker.give(row, left.pop(row))

    def _keep(self, record: Record, bar: Any) -> None:
        self._done[record["row"], record["task"]] = record
        self._ran += 1
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        if record["status"] != "ok":
            _say(bar, f"{record['row']} on {record['task']}: {record['status']}: "
                 f"{record['reason']}")  # fmt: skip
        self._show(bar)

    def _show(self, bar: Any) -> None:
        now, done = time.monotonic(), len(self.cells())
        rate = self._ran / max(now - self._began, 1e-9)
        speed = f"{60 * rate:.1f} cells/min"
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done, speed=speed)
        elif now - self._printed >= PLAIN_EVERY_SECONDS or done == len(self._wanted):
            self._printed = now
            left = (len(self._wanted) - done) / rate / 60 if rate else float("nan")
            _say(bar, f"{done}/{len(self._wanted)} cells  {speed}  {left:.0f} min left")


class Worker:
    """A process that works through rows, one at a time.

    Attributes:
      pipe: where its records come from.
      row: what it works at; "" for nothing.
      tasks: (row, task) that it has been given and has not done.
      ended: whether it is gone, or wants to be: it holds much memory.
    """

    def __init__(self, timeout: float):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._timeout, self._heard = timeout, time.monotonic()
        self.row, self.ended = "", False
        self.tasks: list[tuple[str, str]] = []

    def give(self, row: str, tasks: Sequence[str]) -> None:
        """Asks for a row on some tasks."""
        self.row, self.tasks = row, [(row, task) for task in tasks]
        self._heard = time.monotonic()
        self.pipe.send((row, list(tasks)))

    def records(self) -> Iterable[Record]:
        """The cells that ended since the last call; the one it died at among them."""
        try:
            while self.pipe.poll():
                self._heard = time.monotonic()
                said = self.pipe.recv()
                if "row" in said:
                    self.tasks.pop(0)
                    yield said
                else:
                    self.row, self.ended = "", said["full"]
        except (EOFError, ConnectionResetError):
            self._process.join()
            yield from self._lost("crashed", f"the process ended with {self._code()}")
        if time.monotonic() - self._heard > self._timeout and self.row:
            self._process.kill()
            self._process.join()
            yield from self._lost("timeout", f"nothing for {self._timeout:.0f} s")

    def close(self) -> None:
        """Lets it end."""
        if self._process.is_alive():
            self.pipe.send(None)
        self.pipe.close()
        self._process.join()

    def _code(self) -> str:
        code = self._process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"code {code}"

    def _lost(self, status: str, reason: str) -> Iterable[Record]:
        self.ended, self.row = True, ""
        if self.tasks:
            row, task = self.tasks.pop(0)
            yield {"row": row, "task": task, "status": status, "reason": reason}


def work(pipe: Connection) -> None:
    """A worker's process: rows come in, records go out."""
    from benchmarks.cell_pieces import run_cell

    sys.stderr = sys.stdout = open(os.devnull, "w")
    while (asked := pipe.recv()) is not None:
        row, tasks = asked
        for task in tasks:
            pipe.send(run_cell(row, task))
        # Linux counts kilobytes.
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send({"full": held > MOST_MEMORY})


def write(folder: Path, cells: Sequence[Record]) -> None:
    """Writes the table: cells.csv, and README.md for people."""
    names = ("row", "task", "status", "reason", "metric", "validation", "cpu_seconds")
    with (folder / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, (*names, "first_loss", "last_loss"), lineterminator="\n"
        )
        writer.writeheader()
        for cell in cells:
            losses = cell.get("loss") or [None]
            ends = {"first_loss": losses[0], "last_loss": losses[-1]}
            writer.writerow({k: cell.get(k) for k in names} | ends)
    (folder / "README.md").write_text(page(cells))


def page(cells: Sequence[Record]) -> str:
    """The table in Markdown: counts, what is not ok and why, every cell."""
    by_row: dict[str, dict[str, str]] = {}
    for cell in cells:
        mark = MARKS.get(cell["status"], f"**{cell['status']}**")
        by_row.setdefault(cell["row"], {})[cell["task"]] = mark
    tasks = [task for task in TASKS if any(task in row for row in by_row.values())]
    commits = sorted({str(cell["git"]) for cell in cells if cell.get("git")})
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for cell in cells:
        if cell["status"] != "ok":
            key = (cell["row"], cell["status"], cell["reason"])
            reasons.setdefault(key, []).append(cell["task"])
    lines = [
        "# every row on every task",
        "",
        "Three updates and a validation of each row of the zoo on each task, width 16.",
        f"{summary(cells)} Made by `python benchmarks/every_cell.py` at commit "
        f"{', '.join(commits)}.",
        "",
        "`cells.csv` has the losses. Validation scores after three updates say that a",
        "row runs, and nothing of how good it is.",
        "",
        "| row | status | tasks | reason |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{row}` | {status} | {', '.join(on)} | {reason.replace('|', '/')} |"
            for (row, status, reason), on in reasons.items()
        ),
        "",
        f"| row | {' | '.join(tasks)} |",
        f"| --- |{' --- |' * len(tasks)}",
        *(
            f"| `{row}` | {' | '.join(marks.get(task, '') for task in tasks)} |"
            for row, marks in by_row.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def summary(cells: Sequence[Record]) -> str:
    """How many ended how, and what it took."""
    counts = Counter(cell["status"] for cell in cells)
    counted = ", ".join(f"{n} {status}" for status, n in counts.most_common())
    share = 100 * counts["ok"] / max(len(cells), 1)
    seconds = sum(cell.get("cpu_seconds", 0.0) for cell in cells)
    return (
        f"{len(cells)} cells: {counted} ({share:.1f} % ok), in {seconds / 60:.0f} "
        "CPU-minutes."
    )


def _bar(total: int) -> Any:
    """A bar in a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        return contextlib.nullcontext()
    bar = Progress(
        TextColumn("cells"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    bar.add_task("cells", total=total, speed="")
    return bar


def _say(bar: Any, line: str) -> None:
    if bar is not None:
        bar.console.print(line, highlight=False, markup=False)
    else:
        print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default="", help="names, comma between; all")
    parser.add_argument("--tasks", default="", help="names, comma between; all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--timeout", type=float, default=1800.0, help="seconds a cell may take"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/every_cell"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
