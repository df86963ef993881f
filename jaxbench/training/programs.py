"""Programs compiled before a run starts, and where their arrays live."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.task import Task
from jaxbench.training.state import TrainState
from jaxbench.training.step import Span, make_evaluate_program, make_train_program
from jaxbench.xla import OFTEN, ONCE, compiler_options


@dataclasses.dataclass(frozen=True)
class Placement:
    """How arrays lie on the visible devices: state and data whole, batches split.

    Attributes:
      whole: every device holds the array.
      batch: axis 1 is split over the devices (axis 0 counts steps).
    """

    whole: NamedSharding
    batch: NamedSharding

    @classmethod
    def over_all_devices(cls, batch_size: int) -> Placement:
        """Spreads batches over every visible device.

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
        mesh = jax.make_mesh(
            (devices,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        return cls(
            whole=NamedSharding(mesh, PartitionSpec()),
            batch=NamedSharding(mesh, PartitionSpec(None, "batch")),
        )


@dataclasses.dataclass(frozen=True)
class Programs:
    """The executables of one run and what compiling them told.

    Attributes:
      train, evaluate: see `jaxbench.training.step`, compiled for fixed shapes.
      train_jaxpr: the train program as traced; its loop body is one step.
      abstract_state: shapes, types and places of the train state.
      steps_per_dispatch: K of the train program.
      batches_per_evaluation, evaluation_batch_size: K and B of the evaluation program.
      predicted_bytes: what the larger of the two programs needs on one device, by the
        compiler's account: arguments + outputs + temporaries - aliased.
      compile_seconds: tracing, lowering and compiling.
      compiler_options: what XLA was told for both, see `jaxbench.xla`.
    """

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
    """Makes the first state of a run: `initializer(arrays, examples_b) -> TrainState`.

    The key that initialises the parameters and the key of the run both come from
    `seed` and from nothing else. The work is two compiled programs; neither the seed
    nor the learning rate is a constant of the long one, so that the runs of a sweep
    find it in the compilation cache.

    Attributes:
      model, task, optimizer: static parts of the run.
      placement: where the state is put.
      seed: of the run.
      ema: whether the state holds an average of the parameters.
      parameter_dtype: the type of parameters and optimiser state; anything but float32
        loses small updates.
    """

    model: nn.Module
    task: Task
    optimizer: optax.GradientTransformation
    placement: Placement
    seed: int
    ema: bool
    parameter_dtype: Any = jnp.float32

    def __call__(self, arrays: Mapping[str, jax.Array], examples_b: Any) -> TrainState:
        """Compiles what has not been compiled, and makes the state."""
        parameters_key, run_key = self._keys()
        draw, create = self._programs
        return create(draw(parameters_key, arrays, examples_b), run_key)

    def shapes(self, arrays: Mapping[str, Any], examples_b: Any) -> TrainState:
        """The shapes and types of the state; costs a trace, which a call then uses."""
        parameters_key, run_key = self._keys()
        draw, create = self._programs
        variables = draw.trace(parameters_key, arrays, examples_b).out_info
        return create.trace(variables, run_key).out_info

    def _keys(self) -> tuple[jax.Array, jax.Array]:
        parameters_key, run_key = jax.random.split(jax.random.key(self.seed))
        return parameters_key, run_key

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
        batch = dict(self.task.gather(arrays, examples_b))
        batch["weight_b"] = jnp.ones(examples_b.shape[0], jnp.float32)
        return dict(self.model.init(key, batch))

    def _create(self, variables: Any, key: jax.Array) -> TrainState:
        params = jax.tree.map(
            lambda leaf: leaf.astype(self.parameter_dtype), variables["params"]
        )
        return TrainState.create(
            dict(variables) | {"params": params}, self.optimizer, key, ema=self.ema
        )


def compile_programs(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    initialize: FirstState,
    placement: Placement,
    *,
    batch_size: int,
    steps_per_dispatch: int,
    batches_per_evaluation: int,
    ema_decay: float,
    micro_batches: int = 1,
    max_skips: int = 0,
    watch: Callable[[str], AbstractContextManager] = nullcontext,
) -> Programs:
    """Compiles training and evaluation ahead of time, before anything is allocated.

    With `micro_batches` m an update works through its batch in m parts, and evaluation
    takes m times as many batches of a part's size. `watch(name)` surrounds the
    compilation of a program.
    """
    start = time.perf_counter()
    part, groups = batch_size // micro_batches, batches_per_evaluation * micro_batches
    state, arrays, rows = _abstract(task, initialize, placement, batch_size)

    def batches(count: int, size: int, shape: tuple[int, ...], dtype: Any) -> Any:
        place = placement.batch
        return jax.ShapeDtypeStruct((count, size, *shape), dtype, sharding=place)

    traced = _traced(
        make_train_program(
            model,
            task,
            optimizer,
            ema_decay=ema_decay,
            micro_batches=micro_batches,
            max_skips=max_skips,
        ),
        *(state, arrays, rows, placement, steps_per_dispatch),
    )
    options = compiler_options(OFTEN, remat=model.stack.remat)

    def compiled(name: str, lowered: Any) -> Any:
        with watch(name):
            return lowered.compile(options)

    # XLA compiles without Python's lock: the next program is traced meanwhile.
    with ThreadPoolExecutor(max_workers=1) as beside:
        training = beside.submit(compiled, "train", traced.lower())
        lowered = jax.jit(make_evaluate_program(model, task)).lower(
            state.evaluation_variables(),
            arrays,
            batches(groups, part, rows.shape[1:], rows.dtype),
            batches(groups, part, (), np.float32),
        )
        evaluate = compiled("evaluate", lowered)
        train = training.result()
    return Programs(
        train=train,
        evaluate=evaluate,
        train_jaxpr=traced.jaxpr.jaxpr,
        abstract_state=state,
        steps_per_dispatch=steps_per_dispatch,
        batches_per_evaluation=groups,
        evaluation_batch_size=part,
        predicted_bytes=max(predicted_bytes(train), predicted_bytes(evaluate)),
        compile_seconds=time.perf_counter() - start,
        compiler_options=options,
    )


def trace_training(
    model: Model,
    task: Task,
    optimizer: optax.GradientTransformation,
    initialize: FirstState,
    placement: Placement,
    *,
    batch_size: int,
    steps_per_dispatch: int,
    batches_per_evaluation: int,
    ema_decay: float,
    max_skips: int,
) -> Programs:
    """What `compile_programs` tells of a run, without compiling: it cannot be run."""
    state, arrays, rows = _abstract(task, initialize, placement, batch_size)
    program = make_train_program(
        model, task, optimizer, ema_decay=ema_decay, max_skips=max_skips
    )
    traced = _traced(program, state, arrays, rows, placement, steps_per_dispatch)
    return Programs(
        train=program,
        evaluate=make_evaluate_program(model, task),
        train_jaxpr=traced.jaxpr.jaxpr,
        abstract_state=state,
        steps_per_dispatch=steps_per_dispatch,
        batches_per_evaluation=batches_per_evaluation,
        evaluation_batch_size=batch_size,
        predicted_bytes=0,
        compile_seconds=0.0,
        compiler_options=compiler_options(OFTEN, remat=model.stack.remat),
    )


def _abstract(
    task: Task,
    initialize: FirstState,
    placement: Placement,
    batch_size: int,
) -> tuple[TrainState, dict[str, Any], np.ndarray]:
    """Shapes of a run's state and arrays, placed, and the rows of one step."""

    def abstract(leaf: Any) -> Any:
        place = placement.whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    arrays = {name: abstract(value) for name, value in task.arrays.items()}
    rows = first_batch(task, batch_size)
    shapes = initialize.shapes(arrays, abstract(rows))
    return jax.tree.map(abstract, shapes), arrays, rows


def _traced(
    program: Any,
    state: TrainState,
    arrays: Mapping[str, Any],
    rows: np.ndarray,
    placement: Placement,
    steps_per_dispatch: int,
) -> Any:
    examples = jax.ShapeDtypeStruct(
        (steps_per_dispatch, *rows.shape), rows.dtype, sharding=placement.batch
    )
    return jax.jit(program, donate_argnums=0).trace(
        state, arrays, examples, abstract_span(placement)
    )


def first_batch(task: Task, batch_size: int) -> np.ndarray:
    """Rows of one step: their shape and type are those of every step."""
    return task.order(batch_size=batch_size, seed=0).steps(0, 1, 1)[0]


def place_span(
    placement: Placement, updates: int, spent: float, each: float, total: float
) -> Span:
    """What a dispatch covers, on the devices."""

    def place(value: Any) -> jax.Array:
        return jax.device_put(value, placement.whole)

    numbers = [place(np.float32(value)) for value in (spent, each, total)]
    return Span(place(np.int32(updates)), *numbers)


def abstract_span(placement: Placement) -> Span:
    """The shapes and types of `place_span`."""

    def scalar(dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((), dtype, sharding=placement.whole)

    return Span(scalar(np.int32), *[scalar(np.float32)] * 3)


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
    rows: np.ndarray, programs: Programs, placement: Placement
) -> list[tuple[jax.Array, jax.Array]]:
    """Places a split on the devices as [K, B] groups; the tail has weight 0."""
    groups = grouped_batches(
        rows, programs.batches_per_evaluation, programs.evaluation_batch_size
    )
    return [
        (
            jax.device_put(example_kb, placement.batch),
            jax.device_put(weight_kb, placement.batch),
        )
        for example_kb, weight_kb in groups
    ]


def grouped_batches(
    rows: np.ndarray, batches: int, batch_size: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """A split as groups of `batches` batches, on the host; the tail has weight 0."""
    group = batches * batch_size
    padded = -(-len(rows) // group) * group
    index = np.minimum(np.arange(padded), len(rows) - 1)
    weight = (np.arange(padded) < len(rows)).astype(np.float32)
    shape = (-1, batches, batch_size)
    examples = rows[index].reshape(*shape, *rows.shape[1:])
    return list(zip(examples, weight.reshape(shape), strict=True))
