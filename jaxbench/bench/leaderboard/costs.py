"""The columns about size, speed, memory and latency."""

from __future__ import annotations

from typing import Any

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import Column, Value


def size() -> list[Column]:
    """Parameters and state."""
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
            "what one stream carries from frame to frame",
            "low",
        ),
    ]


def speed(section: Section) -> list[Column]:
    """Rates of training; those that all rows have are shown."""
    # Steady rates are shown where all rows have them, so that one column compares.
    steady = section.steady()
    found = []
    for prefix, keys, shown, about in (
        ("", (), not steady, "whole run, without compilation"),
        ("steady_", ("steady",), steady, "steady state"),
    ):
        for name, views in (
            ("steps_per_s", ("overview", "speed")),
            ("examples_per_s", ("speed",)),
            ("tokens_per_s", ()),
        ):
            path = ("throughput", *keys, name)
            found.append(
                Column(
                    prefix + name,
                    name.replace("_per_", "/"),
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
            f"{part} s",
            "rate",
            _speed_of("seconds", part),
            ("speed",),
            f"seconds of {part}, median over seeds",
            "low",
        )
        for part in ("startup", "compile", "train", "eval")
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


def latency() -> list[Column]:
    """Time of one frame, and whether that makes 60 fps."""

    def time(mode: str, name: str) -> Value:
        if name == "max_ms":
            return lambda row: max(_latencies(row, mode, name), default=None)
        return lambda row: row.speed("latency", mode, name)

    def verdict(row: Row) -> Any:
        found = [
            run.get("latency", "step", "makes_60fps")
            for run in row.runs
            if run.get("latency", "step")
        ]
        return ("yes" if all(found) else "no") if found else None

    modes = {"step": "streaming", "window": "30-frame window"}
    return [
        *(
            Column(
                f"latency_{mode}_{name}",
                f"{name.removesuffix('_ms')} ms"
                + (", window" if mode == "window" else ""),
                "ms",
                time(mode, name),
                ("overview", "latency")
                if (mode, name) == ("step", "p99_ms")
                else ("latency",),
                f"one frame, batch 1, {about}, policy heads included",
                "low",
            )
            for mode, about in modes.items()
            for name in ("p50_ms", "p99_ms", "max_ms")
        ),
        Column(
            "makes_60fps",
            "60 fps",
            "text",
            verdict,
            ("overview", "latency"),
            "p99 of the streaming step below 16.7 ms",
        ),
        Column(
            "share_of_frame",
            "of a frame",
            "percent",
            lambda row: row.speed("latency", "step", "share_of_frame"),
            ("latency",),
            "p99 over a frame's 16.7 ms",
            "low",
        ),
    ]


def _latencies(row: Row, mode: str, name: str) -> list[float]:
    found = (run.number("latency", mode, name) for run in row.scored)
    return [value for value in found if value is not None]
