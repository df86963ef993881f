"""The columns about size, speed and memory, which every task has."""

from __future__ import annotations

from typing import Any

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import Column, Value


def size(section: Section) -> list[Column]:
    """Parameters and state."""
    token = section.terms.token
    return [
        Column(
            "params_total",
            "parameters",
            "count",
            lambda row: row.fact("params", "total"),
            ("overview", "memory"),
            "of the whole model",
            "low",
        ),
        Column(
            "params_backbone",
            "of backbone",
            "count",
            lambda row: row.fact("params", "backbone"),
            ("memory",),
            "without encoder and heads",
            "low",
        ),
        Column(
            "state_bytes",
            "state",
            "bytes",
            lambda row: row.fact("state_bytes"),
            ("memory",),
            f"what one stream carries from {token} to {token}",
            "low",
        ),
    ]


def speed(section: Section) -> list[Column]:
    """Rates of training; those that all rows have are shown."""
    # Steady rates are shown where all rows have them, so that one column compares.
    steady = section.steady()
    quoted, unit = section.terms.rate
    titles = {quoted: unit}
    shown_too = {quoted, "steps_per_s"}
    if section.terms.counts_examples:
        shown_too.add("examples_per_s")
    found = []
    for prefix, keys, shown, about in (
        ("", (), not steady, "whole run, without compilation"),
        ("steady_", ("steady",), steady, "steady state"),
    ):
        for name in ("steps_per_s", "examples_per_s", "tokens_per_s"):
            views = ("overview",) * (name == quoted)
            views += ("speed",) * (name in shown_too)
            path = ("throughput", *keys, name)
            found.append(
                Column(
                    prefix + name,
                    titles.get(name, name.replace("_per_", "/")),
                    "rate",
                    _speed_of(*path),
                    views if shown else (),
                    about,
                    "high",
                )
            )
        fraction = ("throughput", *keys, "matmul_fraction" if keys else "mfu")
        found.append(
            Column(
                prefix + "matmul_fraction",
                "of matmul peak",
                "percent",
                _speed_of(*fraction),
                ("speed",) if shown else (),
                f"matrix FLOP/s over what a plain product reaches; {about}",
                "high",
            )
        )
    seconds = [
        Column(
            f"{part}_seconds",
            f"{part.replace('_', ' ')} s",
            "rate",
            _seconds_of(part),
            ("speed",),
            f"seconds of {part.replace('_', ' ')}, median over seeds",
            "low",
        )
        for part in ("startup", "compile", "first_steps", "train", "eval")
    ]
    bandwidth = Column(
        "bandwidth_fraction",
        "of bandwidth",
        "percent",
        lambda row: row.speed("throughput", "steady", "bandwidth_fraction"),
        ("speed",),
        "bytes the compiler counts over what a plain copy reaches",
        "high",
    )
    return [*found, bandwidth, *seconds]


def _speed_of(*keys: str) -> Value:
    return lambda row: row.speed(*keys)


def _seconds_of(part: str) -> Value:
    # Where the first steps are not timed apart they take no seconds of their own.
    if part == "first_steps":
        return lambda row: row.speed("seconds", part) or None
    return _speed_of("seconds", part)


def memory() -> list[Column]:
    """Memory, and what was chosen to make it fit."""

    def held(name: str) -> Value:
        return lambda row: row.speed("memory", name) or row.fact("memory", name)

    def chosen(row: Row) -> Any:
        run = next(iter(row.scored or row.runs), None)
        remat = run.get("memory", "remat") if run else None
        return None if remat is None else ("yes" if remat else "no")

    names = {
        "predicted": "compiler's plan before the start",
        "peak": "most held at once",
    }
    return [
        *(
            Column(
                f"{part}_bytes",
                f"{part} memory",
                "bytes",
                held(f"{part}_bytes"),
                ("memory",),
                about,
                "low",
            )
            for part, about in names.items()
        ),
        Column(
            "limit_bytes",
            "limit",
            "bytes",
            lambda row: row.fact("memory", "limit_bytes"),
            ("memory",),
            "what the plan had to fit",
        ),
        Column("remat", "remat", "text", chosen, ("memory",), "activations recomputed"),
        Column(
            "micro_batches",
            "micro-batches",
            "count",
            lambda row: row.fact("memory", "micro_batches"),
            ("memory",),
            "slices of a step's batch; the effective batch is the same",
            "low",
        ),
    ]
