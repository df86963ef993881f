"""Gathers all that a run's `result.json` holds, as far as the run has come."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
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
from jaxbench.bench.memory import Plan
from jaxbench.bench.result import blank_result, curve
from jaxbench.bench.run_folder import write_json
from jaxbench.bench.utilization import matmul_peak
from jaxbench.models.build import count_parameters, state_bytes
from jaxbench.models.flops import jaxpr_flops
from jaxbench.models.model import Model
from jaxbench.tasks.task import Order, Task
from jaxbench.training.budget import Budget
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.outcome import Outcome
from jaxbench.training.packed import unpacked_shapes
from jaxbench.training.programs import Programs

VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "peppi-py")


class Facts:
    """Collects a run's facts as they become known, so that a failure keeps them.

    Args:
      config: the resolved config.
      folder: the run folder.
      shared_by: how many runs the process has: they share its seconds.

    Attributes:
      outcome: what training has come to.
      plan: how the run is computed, once that is chosen.
      copies: how many runs train as one program.
      result: the content of `result.json`, once the run has ended.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, shared_by: int):
        self.config, self.folder, self.shared_by = config, folder, shared_by
        self.outcome = Outcome()
        self.plan: Plan | None = None
        self.copies = 1
        self.result: dict[str, Any] | None = None
        self._began = time.monotonic()
        self._startup: float | None = None
        self._compile_seconds: float | None = None
        self._goal: Goal | EarlyStopping | None = None
        self._tokens = self._step_flops = 0
        self._known: dict[str, Any] = {}

    @property
    def predicted_bytes(self) -> int | None:
        """What the chosen programs need on one device, once that is known."""
        return self.plan.tried[-1]["predicted_bytes"] if self.plan else None

    def prepared(
        self,
        task: Task,
        order: Order,
        budget: Budget,
        goal: Goal | EarlyStopping | None,
    ) -> None:
        """Takes in the task, how long the run is, and what may end it sooner."""
        self._goal, self._lessons = goal, [stage.name for stage in task.stages]
        self._tokens = task.tokens_per_example
        self._known |= {
            "primary": {"metric": task.primary, "maximize": task.maximize},
            "floors": {name: dict(m) for name, m in task.floors.items()},
            "ceiling": dict(task.ceiling) or None,
            "excluded": dict(task.excluded),
            "data": dict(task.source)
            | {
                "bytes_host": int(
                    sum(np.asarray(a).nbytes for a in task.arrays.values())
                ),
                "examples": {name: len(rows) for name, rows in task.splits.items()},
                "steps_per_epoch": order.steps_per_epoch,
            },
            "budget": {"total": budget.total, "unit": budget.unit},
        }

    def compiled(self, model: Model, programs: Programs) -> None:
        """Takes in what is known of the model before the first step."""
        params = unpacked_shapes(programs.abstract_state.params)
        variables = unpacked_shapes(programs.abstract_state.evaluation_variables())
        state = jax.eval_shape(
            lambda v: model.apply(v, 1, method="initial_state"), variables
        )
        stack = params.get("stack", {})
        self._known |= {
            "params": {
                "total": count_parameters(params),
                "backbone": count_parameters(stack),
            },
            "shape": {
                "width": model.stack.width,
                "depth": len(model.stack.layers),
            },
            "state_bytes": state_bytes(state),
        }
        self._known["compiler_options"] = dict(programs.compiler_options)
        self._compile_seconds = programs.compile_seconds / self.shared_by
        self._step_flops = jaxpr_flops(programs.train_jaxpr)
        self._known["step_flops"] = self._step_flops

    def scored(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Takes in metrics of other splits than validation."""
        self._known["scores"] = {name: dict(m) for name, m in scores.items()}

    def starts(self) -> None:
        """Notes how long everything before the first step took."""
        self._startup = (time.monotonic() - self._began) / self.shared_by

    def ends(self, status: str, reason: str) -> None:
        """Writes `result.json`: the run has ended, with this status and reason."""
        self.result = self._result(status, reason)
        write_json(self.folder / "result.json", self.result)

    def _result(self, status: str, reason: str) -> dict[str, Any]:
        outcome, config = self.outcome, self.config
        batch = config["train"]["batch_size"]
        seconds = outcome.train_seconds
        timed = outcome.step - outcome.first_steps
        rate = timed / seconds if seconds and timed > 0 else None
        if self.shared_by > 1:
            # Runs side by side are slower than alone, and faster all together.
            rate = None
        blank = blank_result(config, status, reason)
        primary = self._known.get("primary")
        revision, difference = git_revision()
        return (
            blank
            | self._known
            | {
                "steps": outcome.step,
                "examples": outcome.step * batch,
                "skips": {
                    "count": outcome.skips,
                    "first_step": outcome.first_skip if outcome.skips else None,
                },
                "copies": self.copies,
                "started_from": outcome.started_from,
                "solved": self._solved(batch),
                "budget": self._budget(),
                "best": outcome.best,
                "last": outcome.last,
                "curve": curve(
                    self.folder / "metrics.jsonl", primary["metric"] if primary else ""
                ),
                "throughput": blank["throughput"]
                | {
                    "steps_per_s": rate,
                    "examples_per_s": rate and rate * batch,
                    "tokens_per_s": rate and rate * batch * self._tokens,
                    "mfu": rate and self._mfu(rate),
                },
                "seconds": {
                    "startup": self._startup,
                    "compile": self._compile_seconds,
                    "first_steps": outcome.first_seconds,
                    "train": outcome.train_seconds,
                    "eval": outcome.evaluate_seconds,
                    "shared_by": self.shared_by,
                },
                "memory": blank["memory"]
                | {
                    "predicted_bytes": self.predicted_bytes,
                    "peak_bytes": peak_bytes(),
                }
                | (self.plan.facts() if self.plan else {}),
                "device": device(),
                "versions": versions(),
                "git": revision,
                "difference": difference,
            }
        )

    def _budget(self) -> dict[str, Any] | None:
        """The budget, and the step at which early stopping ended the run, if it did."""
        known = self._known.get("budget")
        if known is None or not isinstance(self._goal, EarlyStopping):
            return known
        return known | {"stopped_early": self.outcome.convergence.stalled_step}

    def _solved(self, batch: int) -> dict[str, Any] | None:
        """Updates, examples and FLOPs until the goal; None for a run without a goal."""
        goal, now = self._goal, self.outcome.convergence
        if not isinstance(goal, Goal):
            return None
        step = now.solved_step

        def until(amount: int) -> int | None:
            return None if step is None else step * amount

        return {
            "threshold": goal.threshold,
            "evaluations": goal.evaluations,
            "step": step,
            "examples": until(batch),
            "tokens": until(batch * self._tokens),
            "flops": until(self._step_flops),
            "stalled": now.stalled_step,
            "stages": {name: now.passed.get(name) for name in self._lessons},
        }

    def _mfu(self, steps_per_s: float) -> float:
        """Matrix FLOP/s used over what the devices reach in a plain product."""
        peak = matmul_peak(self.config["train"]["dtype"]) * jax.device_count()
        return self._step_flops * steps_per_s / peak


def peak_bytes() -> int:
    """The most memory this process has held: the device's, or the host's on CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return int(statistics["peak_bytes_in_use"])
    # Linux counts kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device() -> dict[str, Any]:
    """The device that the run computed on; of a CPU its model and number of cores."""
    first = jax.devices()[0]
    kind = first.device_kind
    if first.platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        kind = cpu_model() + (f", {cores} cores" if cores else "")
    return {
        "platform": first.platform,
        "kind": kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
    }


def cpu_model() -> str:
    """The processor's name as the system knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "cpu"


def versions() -> dict[str, str]:
    """Versions of everything that can change a number."""
    known = {"python": platform.python_version(), "jaxbench": jaxbench.__version__}
    for package in VERSIONS:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            known[package] = "absent"
    return known


def git_revision() -> tuple[str | None, str | None]:
    """The commit of the sources, and a digest of how they differ from it.

    The commit has "+changes" behind it where they do; the digest is None where they do
    not. Both are None where the sources are no checkout.
    """
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
        revision, status = git("rev-parse", "HEAD"), git("status", "--porcelain")
        if not status:
            return revision, None
        changes = git("diff", "HEAD") + status
    except (OSError, subprocess.SubprocessError):
        return None, None
    digest = hashlib.sha256(changes.encode()).hexdigest()[:12]
    return f"{revision}+changes", digest
