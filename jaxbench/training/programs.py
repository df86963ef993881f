"""Programs of 1..n runs, compiled before training, and where their arrays live.

Several runs differ in what they were initialised with, in the order of their data and
in their learning rate. All of these are numbers in their states or their batches, so
one program trains them: `jax.vmap` of the single run's.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxbench.errors import InputError
from jaxbench.tasks.task import Task
from jaxbench.training.state import TrainState
from jaxbench.training.step import (
    Span,
    Update,
    make_evaluate_program,
    make_train_program,
)
from jaxbench.xla import OFTEN, ONCE, compiler_options


@dataclasses.dataclass(frozen=True)
class Placement:
    """On which devices 1..n runs train, and how their arrays lie there.

    A single run splits each batch over the devices; each holds the whole state. Several
    runs have an axis of runs in front of every leaf of their states, which is split: a
    device trains some of the runs, and none waits for another within a dispatch.

    Attributes:
      mesh: the devices, along one axis.
      runs: how many runs train.
    """

    mesh: Mesh
    runs: int = 1

    @classmethod
    def over_all_devices(cls, batch_size: int) -> Placement:
        """One run, its batches spread over every visible device.

        Raises:
          InputError: the devices do not divide the batch.
        """
        devices = jax.device_count()
        if batch_size % devices:
            raise InputError(
                f"train.batch_size={batch_size} must be a multiple of the {devices} "
                "visible devices"
            )
        # Explicit axes, the default since JAX 0.9, break linen's RNN on 0.12.
        auto = (jax.sharding.AxisType.Auto,)
        return cls(jax.make_mesh((devices,), ("batch",), axis_types=auto))

    @classmethod
    def of_runs(cls, runs: int) -> Placement:
        """Each run on one device: as many of the visible ones as divide the runs."""
        visible = jax.local_devices()
        count = max(n for n in range(1, len(visible) + 1) if runs % n == 0)
        return cls(Mesh(np.asarray(visible[:count]), ("runs",)), runs)

    @property
    def whole(self) -> NamedSharding:
        """Every device holds the array."""
        return self._sharding(None)

    @property
    def state(self) -> NamedSharding:
        """Of states, and of what else has one number or more for each run."""
        return self._sharding(None if self.runs == 1 else 0)

    @property
    def batch(self) -> NamedSharding:
        """Of training batches [K, B, ...], of several runs [K, runs, B, ...]."""
        return self._sharding(1)

    @property
    def validation(self) -> NamedSharding:
        """Of validation batches [K, B, ...], which runs share."""
        return self._sharding(1 if self.runs == 1 else None)

    @property
    def shape(self) -> tuple[int, ...]:
        """The axis in front of what each run has: none for a single run."""
        return () if self.runs == 1 else (self.runs,)

    def every_run(
        self, program: Callable[..., Any], axes: Sequence[int | None]
    ) -> Callable[..., Any]:
        """The program of all runs, from that of one; for a single run the same.

        Args:
          program: of one run.
          axes: for each argument the axis that counts runs; None for what they share.
        """
        if self.runs == 1:
            return program
        every = jax.vmap(program, in_axes=tuple(axes))
        if self.mesh.size == 1:
            return every
        return jax.shard_map(
            every,
            mesh=self.mesh,
            in_specs=tuple(self._sharding(axis).spec for axis in axes),
            out_specs=self.state.spec,
            check_vma=False,
        )

    def stack(self, states: Sequence[TrainState]) -> TrainState:
        """One state of all runs, placed; a single run's is left as it is."""
        if self.runs == 1:
            return states[0]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return jax.device_put(stacked, self.state)

    def take(self, states: TrainState, index: int) -> TrainState:
        """The state of one run, on the first device."""

        def one(leaf: jax.Array) -> jax.Array:
            for shard in leaf.addressable_shards:
                first, end, _ = shard.index[0].indices(leaf.shape[0])
                if first <= index < end:
                    own = shard.data[index - first]
                    return jax.device_put(own, jax.local_devices()[0])
            raise IndexError(f"no device here holds run {index}")

        return states if self.runs == 1 else jax.tree.map(one, states)

    def each(self, statistics: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The statistics of each run, from those of all."""
        if self.runs == 1:
            return [dict(statistics)]
        return [
            {name: value[run] for name, value in statistics.items()}
            for run in range(self.runs)
        ]

    def _sharding(self, axis: int | None) -> NamedSharding:
        split = () if axis is None else (*[None] * axis, *self.mesh.axis_names)
        return NamedSharding(self.mesh, PartitionSpec(*split))


@dataclasses.dataclass(frozen=True)
class Programs:
    """The executables of 1..n runs and what compiling them told.

    Attributes:
      update: what they compute.
      placement: how many runs, and where their arrays lie.
      train, evaluate: see `jaxbench.training.step`, compiled for fixed shapes. States,
        spans and statistics of several runs have an axis of runs in front, and training
        batches one behind the axis of steps; arrays and validation batches are shared.
      train_jaxpr: the train program of one run as traced; its loop body is one step.
      abstract_state: shapes, types and places of the train state of one run.
      steps_per_dispatch: K of the train program.
      batches_per_evaluation, evaluation_batch_size: K and B of the evaluation program.
      predicted_bytes: what the larger of the two programs needs on one device, by the
        compiler's account: arguments + outputs + temporaries - aliased.
      compile_seconds: tracing, lowering and compiling.
      compiler_options: what XLA was told for both, see `jaxbench.xla`.
    """

    update: Update
    placement: Placement
    train: Callable[..., Any]
    evaluate: Callable[..., Any]
    train_jaxpr: Any
    abstract_state: TrainState
    steps_per_dispatch: int
    batches_per_evaluation: int
    evaluation_batch_size: int
    predicted_bytes: int
    compile_seconds: float
    compiler_options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class FirstState:
    """Makes first states: `first_state(seed, arrays, examples_b) -> TrainState`.

    The key that initialises the parameters and the key of the run both come from
    `seed` and from nothing else. The work is two compiled programs; neither the seed
    nor the learning rate is a constant of the long one, so that the runs of a sweep
    find it in the compilation cache.

    Attributes:
      update: static parts of the run.
      placement: where the state is put.
      parameter_dtype: the type of parameters and optimiser state; anything but float32
        loses small updates.
    """

    update: Update
    placement: Placement
    parameter_dtype: Any = jnp.float32

    def __call__(
        self, seed: int, arrays: Mapping[str, jax.Array], examples_b: Any
    ) -> TrainState:
        """Compiles what has not been compiled, and makes the state."""
        parameters_key, run_key = jax.random.split(jax.random.key(seed))
        draw, create = self._programs
        return create(draw(parameters_key, arrays, examples_b), run_key)

    def shapes(self, arrays: Mapping[str, Any], examples_b: Any) -> TrainState:
        """The shapes and types of the state; costs a trace, which a call then uses."""
        parameters_key, run_key = jax.random.split(jax.random.key(0))
        draw, create = self._programs
        variables = draw.trace(parameters_key, arrays, examples_b).out_info
        return create.trace(variables, run_key).out_info

    @functools.cached_property
    def _programs(self) -> tuple[Any, Any]:
        """Both programs, kept so that their traces are."""
        once = functools.partial(
            jax.jit,
            out_shardings=self.placement.whole,
            compiler_options=compiler_options(ONCE),
        )
        return once(self._draw), once(self._create)

    def _draw(
        self, key: jax.Array, arrays: Mapping[str, jax.Array], examples_b: Any
    ) -> Any:
        batch = dict(self.update.task.gather(arrays, examples_b))
        batch["weight_b"] = jnp.ones(examples_b.shape[0], jnp.float32)
        return dict(self.update.model.init(key, batch))

    def _create(self, variables: Any, key: jax.Array) -> TrainState:
        params = jax.tree.map(
            lambda leaf: leaf.astype(self.parameter_dtype), variables["params"]
        )
        return TrainState.create(
            dict(variables) | {"params": params},
            self.update.optimizer,
            key,
            ema=self.update.ema_decay > 0,
        )


def compile_programs(
    update: Update,
    initialize: FirstState,
    placement: Placement,
    *,
    batch_size: int,
    steps_per_dispatch: int,
    batches_per_evaluation: int,
    watch: Callable[[str], AbstractContextManager] = nullcontext,
) -> Programs:
    """Compiles training and evaluation ahead of time, before anything is allocated.

    Args:
      update: what an update computes. With m micro-batches it works through its batch
        in m parts, and evaluation takes m times as many batches of a part's size.
      initialize: makes the first state of one of the runs.
      placement: of the runs.
      batch_size: examples of an update of one run.
      steps_per_dispatch, batches_per_evaluation: what a call works through at most.
      watch: `watch(name)` surrounds the compilation of a program.
    """
    start = time.perf_counter()
    task, home = update.task, initialize.placement
    rows = first_batch(task, batch_size)
    groups = batches_per_evaluation * update.micro_batches
    part = rows[: batch_size // update.micro_batches]
    weights = np.ones(len(part), np.float32)

    def abstract(tree: Any, place: NamedSharding, *before: int) -> Any:
        def one(leaf: Any) -> jax.ShapeDtypeStruct:
            shape = (*before, *leaf.shape)
            return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=place)

        return jax.tree.map(one, tree)

    def traced(place: Placement) -> Any:
        states, span = (
            abstract(tree, place.state, *place.shape)
            for tree in (state, Span(np.int32(), *[np.float32()] * 3))
        )
        examples = abstract(rows, place.batch, steps_per_dispatch, *place.shape)
        every = place.every_run(program, (0, None, 1, 0))
        arrays = abstract(dict(task.arrays), place.whole)
        return states, jax.jit(every, donate_argnums=0).trace(
            states, arrays, examples, span
        )

    shapes = initialize.shapes(
        abstract(dict(task.arrays), home.whole), abstract(rows, home.whole)
    )
    state = abstract(shapes, home.whole)
    program = make_train_program(update)
    states, train = traced(placement)
    # What an update costs is told by the program of one run.
    single = train if placement.runs == 1 else traced(home)[1]
    options = compiler_options(OFTEN, remat=update.model.stack.remat)

    def compiled(name: str, lowered: Any) -> Any:
        with watch(name):
            return lowered.compile(options)

    # XLA compiles without Python's lock: the next program is traced meanwhile.
    with ThreadPoolExecutor(max_workers=1) as beside:
        training = beside.submit(compiled, "train", train.lower())
        evaluation = make_evaluate_program(update.model, task)
        every = placement.every_run(evaluation, (0, None, None, None))
        lowered = jax.jit(every).lower(
            states.evaluation_variables(),
            abstract(dict(task.arrays), placement.whole),
            abstract(part, placement.validation, groups),
            abstract(weights, placement.validation, groups),
        )
        evaluate = compiled("evaluate", lowered)
        compiled_train = training.result()
    return Programs(
        update=update,
        placement=placement,
        train=compiled_train,
        evaluate=evaluate,
        train_jaxpr=single.jaxpr.jaxpr,
        abstract_state=state,
        steps_per_dispatch=steps_per_dispatch,
        batches_per_evaluation=groups,
        evaluation_batch_size=len(part),
        predicted_bytes=max(map(predicted_bytes, (compiled_train, evaluate))),
        compile_seconds=time.perf_counter() - start,
        compiler_options=options,
    )


def first_batch(task: Task, batch_size: int) -> np.ndarray:
    """Rows of one step: their shape and type are those of every step."""
    return task.order(batch_size=batch_size, seed=0).steps(0, 1, 1)[0]


def place_span(
    placement: Placement,
    updates: Sequence[int],
    spent: float,
    each: float,
    total: float,
) -> Span:
    """What a dispatch covers, on the devices: as many updates of each run as given."""
    counts = np.asarray(updates, np.int32).reshape(placement.shape)
    rest = [np.full(placement.shape, x, np.float32) for x in (spent, each, total)]
    return jax.device_put(Span(counts, *rest), placement.state)


def predicted_bytes(compiled: Any) -> int:
    """Device memory of one call, as the compiler sees it."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def evaluation_batches(
    rows: np.ndarray, programs: Programs
) -> list[tuple[jax.Array, jax.Array]]:
    """Places a split on the devices as [K, B] groups; the tail has weight 0."""
    shape = (-1, programs.batches_per_evaluation, programs.evaluation_batch_size)
    group = shape[1] * shape[2]
    padded = -(-len(rows) // group) * group
    index = np.minimum(np.arange(padded), len(rows) - 1)
    weight = (np.arange(padded) < len(rows)).astype(np.float32).reshape(shape)
    examples = rows[index].reshape(*shape, *rows.shape[1:])
    place = programs.placement.validation
    return [
        (jax.device_put(example_kb, place), jax.device_put(weight_kb, place))
        for example_kb, weight_kb in zip(examples, weight, strict=True)
    ]
