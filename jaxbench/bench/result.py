"""The fields of `result.json`. Imports no jax: a suite's parent writes rows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import VERSION, command, differs, digest, portable
from jaxbench.bench.run_folder import config_hash
from jaxbench.training.records import read_metrics

SCHEMA = 2
STATUSES = ("ok", "diverged", "oom", "timeout", "crashed", "interrupted")
# Runs that ended by themselves: the same command would end the same way.
FINISHED = ("ok", "diverged")

MAX_CURVE_POINTS = 200
LOG_LINES = 20


def blank_result(config: Mapping[str, Any], status: str, reason: str) -> dict[str, Any]:
    """Every field of a result, with what is known of a run that never started."""
    return {
        "schema": SCHEMA,
        "task": config["task"],
        "protocol": config["protocol"],
        "backbone": config["model"]["backbone"],
        "seed": config["seed"],
        "purpose": config["purpose"],
        "learning_rate": config["train"]["learning_rate"],
        "group": group_hash(config),
        "primary": None,
        "status": status,
        "reason": reason,
        "log_tail": [],
        "compiler_options": None,
        "params": None,
        "shape": None,
        "budget": None,
        "steps": 0,
        "examples": 0,
        "skips": {"count": 0, "first_step": None},
        "copies": 1,
        "solved": None,
        "best": None,
        "last": None,
        "floors": None,
        "ceiling": None,
        "curve": {"train": [], "validation": []},
        "throughput": {
            "steps_per_s": None,
            "examples_per_s": None,
            "tokens_per_s": None,
            "mfu": None,
            "steady": None,
        },
        "seconds": {
            "startup": None,
            "compile": None,
            "first_steps": 0.0,
            "train": 0.0,
            "eval": 0.0,
            "shared_by": 1,
        },
        "memory": {
            "predicted_bytes": None,
            "peak_bytes": None,
            "limit_bytes": None,
            "remat": config["model"]["remat"],
            "micro_batches": 1,
            "tried": [],
        },
        "state_bytes": None,
        "latency": None,
        "play": None,
        "export": None,
        "decode": None,
        "speculative": None,
        "scores": None,
        "excluded": {},
        "step_flops": None,
        "data": None,
        "device": None,
        "versions": None,
        "git": None,
        "difference": None,
        "command": command(config),
        "identity": {"version": VERSION, "differs": differs(config)},
        "config": _portable(config),
        "config_hash": config_hash(config),
    }


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config, folders by their name alone."""
    return {
        key: _portable(value) if isinstance(value, Mapping) else portable(value)
        for key, value in config.items()
    }


def group_hash(config: Mapping[str, Any]) -> str:
    """A digest of the config without its seed: runs to take intervals over."""
    return digest(config, without=("seed",))


def curve(metrics_file: Path, primary: str) -> dict[str, list[list[float]]]:
    """Training loss and validation scores by step, as a board draws them.

    The training curve is thinned to at most `MAX_CURVE_POINTS`, its ends kept.
    """
    points: dict[str, list[list[float]]] = {"train": [], "validation": []}
    names = {"train": "total_loss", "validation": primary}
    for record in read_metrics(metrics_file):
        name = names.get(record.get("split", ""))
        if name in record:
            points[record["split"]].append([record["step"], record[name]])
    points["train"] = thin(points["train"], MAX_CURVE_POINTS)
    return points


def thin(points: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the points, evenly spread, first and last among them."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] for i in range(most)]


def log_tail(path: Path) -> list[str]:
    """The last lines of a log, without control sequences of bars and colours."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 20_000))
        text = file.read().decode(errors="replace")
    lines = ["".join(c for c in x if c.isprintable()) for x in text.splitlines()]
    return [line[:400] for line in lines if line.strip()][-LOG_LINES:]
