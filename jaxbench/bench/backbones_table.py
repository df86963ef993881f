"""The table of all backbones: what `jaxbench list` prints and the documents hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NUMBERS = ("parameters", "state bytes")
# Parameters and bytes of state; None for a part of patterns.
Size = tuple[int, int] | None


def columns(with_sizes: bool) -> list[str]:
    """Titles of the table."""
    titles = ["name", "what", "pattern", "channel", "layers", "causal", "streams"]
    return [*titles, *(NUMBERS if with_sizes else ()), "paper"]


def all_sizes(width: int) -> dict[str, Size]:
    """Sizes of every row at its own depth, with a bar where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    from jaxbench.models.build import sizes
    from jaxbench.models.zoo import ROWS

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return {
        name: sizes(name, width)
        for name in track(ROWS, "sizes", console=console, disable=hidden)
    }


def add_sizes(rows: list[dict[str, Any]], known: Mapping[str, Size]) -> None:
    """Adds parameters and state bytes to the rows of `models.backbone.table`."""
    for row in rows:
        row |= dict(zip(NUMBERS, known[row["name"]] or (None, None), strict=True))


def table_cells(row: Mapping[str, Any], titles: Sequence[str]) -> list[str]:
    """Returns the texts of one row of the table."""
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
    return [
        "-" if cells[t] is None else f"{cells[t]:,}" if t in NUMBERS else str(cells[t])
        for t in titles
    ]


def markdown_table(rows: Sequence[Mapping[str, Any]], width: int | None) -> str:
    """The table as a Markdown document.

    Args:
      rows: those of `models.backbone.table`, with sizes if `width` is given.
      width: model width of the sizes; None leaves them out.
    """
    titles = columns(width is not None)
    lines = [f"# {len(rows)} backbones", ""]
    if width is not None:
        lines += [f"Width {width}, own depth, state of one sequence.", ""]
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    lines += ["| " + " | ".join(table_cells(row, titles)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def print_rows(
    title: str,
    titles: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
) -> None:
    """Prints a table; where a terminal is too narrow for it, a card for each row.

    Output that is no terminal is as wide as the table.

    Args:
      title: above it.
      titles: of the columns, the first of which names a row.
      lines: the cells of each row.
      right: titles of columns of numbers.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left")
    for name in titles:
        shown.add_column(name, justify="right" if name in right else "left")
    for line in lines:
        shown.add_row(*map(Text, line))
    console = Console()
    wide = Console(width=1000)
    needed = Measurement.get(wide, wide.options, shown).maximum
    if not console.is_terminal:
        Console(width=needed).print(shown)
    # Cells may wrap once: beyond that nobody reads a line of the table.
    elif needed <= 1.5 * console.width:
        console.print(shown)
    else:
        console.print(Text(title, "bold"))
        for name, *cells in lines:
            told = zip(titles[1:], cells, strict=True)
            facts = [f"{key}: {cell}" for key, cell in told if cell not in ("", "-")]
            console.print(Text(name, "bold"))
            console.print(Padding(Text(" · ".join(facts)), (0, 0, 0, 2)))
