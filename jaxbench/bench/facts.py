"""What a result says about its run besides the metrics."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxbench
from jaxbench.bench.run_folder import config_hash
from jaxbench.bench.utilization import jaxpr_flops, matmul_peak
from jaxbench.models.build import count_parameters, state_bytes
from jaxbench.models.model import Model
from jaxbench.tasks.task import Task
from jaxbench.training.loop import Outcome
from jaxbench.training.order import Order
from jaxbench.training.programs import Programs

SCHEMA = 1
VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "peppi-py")


class Facts:
    """Collects a run's facts as they become known, so that a failure keeps them.

    Args:
      config: the resolved config.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self.outcome = Outcome()
        self.signal = 0
        self.predicted_bytes: int | None = None
        self._began = time.monotonic()
        self._known: dict[str, Any] = {}

    def compiled(
        self, task: Task, model: Model, programs: Programs, order: Order
    ) -> None:
        """Takes in everything that is known before the first step."""
        params = programs.abstract_state.params
        variables = programs.abstract_state.evaluation_variables()
        state = jax.eval_shape(
            lambda v: model.apply(v, 1, method="initial_state"), variables
        )
        stack = params.get("stack", {})
        self.predicted_bytes = programs.predicted_bytes
        self._tokens = task.tokens_per_example
        self._known = {
            "params": {
                "total": count_parameters(params),
                "backbone": count_parameters(stack),
            },
            "floors": {name: dict(m) for name, m in task.floors.items()},
            "state_bytes": state_bytes(state),
            "data": dict(task.source)
            | {
                "bytes_host": int(
                    sum(np.asarray(a).nbytes for a in task.arrays.values())
                ),
                "examples": {name: len(rows) for name, rows in task.splits.items()},
                "steps_per_epoch": order.steps_per_epoch,
            },
        }
        self._compile_seconds = programs.compile_seconds
        self._step_flops = jaxpr_flops(programs.train_jaxpr)
        self._devices = jax.device_count()

    def first_step_at(self, now: float) -> None:
        """Notes how long everything before the first step took."""
        self._startup = now - self._began

    def result(self, status: str, reason: str) -> dict[str, Any]:
        """Everything, in the form of `result.json`."""
        outcome, config = self.outcome, self.config
        batch = config["train"]["batch_size"]
        seconds = outcome.train_seconds
        rate = outcome.step / seconds if seconds else None
        known = dict(self._known)
        return {
            "schema": SCHEMA,
            "task": config["task"],
            "protocol": config["protocol"],
            "backbone": config["model"]["backbone"],
            "seed": config["seed"],
            "status": status,
            "reason": reason,
            "params": known.pop("params", None),
            "steps": outcome.step,
            "examples": outcome.step * batch,
            "best": outcome.best,
            "last": outcome.last,
            "floors": known.pop("floors", None),
            "throughput": {
                "steps_per_s": rate,
                "examples_per_s": rate and rate * batch,
                "tokens_per_s": rate and rate * batch * self._tokens,
                "mfu": rate and self._mfu(rate),
            },
            "seconds": {
                "startup": getattr(self, "_startup", None),
                "compile": getattr(self, "_compile_seconds", None),
                "train": outcome.train_seconds,
                "eval": outcome.evaluate_seconds,
            },
            "memory": {
                "predicted_bytes": self.predicted_bytes,
                "peak_bytes": peak_bytes(),
            },
            "state_bytes": known.pop("state_bytes", None),
            "latency": None,
            "data": known.pop("data", None),
            "device": device(),
            "versions": versions(),
            "git": git_revision(),
            "config_hash": config_hash(config),
        }

    def _mfu(self, steps_per_s: float) -> float:
        """Matrix FLOP/s used over what the devices reach in a plain product."""
        dtype = self.config["train"]["dtype"]
        return self._step_flops * steps_per_s / (matmul_peak(dtype) * self._devices)


def peak_bytes() -> int:
    """The most memory this process has held: the device's, or the host's on CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    # Linux counts kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device() -> dict[str, Any]:
    """What the run computed on."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": first.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
    }


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    found = {"python": platform.python_version(), "jaxbench": jaxbench.__version__}
    for package in VERSIONS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def git_revision() -> str | None:
    """The commit of the sources, with "+changes" when they differ from it."""
    root = Path(jaxbench.__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        revision = git("rev-parse", "HEAD")
        return revision + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None
