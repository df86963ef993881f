"""What a section says besides its rows: data, origin, sweeps, published numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.column import plural, show
from jaxbench.bench.leaderboard.read import Run
from jaxbench.bench.leaderboard.task_board import Table
from jaxbench.bench.leaderboard.tasks import task_board
from jaxbench.bench.terms import data_name, text_size


def title(section: Section) -> str:
    """Task and protocol, and what budget is equal, where one is."""
    key = section.key
    task = f"{key.task} {task_board(section).variant(section)}".strip()
    parts = [task, f"{key.protocol} protocol", key.budget.name]
    return ", ".join(filter(None, parts))


def which_data(section: Section, unknown: str) -> str:
    """Source, name and digest of the data."""
    data = section.data()
    told = f"{data_name(data) or unknown} {section.key.fingerprint[:12]}".strip()
    training = (data.get("options") or {}).get("train")
    return f"{told}, training {training}" if isinstance(training, str) else told


def tells_apart(section: Section, unknown: str) -> str:
    """What distinguishes a ranking from others of its title."""
    device = section.key.budget.device
    return which_data(section, unknown) + (f", {device}" if device else "")


def what_differs(sections: Sequence[Section]) -> str:
    """Why there are several rankings."""
    parts = ["task", "protocol", "data"]
    budgets = [section.key.budget for section in sections]
    if any(budget.unit for budget in budgets):
        parts.append("budget")
    if any(budget.device for budget in budgets):
        parts.append("device")
    return f"{', '.join(parts[:-1])} or {parts[-1]} differ"


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
    if isinstance(data.get("documents"), int):
        facts += _corpus_facts(data)
    if key.level:
        facts += _synthetic_facts(data)
    splits = data.get("splits")
    for name, split in splits.items() if isinstance(splits, dict) else ():
        facts.append((name, _split_facts(split)))
    options = json.loads(key.options)
    text = ", ".join(f"{k}={json.dumps(v)}" for k, v in options.items())
    facts.append(("options", text))
    return [(name, value) for name, value in facts if value]


def _synthetic_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [(name, str(data.get(name) or "")) for name in ("level", "version")]
    for name in ("examples", "fingerprints"):
        found = data.get(name)
        if isinstance(found, dict):
            parts = (
                f"{split} {value:,}" if isinstance(value, int) else f"{split} {value}"
                for split, value in found.items()
            )
            facts.append((name, ", ".join(parts)))
    return facts


def _corpus_facts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts = [str(data.get("name") or "unnamed")]
    if isinstance(data.get("bytes"), int):
        parts.append(text_size(data["bytes"]))
    parts.append(plural(data["documents"], "document"))
    facts = [("corpus", ", ".join(parts))]
    skipped = data.get("skipped")
    if isinstance(skipped, dict) and skipped:
        facts.append(("left out", ", ".join(f"{k}: {v}" for k, v in skipped.items())))
    return facts


def _split_facts(split: Any) -> str:
    """A split: games and examples, or a range of bytes."""
    if isinstance(split, list) and [type(edge) for edge in split] == [int, int]:
        start, stop = split
        return f"bytes {start:,} to {stop:,} ({text_size(stop - start)})"
    if not isinstance(split, dict):
        return ""
    games, parts = split.get("games"), []
    if isinstance(games, list):
        parts.append(plural(len(games), "game"))
    for noun in ("examples", "frames"):
        if isinstance(split.get(noun), int):
            parts.append(f"{split[noun]:,} {noun}")
    return ", ".join(parts)


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
                    *seed_cells(section, run),
                    run.shown,
                ]
            )
    return ["backbone", "seed", "status", *seed_titles(section), "folder"], lines


def seed_titles(section: Section) -> list[str]:
    """Headers of `seed_cells`."""
    return [fact.title for fact in task_board(section).seed_facts]


def seed_cells(section: Section, run: Run) -> list[str]:
    """What the line of a seed says."""
    return [fact.text(run) for fact in task_board(section).seed_facts]


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
