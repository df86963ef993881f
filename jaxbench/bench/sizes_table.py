"""How wide, deep and large each backbone is as a byte-level language model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import track

from jaxbench.bench.backbones_table import print_rows
from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve
from jaxbench.models.row import PUBLISHED, SIZES
from jaxbench.models.sizes import BYTES, Counter, Shape, solve
from jaxbench.models.zoo import ROWS
from jaxbench.tasks.table import TASKS, find

# Tasks whose models are sized by a budget of parameters.
SIZED = tuple(name for name in TASKS if find(name).emits == "byte")
DEFAULT_SIZE = "100m"

_COLUMNS = ("name", "width", "depth", "parameters", "backbone", "state bytes")


def sizes_command(options: argparse.Namespace) -> int:
    """Prints the table `jaxbench list --task=TASK --size=SIZE` asks for; returns 0.

    Of all rows, or of the one row or pattern that is named; of size "published", of all
    rows that were.

    Raises:
      InputError: the task or the size is unknown, a size is given without a task, or
        the one that is named has no such size.
    """
    size = _checked(options.task, options.size)
    if options.sizes or options.pages is not None:
        raise InputError("--sizes and --pages are not for --task, which has --size")
    single = options.backbone is not None
    if single:
        names = [resolve(options.backbone).name]
    else:
        names = [name for name, row in ROWS.items() if _listed(name, size)]
    console = Console(stderr=True)
    rows = [
        size_row(name, size, strict=single)
        for name in track(
            names, "sizes", console=console, disable=not console.is_terminal
        )
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif options.markdown:
        _print_markdown(rows, size)
    else:
        _print_table(rows, size)
    return 0


def size_row(name: str, size: str, *, strict: bool = False) -> dict[str, Any]:
    """Returns what the table says of one backbone, as plain data.

    Keys: name, width, depth, options, parameters (stack and tied byte embedding),
    backbone (the stack alone), state_bytes (one sequence), compat_parameters (counted
    under compat, of a published shape), published (the count that was published at the
    published shape, else None), reason (why there is no such shape, or "").

    Args:
      name: a row or a pattern.
      size: a key of `SIZES` or "published".
      strict: raise where there is no such shape, instead of saying so in the row.

    Raises:
      InputError: as `solve`, if `strict`.
    """
    row = ROWS.get(name)
    stated = None if row is None or row.published is None else row.published.parameters
    found: dict[str, Any] = dict.fromkeys(
        "width depth options parameters backbone state_bytes compat_parameters".split()
    )
    found = {"name": name, **found, "published": stated, "reason": ""}
    try:
        shape = solve(name, size)
        found |= _facts(name, shape)
        if size == PUBLISHED:
            found["compat_parameters"] = solve(name, size, compat=True).parameters
    except InputError as error:
        if strict:
            raise
        found["reason"] = str(error)
    return found


def _facts(name: str, shape: Shape) -> dict[str, Any]:
    return {
        "width": shape.width,
        "depth": shape.depth,
        "options": dict(shape.options),
        "parameters": shape.parameters,
        "backbone": shape.parameters - BYTES * shape.width,
        "state_bytes": Counter(name, shape.options).state_bytes(
            shape.width, shape.depth
        ),
    }


def _checked(task: str | None, size: str | None) -> str:
    """The size, if task and size are known."""
    if task is None:
        raise InputError(f"--size={size} is of a task; add --task={SIZED[0]}")
    if task not in SIZED:
        raise InputError(
            f"--task={task!r} is unknown; nearest: {nearest(task, SIZED)} (sizes are "
            "for tasks whose models are brought to a number of parameters)"
        )
    known = [*SIZES, PUBLISHED]
    if size is not None and size not in known:
        raise InputError(
            f"--size={size!r} is unknown; nearest: {nearest(size, known)} "
            f"(known: {', '.join(known)})"
        )
    return DEFAULT_SIZE if size is None else size


def _listed(name: str, size: str) -> bool:
    """Whether a row has a size: of size "published", only what was published."""
    return size != PUBLISHED or ROWS[name].published is not None


def _cells(row: dict[str, Any], columns: Sequence[str]) -> list[str]:
    values = {column: row.get(column.replace(" ", "_")) for column in columns}
    if "under compat" in columns:
        values["under compat"] = row["compat_parameters"]
    return [
        "-" if value is None else f"{value:,}" if isinstance(value, int) else value
        for value in values.values()
    ]


def _columns(size: str) -> list[str]:
    compat = ["under compat"] if size == PUBLISHED else []
    return [*_COLUMNS, *compat, "published"]


def _explanation(size: str) -> str:
    of_all = (
        "Parameters: stack, last norm and the byte embedding that is also the output; "
        "backbone: without the embedding; state of one sequence."
    )
    if size == PUBLISHED:
        return (
            "As published: width, depth and shape. Parameters, backbone and state are "
            "of the clean form; under compat is the count of the published form, "
            f"counted here, and published the number that was published. {of_all}"
        )
    return (
        f"Within 1 % of {SIZES[size].parameters:,} parameters. {of_all} Published: the "
        "count of the published shape."
    )


def _print_markdown(rows: list[dict[str, Any]], size: str) -> None:
    columns = _columns(size)
    print(f"# {len(rows)} byte-level language models, size {size}\n")
    print(f"{_explanation(size)}\n")
    print("| " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * (len(columns) - 1))
    for row in rows:
        print("| " + " | ".join(_cells(row, columns)) + " |")
    for line in _missing(rows):
        print(f"\n{line}")


def _print_table(rows: list[dict[str, Any]], size: str) -> None:
    columns = _columns(size)
    title = f"{len(rows)} byte-level language models, size {size}"
    cells = [_cells(row, columns) for row in rows]
    print_rows(title, columns, cells, right=columns[1:])
    console = Console()
    for line in (_explanation(size), *_missing(rows)):
        console.print(line, highlight=False, markup=False)


def _missing(rows: list[dict[str, Any]]) -> list[str]:
    return [row["reason"] for row in rows if row["reason"]]
