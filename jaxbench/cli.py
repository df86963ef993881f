"""The `jaxbench` command: what surrounds single runs (`run.py` makes those)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxbench import __version__
from jaxbench.errors import InputError

DEFAULT_CACHE = "~/.cache/jaxbench/replays"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 after one line about unusable input."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except InputError as error:
        print(f"jaxbench {options.name}: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxbench", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    rows = commands.add_parser("list", help="print the table of backbones")
    rows.add_argument("--json", action="store_true", help="as JSON, for programs")
    rows.add_argument("--markdown", action="store_true", help="as a Markdown table")
    rows.add_argument(
        "--sizes", action="store_true", help="with parameters and bytes of state"
    )
    rows.add_argument("--width", type=int, default=256, help="default: %(default)s")
    rows.set_defaults(command=_list)

    prepare = commands.add_parser(
        "prepare", help="parse a folder of replays into the cache and say who plays"
    )
    prepare.add_argument("replays", type=Path, help="folder of .slp files")
    prepare.add_argument("--cache", default=DEFAULT_CACHE, help="default: %(default)s")
    prepare.add_argument("--max_files", type=int, default=0, help="0 for all")
    prepare.add_argument("--workers", type=int, default=0, help="0: one per core")
    prepare.set_defaults(command=_prepare)
    return parser


def _list(options: argparse.Namespace) -> int:
    from jaxbench.models.backbone import table

    rows = table()
    if options.sizes:
        _add_sizes(rows, options.width)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = ["name", "what", "pattern", "channel", "layers", "causal", "streams"]
    columns += ["parameters", "state bytes"] if options.sizes else []
    columns.append("paper")
    lines = [table_cells(row, columns) for row in rows]
    if options.markdown:
        print(f"# {len(rows)} backbones\n")
        if options.sizes:
            print(f"Width {options.width}, own depth, state of one sequence.\n")
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return 0
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    shown = Table(title=f"{len(rows)} backbones", title_justify="left")
    for column in columns:
        shown.add_column(column)
    for line in lines:
        shown.add_row(*line)
    console.print(shown)
    console.print(
        "Patterns are backbones too: mamba*2+swa, mamba/moe with another channel "
        "mixer, (mamba*2+@swa)*3 with @ for shared weights.",
        highlight=False,
        markup=False,
    )
    return 0


def _add_sizes(rows: list[dict[str, Any]], width: int) -> None:
    """Adds parameters and state bytes; a row that only feeds another has none alone."""
    from rich.console import Console
    from rich.progress import track

    from jaxbench.models.build import sizes
    from jaxbench.models.zoo import ROWS

    console = Console(stderr=True)
    for row in track(rows, "sizes", console=console, disable=not console.is_terminal):
        if ROWS[row["name"]].join == "next":
            row["parameters"] = row["state bytes"] = None
        else:
            row["parameters"], row["state bytes"] = sizes(row["name"], width)


def table_cells(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    """Returns the texts of one row of the table `jaxbench list` prints."""
    streams = row["streams"] if row["temporal"] else "each frame alone"
    if row["window"]:
        streams = f"window of {row['window']}"
    cells = {
        **row,
        "name": ", ".join([row["name"], *row["aliases"]]),
        "what": row["title"] + (f" ({row['note']})" if row["note"] else ""),
        "layers": row["depth"],
        "causal": "yes" if row["causal"] else "in its window no",
        "streams": streams,
    }
    numbers = ("parameters", "state bytes")
    return [
        "-" if cells[c] is None else f"{cells[c]:,}" if c in numbers else str(cells[c])
        for c in columns
    ]


def _prepare(options: argparse.Namespace) -> int:
    from jaxbench.data.replays import describe, load_replays

    if options.max_files < 0 or options.workers < 0:
        raise InputError("--max_files and --workers must not be negative")
    games, _ = load_replays(
        options.replays.expanduser(),
        max_files=options.max_files,
        workers=options.workers,
        cache_dir=Path(options.cache).expanduser() if options.cache else None,
    )
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(games)} games", title_justify="left")
    table.add_column("character")
    for column in ("games", "perspectives", "frames"):
        table.add_column(column, justify="right")
    for row in describe(games):
        counts = (row.games, row.perspectives, row.frames)
        table.add_row(row.name, *(f"{count:,}" for count in counts))
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
