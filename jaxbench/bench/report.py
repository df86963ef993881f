"""A finished run as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxbench.bench.terms import data_name, seen_bytes, terms, text_size
from jaxbench.tasks.entry import Terms

MOST_FLOORS = 3


def print_result(result: Mapping[str, Any], folder: Path) -> None:
    """Prints status, metrics beside the floors, speed and where everything lies."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    title = (
        f"{result['backbone']} on {result['task']} "
        f"({result['protocol']}, seed {result['seed']}): {result['status']}"
    )
    best, last = result["best"], result["last"]
    if best is None:
        console.print(title, highlight=False)
    else:
        words = terms(result["task"])
        console.print(_metric_table(title, best, last, _hardest(result), words))
    if result["reason"]:
        console.print(f"reason: {result['reason']}", highlight=False, markup=False)
    console.print(_facts(result), highlight=False, markup=False)
    console.print(f"run folder: {folder}", highlight=False, markup=False)


def _hardest(result: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """The floors that are hardest to beat, as many as a line has room for."""
    primary, floors = result["primary"], result["floors"] or {}
    sign = -1 if primary["maximize"] else 1
    known = [name for name in floors if primary["metric"] in floors[name]]
    known.sort(key=lambda name: sign * floors[name][primary["metric"]])
    return {name: floors[name] for name in known[:MOST_FLOORS]}


def _metric_table(
    title: str,
    best: Mapping[str, Any],
    last: Mapping[str, Any],
    floors: Mapping[str, Mapping[str, float]],
    words: Terms,
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("validation")
    table.add_column(f"best (step {best['step']})", justify="right")
    table.add_column(f"last (step {last['step']})", justify="right")
    for name in floors:
        table.add_column(f"floor: {name}", justify="right")
    metrics = best["metrics"]
    names = [n for n in words.headlines if n in metrics]
    names += [n for n in metrics if n not in names]
    for name in names:
        row = [metrics[name], last["metrics"].get(name)]
        row += [floor.get(name) for floor in floors.values()]
        table.add_row(words.name(name), *(_number(value) for value in row))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


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
