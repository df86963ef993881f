"""Several runs of one backbone trained as one program: seeds and rates side by side.

Copies differ in what they were initialised with, in the order of their data and in
their learning rate, which are all numbers in their state or their batches; the program
is `jax.vmap` of the single run's. A copy that has ended makes no more updates and keeps
its state while the others go on. Of several devices each trains some of the copies,
and none waits for another within a dispatch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxbench.models.model import Model
from jaxbench.tasks.task import Order, Task
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.loop import (
    Outcome,
    describe_divergence,
    keep_validation,
    training_metrics,
)
from jaxbench.training.programs import predicted_bytes
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState
from jaxbench.training.step import Span, make_evaluate_program, make_train_program
from jaxbench.training.writers import MetricWriter
from jaxbench.xla import OFTEN, compiler_options


@dataclasses.dataclass
class Copy:
    """One of the runs.

    Attributes:
      orders: which rows make up which step, of each lesson.
      outcome: what it came to; `step` stands still once it has ended.
      checkpoints, writer: its own.
      ended: whether it makes no more updates.
    """

    orders: Sequence[Order]
    outcome: Outcome
    checkpoints: Checkpoints
    writer: MetricWriter
    ended: bool = False


@dataclasses.dataclass(frozen=True)
class CopyPlacement:
    """How copies lie on devices: each copy on one, the task's data on all of them.

    Attributes:
      mesh: the devices that take part; their number divides the copies.
    """

    mesh: Mesh

    @classmethod
    def of(cls, copies: int) -> CopyPlacement:
        """Spreads copies over as many of the visible devices as divide them."""
        visible = jax.local_devices()
        count = max(n for n in range(1, len(visible) + 1) if copies % n == 0)
        return cls(Mesh(np.asarray(visible[:count]), ("copies",)))

    @property
    def devices(self) -> int:
        """How many take part."""
        return self.mesh.size

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """The place of an array whose axes lie as `spec` says."""
        return NamedSharding(self.mesh, spec)

    def over_copies(
        self, program: Callable[..., Any], axes: Sequence[int | None]
    ) -> Callable[..., Any]:
        """`jax.vmap` of a program, each device at its own copies.

        Args:
          program: of one copy.
          axes: for each argument the axis of its copies, 0 or 1; None for what all of
            them share.
        """
        every = jax.vmap(program, in_axes=tuple(axes))
        if self.devices == 1:
            return every
        return jax.shard_map(
            every,
            mesh=self.mesh,
            in_specs=tuple(SPECS[axis] for axis in axes),
            out_specs=SPECS[0],
            check_vma=False,
        )


# Where copies lie, by the axis that counts them.
SPECS = {
    None: PartitionSpec(),
    0: PartitionSpec("copies"),
    1: PartitionSpec(None, "copies"),
}


@dataclasses.dataclass(frozen=True)
class CopyPrograms:
    """The compiled programs of all copies.

    Attributes:
      placement: where their arguments lie.
      train: `(states, arrays, examples_kcb, spans) -> (states, statistics)`.
      evaluate: `(variables, arrays, examples_kb, weight_kb) -> statistics`, of all
        copies on the same examples.
      predicted_bytes: what the larger one needs on one device, by the compiler's
        account.
    """

    placement: CopyPlacement
    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    predicted_bytes: int


def compile_copies(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    abstract_state: TrainState,
    *,
    copies: int,
    rows: np.ndarray,
    steps_per_dispatch: int,
    batches_per_evaluation: int,
    ema_decay: float,
    max_skips: int,
) -> CopyPrograms:
    """Compiles training and evaluation of `copies` runs.

    Args:
      model, task, optimizer: shared; rates are numbers in each copy's state.
      abstract_state: shapes and types of one copy's state.
      copies: how many.
      rows: the rows of one step of one copy.
      steps_per_dispatch, batches_per_evaluation, ema_decay, max_skips: as in
        `programs.compile_programs`.
    """
    placement = CopyPlacement.of(copies)

    def abstract(shape: Sequence[int], dtype: Any, axis: int | None) -> Any:
        place = placement.sharding(SPECS[axis])
        return jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=place)

    states = jax.tree.map(
        lambda leaf: abstract((copies, *leaf.shape), leaf.dtype, 0), abstract_state
    )
    arrays = {
        name: abstract(value.shape, value.dtype, None)
        for name, value in task.arrays.items()
    }
    spans = Span(
        abstract((copies,), np.int32, 0),
        *[abstract((copies,), np.float32, 0)] * 3,
    )
    single = make_train_program(
        model, task, optimizer, ema_decay=ema_decay, max_skips=max_skips
    )
    examples = (steps_per_dispatch, copies, *rows.shape)
    options = compiler_options(OFTEN, remat=model.stack.remat)
    train = (
        jax.jit(placement.over_copies(single, (0, None, 1, 0)), donate_argnums=0)
        .lower(states, arrays, abstract(examples, rows.dtype, 1), spans)
        .compile(options)
    )
    scored = make_evaluate_program(model, task)
    evaluate = (
        jax.jit(placement.over_copies(scored, (0, None, None, None)))
        .lower(
            states.evaluation_variables(),
            arrays,
            abstract((batches_per_evaluation, *rows.shape), rows.dtype, None),
            abstract((batches_per_evaluation, len(rows)), np.float32, None),
        )
        .compile(options)
    )
    return CopyPrograms(
        placement,
        train,
        evaluate,
        max(predicted_bytes(train), predicted_bytes(evaluate)),
    )


def stack(states: Sequence[TrainState]) -> TrainState:
    """One state whose leaves have an axis of copies in front."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def take(states: TrainState, index: int) -> TrainState:
    """The state of one copy, on one device."""

    def one(leaf: jax.Array) -> jax.Array:
        for shard in leaf.addressable_shards:
            first, end, _ = shard.index[0].indices(leaf.shape[0])
            if first <= index < end:
                return jax.device_put(shard.data[index - first], jax.local_devices()[0])
        raise IndexError(f"no device here holds copy {index}")

    return jax.tree.map(one, states)


def train_copies(
    states: TrainState,
    copies: Sequence[Copy],
    arrays: Mapping[str, jax.Array],
    *,
    task: Task,
    programs: CopyPrograms,
    lessons: Sequence[str],
    validations: Sequence[list[tuple[np.ndarray, np.ndarray]]],
    steps: int,
    steps_per_dispatch: int,
    evaluate_every: int,
    checkpoint_every: int,
    goal: Goal | EarlyStopping | None,
    progress: TrainingProgress,
    stop: Callable[[], str | None],
    leave: int = 0,
) -> TrainState:
    """Trains all copies until each has ended: solved, out of steps, diverged.

    Every copy makes the updates, the validations and the checkpoints that it would
    make alone. Copies that have not ended are at the same step.

    Args:
      states: of all copies; its buffers are given away.
      copies: what is kept for each; outcomes are written in place.
      arrays: the task's arrays.
      task, programs: what runs, and where.
      lessons: names of the parts of the curriculum.
      validations: batches of each lesson's validation split.
      steps: updates of a run.
      steps_per_dispatch, evaluate_every, checkpoint_every: as in `loop.train`.
      goal: what ends a copy early.
      progress: shows the copies that go on.
      stop: a reason to stop now, or None; asked after every dispatch.
      leave: return as soon as no more than so many go on: a program of fewer copies
        would take them further in less time.

    Returns:
      The states of all copies, each where it ended.
    """
    placement = programs.placement
    states = jax.device_put(states, placement.sharding(SPECS[0]))
    arrays = jax.device_put(dict(arrays), placement.sharding(SPECS[None]))
    for copy in copies:
        copy.ended = copy.ended or _over(copy, steps, goal)
    while len(going := [copy for copy in copies if not copy.ended]) > leave:
        step = going[0].outcome.step
        assert all(copy.outcome.step == step for copy in going), "copies apart"
        epochs = [_order(copy).steps_per_epoch for copy in going]
        periods = [steps_per_dispatch, *epochs, evaluate_every, checkpoint_every]
        end = min([steps] + [(step // p + 1) * p for p in periods if p])
        rows = [
            _order(copy).steps(step, end - step, steps_per_dispatch)
            if not copy.ended
            else None
            for copy in copies
        ]
        idle = np.zeros_like(next(row for row in rows if row is not None))
        examples = np.stack([idle if row is None else row for row in rows], axis=1)
        spans = _spans(copies, end - step, step, steps)
        states, statistics = programs.train(states, arrays, examples, spans)
        _record(states, copies, task, statistics, end, end - step, progress, steps)
        going = [copy for copy in going if not copy.ended]
        evaluates = end == steps or any(
            end % p == 0 for p in (*epochs, evaluate_every) if p
        )
        if evaluates and going:
            _validate(
                *(states, copies, arrays, task, programs, lessons, validations),
                *(goal, progress),
            )
        reason = stop()
        saves = bool(checkpoint_every) and end % checkpoint_every == 0
        for index, copy in enumerate(copies):
            if copy.ended:
                continue
            copy.ended = _over(copy, steps, goal) or reason is not None
            if reason is not None and not _over(copy, steps, goal):
                copy.outcome.status, copy.outcome.reason = "interrupted", reason
            if copy.ended or evaluates or saves:
                copy.checkpoints.save("last", take(states, index), copy.outcome.facts())
    _finish(states, copies, arrays, task, programs, validations[-1], progress)
    return states


def _finish(
    states: TrainState,
    copies: Sequence[Copy],
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: CopyPrograms,
    validation: list[tuple[np.ndarray, np.ndarray]],
    progress: TrainingProgress,
) -> None:
    """Counts skips, and scores copies whose budget ended in a curriculum."""
    totals: dict[str, np.ndarray] | None = None
    for index, copy in enumerate(copies):
        outcome, state = copy.outcome, take(states, index)
        outcome.skips = int(jax.device_get(state.skips))
        outcome.first_skip = int(jax.device_get(state.first_skip))
        if not copy.ended or outcome.status != "ok" or outcome.best is not None:
            continue
        if totals is None:
            totals = _score(states, arrays, programs, validation, progress)
        metrics = task.summarize({k: value[index] for k, value in totals.items()})
        copy.writer.write(outcome.step, "validation", metrics)
        keep_validation(outcome, metrics, task)
        for which in ("best", "last"):
            copy.checkpoints.save(which, state, outcome.facts())


def _score(
    states: TrainState,
    arrays: Mapping[str, jax.Array],
    programs: CopyPrograms,
    validation: list[tuple[np.ndarray, np.ndarray]],
    progress: TrainingProgress,
) -> dict[str, np.ndarray]:
    """Statistics of all copies over the given batches, summed in float64."""
    variables = states.evaluation_variables()
    total: dict[str, np.ndarray] = {}
    for examples_kb, weight_kb in validation:
        sums = programs.evaluate(variables, arrays, examples_kb, weight_kb)
        for name, value in jax.device_get(sums).items():
            total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
        progress.evaluating()
    return total


def _over(copy: Copy, steps: int, goal: Goal | EarlyStopping | None) -> bool:
    reached = goal is not None and goal.reached(copy.outcome.convergence)
    return reached or copy.outcome.step >= steps or copy.outcome.status != "ok"


def _order(copy: Copy) -> Order:
    return copy.orders[copy.outcome.convergence.lesson]


def _spans(copies: Sequence[Copy], updates: int, step: int, steps: int) -> Span:
    count = len(copies)
    # No updates for a copy that has ended: its state stays what it is.
    own = [0 if copy.ended else updates for copy in copies]
    return Span(
        np.asarray(own, np.int32),
        np.full(count, step, np.float32),
        np.ones(count, np.float32),
        np.full(count, steps, np.float32),
    )


def _record(
    states: TrainState,
    copies: Sequence[Copy],
    task: Task,
    statistics: Any,
    end: int,
    count: int,
    progress: TrainingProgress,
    steps: int,
) -> None:
    """Writes a dispatch's metrics of each copy; ends those in which a step broke."""
    fetched = {k: np.asarray(v) for k, v in jax.device_get(statistics).items()}
    losses = []
    for index, copy in enumerate(copies):
        if copy.ended:
            continue
        sums = {name: value[index] for name, value in fetched.items()}
        if float(sums["steps"]) + float(sums["skipped"]) < count:
            state = take(states, index)
            copy.ended = True
            copy.outcome.step = int(jax.device_get(state.step))
            copy.outcome.status = "diverged"
            copy.outcome.reason = describe_divergence(state, copy.checkpoints)
            continue
        copy.outcome.step = end
        metrics = training_metrics(sums, task)
        copy.writer.write(end, "train", metrics)
        losses.append(metrics.get("total_loss", np.nan))
    if losses:
        progress.update(end, float(np.mean(losses)), steps)


def _validate(
    states: TrainState,
    copies: Sequence[Copy],
    arrays: Mapping[str, jax.Array],
    task: Task,
    programs: CopyPrograms,
    lessons: Sequence[str],
    validations: Sequence[list[tuple[np.ndarray, np.ndarray]]],
    goal: Goal | EarlyStopping | None,
    progress: TrainingProgress,
) -> None:
    """Scores each copy that goes on with the validation split of its lesson."""
    wanted = {c.outcome.convergence.lesson for c in copies if not c.ended}
    totals = {
        lesson: _score(states, arrays, programs, validations[lesson], progress)
        for lesson in sorted(wanted)
    }
    for index, copy in enumerate(copies):
        if copy.ended:
            continue
        outcome, now = copy.outcome, copy.outcome.convergence
        sums = {name: value[index] for name, value in totals[now.lesson].items()}
        metrics = task.summarize(sums)
        copy.writer.write(outcome.step, "validation", metrics)
        keep_validation(outcome, metrics, task)
        better = outcome.best is not None and outcome.best["step"] == outcome.step
        if goal is not None and goal.judge(now, lessons, outcome.step, metrics):
            # Scores of an easier lesson are no scores of this one.
            outcome.best = None
        elif better:
            copy.checkpoints.save("best", take(states, index), outcome.facts())
