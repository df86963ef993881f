"""Simulated result files, so that boards can be tested without training."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADS = ("buttons", "main_x", "main_y", "c_x", "c_y", "shoulder")
SHARES = (0.03, 0.42, 0.36, 0.04, 0.05, 0.10)
COPY_PREVIOUS = 1.448
MARGINAL = 4.348
FINGERPRINT = "37a0ebc04b7497fe3b4d0c4b827a6e03529a5679837219eda5289f52e1e1657a"


def metrics(loss: float) -> dict[str, float]:
    """Metrics of a zelda evaluation with this loss."""
    parts = {f"loss/{h}": loss * s for h, s in zip(HEADS, SHARES, strict=True)}
    skill = max(0.0, 1 - loss / COPY_PREVIOUS)
    return {
        "loss": loss,
        **parts,
        "objective": loss,
        **{f"accuracy/{head}": 0.9 + 0.05 * skill for head in HEADS},
        "f1/buttons_micro": 0.87 + 0.1 * skill,
        "f1/buttons_macro": 0.80 + 0.1 * skill,
        **{f"change/{head}": skill for head in HEADS},
        "change/any": 0.8 * skill,
        "change/frames": 15838.0,
    }


def result(
    backbone: str = "gru",
    loss: float | None = 1.1,
    *,
    seed: int = 0,
    steps: int = 2000,
    rate: float = 1e-3,
    purpose: str = "score",
    protocol: str = "clean",
    fingerprint: str = FINGERPRINT,
    status: str = "ok",
    reason: str = "",
    speed: float = 40.0,
    device: str = "cpu",
    **changes: Any,
) -> dict[str, Any]:
    """The content of a schema 2 result; `changes` replace its fields."""
    best = None if loss is None else {"step": steps - 100, "metrics": metrics(loss)}
    last = None if loss is None else {"step": steps, "metrics": metrics(1.01 * loss)}
    content = {
        "schema": 2,
        "task": "zelda",
        "protocol": protocol,
        "backbone": backbone,
        "seed": seed,
        "purpose": purpose,
        "learning_rate": rate,
        "group": f"{hash_of(backbone, rate, purpose):012x}",
        "primary": {"metric": "loss", "maximize": False},
        "status": status,
        "reason": reason,
        "log_tail": [],
        "params": {"total": 200_000 + len(backbone), "backbone": 100_000},
        "steps": steps,
        "examples": steps * 64,
        "best": best,
        "last": last,
        "floors": {
            "marginal": metrics(MARGINAL),
            "copy_previous": metrics(COPY_PREVIOUS),
        },
        "curve": {"train": [], "validation": [[steps, loss]] if best else []},
        "throughput": {
            "steps_per_s": speed,
            "examples_per_s": 64 * speed,
            "tokens_per_s": 1920 * speed,
            "steady": None,
        },
        "seconds": {"startup": 20.0, "compile": 9.5, "train": steps / speed, "eval": 4},
        "memory": {
            "predicted_bytes": 77_000_000,
            "peak_bytes": 1_600_000_000,
            "limit_bytes": None,
            "remat": False,
            "micro_batches": 1,
            "tried": [
                {"remat": False, "micro_batches": 1, "predicted_bytes": 77_000_000}
            ],
        },
        "state_bytes": 32_768,
        "latency": None,
        "data": data(fingerprint),
        "device": {"platform": device, "kind": device, "count": 1, "processes": 1},
        "versions": {"python": "3.11.7", "jax": "0.10.2"},
        "git": "a36dfbf9c5fb",
        "config_hash": f"{hash_of(backbone, rate, purpose, seed):012x}",
    }
    return content | changes


def hash_of(*parts: object) -> int:
    """A number that is the same in every process."""
    return random.Random(repr(parts)).getrandbits(40)


def data(fingerprint: str = FINGERPRINT, source: str = "replays") -> dict[str, Any]:
    """What a result says about its data."""
    return {
        "source": source,
        "fingerprint": fingerprint,
        "options": {"character": "falco", "window": 30, "stride": 1},
        "splits": {
            "train": {"games": ["a.slp", "b.slp"], "examples": 900, "frames": 900},
            "validation": {"games": ["c.slp"], "examples": 90, "frames": 90},
        },
    }


def write(folder: Path, content: Mapping[str, Any] | str) -> Path:
    """Writes a result file, or any text in its place; returns the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "result.json").write_text(text)
    return folder
