"""The training loop, read from top to bottom: no trainer, no hooks."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxbench.tasks.task import Order, Task
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.goal import Convergence, EarlyStopping, Goal
from jaxbench.training.programs import Placement, Programs, place_span
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState, leaf_names
from jaxbench.training.step import MODEL_METRICS
from jaxbench.training.writers import MetricWriter

# Sums the train step adds to the task's own.
STEP_STATISTICS = (
    *("steps", "skipped"),
    *("gradient_norm", "total_loss", "auxiliary_loss"),
)


class Lesson(NamedTuple):
    """A part of a curriculum; where there is none, all of training.

    Attributes:
      name: of the level; empty where there is no curriculum.
      order: which rows make up which step.
      validation: groups of validation batches (see `evaluation_batches`).
    """

    name: str
    order: Order
    validation: list[tuple[jax.Array, jax.Array]]


@dataclasses.dataclass
class Outcome:
    """What a run came to; the mutable record that every checkpoint carries.

    Attributes:
      status: "ok", "diverged" or "interrupted".
      reason: why, where and what to do, when status is not "ok".
      step: updates done.
      best: {"step", "metrics"} of the best validation so far, or None.
      last: the same of the newest validation, or None.
      skips, first_skip: updates left out because they were not finite, and the step of
        the first of them (-1: none).
      first_steps, first_seconds: updates at the start of each process that the rates
        and a budget of seconds leave out, and how long they took.
      train_seconds, evaluate_seconds: without compilation and without those.
      convergence: how far it is on its way to its goal, where it has one.
    """

    status: str = "ok"
    reason: str = ""
    step: int = 0
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    skips: int = 0
    first_skip: int = -1
    first_steps: int = 0
    first_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    convergence: Convergence = dataclasses.field(default_factory=Convergence)

    @classmethod
    def resumed(cls, step: int, facts: Mapping[str, Any]) -> Outcome:
        """What a run had come to, from the facts of its checkpoint."""
        facts = dict(facts)
        convergence = Convergence(**facts.pop("convergence", {}))
        return cls(step=step, convergence=convergence, **facts)

    def facts(self) -> dict[str, Any]:
        """The part that a resumed run goes on from."""
        return {
            "best": self.best,
            "last": self.last,
            "first_steps": self.first_steps,
            "first_seconds": self.first_seconds,
            "train_seconds": self.train_seconds,
            "evaluate_seconds": self.evaluate_seconds,
            "convergence": dataclasses.asdict(self.convergence),
        }


def train(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    *,
    task: Task,
    programs: Programs,
    placement: Placement,
    lessons: Sequence[Lesson],
    budget: Budget,
    evaluate_every: float,
    checkpoint_every: int,
    checkpoints: Checkpoints,
    writer: MetricWriter,
    progress: TrainingProgress,
    outcome: Outcome,
    stop: Callable[[], str | None],
    goal: Goal | EarlyStopping | None = None,
    first_steps: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[TrainState, Outcome]:
    """Trains from `outcome.step` until the budget is spent or the goal is reached.

    Dispatches end at multiples of K, epochs, evaluations and checkpoints, counted from
    step 0, so a resumed run makes the dispatches that the unbroken one would have
    made. The metrics of a dispatch are fetched while the next one runs.

    Args:
      state: the state after `outcome.step` updates; its buffers are given away.
      arrays: the task's arrays on the device.
      lessons: of the curriculum, in their order; most tasks have one.
      budget: when to end. One of seconds is spent by training alone; the last dispatch
        is shortened so that it ends close to it.
      evaluate_every: steps, or seconds where the budget is in seconds, between
        validations besides those at each epoch's end and at the end of the run; 0 for
        none.
      checkpoint_every: steps between saves besides those at each validation; 0: none.
      outcome: what the run had come to when it was last saved.
      stop: returns a reason to stop now, or None; asked after every dispatch.
      goal: what ends a lesson, and training before its budget; None for nothing.
      first_steps: updates at the start of this process that are made, but timed apart;
        0 for none.
      clock: seconds, for tests.

    Returns:
      The final state (the last good one after a divergence), and the outcome.
    """
    pending: tuple[int, int, Any] | None = None
    meter = Meter(outcome, clock)
    timed = first_steps == 0

    while outcome.status == "ok":
        step, before = outcome.step, meter.seconds_at(outcome.step)
        if budget.done(step, outcome.train_seconds):
            break
        if goal is not None and goal.reached(outcome.convergence):
            break
        lesson = lessons[outcome.convergence.lesson]
        validation_periods = [
            lesson.order.steps_per_epoch,
            int(evaluate_every) if budget.unit == "steps" else 0,
        ]
        periods = [programs.steps_per_dispatch, *validation_periods, checkpoint_every]
        end = min((step // p + 1) * p for p in periods if p)
        if timed:
            end = min(end, meter.last_step(budget))
        else:
            end = min(end, step + first_steps, budget.steps or end)
        rows = lesson.order.steps(step, end - step, programs.steps_per_dispatch)
        examples_kb = jax.device_put(rows, placement.batch)
        each = 1.0 if budget.unit == "steps" else meter.seconds_per_step
        span = place_span(
            placement, end - step, budget.spent(step, before), each, budget.total
        )
        with jax.transfer_guard("disallow"):
            state, statistics = programs.train(state, arrays, examples_kb, span)
        if pending is not None:
            if not record(*pending, task, writer, progress, meter, budget):
                break
        pending = (end, end - step, statistics)
        outcome.step = end
        if not timed:
            jax.block_until_ready(statistics)
            meter.leave_out(end - step)
            timed = True
        if all(leaf.is_ready() for leaf in jax.tree.leaves(statistics)):
            # This device computes before it returns: the time is known at once.
            if not record(*pending, task, writer, progress, meter, budget):
                break
            pending = None

        reason = stop()
        after = meter.seconds_at(end)
        ends = budget.done(end, after)
        evaluates = any(end % p == 0 for p in validation_periods if p)
        if budget.unit == "seconds" and not ends:
            evaluates |= passes(before, after, evaluate_every)
        saves = bool(checkpoint_every) and end % checkpoint_every == 0
        if not (evaluates or saves or reason or ends):
            continue

        if pending is not None:
            if not record(*pending, task, writer, progress, meter, budget):
                break
            pending = None
        # The time until here was estimated; now it is known.
        ends = budget.done(end, outcome.train_seconds)
        if evaluates or ends:
            validate(
                *(state, arrays, task, programs, lesson.validation),
                *(outcome, writer, progress),
            )
            metrics = outcome.last["metrics"] if outcome.last else {}
            progress.say(
                f"step {end}: validation {task.primary} {metrics[task.primary]:.4f}"
            )
            better = outcome.best is not None and outcome.best["step"] == end
            if goal is not None and goal.judge(
                outcome.convergence, [part.name for part in lessons], end, metrics
            ):
                # Scores of an easier lesson are no scores of this one.
                outcome.best = None
                following = lessons[outcome.convergence.lesson].name
                progress.say(f"step {end}: {lesson.name} is learned, {following} next")
            elif better:
                checkpoints.save("best", state, outcome.facts())
        if reason and not ends:
            outcome.status, outcome.reason = "interrupted", reason
        if evaluates or saves or reason or ends:
            checkpoints.save("last", state, outcome.facts())
        meter.start()

    if outcome.status == "ok" and outcome.best is None and outcome.step:
        # The budget ended in a curriculum: its last level is what is scored.
        validate(
            *(state, arrays, task, programs, lessons[-1].validation),
            *(outcome, writer, progress),
        )
        checkpoints.save("best", state, outcome.facts())
        checkpoints.save("last", state, outcome.facts())
    outcome.skips = int(jax.device_get(state.skips))
    outcome.first_skip = int(jax.device_get(state.first_skip))
    if int(jax.device_get(state.broken_step)) >= 0:
        outcome.step = int(jax.device_get(state.step))
        meter.reach(outcome.step)
        outcome.status = "diverged"
        outcome.reason = describe_divergence(state, checkpoints)
    return state, outcome


class Meter:
    """Keeps `outcome.train_seconds`: the time of updates that are known to have ended.

    Args:
      outcome: of the run.
      clock: seconds.
    """

    def __init__(self, outcome: Outcome, clock: Callable[[], float]):
        self._outcome, self._clock = outcome, clock
        self._step = outcome.step
        self._since = clock()

    def start(self) -> None:
        """Goes on after something that is no training."""
        self._since = self._clock()

    def reach(self, step: int) -> None:
        """Update `step` has just been seen to have ended."""
        now = self._clock()
        self._outcome.train_seconds += now - self._since
        self._step, self._since = max(step, self._step), now

    def leave_out(self, steps: int) -> None:
        """The first `steps` updates have ended; they do not count."""
        now = self._clock()
        self._outcome.first_steps += steps
        self._outcome.first_seconds += now - self._since
        self._step, self._since = self._step + steps, now

    @property
    def seconds_per_step(self) -> float:
        """What an update takes; 0 while that is not known."""
        outcome = self._outcome
        counted = self._step - outcome.first_steps
        if counted > 0 and outcome.train_seconds > 0:
            return outcome.train_seconds / counted
        if outcome.first_steps:
            return outcome.first_seconds / outcome.first_steps
        return 0.0

    def seconds_at(self, step: int) -> float:
        """When update `step` ends, in training seconds, as far as can be told."""
        return self._outcome.train_seconds + self.seconds_per_step * max(
            step - self._step, 0
        )

    def last_step(self, budget: Budget) -> int:
        """The update with which the budget will be spent, as far as can be told."""
        if budget.steps is not None:
            return budget.steps
        step, each = self._outcome.step, self.seconds_per_step
        left = budget.total - self.seconds_at(step)
        return step + max(1, math.ceil(left / each)) if each else step + 1


def passes(before: float, now: float, every: float) -> bool:
    """Whether a multiple of `every` lies between two times."""
    return every > 0 and now // every > before // every


def record(
    end: int,
    count: int,
    statistics: Any,
    task: Task,
    writer: MetricWriter,
    progress: TrainingProgress,
    meter: Meter,
    budget: Budget,
) -> bool:
    """Fetches and writes one dispatch's metrics; False if a step in it broke."""
    sums = {k: np.asarray(v) for k, v in jax.device_get(statistics).items()}
    meter.reach(end)
    if float(sums["steps"]) + float(sums["skipped"]) < count:
        return False
    metrics = training_metrics(sums, task)
    writer.write(end, "train", metrics)
    if "total_loss" in metrics:
        progress.update(end, metrics["total_loss"], meter.last_step(budget))
    return True


def training_metrics(sums: Mapping[str, np.ndarray], task: Task) -> dict[str, float]:
    """Means over the updates of a dispatch; only "skipped" where all were left out."""
    done, skipped = float(sums["steps"]), float(sums["skipped"])
    if done == 0:
        return {"skipped": skipped}
    of_model = {k for k in sums if k.startswith(MODEL_METRICS)}
    own = {k: v for k, v in sums.items() if k not in {*STEP_STATISTICS, *of_model}}
    metrics = task.summarize(own) | {k: float(sums[k]) / done for k in of_model}
    metrics |= {
        "gradient_norm": float(sums["gradient_norm"]) / done,
        "auxiliary_loss": float(sums["auxiliary_loss"]) / done,
        "total_loss": float(sums["total_loss"]) / done,
    }
    return metrics | ({"skipped": skipped} if skipped else {})


def validate(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: Programs,
    validation: list[tuple[jax.Array, jax.Array]],
    outcome: Outcome,
    writer: MetricWriter,
    progress: TrainingProgress,
) -> None:
    """Scores the whole validation split and updates `outcome.best` and `.last`."""
    start = time.perf_counter()
    metrics = score(state, arrays, task, programs, validation, progress.evaluating)
    writer.write(outcome.step, "validation", metrics)
    keep_validation(outcome, metrics, task)
    outcome.evaluate_seconds += time.perf_counter() - start


def keep_validation(outcome: Outcome, metrics: dict[str, float], task: Task) -> None:
    """Makes a validation the last one, and the best one if it is."""
    outcome.last = {"step": outcome.step, "metrics": metrics}
    sign = -1 if task.maximize else 1
    value = sign * metrics[task.primary]
    if math.isfinite(value) and (
        outcome.best is None or value < sign * outcome.best["metrics"][task.primary]
    ):
        outcome.best = outcome.last


def score(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: Programs,
    batches: list[tuple[jax.Array, jax.Array]],
    report: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Metrics over the given batches, summed in float64 between dispatches.

    `report` is called after each dispatch.
    """
    variables = state.evaluation_variables()
    total: dict[str, np.ndarray] = {}
    for examples_kb, weight_kb in batches:
        with jax.transfer_guard("disallow"):
            statistics = programs.evaluate(variables, arrays, examples_kb, weight_kb)
        for name, value in jax.device_get(statistics).items():
            total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
        if report is not None:
            report()
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
    skips = int(jax.device_get(state.skips))
    if skips:
        first = int(jax.device_get(state.first_skip))
        where += f", after {skips} skipped updates, the first at step {first}"
    return (
        f"step {step}: {where}; {good}; lower train.learning_rate or "
        "train.clip_norm, or raise train.warmup_steps"
    )
