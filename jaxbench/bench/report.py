"""A finished run as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

# Headline metrics first; tasks without them simply do not have these rows.
HEADLINES = ("loss", "f1/buttons_micro", "change/any")


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
        console.print(_metric_table(title, best, last, result["floors"] or {}))
    if result["reason"]:
        console.print(f"reason: {result['reason']}", highlight=False, markup=False)
    console.print(_facts(result), highlight=False, markup=False)
    console.print(f"run folder: {folder}", highlight=False, markup=False)


def _metric_table(
    title: str,
    best: Mapping[str, Any],
    last: Mapping[str, Any],
    floors: Mapping[str, Mapping[str, float]],
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("validation")
    table.add_column(f"best (step {best['step']})", justify="right")
    table.add_column(f"last (step {last['step']})", justify="right")
    for name in floors:
        table.add_column(f"floor: {name}", justify="right")
    metrics = best["metrics"]
    names = [n for n in HEADLINES if n in metrics]
    names += [n for n in metrics if n not in names]
    for name in names:
        row = [metrics[name], last["metrics"].get(name)]
        row += [floor.get(name) for floor in floors.values()]
        table.add_row(name, *(_number(value) for value in row))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def _facts(result: Mapping[str, Any]) -> str:
    parts = [f"{result['steps']:,} steps", f"{result['examples']:,} examples"]
    if result["params"]:
        parts.append(f"{result['params']['total']:,} parameters")
    rate = result["throughput"]["steps_per_s"]
    if rate:
        parts.append(f"{rate:.1f} steps/s on {result['device']['kind']}")
    if result["data"]:
        parts.append(f"data: {result['data']['source']}")
    return ", ".join(parts)
