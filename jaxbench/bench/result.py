"""The fields of `result.json`. Imports no jax: a suite's parent writes rows too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import VERSION, command, differs, digest, portable
from jaxbench.bench.run_folder import alike, config_hash, damaged, read_json
from jaxbench.training.records import read_metrics

SCHEMA = 2
STATUSES = ("ok", "diverged", "oom", "timeout", "crashed", "interrupted")
# Runs that ended by themselves: the same command would end the same way.
FINISHED = ("ok", "diverged")

# Fields that every result has, by example; "a.b" is a field of a section that is there.
_RESULT: Mapping[str, Any] = {
    **dict.fromkeys("task protocol backbone purpose status reason".split(), ""),
    **dict.fromkeys("schema seed steps examples".split(), 0),
    "learning_rate": 0.0,
    "log_tail": [],
    "memory.remat": False,
    "memory.micro_batches": 0,
    "primary.metric": "",
    "primary.maximize": False,
    "best.step": 0,
    "last.step": 0,
}
# Sections that are there or None; those of `_NUMBERS` hold numbers by name.
_PARTS = (
    "primary skips params shape budget solved best last floors ceiling curve seconds "
    "throughput memory latency play export decode speculative scores excluded data "
    "device versions identity config started_from"
).split()
_NUMBERS = ("best.metrics", "last.metrics", "params", "shape")

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
        "extended": config["train"].get("extended"),
        "started_from": None,
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


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json` in `folder`, None where there is none.

    Raises:
      InputError: it cannot be a result.
    """
    path = folder / "result.json"
    result = read_json(path)
    if result is None:
        return None
    for name in _PARTS:
        if not isinstance(result.get(name), Mapping | None):
            raise damaged(path, f"{name} is {str(result[name])[:40]!r}")
    for key, example in _RESULT.items():
        part, _, name = key.rpartition(".")
        inside = result.get(part) if part else result
        if inside is None:
            continue
        if name not in inside or not alike(inside[name], example):
            raise damaged(path, f"{key} is {str(inside.get(name))[:40]!r}")
    for key in _NUMBERS:
        part, _, name = key.rpartition(".")
        inside = (result.get(part) or {}).get(name) if part else result.get(name)
        _require_numbers(path, key, inside if result.get(part or name) else {})
    for key in ("floors", "scores"):
        for name, inside in (result.get(key) or {}).items():
            _require_numbers(path, f"{key}.{name}", inside)
    if result["status"] not in STATUSES:
        raise damaged(path, f"its status is {result['status']!r}")
    return result


def _require_numbers(path: Path, key: str, inside: Any) -> None:
    numbers = isinstance(inside, Mapping) and all(
        isinstance(x, int | float | None) for x in inside.values()
    )
    if not numbers:
        raise damaged(path, f"{key} is {str(inside)[:40]!r}")
