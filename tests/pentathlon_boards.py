"""Simulated results of the five synthetic tasks, to test boards without training."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boards

from jaxbench.bench.leaderboard.board import sections
from jaxbench.bench.leaderboard.read import read_runs
from jaxbench.bench.leaderboard.tables import csv_text, markdown_text

FINGERPRINT = "5e0c7a1b9d3f2468"
BUDGET, EVERY, BATCH = 10_000, 250, 64
STEP_FLOPS = 2e9
PRIMARY = {
    "mqar": "accuracy",
    "flip_flop": "accuracy",
    "knapsack": "last_accuracy",
    "word_problem": "accuracy",
    "edit_distance": "last_accuracy",
}
FLOORS = {
    "mqar": {"uniform": 1 / 8192, "in-context value": 0.25},
    "flip_flop": {"uniform": 0.2, "constant": 0.5},
    "knapsack": {"uniform": 1 / 18, "mode": 0.148, "greedy": 0.89},
    "word_problem": {"uniform": 1 / 60},
    "edit_distance": {"uniform": 1 / 7, "mode": 0.3, "max-len rule": 0.32},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "mqar": {"vocabulary": 8192, "filler": "zero", "pairs": 0, "tokens": 0},
    "flip_flop": {"train_mix": False, "test_examples": 10_000},
    "knapsack": {"target": "direct"},
    "word_problem": {"group": "A5"},
    "edit_distance": {"target": "direct"},
}


def metrics(task: str, accuracy: float) -> dict[str, float]:
    """Metrics of an evaluation; every accuracy is the same."""
    found = {
        "loss": -math.log(max(accuracy, 1e-3)),
        "accuracy": accuracy,
        "mean_accuracy": accuracy,
        "sequence_accuracy": accuracy,
        "last_accuracy": accuracy,
    }
    if task == "knapsack":
        found |= {"relative_error": 0.1 * (1 - accuracy), "within_1_percent": accuracy}
    return found


def data(
    task: str = "mqar",
    level: str = "L1",
    *,
    version: int = 1,
    fingerprint: str = FINGERPRINT,
    **options: Any,
) -> dict[str, Any]:
    """What a result says about its examples."""
    return {
        "source": "synthetic",
        "level": level,
        "version": version,
        "fingerprint": fingerprint,
        "fingerprints": {f"validation_{level}": "ab" * 8, "test": "cd" * 8},
        "examples": {"validation": 3000, "test": 3000, "length_512": 1000},
        "options": {**OPTIONS[task], "seed": 0, "train": "online"} | options,
    }


def solved(step: int | None, *, flops: float = STEP_FLOPS) -> dict[str, Any]:
    """What a result says about reaching its goal."""
    known = step is not None
    return {
        "threshold": 0.99,
        "evaluations": 3,
        "step": step,
        "examples": step * BATCH if known else None,
        "tokens": step * BATCH * 64 if known else None,
        "flops": step * flops if known else None,
        "stalled": None,
        "stages": {"L1": step},
    }


def result(
    backbone: str = "deltanet",
    accuracy: float | None = 1.0,
    *,
    task: str = "mqar",
    step: int | None = None,
    steps: int | None = None,
    level: str = "L1",
    tests: Mapping[str, float] | None = None,
    flops: float = STEP_FLOPS,
    ceiling: float = 1.0,
    **changes: Any,
) -> dict[str, Any]:
    """The content of a result.

    Args:
      accuracy: of its best and last validation; None for a run without one.
      step: at which it solved the task; None where it did not.
      steps: at which it ended; the budget, or two evaluations after it solved.
      tests: accuracy on each test split.
      changes: replace fields.
    """
    if steps is None:
        steps = BUDGET if step is None else step + 2 * EVERY
    content = boards.result(backbone, 1.0, steps=steps)
    primary = PRIMARY[task]
    best = None
    if accuracy is not None:
        best = {"step": steps, "metrics": metrics(task, accuracy)}
    marks = range(EVERY, steps + 1, EVERY)
    content |= {
        "task": task,
        "primary": {"metric": primary, "maximize": True},
        "budget": {"total": BUDGET, "unit": "steps"},
        "examples": steps * BATCH,
        "skips": {"count": 0, "first_step": None},
        "params": {"total": 1_200_000 + len(backbone), "backbone": 200_000},
        "best": best,
        "last": best,
        "solved": solved(step, flops=flops),
        "step_flops": flops,
        "floors": {name: {primary: v} for name, v in FLOORS[task].items()},
        "ceiling": {primary: ceiling},
        "excluded": {},
        "scores": {
            name: metrics(task, value)
            for name, value in ({"test": accuracy} | dict(tests or {})).items()
        }
        if accuracy is not None
        else None,
        "curve": {
            "train": [],
            "validation": [[x, accuracy * x / steps] for x in marks],
        }
        if accuracy is not None
        else {"train": [], "validation": []},
        "latency": None,
        "decode": None,
        "data": data(task, level),
    }
    return content | changes


def failed(backbone: str, steps: int, **fields: Any) -> dict[str, Any]:
    """A run that diverged at a step."""
    content = result(backbone, None, steps=steps, **fields)
    return content | {"status": "diverged", "reason": "the loss is not finite"}


def write_row(
    folder: Path,
    backbone: str,
    runs: Sequence[tuple[float, int | None]],
    **fields: Any,
) -> Path:
    """One backbone: accuracy and step at which it solved, of each seed."""
    task = fields.get("task", "mqar")
    for seed, (accuracy, step) in enumerate(runs):
        content = result(backbone, accuracy, step=step, seed=seed, **fields)
        place = folder / task / fields.get("level", "L1") / backbone / f"seed{seed}"
        boards.write(place, content)
    return folder


# Accuracy and step at which it solved the task, of five seeds each.
RUNS = {
    "deltanet": [
        (0.999, 1000),
        (1.0, 1250),
        (0.998, 1500),
        (0.999, 1750),
        (0.97, None),
    ],
    "lstm": [(0.40, None), (0.45, None), (0.50, None), (0.42, None), (0.44, None)],
    "swa": [(1.0, 4000), (0.999, 5000), (0.999, 6000), (0.30, None), (0.31, None)],
}
LENGTHS = {"length_512": 0.8, "length_1024": 0.6}


def suite(folder: Path, runs=RUNS, **fields) -> Path:
    for name, seeds in runs.items():
        write_row(folder, name, seeds, **fields)
    return folder


def texts(*folders: Path):
    """The sections of a board, its CSV lines and its Markdown; no file is written."""
    found = sections(read_runs(folders))
    lines = list(csv.DictReader(io.StringIO(csv_text(found))))
    return found, lines, markdown_text(found, [str(folder) for folder in folders])


def table(markdown: str, heading: str) -> dict[str, dict[str, str]]:
    """The first table under a heading: backbone -> title -> cell."""
    lines = [x for x in markdown.split(heading)[1].splitlines() if x.startswith("|")]
    cells = [[c.strip() for c in x.strip("|").split(" | ")] for x in lines]
    header = [name.strip() for name in lines[0].strip("|").split("|")]
    place = header.index("backbone")
    found = {}
    for line in cells[2:]:
        if len(line) != len(header) or line[0] == "rank":
            break
        found.setdefault(line[place], dict(zip(header, line, strict=True)))
    return found
