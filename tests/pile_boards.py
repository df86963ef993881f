"""Simulated results of language models, to test boards without training."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boards

FINGERPRINT = "d9af9420faf33e1ff3e93b1704410add42e593f107220dea8cdb24ab7e547451"
BATCH, WINDOW = 32, 512
FLOORS = {"uniform": math.log(256), "unigram": 3.1, "entropy of one byte": 3.09}
TIME = {"total": 600.0, "unit": "seconds"}


def text_budget(steps: int) -> dict[str, Any]:
    """A budget of steps, as a result tells it."""
    return {"total": steps, "unit": "steps"}


def metrics(nats: float, context: float = 0.2) -> dict[str, float]:
    """Metrics of an evaluation; `context` is what the window's last quarter saves."""
    return {
        **_both(nats),
        "accuracy": 0.5,
        "bytes": 2e6,
        **{
            f"nats_per_byte/quarter_{i}": nats + context * (2.5 - i) / 3
            for i in (1, 2, 3, 4)
        },
    }


def _both(nats: float) -> dict[str, float]:
    return {"nats_per_byte": nats, "bits_per_byte": nats / math.log(2)}


def result(
    backbone: str = "gru",
    nats: float | None = 1.2,
    *,
    steps: int = 3000,
    seconds: float = 600.0,
    budget: Mapping[str, Any] | None = TIME,
    device: str = "H200",
    context: float = 0.2,
    batch: int = BATCH,
    **changes: Any,
) -> dict[str, Any]:
    """The content of a result; `changes` replace its fields."""
    content = boards.result(backbone, 1.0, steps=steps)
    rate = max(0, steps - 5) / seconds
    content |= {
        "task": "pile",
        "primary": {"metric": "nats_per_byte", "maximize": False},
        "params": {"total": 100_000_000, "backbone": 99_800_000},
        "shape": {"width": 640, "depth": 20},
        "budget": copy.deepcopy(budget),
        "steps": steps,
        "examples": steps * batch,
        "skips": {"count": 0, "first_step": None},
        "best": nats and {"step": steps, "metrics": metrics(nats, context)},
        "last": nats and {"step": steps, "metrics": metrics(1.01 * nats, context)},
        "floors": {name: _both(value) for name, value in FLOORS.items()},
        "curve": {
            "train": [[steps, nats]],
            "validation": [[steps * i // 4, nats + (4 - i) / 10] for i in (1, 2, 3, 4)],
        }
        if nats
        else {"train": [], "validation": []},
        "throughput": {
            "steps_per_s": rate,
            "examples_per_s": rate * batch,
            "tokens_per_s": rate * batch * WINDOW,
            "mfu": 0.4,
            "steady": None,
        },
        "seconds": {
            "startup": 30.0,
            "compile": 20.0,
            "first_steps": 2.5,
            "train": seconds,
            "eval": 40.0,
        },
        "latency": None,
        "decode": None,
        "data": data(),
        "device": {"platform": "gpu", "kind": device, "count": 1, "processes": 1},
    }
    return content | changes


def data(fingerprint: str = FINGERPRINT, source: str = "corpus") -> dict[str, Any]:
    """What a result says about its text."""
    return {
        "source": source,
        "name": "classics100.xz" if source == "corpus" else "python-3.11",
        "fingerprint": fingerprint,
        "bytes": 100_000_000,
        "documents": 210,
        "splits": {
            "train": [0, 90_000_000],
            "validation": [90_000_000, 95_000_000],
            "test": [95_000_000, 100_000_000],
        },
        "skipped": {},
        "options": {
            "window": WINDOW,
            "sampler": "random",
            "validation_bytes": 2_000_000,
        },
    }


def decode(bytes_per_s: float, device: str = "H200") -> dict[str, Any]:
    """How fast a run continues text."""
    p50 = 1e3 / bytes_per_s
    return {
        "device": {"platform": "gpu", "kind": device, "count": 1},
        "bytes": 2000,
        "bytes_per_s": bytes_per_s,
        "p50_ms": p50,
        "p99_ms": 1.5 * p50,
        "max_ms": 3 * p50,
    }


def write_suite(
    folder: Path,
    losses: Mapping[str, float],
    seeds: Sequence[int] = (0, 1, 2),
    **fields: Any,
) -> Path:
    """A suite of `ok` runs, each backbone slower than the one before."""
    for place, (backbone, nats) in enumerate(losses.items()):
        for seed in seeds:
            own = {"steps": 3000 - 500 * place} | fields
            content = result(
                backbone,
                nats + 0.001 * (seed - 1),
                seed=seed,
                state_bytes=1024 * 4**place,
                decode=decode(2000 / (1 + place)),
                **own,
            )
            boards.write(folder / "runs" / backbone / f"seed{seed}", content)
    return folder
