"""Boards of the task `pile`: bytes of text, their speed, and what decoding carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxbench.bench.leaderboard import (
    costs,
    exports,
    plots_cost,
    plots_exports,
    plots_pile,
    plots_quality,
)
from jaxbench.bench.leaderboard.board import Row, Section, median
from jaxbench.bench.leaderboard.column import Column, show
from jaxbench.bench.leaderboard.plots_pile import QUARTERS
from jaxbench.bench.leaderboard.plots_scatter import device_of
from jaxbench.bench.leaderboard.task_board import (
    MEMORY,
    SPEED,
    PublishedTable,
    SeedFact,
    Shown,
    TaskBoard,
    View,
    plain_metric,
    score_or_status,
)
from jaxbench.bench.terms import text_size
from jaxbench.models.zoo import ROWS
from jaxbench.tasks.pile import published as published_pile

METRICS = {
    "bits_per_byte": Shown(
        "bits/byte", "score", ("overview", "quality"), "nats/byte over ln 2", "low"
    ),
    "accuracy": Shown(
        "right bytes",
        "percent",
        ("quality",),
        "whose likeliest value was right",
        "high",
    ),
    **{
        name: Shown(
            f"quarter {i}",
            "score",
            ("heads",),
            f"nats/byte in quarter {i} of the window",
            "low",
        )
        for i, name in enumerate(QUARTERS, start=1)
    },
}


def metric(section: Section, name: str) -> Shown:
    """Bits, and nats by quarter of the window."""
    return METRICS.get(name) or plain_metric(section, name)


EXPORTED = (exports.Quality("bits_per_byte", "bits/byte", "score", "low"),)


def columns(section: Section) -> list[Column]:
    """Context, updates, size, speed, memory, decoding, and exported files."""
    return [
        *_scores(section),
        *_training(),
        *costs.size(section),
        *_shape(),
        *costs.speed(section),
        *costs.memory(),
        *_decoding(),
        *exports.columns(EXPORTED),
    ]


def context_gain(row: Row) -> float | None:
    """Nats/byte of the window's last quarter minus those of its first; negative: used.

    Later bytes of a window have more text before them, so a backbone that uses what it
    has read predicts them better.
    """
    first, *_, last = (row.median("best", "metrics", name) for name in QUARTERS)
    return None if first is None or last is None else last - first


def _scores(section: Section) -> list[Column]:
    """Other scores, and those that `jaxbench score` added."""
    added: dict[str, None] = {}
    for row in section.rows:
        for run in row.scored:
            added |= dict.fromkeys(run.get("scores") or {})
    return [
        Column(
            "last_bits_per_byte",
            "bits/byte, last",
            "score",
            lambda row: row.median("last", "metrics", "bits_per_byte"),
            ("quality",),
            "at the last evaluation",
            "low",
        ),
        Column(
            "context_gain",
            "quarter 4 − 1",
            "score",
            context_gain,
            ("heads",),
            "nats/byte of the window's last quarter minus those of its first: below 0 "
            "where a backbone uses what it has read",
            "low",
        ),
        *(_added_score(name) for name in added),
    ]


def _added_score(name: str) -> Column:
    return Column(
        f"scores/{name}",
        f"nats/byte, {name.replace('_', ' ')}",
        "score",
        lambda row: row.median("scores", name, "nats_per_byte"),
        ("quality",),
        "trained weights on another split or with the state carried on",
        "low",
    )


def _training() -> list[Column]:
    return [
        Column(
            "seen_bytes",
            "seen",
            "text size",
            lambda row: median(run.seen_bytes for run in row.scored or row.runs),
            ("overview", "speed"),
            "bytes of text trained on; twice where a window was drawn twice",
            "high",
        ),
        Column(
            "skips",
            "skips",
            "count",
            _skips,
            ("overview", "quality"),
            "updates left out, over all seeds, because they were not finite",
            "low",
        ),
        Column(
            "first_skip",
            "first skip at",
            "count",
            _first_skip,
            ("quality",),
            "the earliest step whose update was left out",
        ),
    ]


def _skips(row: Row) -> int | None:
    counts = [run.number("skips", "count") for run in row.runs]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def _first_skip(row: Row) -> int | None:
    steps = (run.number("skips", "first_step") for run in row.runs)
    return min((int(step) for step in steps if step is not None), default=None)


def _shape() -> list[Column]:
    def shape(row: Row) -> str | None:
        width, depth = row.fact("shape", "width"), row.fact("shape", "depth")
        return None if width is None or depth is None else f"{width:.0f} x {depth:.0f}"

    return [
        Column("shape", "width x depth", "text", shape, ("memory",), "of the backbone"),
        Column("width", "width", "count", lambda row: row.fact("shape", "width")),
        Column("depth", "depth", "count", lambda row: row.fact("shape", "depth")),
    ]


def _decoding() -> list[Column]:
    def of(name: str) -> Callable[[Row], Any]:
        return lambda row: row.speed("decode", name)

    return [
        Column(
            "decode_bytes_per_s",
            "decode bytes/s",
            "rate",
            of("bytes_per_s"),
            ("overview", "latency"),
            "one stream, byte after byte, each from the one before",
            "high",
        ),
        *(
            Column(
                f"decode_{name}",
                f"{name.removesuffix('_ms')} ms/byte",
                "ms",
                of(name),
                ("latency",),
                "one byte in, the next one out, batch 1",
                "low",
            )
            for name in ("p50_ms", "p99_ms", "max_ms")
        ),
        Column(
            "decode_device",
            "measured on",
            "text",
            lambda row: device_of(row, "decode") if of("p50_ms")(row) else None,
            ("latency",),
        ),
    ]


SEED_FACTS = (
    SeedFact("best nats/byte", lambda run: show("score", run.score())),
    SeedFact("at step", lambda run: show("count", run.number("best", "step"))),
    SeedFact("last nats/byte", lambda run: show("score", run.score("last"))),
    SeedFact(
        "best bits/byte",
        lambda run: show("score", run.number("best", "metrics", "bits_per_byte")),
    ),
    SeedFact("steps", lambda run: show("count", run.number("steps"))),
    SeedFact("seen", lambda run: show("text size", run.seen_bytes)),
    SeedFact(
        "bytes/s", lambda run: show("rate", run.number("throughput", "tokens_per_s"))
    ),
    SeedFact("train s", lambda run: show("rate", run.number("seconds", "train"))),
    SeedFact("skips", lambda run: show("count", run.number("skips", "count"))),
    SeedFact(
        "first skip at", lambda run: show("count", run.number("skips", "first_step"))
    ),
    SeedFact(
        "peak memory", lambda run: show("bytes", run.number("memory", "peak_bytes"))
    ),
)


def data_notes(section: Section) -> list[str]:
    """Which text it is, and how it is scored."""
    data, options = section.data(), section.data().get("options") or {}
    notes = []
    if section.key.source == "python":
        notes.append(
            "The text is the source code of Python's standard library: nothing here "
            "says how a backbone models text of books."
        )
    scored, window = options.get("validation_bytes"), options.get("window")
    if isinstance(scored, int) and isinstance(window, int):
        notes.append(
            f"Scores are over {text_size(scored)} of held-out text of "
            f"{data.get('name') or 'a corpus'}, each byte once, from a zero state "
            f"every {window} bytes. They say nothing of longer contexts, and losses on "
            "other text do not compare with them."
        )
    return [*notes, *exports.notes(section)]


def published_table(section: Section) -> PublishedTable | None:
    """The listings of the Elman ladder, ours beside them; under compat only."""
    if section.key.protocol != "compat":
        return None
    header = ["backbone", "their name", "14 January", "15 January"]
    header += ["our last", "our best", "their parameters", "our parameters"]
    header += ["our bytes/s", "remark"]
    lines = []
    for name, theirs in published_pile.ROWS.items():
        row, zoo = section.row_of(name), ROWS.get(name)
        size = zoo.published.parameters if zoo and zoo.published else None
        lines.append(
            [
                name,
                theirs.name,
                "" if theirs.listed is None else f"{theirs.listed:.2f}",
                "" if theirs.logged is None else f"{theirs.logged:.3f}",
                show("score", row.score("last")) if row else "",
                score_or_status(row),
                show("count", size),
                show("count", row.fact("params", "total")) if row else "",
                show("rate", row.speed("throughput", "tokens_per_s")) if row else "",
                theirs.note,
            ]
        )
    return PublishedTable((header, lines), range(2, 9), published_pile.REMARKS)


BOARD = TaskBoard(
    views=(
        View("quality", "Scores over seeds, nats/byte", floors=True),
        View("heads", "Nats/byte by quarter of the window", button="Context"),
        SPEED,
        MEMORY,
        View("latency", "Decoding", button="Decoding"),
        exports.VIEW,
    ),
    metric=metric,
    columns=columns,
    seed_facts=SEED_FACTS,
    plots={
        "quality": plots_quality.quality,
        "curves": plots_pile.curves,
        "bytes": plots_pile.against_speed,
        "context": plots_pile.context,
        "state": plots_pile.against_state,
        "size": plots_pile.against_size,
        "export": plots_exports.steps,
        "speed": plots_cost.speed,
        "memory": plots_cost.memory,
    },
    data_notes=data_notes,
    published=published_table,
)
