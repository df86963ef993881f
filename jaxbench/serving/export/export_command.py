"""`jaxbench export`: trained runs as ONNX or StableHLO files, one process for each run.

One after the other, each kept to one core, so that times compare. The parent
imports no jax.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxbench.bench.run_folder import folder_name, read_json
from jaxbench.bench.suite.process import child_environment
from jaxbench.errors import InputError
from jaxbench.serving.export.limits import check_options
from jaxbench.serving.export.table import Row, export_table, quality_table
from jaxbench.serving.measure_command import finished_runs


def export_command(options: argparse.Namespace) -> int:
    """Exports every named run, prints a table, and returns the exit code.

    Raises:
      InputError: there is no finished run, a package is missing, or an option is out
        of its range.
    """
    formats = [name for name in options.format.split(",") if name]
    check_options(formats, options.int8, options.frames)
    runs = list(finished_runs(options.folders))
    rows: list[Row] = []
    for number, (folder, result) in enumerate(runs, start=1):
        name = _name(result)
        print(f"export: [{number}/{len(runs)}] {name}", file=sys.stderr, flush=True)
        given = {
            "folder": str(folder),
            "out": _place(options.out, folder, result, len(runs)),
            "formats": formats,
            "int8": options.int8,
            "exclude": options.exclude,
            "which": options.which,
            "frames": options.frames,
        }
        rows.append((name, _in_a_process(folder, given)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(export_table(rows))
    if any(not isinstance(row, str) and "window" in row["scores"] for _, row in rows):
        console.print(quality_table(rows))
    return 1 if any(isinstance(row, str) for _, row in rows) else 0


def _name(result: Mapping[str, Any]) -> str:
    """A run in a line of the table, with what tells it from another of its backbone."""
    chunked = (result["data"].get("options") or {}).get("head")
    seed = f"seed {result['seed']}" if result["seed"] else None
    return ", ".join(filter(None, (result["backbone"], chunked, seed)))


def _place(
    out: Path | None, folder: Path, result: Mapping[str, Any], runs: int
) -> str | None:
    """Where a run's files go: --out itself for one run, else a folder inside it."""
    if out is None or runs == 1:
        return None if out is None else str(out)
    return str(out / folder_name(result["backbone"]) / folder.name)


def _in_a_process(folder: Path, given: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """What was exported, or one line on why nothing was."""
    config = read_json(folder / "config.json")
    if config is None:
        return f"{folder} holds no config.json: only its result was kept"
    # The child's lines are for the terminal; its answer is the last line it prints.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxbench.serving.export.export_command",
            json.dumps(given),
        ],
        env=child_environment(config, {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        return json.loads(lines[-1])
    said = lines[-1] if lines else "the lines above say why"
    return f"exit code {done.returncode}: {said[:400]}"


def main(arguments: list[str]) -> int:
    """The child: exports one run and prints what came of it as JSON."""
    given = json.loads(arguments[1])
    from jaxbench.serving.export.callers import one_thread

    # Before jax starts its threads, one for each core it sees.
    one_thread()
    from jaxbench.serving.export.export_run import export_run

    def say(line: str) -> None:
        print(f"export: {line}", file=sys.stderr, flush=True)

    folder, out = Path(given.pop("folder")), given.pop("out")
    try:
        facts = export_run(folder, out=Path(out) if out else None, say=say, **given)
    except InputError as error:
        print(error, flush=True)
        return 2
    print(json.dumps(facts), flush=True)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv))
