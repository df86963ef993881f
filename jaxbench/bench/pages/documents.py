"""The documents of the repository that are made from its rows and its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxbench.bench.backbones_table import Size, add_sizes, all_sizes, markdown_table
from jaxbench.bench.pages.board import ROOT
from jaxbench.bench.pages.write import page_texts
from jaxbench.board.board import make_board
from jaxbench.board.write import csv_text, markdown_text
from jaxbench.models.backbone import table

WIDTH = 256
TABLE, PAGES = "docs/backbones.md", "docs/backbones"


def board_texts(root: Path = ROOT) -> dict[str, str]:
    """Markdown and CSV of every board in `results`: path from `root` -> text."""
    texts = {}
    for path in sorted(root.glob("results/*/leaderboard.md")):
        board, name = (
            make_board([path.parent]),
            f"results/{path.parent.name}/leaderboard",
        )
        picture = "leaderboard.png" if path.with_suffix(".png").is_file() else ""
        texts[f"{name}.md"] = markdown_text(board, picture)
        texts[f"{name}.csv"] = csv_text(board)
    return texts


def backbone_texts(known: Mapping[str, Size] | None = None) -> dict[str, str]:
    """The table of backbones and a page of each: path from the root -> text.

    Places and costs on the pages are read from the committed `leaderboard.csv`.

    Args:
      known: sizes at width 256; None computes them, a fifth of a second a row.
    """
    known = all_sizes(WIDTH) if known is None else known
    rows = table()
    add_sizes(rows, known)
    pages = page_texts(width=WIDTH, known=known)
    texts = {f"{PAGES}/{name}": text for name, text in pages.items()}
    return {TABLE: markdown_table(rows, WIDTH), **texts}


def stale(texts: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """Names the files that are missing, say something else, or are no page any more."""
    there = {f"{PAGES}/{path.name}" for path in (root / PAGES).glob("*")}
    wrong = [
        name
        for name, text in texts.items()
        if not (root / name).is_file() or (root / name).read_text("utf-8") != text
    ]
    return sorted({*wrong, *(there - set(texts) if TABLE in texts else ())})
