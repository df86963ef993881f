"""`jaxbench latency` and `jaxbench throughput`: a process of its own for each run.

One after the other, so that each has a fresh backend and the machine to itself.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from jaxbench.bench.run_folder import read_config
from jaxbench.bench.speed_tables import decode_table, latency_table, throughput_table
from jaxbench.bench.terms import terms
from jaxbench.errors import InputError
from jaxbench.serving.each_run import (
    finished_runs,
    in_a_process,
    name_of,
    wide_console,
)
from jaxbench.tasks.table import find


def place_of(kind: str, task: str) -> tuple[str, ...]:
    """Path of keys under which `result.json` keeps a measurement."""
    if kind == "throughput":
        return ("throughput", "steady")
    return ("decode",) if _writes(task) else ("latency",)


def _writes(task: str) -> bool:
    """Whether what takes time in use is each byte, not each frame."""
    return find(task).emits == "byte"


def measure_command(options: argparse.Namespace) -> int:
    """Measures every finished run under the given folders; returns the exit code.

    Raises:
      InputError: there is no finished run, or a number is out of range.
    """
    kind = options.name
    if kind == "latency":
        count, flag = options.frames, "--frames"
    else:
        count, flag = options.repeats, "--repeats"
    if count < 1:
        raise InputError(f"{flag}={count} must be at least 1")
    # A suite is of one task, but several folders may be named.
    rows: dict[str, list[tuple[str, Mapping[str, Any] | str]]] = {}
    runs = finished_runs(options.folders)
    for index, (folder, result) in enumerate(runs, start=1):
        name, task = name_of(result), result["task"]
        known: Mapping[str, Any] | str | None = lookup(result, place_of(kind, task))
        if known is None or options.again:
            print(f"{kind}: [{index}/{len(runs)}] {name}", file=sys.stderr, flush=True)
            given = {"kind": kind, "folder": str(folder), "count": count}
            known = in_a_process("jaxbench.serving.measure_command", folder, given)
        rows.setdefault(task, []).append((name, known))
    console = wide_console(140)
    for task, of_task in rows.items():
        console.print(_table(kind, task)(of_task))
    answers = [answer for of_task in rows.values() for _, answer in of_task]
    return 1 if any(isinstance(answer, str) for answer in answers) else 0


def _table(kind: str, task: str) -> Callable[..., Table]:
    if kind == "throughput":
        words = terms(task)
        if words.counts_examples:
            return throughput_table
        return functools.partial(throughput_table, rate=words.rate)
    return decode_table if _writes(task) else latency_table


def lookup(result: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path of keys, or None."""
    found: Any = result
    for name in path:
        found = (found or {}).get(name)
    return found


def answer(kind: str, folder: str, count: int) -> dict[str, Any]:
    """In the child: measures one run and writes the answer into its result."""
    if kind == "throughput":
        from jaxbench.bench.throughput import measure_throughput

        return measure_throughput(Path(folder), repeats=count)
    if _writes(read_config(Path(folder))["task"]):
        from jaxbench.serving.writing import measure_decode

        return measure_decode(Path(folder), count=count)
    from jaxbench.serving.latency import measure_latency

    return measure_latency(Path(folder), frames=count)
