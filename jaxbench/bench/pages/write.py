"""All pages of a folder, and their index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxbench.bench.backbones_table import Size, all_sizes
from jaxbench.bench.pages.board import Line, committed_boards, folders
from jaxbench.bench.pages.page import link, page, table
from jaxbench.models.backbone import resolve
from jaxbench.models.zoo import FAMILIES, PARTS, ROWS

INDEX = "README.md"
COLUMNS = ("backbone", "what it is", "layers", "parameters", "state bytes", "boards")


def write_pages(
    folder: Path,
    *,
    width: int = 256,
    boards: Sequence[Line] | None = None,
    known: Mapping[str, Size] | None = None,
) -> list[Path]:
    """Writes `folder`/<name>.md for every row of the zoo, and the index README.md.

    Args:
      folder: made where it does not exist.
      width: model width of the sizes.
      boards: from `read_boards`; None reads those of the repository.
      known: sizes at this width; None computes them, about a second a row.

    Returns:
      The files, the index last.

    Raises:
      InputError: the width does not fit the mixers.
    """
    texts = page_texts(width=width, boards=boards, known=known)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def page_texts(
    *,
    width: int,
    boards: Sequence[Line] | None = None,
    known: Mapping[str, Size] | None = None,
) -> dict[str, str]:
    """What `write_pages` writes: file name -> text, the index last."""
    boards = committed_boards() if boards is None else boards
    known = all_sizes(width) if known is None else known
    texts = {
        f"{name}.md": page(name, width=width, boards=boards, size=known.get(name))
        for name in (*ROWS, *PARTS)
    }
    return texts | {INDEX: index(known, width=width, boards=boards)}


def index(known: Mapping[str, Size], *, width: int, boards: Sequence[Line]) -> str:
    """The list of all pages by family, with the first sentence of each."""
    parts = [
        "# Backbones",
        f"{len(ROWS)} backbones in {len(FAMILIES)} families, a page for each. Sizes "
        f"are at width {width} and the row's own depth; the state is that of one "
        "sequence. Boards are folders of `results` that have runs of it. Written by "
        "`python -m jaxbench.bench.pages`; the same rows in one table: "
        "[backbones.md](../backbones.md).",
    ]
    for family, rows in (*FAMILIES.items(), ("parts of patterns", PARTS)):
        parts.append(f"## {family[0].upper()}{family[1:]}")
        lines = []
        for name, row in rows.items():
            size = known.get(name)
            numbers = [f"{n:,}" for n in size] if size else ["-", "-"]
            first = row.about.split(". ")[0] + "."
            depth = "-" if name in PARTS else str(resolve(name).default_depth)
            where = folders(name, boards) or "-"
            lines.append([link(name), first, depth, *numbers, where])
        parts.append(table(COLUMNS, lines))
    return "\n\n".join(parts) + "\n"
