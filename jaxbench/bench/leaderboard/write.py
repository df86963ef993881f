"""Writes a board's three files."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from jaxbench.bench.leaderboard.board import Section, sections
from jaxbench.bench.leaderboard.page import page_text
from jaxbench.bench.leaderboard.read import read_runs
from jaxbench.bench.leaderboard.tables import csv_text, markdown_text
from jaxbench.errors import InputError


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """What was written.

    Attributes:
      markdown, csv, html: the files.
      sections: the rankings in them.
      runs: how many result files were read.
    """

    markdown: Path
    csv: Path
    html: Path
    sections: list[Section]
    runs: int


def write_leaderboard(folders: Sequence[Path], out: Path) -> Leaderboard:
    """Ranks the runs under `folders` and writes `leaderboard.{md,csv,html}` to `out`.

    Every ranking is over one task, protocol and data; where they differ there are
    several. Runs that failed and files that cannot be read are rows with a reason.

    Args:
      folders: suites or single runs; every `result.json` under them is read once.
      out: folder for the files, made where it is missing.

    Raises:
      InputError: no result can be read, or the files cannot be written.
    """
    runs = read_runs(folders)
    found = sections(runs)
    names = list(dict.fromkeys(run.source for run in runs))
    texts = {
        "md": markdown_text(found, names),
        "csv": csv_text(found),
        "html": page_text(found, names),
    }
    paths = {suffix: Path(out) / f"leaderboard.{suffix}" for suffix in texts}
    _write({paths[suffix]: text for suffix, text in texts.items()})
    return Leaderboard(paths["md"], paths["csv"], paths["html"], found, len(runs))


def _write(texts: dict[Path, str]) -> None:
    """Writes all files or leaves the old ones as they were."""
    partials = {path: path.with_name(path.name + ".partial") for path in texts}
    try:
        for path, partial in partials.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(texts[path], encoding="utf-8", newline="\n")
        for path, partial in partials.items():
            os.replace(partial, path)
    except OSError as error:
        for partial in partials.values():
            if partial.is_file():
                partial.unlink()
        where = next(iter(texts)).parent
        hint = (
            "free some space" if error.errno == errno.ENOSPC else "name another --out"
        )
        raise InputError(
            f"cannot write the leaderboard to {where}: {error.strerror}; {hint}"
        ) from error
