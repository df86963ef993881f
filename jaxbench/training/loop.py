"""The training loop of 1..n runs, read from top to bottom: no trainer, no hooks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxbench.tasks.task import Task
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.meter import Meter
from jaxbench.training.outcome import TrainingRun
from jaxbench.training.programs import Programs, place_span
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState, leaf_names
from jaxbench.training.step import MODEL_METRICS
from jaxbench.training.stop import StoppedError

# Sums the train step adds to the task's own.
STEP_STATISTICS = (
    *("steps", "skipped"),
    *("gradient_norm", "total_loss", "auxiliary_loss"),
)

# Seconds that a dispatch may take where its length is free: a stop waits for its end.
LONGEST_DISPATCH = 5.0


class Lesson(NamedTuple):
    """A part of a curriculum; where there is none, all of training.

    Attributes:
      name: of the level; empty where there is no curriculum.
      validation: groups of validation batches (see `evaluation_batches`).
    """

    name: str
    validation: list[tuple[jax.Array, jax.Array]]


def train(
    states: TrainState,
    runs: Sequence[TrainingRun],
    arrays: Mapping[str, jax.Array],
    *,
    programs: Programs,
    lessons: Sequence[Lesson],
    budget: Budget,
    evaluate_every: float,
    checkpoint_every: int,
    progress: TrainingProgress,
    stop: Callable[[], str | None],
    goal: Goal | EarlyStopping | None = None,
    first_steps: int = 0,
    evaluation_share: float = 0.0,
    leave: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> TrainState:
    """Trains runs until each has ended: solved, out of budget, diverged, interrupted.

    Every run makes the updates, validations and checkpoints that it would make alone;
    one that has ended keeps its state while the others go on. Dispatches end at
    multiples of K, epochs, evaluations and checkpoints, counted from step 0, so a
    resumed run makes the dispatches that the unbroken one would have made. The metrics
    of a dispatch are fetched while the next one runs.

    A state is saved before it is validated, and the validation that a run was stopped
    in is made first when it goes on: whenever a run is stopped or killed, at most the
    updates since its last save are lost, and what it ends with is the same.

    Args:
      states: of all runs, see `Placement.stack`; its buffers are given away.
      runs: as many as `programs` are for. Those that have not ended are at one step.
      arrays: the task's arrays on the devices.
      lessons: of the curriculum, in their order; most tasks have one.
      budget: when to end. One of seconds has one run, and is spent by training alone;
        the last dispatch is shortened so that it ends close to it.
      evaluate_every: steps, or seconds where the budget is in seconds, between
        validations besides those at each epoch's end and at the end of the run; 0 for
        none.
      checkpoint_every: steps between saves besides those at each validation; 0: none.
      stop: returns a reason to stop now, or None; asked before every dispatch and
        every batch of a validation.
      goal: what ends a lesson, and training before its budget; None for nothing.
      first_steps: updates at the start of this process that are made, but timed apart;
        0 for none.
      evaluation_share: of a budget of seconds, what validations may take together: they
        are made less often where they would take more; 0 for any amount.
      leave: return as soon as no more than so many runs go on: a program of fewer runs
        would take them further in less time. They are saved.
      clock: seconds, for tests.

    Returns:
      The states of all runs, each where it ended; after a divergence, the last good
      one.
    """
    placement = programs.placement
    meter = Meter(runs, clock, updates_of_evaluation(programs, lessons))
    pending: tuple[int, int, Any] | None = None
    timed = first_steps == 0

    def every() -> float:
        """Between two validations, in the budget's unit; 0 for none but the last."""
        if budget.unit == "seconds":
            return meter.interval(budget, evaluate_every, evaluation_share)
        periods = (int(evaluate_every), *(run.order.steps_per_epoch for run in runs))
        return min((p for p in periods if p), default=0)

    def settle() -> None:
        """Writes the metrics of the dispatch that was not waited for."""
        nonlocal pending
        if pending is not None:
            end, count, statistics = pending
            pending = None
            each = placement.each(jax.device_get(statistics))
            meter.reach(end)
            losses = record(states, runs, end, count, each, programs)
            if losses:
                loss, rate = float(np.mean(losses)), meter.steps_per_second
                left = meter.seconds_left(budget, end, every())
                progress.update(end, loss, meter.last_step(budget), rate, left)

    def check() -> None:
        """Between batches of a validation, which may be long."""
        progress.evaluating()
        if (reason := stop()) is not None:
            raise StoppedError(reason)

    def save() -> None:
        for index, run in enumerate(runs):
            if run.outcome.step and not run.ended:
                state = placement.take(states, index)
                run.checkpoints.save("last", state, run.outcome.facts())

    def validate_due() -> None:
        meter.start()
        if any(run.outcome.due for run in runs):
            validate(
                states, runs, arrays, programs, lessons, goal, progress, meter, check
            )
        for run in runs:
            run.ended |= run.outcome.is_over(budget, goal)
        meter.start()

    unscored: list[TrainingRun] = []
    try:
        validate_due()
        while len(going := [run for run in runs if not run.ended]) > leave:
            if (reason := stop()) is not None:
                raise StoppedError(reason)
            step = going[0].outcome.step
            before = meter.seconds_at(step)
            validation_periods = [
                *(run.order.steps_per_epoch for run in going),
                int(evaluate_every) if budget.unit == "steps" else 0,
            ]
            periods = [
                *(programs.steps_per_dispatch, *validation_periods, checkpoint_every)
            ]
            end = min((step // p + 1) * p for p in periods if p)
            each = 1.0 if budget.unit == "steps" else meter.seconds_per_step
            if not timed:
                end = min(end, step + first_steps, budget.steps or end)
            else:
                end = min(end, meter.last_step(budget))
                if budget.unit == "seconds" and each:
                    # Its steps depend on the clock anyway, and a stop waits no longer.
                    end = min(end, step + max(1, int(LONGEST_DISPATCH / each)))
            examples = examples_of(runs, step, end - step, programs)
            # A run that has ended makes no updates: its state stays what it is.
            updates = [0 if run.ended else end - step for run in runs]
            span = place_span(
                *(placement, updates),
                *(budget.spent(step, before), each, budget.total),
            )
            with jax.transfer_guard("disallow"):
                states, statistics = programs.train(states, arrays, examples, span)
            settle()
            for run in going:
                if not run.ended:
                    run.outcome.step = end
            pending = (end, end - step, statistics)
            if not timed:
                jax.block_until_ready(statistics)
                meter.leave_out(end - step)
                timed = True
                progress.say(meter.describe_evaluations(budget, every()))
                long = programs.steps_per_dispatch * meter.seconds_per_step
                if budget.unit == "steps" and long > 2 * LONGEST_DISPATCH:
                    progress.say(
                        f"a dispatch takes about {long:.0f} s, and a signal to stop "
                        "waits for its end; a lower train.steps_per_dispatch hears it "
                        "sooner"
                    )
            if all(leaf.is_ready() for leaf in jax.tree.leaves(statistics)):
                # This device computes before it returns: the time is known at once.
                settle()

            after = meter.seconds_at(end)
            ends = budget.done(end, after)
            evaluates = any(end % p == 0 for p in validation_periods if p)
            if budget.unit == "seconds" and not ends:
                evaluates |= passes(before, after, every())
            saves = bool(checkpoint_every) and end % checkpoint_every == 0
            if not (evaluates or saves or ends):
                continue

            settle()
            # The time until here was estimated; now it is known.
            evaluates |= budget.done(end, runs[0].outcome.train_seconds)
            for run in runs:
                run.outcome.due = evaluates and not run.ended
            save()
            validate_due()
        settle()
        save()
        unscored += [
            run
            for run in runs
            if run.ended and run.outcome.status == "ok"
            if run.outcome.step and run.outcome.best is None
        ]
        if unscored:
            # The budget ended in a curriculum: its last level is what is scored.
            found = score(states, arrays, programs, lessons[-1].validation, check)
            for index, run in enumerate(runs):
                if run in unscored:
                    keep_validation(run, found[index], programs.update.task)
                    keep_best(run, placement.take(states, index))
    except StoppedError as stopped:
        settle()
        save()
        for run in runs:
            if not run.ended or run in unscored:
                run.ended, run.outcome.status = True, "interrupted"
                run.outcome.reason = str(stopped)
    skips = np.atleast_1d(*jax.device_get((states.skips, states.first_skip)))
    for run, count, first in zip(runs, *skips, strict=True):
        run.outcome.skips, run.outcome.first_skip = int(count), int(first)
    return states


def updates_of_evaluation(programs: Programs, lessons: Sequence[Lesson]) -> float:
    """How many updates read as many examples as the last lesson's validation does."""
    groups = len(lessons[-1].validation) * programs.batches_per_evaluation
    return groups / programs.update.micro_batches


def passes(before: float, now: float, every: float) -> bool:
    """Whether a multiple of `every` lies between two times."""
    return every > 0 and now // every > before // every


def examples_of(
    runs: Sequence[TrainingRun], step: int, count: int, programs: Programs
) -> jax.Array:
    """The batches of `count` steps, placed; a run that has ended gets zeros."""
    size = programs.steps_per_dispatch
    given = {
        index: run.order.steps(step, count, size)
        for index, run in enumerate(runs)
        if not run.ended
    }
    if len(runs) == 1:
        return jax.device_put(given[0], programs.placement.batch)
    idle = np.zeros_like(next(iter(given.values())))
    rows = [given.get(index, idle) for index in range(len(runs))]
    return jax.device_put(np.stack(rows, axis=1), programs.placement.batch)


def record(
    states: TrainState,
    runs: Sequence[TrainingRun],
    end: int,
    count: int,
    each: Sequence[Mapping[str, np.ndarray]],
    programs: Programs,
) -> list[float]:
    """Writes a dispatch's metrics of each run; ends runs in which a step broke.

    Returns:
      The losses of the others, of those that made an update.
    """
    losses = []
    for index, (run, sums) in enumerate(zip(runs, each, strict=True)):
        if run.ended:
            continue
        if float(sums["steps"]) + float(sums["skipped"]) < count:
            state = programs.placement.take(states, index)
            run.ended, run.outcome.status = True, "diverged"
            run.outcome.step = int(jax.device_get(state.step))
            run.outcome.reason = describe_divergence(state, run.checkpoints)
            continue
        metrics = training_metrics(sums, programs.update.task)
        run.writer.write(end, "train", metrics)
        losses += [metrics["total_loss"]] if "total_loss" in metrics else []
    return losses


def training_metrics(sums: Mapping[str, np.ndarray], task: Task) -> dict[str, float]:
    """Means over the updates of a dispatch; only "skipped" where all were left out."""
    done, skipped = float(sums["steps"]), float(sums["skipped"])
    if done == 0:
        return {"skipped": skipped}
    of_model = {k for k in sums if k.startswith(MODEL_METRICS)}
    of_task = {k: v for k, v in sums.items() if k not in {*STEP_STATISTICS, *of_model}}
    metrics = task.summarize(of_task) | {k: float(sums[k]) / done for k in of_model}
    metrics |= {
        "gradient_norm": float(sums["gradient_norm"]) / done,
        "auxiliary_loss": float(sums["auxiliary_loss"]) / done,
        "total_loss": float(sums["total_loss"]) / done,
    }
    return metrics | ({"skipped": skipped} if skipped else {})


def validate(
    states: TrainState,
    runs: Sequence[TrainingRun],
    arrays: Mapping[str, jax.Array],
    programs: Programs,
    lessons: Sequence[Lesson],
    goal: Goal | EarlyStopping | None,
    progress: TrainingProgress,
    meter: Meter,
    check: Callable[[], None],
) -> None:
    """Scores each run that is due with the whole validation split of its lesson.

    Saves what is the best so far, and begins the next lesson where one is learned.
    `check` is called before every batch; until the last one nothing is changed.
    """
    task, names = programs.update.task, [lesson.name for lesson in lessons]
    due = [(index, run) for index, run in enumerate(runs) if run.outcome.due]
    found = {
        lesson: score(states, arrays, programs, lessons[lesson].validation, check)
        for lesson in {run.outcome.convergence.lesson for _, run in due}
    }
    meter.evaluated()
    scored = [
        (index, run, found[run.outcome.convergence.lesson][index]) for index, run in due
    ]
    step = due[0][1].outcome.step
    told = ", ".join(f"{metrics[task.primary]:.4f}" for *_, metrics in scored)
    progress.say(f"step {step}: validation {task.primary} {told}")
    for index, run, metrics in scored:
        keep_validation(run, metrics, task)
        outcome, now = run.outcome, run.outcome.convergence
        lesson, better = now.lesson, outcome.best is outcome.last
        if goal is not None and goal.judge(now, names, step, metrics):
            # Scores of an easier lesson are no scores of this one.
            outcome.best, better = None, False
            who = f" by run {index + 1}" if len(runs) > 1 else ""
            following = f"{names[now.lesson]} next"
            progress.say(f"step {step}: {names[lesson]} is learned{who}, {following}")
        keep_best(run, programs.placement.take(states, index) if better else None)


def keep_best(run: TrainingRun, state: TrainState | None) -> None:
    """Saves a state as the best one, where there is one, and that it was validated."""
    run.outcome.due = False
    if state is not None:
        run.checkpoints.save("best", state, run.outcome.facts())
    run.checkpoints.note(run.outcome.step, run.outcome.facts())


def keep_validation(run: TrainingRun, metrics: dict[str, float], task: Task) -> None:
    """Writes a validation: it is the last one, and the best one where it is better."""
    outcome = run.outcome
    run.writer.write(outcome.step, "validation", metrics)
    outcome.last = {"step": outcome.step, "metrics": metrics}
    sign = -1 if task.maximize else 1
    value = sign * metrics[task.primary]
    if math.isfinite(value) and (
        outcome.best is None or value < sign * outcome.best["metrics"][task.primary]
    ):
        outcome.best = outcome.last


def score(
    states: TrainState,
    arrays: Mapping[str, jax.Array],
    programs: Programs,
    batches: list[tuple[jax.Array, jax.Array]],
    check: Callable[[], None] = lambda: None,
) -> list[dict[str, float]]:
    """Metrics of each run over the given batches, summed in float64 between dispatches.

    `check` is called before each dispatch.
    """
    variables = states.evaluation_variables()
    total: dict[str, np.ndarray] = {}
    for examples_kb, weight_kb in batches:
        check()
        with jax.transfer_guard("disallow"):
            statistics = programs.evaluate(variables, arrays, examples_kb, weight_kb)
        for name, value in jax.device_get(statistics).items():
            total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
    summarize = programs.update.task.summarize
    return [summarize(sums) for sums in programs.placement.each(total)]


def describe_divergence(state: TrainState, checkpoints: Checkpoints) -> str:
    """One line: which step broke, in which parameter, and what can be gone on with."""
    step, leaf = (
        int(n) for n in jax.device_get((state.broken_step, state.broken_leaf))
    )
    where = (
        f"the gradient of {leaf_names(state.params)[leaf]} is not finite"
        if leaf >= 0
        else "the loss or an updated parameter is not finite"
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
