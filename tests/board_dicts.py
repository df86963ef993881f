"""Boards as dicts, without results: what `jaxbench.board` writes files from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Board = dict[str, Any]
HOSTILE = "<script>document.title='owned'</script>|`x`"
FORMULA = '=HYPERLINK("http://x","s4")'


def column(key: str, label: str, unit: str = "", **facts: Any) -> dict[str, Any]:
    """A column; `facts` are better, digits, group, explain."""
    plain = {"better": None, "digits": None, "group": "size", "explain": f"the {label}"}
    return {"key": key, "label": label, "unit": unit, **plain, **facts}


def row(
    name: str, values: Sequence[float], tier: int | None = 1, **facts: Any
) -> dict[str, Any]:
    """A row with a score for each seed; none of them: it failed."""
    mean = sum(values) / len(values) if values else 0.0
    several = len(values) > 1
    reach = 0.01 if several else None
    score = {
        "mean": mean,
        "low": mean - reach if reach else None,
        "high": mean + reach if reach else None,
        "values": list(values),
    }
    return {
        "name": name,
        "backbone": name.split(",")[0],
        "family": "recurrent cells",
        "status": "ok" if values else "diverged",
        "reason": "" if values else "loss is nan at step 4; lower the learning rate",
        "verdict": "",
        "takes_part": several,
        "why_not": "" if several else "fewer than three seeds",
        "seeds": len(values),
        "swept": True,
        "cells": {"loss": mean if values else None, "params": 145_801},
        "score": score if values else None,
        "rank": [1, 2] if several else None,
        "tier": tier if several else None,
        "curve": [[10 * i, mean + 1 / i] for i in range(1, 6)] if values else [],
        "runs": [f"runs/{name}/seed{i}" for i in range(len(values))],
        **facts,
    }


def board(rows: Sequence[Mapping[str, Any]], **facts: Any) -> Board:
    """A board of one task around some rows."""
    return {
        "title": "zelda, clean protocol",
        "question": "Which backbone predicts a player best?",
        "task": "zelda",
        "protocol": "clean",
        "task_version": 1,
        "needs": [],
        "unknown": ["Not enough is known: every row has one seed."],
        "columns": [
            column("loss", "loss", "nats", better="low", digits=4, group="score"),
            column("params", "parameters", digits=0),
            column("state", "state", "B"),
            column("speed", "updates/s", better="high", group="speed"),
            column("p99", "a frame, p99", "ms", better="low", digits=2),
        ],
        "score": "loss",
        "rows": [dict(row) for row in rows],
        "floors": [],
        "views": [{"name": "score", "columns": ["loss", "params", "state"]}],
        "figures": [],
        "across": None,
        "how": {
            "command": "jaxbench suite --config=configs/zelda.py",
            "data": ["49 replays"],
            "devices": ["cpu"],
            "versions": ["jax 0.10.2"],
            "splits": "By game.",
            "statistics": ["Pairs are compared by t tests."],
            "left_out": [],
            "does_not_say": ["How a policy plays."],
        },
        **facts,
    }


def full() -> Board:
    """Claims, floors, one row far off, failures, hostile text, every kind of figure."""
    families = {"s4": "state spaces", "mlp": "each frame alone", FORMULA: "hybrids"}
    scores = {
        "gru": [1.10, 1.11, 1.12],
        "s4": [1.11, 1.12, 1.13],
        "mamba": [1.30, 1.31, 1.29],
        "mlp": [1.60, 1.61, 1.62],
        FORMULA: [1.7],
        "snn": [9.0, 9.1, 9.2],
    }
    rows = [
        row(
            name,
            values,
            1 + (values[0] > 1.2) + (values[0] > 1.5),
            family=families.get(name, "recurrent cells"),
        )
        for name, values in scores.items()
    ]
    for i, line in enumerate(rows):
        line["cells"] |= {"state": 1024 * 2**i, "speed": 25.0 - i, "p99": 0.3 + i / 20}
    rows.append(row("kan", [], reason=f"28 GiB of 24 {HOSTILE}", status="oom"))
    need = {"need": "Predict the next controller", "column": "loss", "known": True}
    return board(
        rows,
        needs=[
            need | {"leaders": ["gru", "s4"], "answer": "gru and s4 lead (3 seeds)."},
            need
            | {"need": "Act within a frame", "column": "p99", "leaders": ["gru"]}
            | {"answer": "All rows.", "known": False},
        ],
        unknown=["Whether gru or s4 is better: nine seeds would say."],
        floors=[
            {"name": "copy-previous", "value": 1.4, "explain": "repeats the last"},
            {"name": "marginal", "value": 2.6, "explain": "the most frequent"},
        ],
        views=[
            {"name": "score", "columns": ["loss", "params", "state", "p99"]},
            {"name": "speed", "columns": ["speed"]},
        ],
        figures=[
            {"title": "Quality against latency", "kind": "scatter", "x": "p99",
             "y": "loss", "log_x": True,
             "note": {"value": 16.7, "text": "60 fps leaves 16.7 ms."}},
            {"title": "Learning curves", "kind": "curves", "x": None, "y": "loss",
             "log_x": False, "note": None},
        ],
        failures=[{"name": "kan", "seed": 0, "status": "oom",
                   "reason": f"28 GiB of 24 {HOSTILE}", "log": []}],
        sweep=[{"backbone": "gru", "points": [[0.001, 1.2], [0.003, 1.1], [0.01, None]],
                "best": 0.003, "edge": True}],
        published={"header": ["row", "theirs"], "rows": [["gru", "1.2"]],
                   "remarks": ["Other data."]},
    )  # fmt: skip


def single() -> Board:
    """One row with one seed: nothing can be compared."""
    return board([row("gru", [1.1])])


def pentathlon() -> Board:
    """Two tasks, a hole, and the boards of both inside."""
    tasks = ["mqar", "flip_flop"]
    points = {"mean": [1.0, 0.6, 0.2], "low": [0.9, 0.5, 0.1], "high": [1.0, 0.7, 0.3]}
    rows = [
        row("deltanet", [0.8, 0.9], cells={"mqar": 0.99, "flip_flop": 0.7}),
        row("gru", [], cells={"mqar": 0.2, "flip_flop": None}, status="ok", reason=""),
    ]
    return board(
        rows,
        title="pentathlon, clean protocol",
        question="Which backbone recalls and keeps track of state?",
        columns=[
            column("iqm", "IQM", better="high", digits=3, group="score"),
            *(column(t, t, "%", better="high", group="task") for t in tasks),
        ],
        score="iqm",
        views=[{"name": "tasks", "columns": tasks}],
        figures=[{"title": "Performance profiles", "kind": "profile", "x": None,
                  "y": None, "log_x": False, "note": None}],
        across={"tasks": tasks, "iqm": {},
                "profiles": {"tau": [0.0, 0.5, 1.0], "rows": {"deltanet": points}},
                "notes": ["1 of 4 cells is a hole."]},
        parts=[single() | {"title": task} for task in tasks],
    )  # fmt: skip
