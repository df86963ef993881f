"""`jaxbench prepare`: replays or text, read once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxbench.cli.command import add_command
from jaxbench.errors import InputError

DEFAULT_CACHE = "~/.cache/jaxbench"

PREPARE = """\
  jaxbench prepare ~/replays         parse once; runs then start in seconds
  jaxbench prepare ~/enwik8.gz       unpack a text corpus once
  jaxbench prepare ~/pile/train      shards *.jsonl.zst; damaged ones are left out
"""


def add(commands: Any) -> None:
    """Adds `prepare`."""
    prepare = add_command(
        commands,
        "prepare",
        "read replays or a text corpus into the cache and say what is in them",
        PREPARE,
        _prepare,
    )
    prepare.add_argument(
        "data",
        type=Path,
        help="folder of .slp files; text: any file (.xz, .gz, .zst), or a file or "
        "folder of .jsonl.zst shards",
    )
    prepare.add_argument(
        "--cache", help=f"default: {DEFAULT_CACHE}/replays or {DEFAULT_CACHE}/corpora"
    )
    prepare.add_argument(
        "--max_files", type=int, help="replays: so many at most (0 for all)"
    )
    prepare.add_argument("--workers", type=int, help="replays: 0 for one per core")
    prepare.add_argument(
        "--splits",
        default="",
        help="text: train=0:90M,validation=90M:95M,test=95M:100M",
    )


def _prepare(options: argparse.Namespace) -> int:
    from jaxbench.bench.corpus_command import holds_text, prepare_corpus

    if (options.max_files or 0) < 0 or (options.workers or 0) < 0:
        raise InputError("--max_files and --workers must not be negative")
    data = options.data.expanduser()
    text = holds_text(data)
    cache = options.cache
    if cache is None:
        cache = f"{DEFAULT_CACHE}/{'corpora' if text else 'replays'}"
    cache_dir = Path(cache).expanduser() if cache else None
    if not text:
        return _prepare_replays(options, data, cache_dir)
    if options.max_files is not None or options.workers is not None:
        raise InputError(f"{data} is text: --max_files and --workers are for replays")
    return prepare_corpus(str(data), splits=options.splits, cache=cache_dir)


def _prepare_replays(
    options: argparse.Namespace, folder: Path, cache: Path | None
) -> int:
    from jaxbench.data.replays import describe, load_replays

    if options.splits:
        raise InputError("--splits is for a text corpus: a file or a folder of shards")
    games, _ = load_replays(
        folder,
        max_files=options.max_files or 0,
        workers=options.workers or 0,
        cache_dir=cache,
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
