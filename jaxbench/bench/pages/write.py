"""All pages of a folder, and their index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jaxbench.bench.pages.board import Board, committed_board, rank
from jaxbench.bench.pages.page import Size, link, page, size_of, table
from jaxbench.models.backbone import resolve
from jaxbench.models.zoo import FAMILIES, ROWS

INDEX = "README.md"
COLUMNS = ("backbone", "what it is", "layers", "parameters", "state bytes", "rank")


def write_pages(
    folder: Path,
    *,
    width: int = 256,
    board: Board | None = None,
    known: Mapping[str, Size] | None = None,
) -> list[Path]:
    """Writes `folder`/<name>.md for every row of the zoo, and the index README.md.

    Args:
      folder: made where it does not exist.
      width: model width of the sizes.
      board: committed results; None reads those of the repository.
      known: sizes at this width; None computes them, about a second a row.

    Returns:
      The files, the index last.

    Raises:
      InputError: the width does not fit the mixers.
    """
    board = committed_board() if board is None else board
    known = _sizes(width) if known is None else known
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in ROWS:
        path = folder / f"{name}.md"
        text = page(name, width=width, board=board, size=known[name])
        path.write_text(text, encoding="utf-8")
        written.append(path)
    path = folder / INDEX
    path.write_text(index(known, width=width, board=board), encoding="utf-8")
    return [*written, path]


def index(known: Mapping[str, Size], *, width: int, board: Board) -> str:
    """The list of all pages by family, with the first sentence of each."""
    parts = [
        "# Backbones",
        f"{len(ROWS)} backbones in {len(FAMILIES)} families, a page for each. Sizes "
        f"are at width {width} and the row's own depth; the state is that of one "
        "sequence. Ranks are those of the committed board, where ties share one; - is "
        "not ranked. Written by `jaxbench list --pages=docs/backbones`; the same rows "
        "in one table: [backbones.md](../backbones.md).",
    ]
    for family, rows in FAMILIES.items():
        parts.append(f"## {family[0].upper()}{family[1:]}")
        lines = []
        for name, row in rows.items():
            size = known[name]
            numbers = [f"{n:,}" for n in size] if size else ["-", "-"]
            first = row.about.split(". ")[0] + "."
            depth = str(resolve(name).default_depth)
            standing = rank(name, board) or "-"
            lines.append([link(name), first, depth, *numbers, standing])
        parts.append(table(COLUMNS, lines))
    return "\n\n".join(parts) + "\n"


def _sizes(width: int) -> dict[str, Size]:
    """Of every row, in one pass, with a bar where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return {
        name: size_of(name, width)
        for name in track(ROWS, "sizes", console=console, disable=hidden)
    }
