"""Measured speeds as tables for people. Imports no jax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

# A measurement (`latency` or `throughput.steady` of a result), or why there is none.
Row = tuple[str, Mapping[str, Any] | str]


def latency_table(rows: Iterable[Row]) -> Table:
    """One line for each policy, the fastest 99th percentile first, failures last."""
    done, failed = _split(rows, lambda latency: latency["step"]["p99_ms"])
    fast = sum(latency["step"]["makes_60fps"] for _, latency in done)
    budget = f"{1000 / 60:.1f} ms"
    table = Table(
        title=f"{fast} of {len(done)} answer within a frame ({budget}) at p99",
        caption=_device(done),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backbone")
    for name in ("p50 ms", "p99 ms", "max ms", "of a frame"):
        table.add_column(name, justify="right")
    table.add_column("60 fps")
    table.add_column("window p99 ms", justify="right")
    table.add_column("parts of p50, %")
    for name, latency in done:
        step, window = latency["step"], latency["window"]
        table.add_row(
            escape(name),
            f"{step['p50_ms']:.2f}",
            f"{step['p99_ms']:.2f}",
            f"{step['max_ms']:.2f}",
            f"{step['share_of_frame']:.1%}",
            _verdict(step),
            f"{window['p99_ms']:.2f}" if window else "-",
            _parts(step.get("parts")),
        )
    if any(latency["step"].get("parts") for _, latency in done):
        names = "checks/features/encoder/backbone/head/rest"
        table.caption = (
            f"{table.caption}; parts: {names}. From the frame to the controller, on "
            "all cores; jaxbench export times the compiled part alone, on one."
        )
    _add_failures(table, failed)
    return table


def decode_table(rows: Iterable[Row]) -> Table:
    """One line for each language model, the most bytes a second first."""
    done, failed = _split(rows, lambda decode: -decode["bytes_per_s"])
    table = Table(
        title="one byte at a time, batch 1",
        caption=f"{_device(done)}; one call a byte, as jaxbench sample writes. Several "
        "bytes a call, as jaxbench speculate draws them, come faster."
        if done
        else None,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backbone")
    for name in ("bytes/s", "p50 ms", "p99 ms", "max ms", "step form agrees to"):
        table.add_column(name, justify="right")
    for name, decode in done:
        table.add_row(
            escape(name),
            f"{decode['bytes_per_s']:,.0f}",
            f"{decode['p50_ms']:.3f}",
            f"{decode['p99_ms']:.3f}",
            f"{decode['max_ms']:.3f}",
            f"{decode['agrees']:.1e}",
        )
    _add_failures(table, failed)
    return table


def throughput_table(
    rows: Iterable[Row], rate: tuple[str, str] = ("examples_per_s", "examples/s")
) -> Table:
    """One line for each run, the fastest first, failures last.

    Args:
      rows: measurements by name.
      rate: what to compare: its key in a measurement, and its unit.
    """
    key, unit = rate
    done, failed = _split(rows, lambda steady: -steady.get(key, 0))
    table = Table(
        title="training speed, compiled and warm",
        caption=_device(done),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backbone")
    for name in (
        *(unit, "steps/s", "compile s", "GFLOP/step", "by compiler"),
        *("GB/step", "of matmul peak", "of bandwidth"),
    ):
        table.add_column(name, justify="right")
    for name, steady in done:
        table.add_row(
            escape(name),
            f"{steady[key]:,.0f}" if key in steady else "-",
            f"{steady['steps_per_s']:.2f}",
            f"{steady['compile_seconds']:.1f}",
            _billions(steady["flops_per_step"]),
            _billions(steady["flops_per_step_compiler"]),
            _billions(steady["bytes_per_step"]),
            _share(steady["matmul_fraction"]),
            _share(steady["bandwidth_fraction"]),
        )
    _add_failures(table, failed)
    return table


def _split(
    rows: Iterable[Row], key: Any
) -> tuple[list[tuple[str, Mapping[str, Any]]], list[tuple[str, str]]]:
    done, failed = [], []
    for name, found in rows:
        if isinstance(found, str):
            failed.append((name, found))
        else:
            done.append((name, found))
    return sorted(done, key=lambda row: key(row[1])), failed


def _add_failures(table: Table, failed: list[tuple[str, str]]) -> None:
    blanks = [""] * (len(table.columns) - 2)
    for name, _ in failed:
        table.add_row(escape(name), "failed", *blanks)
    if failed:
        lines = [f"{name}: {reason}" for name, reason in failed]
        table.caption = escape("\n".join([str(table.caption or ""), *lines]).strip())


def _device(done: list[tuple[str, Mapping[str, Any]]]) -> str | None:
    kinds = sorted({str(found["device"]["kind"]) for _, found in done})
    return f"on {', '.join(kinds)}" if kinds else None


def _parts(parts: Mapping[str, float] | None) -> str:
    """Shares of a step in per cent, in the order of its parts."""
    whole = sum(parts.values()) if parts else 0
    return "/".join(f"{100 * x / whole:.0f}" for x in parts.values()) if parts else "-"


def _verdict(step: Mapping[str, Any]) -> str:
    return "yes" if step["makes_60fps"] else "no"


def _billions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e9:.3g}"


def _share(fraction: float | None) -> str:
    return "-" if fraction is None else f"{fraction:.1%}"
