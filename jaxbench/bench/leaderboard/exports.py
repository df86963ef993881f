"""How exported files answer beside jax: time of a step, quality, error, size.

A result's `export` holds what `jaxbench export` measured: its implementations in turn
on one thread, each with its own state, on the run's own validation frames or bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxbench.bench.leaderboard.board import Row, Section, median
from jaxbench.bench.leaderboard.column import Column, Value, plural, show
from jaxbench.bench.leaderboard.plots_scatter import device_of
from jaxbench.bench.leaderboard.read import Run
from jaxbench.bench.leaderboard.task_board import View

VIEW = View("export", "Exported step", button="Export")
# By kind of file, jax itself among them.
NAMES = {"jax": "jax", "onnx": "float32", "int8": "INT8"}
LIMITS = {"makes_60fps": "16.7 ms", "under_1ms": "1 ms"}


class Quality(NamedTuple):
    """A metric of the task that is shown before and after.

    Attributes:
      metric: its name in `export.scores`.
      title, kind, better: as of a `Column`.
    """

    metric: str
    title: str
    kind: str
    better: str


def columns(qualities: Sequence[Quality]) -> list[Column]:
    """Times of jax and of each file, quality before and after INT8, errors, sizes."""
    return [
        *(column for kind in NAMES for column in _times(kind)),
        *(column for quality in qualities for column in _quality(quality)),
        *(_error(kind) for kind in ("onnx", "int8")),
        *(_size(kind) for kind in ("onnx", "int8")),
        *(_verdict(name, limit) for name, limit in LIMITS.items()),
    ]


def notes(section: Section) -> list[str]:
    """How many rows were exported, and how many of them keep a frame's time."""
    rows = [row for row in section.rows if _exported(row)]
    if not rows:
        return []
    kept = []
    for kind, name in NAMES.items():
        timed = [row for row in rows if time(row, kind, "p99_ms") is not None]
        if timed:
            counts = (
                f"{sum(_all(row, kind, key) for row in timed)} under {limit}"
                for key, limit in LIMITS.items()
            )
            kept.append(f"{name} {', '.join(counts)} of {len(timed)}")
    devices = sorted({device_of(row, "export") for row in rows})
    return [
        f"Export: {plural(len(rows), 'row')}; p99 of a step, batch 1, one thread, "
        f"heads included, measured in turn on {', '.join(devices)}: {'; '.join(kept)}."
    ]


def _exported(row: Row) -> list[Run]:
    return [run for run in row.scored if run.get("export", "timing", "step")]


def _files(run: Run) -> list[tuple[str, Mapping[str, Any]]]:
    return list((run.get("export", "files") or {}).items())


def _of(row: Row, *keys: str) -> float | None:
    return median(run.number("export", *keys) for run in _exported(row))


def time(row: Row, kind: str, name: str) -> float | None:
    """Milliseconds of a step by one of `NAMES`; name is "p50_ms" or "p99_ms"."""
    return _of(row, "timing", "step", kind, name)


def _all(row: Row, kind: str, name: str) -> bool:
    """Whether every run's p99 keeps the limit."""
    return all(
        run.get("export", "timing", "step", kind, name) for run in _exported(row)
    )


def _times(kind: str) -> list[Column]:
    def of(name: str) -> Value:
        return lambda row: time(row, kind, name)

    def told(row: Row) -> str:
        values = (of(name)(row) for name in ("p50_ms", "p99_ms"))
        return " / ".join(show("rate", v) for v in values if v is not None)

    return [
        Column(f"export_{kind}_p50_ms", f"{NAMES[kind]} p50", "rate", of("p50_ms")),
        Column(
            f"export_{kind}_p99_ms",
            f"{NAMES[kind]} ms",
            "rate",
            of("p99_ms"),
            (VIEW.key,),
            f"p50 / p99 of a step of {NAMES[kind]}",
            "low",
            text=told,
        ),
    ]


def _quality(quality: Quality) -> list[Column]:
    def of(kind: str) -> Value:
        return lambda row: _of(row, "scores", "step", kind, quality.metric)

    def told(row: Row) -> str:
        values = (of(kind)(row) for kind in ("jax", "int8"))
        return " → ".join(show(quality.kind, v) for v in values if v is not None)

    def column(kind: str, title: str, **shown: Any) -> Column:
        key = f"export_{kind}_{quality.metric}"
        return Column(key, title, quality.kind, of(kind), **shown)

    before = column(
        "jax",
        quality.title,
        views=(VIEW.key,),
        about="jax → INT8, the state carried, on the frames or bytes of the export",
        better=quality.better,
        text=told,
    )
    after = ("onnx", "int8")
    return [before, *(column(k, f"{quality.title}, {NAMES[k]}") for k in after)]


def _error(kind: str) -> Column:
    def value(row: Row) -> Any:
        found = [
            run.number("export", "parity", name, "largest")
            for run in _exported(row)
            for name, entry in _files(run)
            if entry.get("kind") == kind
        ]
        return max((x for x in found if x is not None), default=None)

    return Column(
        f"export_{kind}_error",
        f"error {NAMES[kind]}",
        "rate",
        value,
        (VIEW.key,),
        "largest difference from jax of a logit, over the largest logit; step and "
        "window, each with its own state",
        "low",
    )


def _size(kind: str) -> Column:
    def value(row: Row) -> Any:
        return median(
            entry.get("bytes")
            for run in _exported(row)
            for _, entry in _files(run)
            if (entry.get("kind"), entry.get("function")) == (kind, "step")
        )

    name = NAMES[kind]
    key, about = f"export_{kind}_bytes", f"of the step's file of {name}"
    return Column(key, f"file {name}", "bytes", value, (VIEW.key,), about, "low")


def _verdict(name: str, limit: str) -> Column:
    def value(row: Row) -> Any:
        timed = [kind for kind in NAMES if time(row, kind, "p99_ms") is not None]
        if not timed:
            return None
        fast = [NAMES[kind] for kind in timed if _all(row, kind, name)]
        return ", ".join(fast) or "none"

    about = f"whose p99 is below {limit}"
    return Column(f"export_{name}", f"under {limit}", "text", value, (VIEW.key,), about)
