"""`jaxbench prepare` of a text corpus: unpacked, fingerprinted, and what is in it."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn
from rich.table import Table

from jaxbench.data.corpus import Corpus, byte_counts, open_corpus, unigram_nats
from jaxbench.data.corpus.sources import SHARDS
from jaxbench.data.corpus.windows import SEPARATOR
from jaxbench.errors import InputError


def holds_text(path: Path) -> bool:
    """Whether `path` is a text corpus: a file but no .slp, or a folder of shards.

    Raises:
      InputError: nothing there, or a folder with both or neither.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give replays or text")
    if not path.is_dir():
        return path.suffix.lower() != ".slp"
    names = {
        file.name.lower() for file in path.rglob("*") if not file.name.startswith(".")
    }
    shards = any(name.endswith(SHARDS) for name in names)
    if shards == any(name.endswith(".slp") for name in names):
        raise InputError(
            f"{path}: holds {'both' if shards else 'neither'} .slp replays "
            f"{'and' if shards else 'nor'} .jsonl.zst shards; name a folder of one kind"
        )
    return shards


def prepare_corpus(path: str, *, splits: str, cache: Path | None) -> int:
    """Opens a corpus as a run would, and prints its splits; returns the exit code 0."""
    console = Console(stderr=True)
    with Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as shown:
        task = shown.add_task("reading")
        corpus = open_corpus(
            path,
            splits=splits,
            cache=cache,
            say=lambda line: print(line, file=sys.stderr),
            progress=lambda done, total: shown.update(
                task, completed=done, total=total
            ),
        )
    _print(corpus)
    return 0


def _print(corpus: Corpus) -> None:
    source = corpus.source
    table = Table(
        title=f"{source['name']}: {source['bytes']:,} bytes, "
        f"{source['documents']:,} documents",
        title_justify="left",
    )
    table.add_column("split")
    for column in ("first byte", "bytes", "documents", "values", "unigram nats/byte"):
        table.add_column(column, justify="right")
    whole = (0, len(corpus.bytes_n))
    for name, (start, stop) in [*corpus.splits.items(), ("all", whole)]:
        counts = byte_counts(corpus.bytes_n, (start, stop))
        unended = corpus.bytes_n[stop - 1] != SEPARATOR
        table.add_row(
            name,
            f"{start:,}",
            f"{stop - start:,}",
            f"{counts[SEPARATOR] + unended:,}",
            f"{(counts > 0).sum()}",
            f"{unigram_nats(counts):.4f}",
        )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    console.print(f"content sha256 {source['sha256']}")
    console.print(f"fingerprint    {source['fingerprint']}")
    if source["skipped"]:
        console.print(f"{len(source['skipped'])} shards skipped:")
    for shard, reason in source["skipped"].items():
        console.print(f"  {shard}: {reason}")
