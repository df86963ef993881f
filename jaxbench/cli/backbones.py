"""`jaxbench list`: the table of backbones, sizes and pages."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jaxbench.bench.backbones_table import (
    NUMBERS,
    add_sizes,
    all_sizes,
    columns,
    markdown_table,
    print_rows,
    table_cells,
)
from jaxbench.cli.command import add_command
from jaxbench.errors import InputError

LIST = """\
  jaxbench list                      the table
  jaxbench list --sizes --width=64   with parameters and bytes of state
  jaxbench list --json               for programs
  jaxbench list --task=pile --size=100m
                                     width and depth of 100 million parameters
  jaxbench list s4                   all about one: equation, sizes, forms, options
  jaxbench list 'mamba*2+swa'        layers, sizes and options of a pattern
  jaxbench list --pages=docs/backbones
                                     a Markdown page of each
  jaxbench list presets              named settings of configs/zelda.py
"""


def add(commands: Any) -> None:
    """Adds `list`."""
    rows = add_command(commands, "list", "print the table of backbones", LIST, _list)
    rows.add_argument("--json", action="store_true", help="as JSON, for programs")
    rows.add_argument("--markdown", action="store_true", help="as a Markdown table")
    rows.add_argument(
        "--sizes", action="store_true", help="with parameters and bytes of state"
    )
    rows.add_argument("--width", type=int, default=256, help="default: %(default)s")
    rows.add_argument(
        "backbone",
        nargs="?",
        help='one backbone or pattern: its whole page; or "presets"',
    )
    rows.add_argument(
        "--pages",
        type=Path,
        metavar="FOLDER",
        help="write everyone's page there",
    )
    rows.add_argument("--task", help="pile: sizes of byte-level language models")
    rows.add_argument(
        "--size", help="of --task: 1m, 10m, 100m (default), 350m or published"
    )


def _list(options: argparse.Namespace) -> int:
    from jaxbench.models.backbone import table

    if options.width < 1:
        raise InputError(f"--width={options.width} must be at least 1")
    if options.task is not None or options.size is not None:
        from jaxbench.bench.sizes_table import sizes_command

        return sizes_command(options)
    if options.backbone == "presets":
        return _presets(options)
    if options.backbone is not None:
        return _page(options)
    if options.pages is not None:
        from jaxbench.bench.pages import write_pages

        written = write_pages(options.pages, width=options.width)
        print(f"{len(written)} pages in {options.pages}")
        return 0
    rows = table()
    if options.sizes:
        add_sizes(rows, all_sizes(options.width))
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    if options.markdown:
        print(markdown_table(rows, options.width if options.sizes else None), end="")
        return 0
    titles = columns(options.sizes)
    lines = [table_cells(row, titles) for row in rows]
    print_rows(f"{len(rows)} backbones", titles, lines, right=NUMBERS)
    print(
        "Patterns are backbones too: mamba*2+swa, mamba/moe with another channel\n"
        "mixer, (mamba*2+@swa)*3 with @ for shared weights; jaxbench list PATTERN."
    )
    return 0


def _presets(options: argparse.Namespace) -> int:
    from jaxbench.tasks.zelda.presets import COLUMNS, PRESETS, find, table_row

    lines = [table_row(name) for name in PRESETS]
    if options.json:
        print(json.dumps({name: find(name) for name in PRESETS}, indent=2))
        return 0
    if options.markdown:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + "---|" * len(COLUMNS))
        for line in lines:
            print("| " + " | ".join(line) + " |")
        return 0
    title = f"{len(lines)} presets: configs/zelda.py:BACKBONE,preset=NAME"
    print_rows(title, COLUMNS, lines)
    return 0


def _page(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markdown import Markdown

    from jaxbench.bench.pages import page

    text = page(options.backbone, width=options.width)
    console = Console()
    if options.markdown or not console.is_terminal:
        print(text)
    else:
        console.print(Markdown(text))
    return 0
