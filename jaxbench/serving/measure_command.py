"""`jaxbench latency` and `jaxbench throughput`: a process of its own for each run.

One after the other, so that each has a fresh backend and the machine to itself.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxbench.bench.run_folder import read_json
from jaxbench.bench.speed_tables import decode_table, latency_table, throughput_table
from jaxbench.bench.suite.process import child_environment
from jaxbench.bench.terms import terms
from jaxbench.errors import InputError


def place_of(kind: str, task: str) -> tuple[str, ...]:
    """Where a result of `task` keeps a measurement."""
    if kind == "throughput":
        return ("throughput", "steady")
    return ("decode",) if task == "pile" else ("latency",)


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
    runs = list(finished_runs(options.folders))
    for index, (folder, result) in enumerate(runs, start=1):
        name = result["backbone"] + (
            f", seed {result['seed']}" if result["seed"] else ""
        )
        task = result["task"]
        known: Mapping[str, Any] | str | None = lookup(result, place_of(kind, task))
        if known is None or options.again:
            print(f"{kind}: [{index}/{len(runs)}] {name}", file=sys.stderr, flush=True)
            known = measure(kind, folder, count)
        rows.setdefault(task, []).append((name, known))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
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
    return decode_table if task == "pile" else latency_table


def finished_runs(
    folders: Iterable[Path],
) -> Iterable[tuple[Path, Mapping[str, Any]]]:
    """Folders and results of the runs at or below `folders` that ended ok.

    Runs of a sweep are left out: their weights are nobody's answer.

    Raises:
      InputError: a folder is missing, or no run ended ok.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; name a run's or a suite's")
        for path in sorted(folder.rglob("result.json")):
            result = read_json(path) or {}
            scored = result.get("purpose", "score") == "score"
            if result.get("status") == "ok" and scored:
                found.append((path.parent, result))
    if not found:
        raise InputError(
            f"no run that ended ok lies in {', '.join(map(str, folders))}; make one "
            "with run.py or jaxbench suite"
        )
    return found


def measure(kind: str, folder: Path, count: int) -> Mapping[str, Any] | str:
    """Measures one run in a process; the measurement, or why there is none."""
    config = read_json(folder / "config.json")
    if config is None:
        return f"{folder} holds no config.json: only its result was kept"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxbench.serving.measure_command",
            kind,
            folder,
            str(count),
        ],
        env=child_environment(config, {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode == 0:
        result = read_json(folder / "result.json") or {}
        return lookup(result, place_of(kind, config["task"]))
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    said = lines[-1].removeprefix("error: ") if lines else "no word of why"
    return f"exit code {done.returncode}: {said[:300]}"


def lookup(result: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path of keys, or None."""
    found: Any = result
    for name in path:
        found = (found or {}).get(name)
    return found


def main(arguments: list[str]) -> int:
    """The child: measures one run and writes the answer into its result."""
    _, kind, folder, count = arguments
    try:
        config = read_json(Path(folder) / "config.json") or {}
        if kind == "latency" and config.get("task") == "pile":
            from jaxbench.serving.writing import measure_decode

            measure_decode(Path(folder), count=int(count))
        elif kind == "latency":
            from jaxbench.serving.latency import measure_latency

            measure_latency(Path(folder), frames=int(count))
        else:
            from jaxbench.bench.throughput import measure_throughput

            measure_throughput(Path(folder), repeats=int(count))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv))
