"""What a section says besides its rows: data, origin, sweeps, published numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from jaxbench.bench.leaderboard import published
from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.notes import plural
from jaxbench.bench.leaderboard.read import Run

Table = tuple[list[str], list[list[str]]]


def title(section: Section) -> str:
    """Task and protocol."""
    return f"{section.key.task}, {section.key.protocol} protocol"


def summary(section: Section) -> list[str]:
    """What is on the board, in short phrases."""
    rows = [row for row in section.rows if row.runs[0].content]
    runs = [run for run in section.runs if not run.is_sweep]
    sweeps = len(section.runs) - len(runs)
    seeds = sorted({len(row.scored) for row in rows if row.scored})
    parts = [plural(len(rows), "row"), plural(len(runs), "run")]
    if seeds:
        span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        parts.append(f"{span} seed{'' if seeds == [1] else 's'} per row")
    if sweeps:
        parts.append(f"{plural(sweeps, 'run')} of a learning-rate search")
    if section.failures:
        parts.append(f"{len(section.failures)} not ok")
    return parts


def data_facts(section: Section) -> list[tuple[str, str]]:
    """Names and values about the data."""
    data, key = section.data(), section.key
    facts = [("source", key.source), ("fingerprint", key.fingerprint)]
    splits = data.get("splits")
    for name, split in splits.items() if isinstance(splits, dict) else ():
        if not isinstance(split, dict):
            continue
        games, parts = split.get("games"), []
        if isinstance(games, list):
            parts.append(plural(len(games), "game"))
        for noun in ("examples", "frames"):
            if isinstance(split.get(noun), int):
                parts.append(f"{split[noun]:,} {noun}")
        facts.append((name, ", ".join(parts)))
    options = json.loads(key.options)
    text = ", ".join(f"{k}={json.dumps(v)}" for k, v in options.items())
    facts.append(("options", text))
    return [(name, value) for name, value in facts if value]


def origin_facts(section: Section, folders: Iterable[str]) -> list[tuple[str, str]]:
    """Names and values about machine, software and how to make this board again."""
    runs = section.runs
    facts = [("device", ", ".join(section.devices))]
    latency = {
        run.text("latency", "device", "kind")
        for run in runs
        if run.text("latency", "device", "kind")
    }
    if latency:
        facts.append(("latency measured on", ", ".join(sorted(latency))))
    versions: dict[str, Counter[str]] = {}
    for run in runs:
        for package, version in (run.get("versions") or {}).items():
            versions.setdefault(package, Counter())[str(version)] += 1
    text = ", ".join(
        f"{package} {' / '.join(sorted(found))}" for package, found in versions.items()
    )
    facts.append(("versions", text))
    commits = Counter(run.text("git") for run in runs if run.text("git"))
    facts.append(("git", ", ".join(commits)))
    facts.append(("read from", ", ".join(folders)))
    facts.append(("command", f"jaxbench leaderboard {' '.join(folders)}"))
    return [(name, value) for name, value in facts if value]


def seeds_table(section: Section) -> Table:
    """Every counted run: a line per seed."""
    lines = []
    for row in section.rows:
        for run in row.runs:
            lines.append(
                [
                    row.name,
                    show("count", run.seed),
                    run.status,
                    *seed_facts(run),
                    run.shown,
                ]
            )
    return ["backbone", "seed", "status", *SEED_FACTS, "folder"], lines


SEED_FACTS = (
    "best",
    "at step",
    "last",
    "steps",
    "examples",
    "steps/s",
    "train s",
    "peak memory",
)


def seed_facts(run: Run) -> list[str]:
    """Cells for `SEED_FACTS`."""
    return [
        show("score", run.score()),
        show("count", run.number("best", "step")),
        show("score", run.score("last")),
        show("count", run.number("steps")),
        show("count", run.number("examples")),
        show("rate", run.number("throughput", "steps_per_s")),
        show("rate", run.number("seconds", "train")),
        show("bytes", run.number("memory", "peak_bytes")),
    ]


def memory_plan(run: Run) -> str:
    """What was tried before the start to fit the memory, in words."""
    tried = run.get("memory", "tried")
    steps = []
    for plan in tried if isinstance(tried, list) else []:
        if isinstance(plan, dict):
            remat = "remat" if plan.get("remat") else "no remat"
            size = plan.get("predicted_bytes")
            shown = show("bytes", size) if isinstance(size, int | float) else "unknown"
            count = plan.get("micro_batches")
            slices = plural(count, "slice") if isinstance(count, int) else "whole batch"
            steps.append(f"{remat}, {slices}: {shown}")
    return "; ".join(steps)


def sweep_curves(section: Section) -> dict[str, list[tuple[float, float | None, Run]]]:
    """(rate, score or None, run) of every backbone of the search, by rate."""
    curves = {}
    for backbone, runs in section.sweeps.items():
        points = [
            (rate, run.score() if run.ok else None, run)
            for run in runs
            if (rate := run.number("learning_rate")) is not None
        ]
        if points:
            curves[backbone] = sorted(points, key=lambda p: (p[0], p[2].shown))
    return curves


def best_rate(
    points: list[tuple[float, float | None, Run]], maximize: bool
) -> float | None:
    """The rate with the best score of a search."""
    scored = [(score, rate) for rate, score, _ in points if score is not None]
    if not scored:
        return None
    return (max if maximize else min)(scored)[1]


def sweep_table(section: Section) -> Table:
    """A line per backbone, a column per rate; the best marked with a star."""
    curves = sweep_curves(section)
    rates = sorted({rate for points in curves.values() for rate, _, _ in points})
    lines = []
    for backbone, points in curves.items():
        best = best_rate(points, section.maximize)
        cells = [backbone]
        for rate in rates:
            here = [(score, run) for r, score, run in points if r == rate]
            texts = [
                run.status if score is None else show("score", score)
                for score, run in here
            ]
            cells.append(", ".join(texts) + (" *" if rate == best else ""))
        lines.append(cells)
    return ["backbone", *(f"{rate:g}" for rate in rates)], lines


PUBLISHED_HEADER = [
    "backbone",
    "their name",
    "their place",
    "their last",
    "our place",
    "our last",
    "our best",
    "their ms",
    "our p99 (ms)",
    "their batch, rate",
    "remark",
]


def published_table(section: Section) -> Table:
    """The published rows in their order, ours beside them."""
    ours: dict[str, Row] = {}
    for line in section.rows:
        ours.setdefault(line.backbone, line)
    lines = []
    for place, (name, theirs) in enumerate(published.ROWS.items(), start=1):
        row = ours.get(name)
        lines.append(
            [
                name,
                theirs.name,
                str(place) if theirs.loss else "",
                show("score", theirs.loss),
                str(row.place.rank) if row and row.place else "",
                show("score", row.score("last")) if row else "",
                _score_or_status(row),
                show("ms", theirs.latency_ms),
                show("ms", row.speed("latency", "step", "p99_ms")) if row else "",
                f"{theirs.batch}, {theirs.learning_rate:g}",
                theirs.note,
            ]
        )
    return list(PUBLISHED_HEADER), lines


def _score_or_status(row: Row | None) -> str:
    if row is None:
        return "not on this board"
    return show("score", row.score()) or row.status


def has_published(section: Section) -> bool:
    """Whether the published numbers belong beside this section."""
    return section.key.task == "zelda" and section.key.protocol == "compat"
