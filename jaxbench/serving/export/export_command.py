"""`jaxbench export`: trained runs as ONNX or StableHLO files, one process for each run.

One after the other, each kept to one core, so that times compare. The parent
imports no jax.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.run_folder import check_place, folder_name
from jaxbench.serving.each_run import finished_runs, in_a_process, wide_console
from jaxbench.serving.export.limits import check_options
from jaxbench.serving.export.table import Row, export_table, quality_table

_NO_CONFIG: Mapping[str, Any] | str = (
    "it holds no config.json: only its result was kept"
)

CHILD = "jaxbench.serving.export.export_command"


def export_command(options: argparse.Namespace) -> int:
    """Exports every named run, prints a table, and returns the exit code.

    Raises:
      InputError: there is no finished run, a package is missing, or an option is out
        of its range.
    """
    formats = [name for name in options.format.split(",") if name]
    check_options(formats, options.int8, options.frames)
    if options.out is not None:
        check_place(options.out, "--out")
    runs = finished_runs(options.folders)
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
        rows.append((name, in_a_process(CHILD, folder, given)))
    console = wide_console(180)
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


def answer(
    folder: str, out: str | None, formats: Sequence[str], **given: Any
) -> dict[str, Any]:
    """In the child: exports one run."""
    from jaxbench.serving.export.callers import one_thread

    # Before jax starts its threads, one for each core it sees.
    one_thread()
    from jaxbench.serving.export.export_run import export_run

    return export_run(
        Path(folder),
        out=Path(out) if out else None,
        formats=formats,
        say=lambda line: print(f"export: {line}", file=sys.stderr, flush=True),
        **given,
    )
