"""The training loop, read from top to bottom: no trainer, no hooks."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxbench.tasks.task import Task
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.order import Order
from jaxbench.training.programs import Placement, Programs
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState, leaf_names
from jaxbench.training.step import MODEL_METRICS
from jaxbench.training.writers import MetricWriter

# Sums the train step adds to the task's own.
STEP_STATISTICS = ("steps", "gradient_norm", "total_loss", "auxiliary_loss")


@dataclasses.dataclass
class Outcome:
    """What a run came to; the mutable record that every checkpoint carries.

    Attributes:
      status: "ok", "diverged" or "interrupted".
      reason: why, where and what to do, when status is not "ok".
      step: updates done.
      best: {"step", "metrics"} of the best validation so far, or None.
      last: the same of the newest validation, or None.
      train_seconds, evaluate_seconds: without compilation.
    """

    status: str = "ok"
    reason: str = ""
    step: int = 0
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0

    def facts(self) -> dict[str, Any]:
        """The part that a resumed run goes on from."""
        return {
            "best": self.best,
            "last": self.last,
            "train_seconds": self.train_seconds,
            "evaluate_seconds": self.evaluate_seconds,
        }


def train(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    *,
    task: Task,
    programs: Programs,
    placement: Placement,
    order: Order,
    validation: list[tuple[jax.Array, jax.Array]],
    total_steps: int,
    evaluate_every: int,
    checkpoint_every: int,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    progress: TrainingProgress,
    outcome: Outcome,
    stop: Callable[[], str | None],
) -> tuple[TrainState, Outcome]:
    """Trains from `outcome.step` to `total_steps`.

    Dispatches end at multiples of K, epochs, evaluations and checkpoints, counted from
    step 0, so a resumed run makes the dispatches that the unbroken one would have
    made. The metrics of a dispatch are fetched while the next one runs.

    Args:
      state: the state after `outcome.step` updates; its buffers are given away.
      arrays: the task's arrays on the device.
      order: which rows make up which step.
      validation: groups of validation batches (see `evaluation_batches`).
      evaluate_every: steps between validations besides those at each epoch's end and
        at the end of the run; 0 for none.
      checkpoint_every: steps between saves besides those at each validation; 0: none.
      outcome: what the run had come to when it was last saved.
      stop: returns a reason to stop now, or None; asked after every dispatch.

    Returns:
      The final state (the last good one after a divergence), and the outcome.
    """
    epoch = order.steps_per_epoch
    pending: tuple[int, int, Any] | None = None
    since = time.perf_counter()

    while outcome.step < total_steps and outcome.status == "ok":
        step = outcome.step
        periods = [programs.steps_per_dispatch, epoch, evaluate_every, checkpoint_every]
        nearest = min((step // p + 1) * p for p in periods if p)
        end = min(nearest, total_steps)
        rows = order.steps(step, end - step, programs.steps_per_dispatch)
        examples_kb = jax.device_put(rows, placement.batch)
        count = jax.device_put(np.int32(end - step), placement.whole)
        with jax.transfer_guard("disallow"):
            state, statistics = programs.train(state, arrays, examples_kb, count)
        if pending is not None and not record(*pending, task, writer, progress):
            break
        pending = (end, end - step, statistics)
        outcome.step = end

        reason = stop()
        evaluates = end == total_steps or any(
            end % p == 0 for p in (epoch, evaluate_every) if p
        )
        saves = bool(checkpoint_every) and end % checkpoint_every == 0
        if not (evaluates or saves or reason):
            continue

        if not record(*pending, task, writer, progress):
            break
        pending = None
        outcome.train_seconds += time.perf_counter() - since
        if evaluates:
            validate(state, arrays, task, programs, validation, outcome, writer)
            metrics = outcome.last["metrics"] if outcome.last else {}
            progress.say(
                f"step {end}: validation {task.primary} {metrics[task.primary]:.4f}"
            )
            if outcome.best is not None and outcome.best["step"] == end:
                checkpoints.save("best", state, outcome.facts())
        if reason and end < total_steps:
            outcome.status, outcome.reason = "interrupted", reason
        checkpoints.save("last", state, outcome.facts())
        since = time.perf_counter()

    if int(jax.device_get(state.broken_step)) >= 0:
        outcome.train_seconds += time.perf_counter() - since
        outcome.step = int(jax.device_get(state.step))
        outcome.status = "diverged"
        outcome.reason = describe_divergence(state, checkpoints)
    return state, outcome


def record(
    end: int,
    count: int,
    statistics: Any,
    task: Task,
    writer: MetricWriter,
    progress: TrainingProgress,
) -> bool:
    """Fetches and writes one dispatch's metrics; False if a step in it broke."""
    sums = {k: np.asarray(v) for k, v in jax.device_get(statistics).items()}
    done = float(sums["steps"])
    if done < count:
        return False
    of_model = {k for k in sums if k.startswith(MODEL_METRICS)}
    own = {k: v for k, v in sums.items() if k not in {*STEP_STATISTICS, *of_model}}
    metrics = task.summarize(own) | {k: float(sums[k]) / done for k in of_model}
    metrics |= {
        "gradient_norm": float(sums["gradient_norm"]) / done,
        "auxiliary_loss": float(sums["auxiliary_loss"]) / done,
        "total_loss": float(sums["total_loss"]) / done,
    }
    writer.write(end, "train", metrics)
    progress.update(end, metrics["total_loss"])
    return True


def validate(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: Programs,
    validation: list[tuple[jax.Array, jax.Array]],
    outcome: Outcome,
    writer: MetricWriter,
) -> None:
    """Scores the whole validation split and updates `outcome.best` and `.last`."""
    start = time.perf_counter()
    metrics = score(state, arrays, task, programs, validation)
    writer.write(outcome.step, "validation", metrics)
    outcome.last = {"step": outcome.step, "metrics": metrics}
    sign = -1 if task.maximize else 1
    value = sign * metrics[task.primary]
    if math.isfinite(value) and (
        outcome.best is None or value < sign * outcome.best["metrics"][task.primary]
    ):
        outcome.best = outcome.last
    outcome.evaluate_seconds += time.perf_counter() - start


def score(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: Programs,
    batches: list[tuple[jax.Array, jax.Array]],
) -> dict[str, float]:
    """Metrics over the given batches, summed in float64 between dispatches."""
    variables = state.evaluation_variables()
    total: dict[str, np.ndarray] = {}
    for examples_kb, weight_kb in batches:
        with jax.transfer_guard("disallow"):
            statistics = programs.evaluate(variables, arrays, examples_kb, weight_kb)
        for name, value in jax.device_get(statistics).items():
            total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
    return task.summarize(total)


def describe_divergence(state: TrainState, checkpoints: Checkpoints) -> str:
    """One line: which step broke, in which parameter, and what can be gone on with."""
    step, leaf = (
        int(n) for n in jax.device_get((state.broken_step, state.broken_leaf))
    )
    where = (
        f"the gradient of {leaf_names(state.params)[leaf]} is not finite"
        if leaf >= 0
        else "the loss is not finite"
    )
    saved = checkpoints.latest_step()
    good = (
        f"the last good checkpoint is step {saved}"
        if saved is not None
        else "no checkpoint was written yet"
    )
    return (
        f"step {step}: {where}; {good}; lower train.learning_rate or "
        "train.clip_norm, or raise train.warmup_steps"
    )
