"""A finished run's last words: what it beat, and the numbers that matter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxbench.bench.terms import data_name, seen_bytes, terms, text_size
from jaxbench.board.board import board_of_run
from jaxbench.board.words import BEST_POSSIBLE
from jaxbench.board.write import columns_of, label, show
from jaxbench.tasks.entry import Terms

MOST_FLOORS = 3


def print_result(result: Mapping[str, Any], folder: Path) -> None:
    """Prints a verdict, six numbers beside the floors, speed, and where the rest lies.

    The numbers are those that the task's board puts first, with their units.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    title = (
        f"{result['backbone']} on {result['task']} "
        f"({result['protocol']}, seed {result['seed']}): {result['status']}"
    )
    console.print(title, highlight=False, markup=False)
    if result["best"] is not None:
        board = board_of_run(result, folder)
        for line in _verdict(result, board):
            console.print(line, highlight=False, markup=False)
        console.print(_numbers(board))
    if result["reason"]:
        console.print(f"reason: {result['reason']}", highlight=False, markup=False)
    console.print(_facts(result), highlight=False, markup=False)
    where = f"run folder: {folder} (all metrics: result.json)"
    console.print(where, highlight=False, markup=False)


def _verdict(result: Mapping[str, Any], board: Mapping[str, Any]) -> list[str]:
    """One line: what the run beat, and whether it solved its task."""
    parts = [board["rows"][0]["verdict"]]
    if result.get("solved"):
        step = result["solved"]["step"]
        parts.append("Not solved" if step is None else f"Solved at step {step:,}")
    told = ". ".join(filter(None, parts))
    return [f"verdict: {told}."] if told else []


def _numbers(board: Mapping[str, Any]) -> Table:
    """The task's headlines, a line each, beside the floors that are hardest to beat."""
    columns, cells = columns_of(board), board["rows"][0]["cells"]
    floors = [f for f in board["floors"] if f["name"] != BEST_POSSIBLE][:MOST_FLOORS]
    table = Table()
    table.add_column("")
    table.add_column("this run", justify="right")
    for floor in floors:
        table.add_column(escape(f"floor: {floor['name']}"), justify="right")
    table.add_column("what it is")
    for key in board["headlines"]:
        column, values = columns[key], [cells[key]]
        values += [floor["cells"].get(key) for floor in floors]
        told = (escape(show(column, value)) for value in values)
        table.add_row(escape(label(column)), *told, escape(column["explain"]))
    return table


def _facts(result: Mapping[str, Any]) -> str:
    words = terms(result["task"])
    parts = [f"{result['steps']:,} steps", _seen(result, words)]
    if result["params"]:
        shape = result.get("shape")
        size = f" (width {shape['width']}, depth {shape['depth']})" if shape else ""
        parts.append(f"{result['params']['total']:,} parameters{size}")
    skips = result.get("skips") or {"count": 0}
    if skips["count"]:
        parts.append(
            f"{skips['count']} updates skipped, the first at step {skips['first_step']}"
        )
    speed = words.speed(result["throughput"])
    if speed:
        parts.append(f"{speed} on {result['device']['kind']}")
    if result["data"]:
        parts.append(f"data: {data_name(result['data'])}")
    if result.get("extended"):
        parts.append(f"extends a run of {result['extended']}")
    if start := result.get("started_from"):
        parts.append(f"began with the weights of {start['run']}, step {start['step']}")
    return ", ".join(parts)


def _seen(result: Mapping[str, Any], words: Terms) -> str:
    """How much it was trained on, in what people count."""
    text = None if words.counts_examples else seen_bytes(result)
    if text is None:
        return f"{result['examples']:,} examples"
    return f"{text_size(text)} of text"
