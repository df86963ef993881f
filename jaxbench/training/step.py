"""Pure training and evaluation programs: many steps per dispatch, no sync inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict

from jaxbench.models.model import Model
from jaxbench.tasks.task import Batch, Statistics, Task
from jaxbench.training.optimizer import spend
from jaxbench.training.packed import first_broken_leaf, unpack
from jaxbench.training.state import Params, TrainState

# Prefix of the statistics that are means over steps of what mixers sowed.
MODEL_METRICS = "model/"
# Folded into a step's key for `Task.augment`; micro-batches fold in small numbers.
AUGMENT = 2**31 - 1

Arrays = Mapping[str, jax.Array]


class Span(NamedTuple):
    """What a dispatch covers, as scalars on the device.

    Attributes:
      updates: int32, how many to make.
      spent: float32, of the budget at the first of them, in steps or seconds.
      each: float32, what an update is expected to spend.
      total: float32, the whole budget.
    """

    updates: Any
    spent: Any
    each: Any
    total: Any


@dataclasses.dataclass(frozen=True)
class Update:
    """What an update trains, on what and how: the static parts of the train program.

    Attributes:
      model, task, optimizer: its functions.
      ema_decay: decay of the averaged parameters; 0 keeps no average.
      micro_batches: parts the batch is worked through in; they divide it.
      max_skips: non-finite updates to leave out before the run counts as diverged.
    """

    model: Model
    task: Task
    optimizer: optax.GradientTransformation
    ema_decay: float = 0.0
    micro_batches: int = 1
    max_skips: int = 0


TrainProgram = Callable[
    [TrainState, Arrays, jax.Array, Span], tuple[TrainState, Statistics]
]
EvaluateProgram = Callable[[Params, Arrays, jax.Array, jax.Array], Statistics]


def apply_loss(
    model: nn.Module,
    task: Task,
    variables: Params,
    batch: Batch,
    key: jax.Array,
) -> tuple[jax.Array, Statistics]:
    """Computes the training loss of one batch, with dropout and auxiliary losses.

    Returns:
      scalar: the task's loss plus everything the model sowed into "losses".
      statistics: the task's sums, `auxiliary_loss`, and what the model sowed into
        "metrics" under `MODEL_METRICS` and its path.
    """
    dropout, noise = jax.random.split(key)
    (outputs, _), sown = model.apply(
        variables,
        batch,
        rngs={"dropout": dropout, "noise": noise},
        mutable=["losses", "metrics"],
    )
    loss, statistics = task.loss(outputs, batch)
    leaves = jax.tree.leaves(sown.get("losses", {}))
    auxiliary = sum((leaf.astype(jnp.float32) for leaf in leaves), jnp.float32(0))
    statistics = statistics | {"auxiliary_loss": auxiliary}
    return loss + auxiliary, statistics | model_metrics(sown.get("metrics", {}))


def model_metrics(sown: Any) -> dict[str, jax.Array]:
    """Names what mixers sowed by its path; a layer used twice gives the mean."""
    # Sown values are tuples, one entry for each call.
    flat = flatten_dict(sown, sep="/")
    return {
        MODEL_METRICS + path.removeprefix("stack/"): jnp.mean(
            jnp.stack(jax.tree.leaves(values)).astype(jnp.float32)
        )
        for path, values in flat.items()
    }


def loss_and_grads(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    task: Task,
    micro_batches: int,
) -> tuple[jax.Array, Statistics, Params]:
    """Computes the loss of a batch, its statistics and gradient, in micro-batches.

    Micro-batches run one after the other: activations of one are held at a time, and
    the gradient is that of the whole batch but for rounding, other draws of dropout,
    and losses that models sow, which are means over micro-batches (a balance loss is
    not linear in its batch). Micro-batch i takes rows i, i + m, i + 2m, ..., so each
    device keeps the rows it has.
    """

    def loss_of(
        params: Params, part: Batch, key: jax.Array
    ) -> tuple[jax.Array, Statistics]:
        variables = {"params": unpack(params), "constants": state.constants}
        return apply_loss(model, task, variables, part, key)

    grad_of = jax.value_and_grad(loss_of, has_aux=True)
    key = jax.random.fold_in(state.key, state.step)
    if task.augment is not None:
        # The whole batch at once: the same draws for any number of micro-batches.
        batch = task.augment(batch, jax.random.fold_in(key, AUGMENT))
    if micro_batches == 1:
        (loss, statistics), grads = grad_of(state.params, batch, key)
        return loss, statistics, grads

    parts = jax.tree.map(
        lambda x: jnp.swapaxes(
            x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]), 0, 1
        ),
        batch,
    )

    def weighted(part: Batch, index: jax.Array) -> Any:
        (loss, statistics), grads = grad_of(
            state.params, part, jax.random.fold_in(key, index)
        )
        weight = statistics["weight"].astype(jnp.float32)
        grads = jax.tree.map(lambda g: weight * g.astype(jnp.float32), grads)
        return weight * loss, statistics, grads

    def add_part(total: Any, given: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, weighted(*given)), None

    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(weighted, first, jnp.int32(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    given = (parts, jnp.arange(micro_batches))
    (loss, statistics, grads), _ = jax.lax.scan(add_part, zeros, given)
    weight = jnp.maximum(statistics["weight"], 1e-9)
    grads = jax.tree.map(lambda g, p: (g / weight).astype(p.dtype), grads, state.params)
    means = {
        name: value / micro_batches
        for name, value in statistics.items()
        if name == "auxiliary_loss" or name.startswith(MODEL_METRICS)
    }
    return loss / weight, statistics | means, grads


def train_step(
    state: TrainState,
    batch: Batch,
    fraction: jax.Array,
    update: Update,
) -> tuple[TrainState, Statistics]:
    """Makes one update, or none if loss, gradient or new parameters are not finite.

    A non-finite step leaves parameters and optimiser state untouched. The first
    `update.max_skips` of them are skipped and counted; the next one records itself in
    `broken_step` and `broken_leaf`, so the caller holds the last good state.

    Args:
      state: the state after `state.step` updates.
      batch: what the task's `gather` returned, with `weight_b`.
      fraction: of the budget that is spent, for the schedule.
      update: static parts of the program.
    """
    loss, statistics, grads = loss_and_grads(
        state,
        batch,
        model=update.model,
        task=update.task,
        micro_batches=update.micro_batches,
    )
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = update.optimizer.update(
        grads, spend(state.opt_state, fraction), state.params
    )
    params = optax.apply_updates(state.params, updates)
    # A finite gradient may still end in a parameter that is not: one sum for each of
    # the few vectors, and infinities of both signs sum to NaN.
    whole = optax.tree.sum(params)
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & jnp.isfinite(whole)
    skip = ~good & (state.skips < update.max_skips)
    ema_params = (
        ()
        if isinstance(state.ema_params, tuple)
        else optax.incremental_update(params, state.ema_params, 1.0 - update.ema_decay)
    )

    def keep_if_good(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

    new_state = state.replace(
        step=state.step + (good | skip).astype(jnp.int32),
        params=keep_if_good(params, state.params),
        opt_state=keep_if_good(opt_state, state.opt_state),
        ema_params=keep_if_good(ema_params, state.ema_params),
        skips=state.skips + skip.astype(jnp.int32),
        first_skip=jnp.where(skip & (state.skips == 0), state.step, state.first_skip),
        broken_step=jnp.where(good | skip, -1, state.step),
        broken_leaf=jnp.where(good | skip, -1, first_broken_leaf(grads)),
    )
    statistics = statistics | {
        "steps": jnp.float32(1),
        "gradient_norm": grad_norm,
        "total_loss": loss,
    }
    # A broken step's numbers would turn the sums of its dispatch into NaN.
    statistics = jax.tree.map(lambda s: jnp.where(good, s, 0), statistics)
    return new_state, statistics | {"skipped": skip.astype(jnp.float32)}


def make_train_program(update: Update) -> TrainProgram:
    """Builds `(state, arrays, examples_kb, span) -> (state, statistics)`.

    Runs up to `span.updates` <= K updates in one dispatch: windows are gathered from
    the arrays on the device, statistics are summed over the steps, nothing returns to
    the host in between. Stops at the first step that is broken (see `train_step`).
    """

    # jit: so that its shapes and the loop's body are one trace.
    @jax.jit
    def step(
        state: TrainState, arrays: Arrays, examples_b: jax.Array, fraction: jax.Array
    ) -> Any:
        batch = dict(update.task.gather(arrays, examples_b))
        batch["weight_b"] = jnp.ones(examples_b.shape[0], jnp.float32)
        return train_step(state, batch, fraction, update)

    def train(
        state: TrainState, arrays: Arrays, examples_kb: jax.Array, span: Span
    ) -> tuple[TrainState, Statistics]:
        shapes = jax.eval_shape(step, state, arrays, examples_kb[0], span.spent)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def unfinished(carry: Any) -> jax.Array:
            done, state, _ = carry
            return (done < span.updates) & (state.broken_step < 0)

        def body(carry: Any) -> Any:
            done, state, total = carry
            examples_b = jax.lax.dynamic_index_in_dim(examples_kb, done, keepdims=False)
            # In whole steps, exact: dispatches of any length give the same rates.
            fraction = (span.spent + done * span.each) / span.total
            state, statistics = step(state, arrays, examples_b, fraction)
            return done + 1, state, jax.tree.map(jnp.add, total, statistics)

        start = (jnp.zeros((), jnp.int32), state, zeros)
        _, state, statistics = jax.lax.while_loop(unfinished, body, start)
        return state, statistics

    return train


def make_evaluate_program(model: nn.Module, task: Task) -> EvaluateProgram:
    """Builds `(variables, arrays, examples_kb, weight_kb) -> statistics`.

    No dropout, no auxiliary losses; statistics are sums over all K batches, in which
    an example of weight 0 (padding of the last batch) counts nothing.
    """

    @jax.jit
    def step(
        variables: Params, arrays: Arrays, examples_b: jax.Array, weight_b: jax.Array
    ) -> Statistics:
        batch = dict(task.gather(arrays, examples_b)) | {"weight_b": weight_b}
        outputs, _ = model.apply(variables, batch)
        return task.loss(outputs, batch)[1]

    def evaluate(
        variables: Params,
        arrays: Arrays,
        examples_kb: jax.Array,
        weight_kb: jax.Array,
    ) -> Statistics:
        whole = unpack(variables)
        shapes = jax.eval_shape(step, whole, arrays, examples_kb[0], weight_kb[0])
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(total: Statistics, batch: Any) -> tuple[Statistics, None]:
            return jax.tree.map(jnp.add, total, step(whole, arrays, *batch)), None

        return jax.lax.scan(body, zeros, (examples_kb, weight_kb))[0]

    return evaluate
