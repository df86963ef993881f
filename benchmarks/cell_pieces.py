"""One row of the zoo on one task: three updates and a validation, compiled in pieces.

A run compiles its whole update as one program, of which the backbone is a tenth: of a
hundred rows on eight tasks nearly all compiling would be of what they share. Here the
same `train_step` is called outside `jax.jit`, on a model whose encoder, stack and head
are compiled apart. Ends are compiled once for a task and used by every row, a stack
once for a row and used by every task of the same shapes, and the optimiser's operations
once for each shape of a parameter. What is computed is what the run computes: the same
first weights, batches, gradients and updates, but for rounding.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from jaxbench.bench import build
from jaxbench.bench.facts import git_revision
from jaxbench.bench.recipe import read_recipe
from jaxbench.errors import InputError
from jaxbench.models.stack import Stack
from jaxbench.tasks.pentathlon.modules import learns_positions
from jaxbench.tasks.task import Batch, Statistics, Task
from jaxbench.training.budget import Budget
from jaxbench.training.loop import score
from jaxbench.training.packed import unpack
from jaxbench.training.programs import Placement, evaluation_batches
from jaxbench.training.state import TrainState, leaf_names
from jaxbench.training.step import Update, train_step

UPDATES, BATCH, WIDTH = 3, 8, 16
# Examples of the validation split, which is cut to them.
VALIDATED = 16
# All tasks but zelda have sequences of this length, so that a stack is compiled once.
TOKENS = 64

_COMMON = f"width={WIDTH},batch_size={BATCH},max_steps={UPDATES}"
_GAME = f"{_COMMON},warmup_steps=1,simulated_games=2"
RECIPES = {
    "zelda": f"{_GAME},stride=100",
    "world": f"{_GAME},window={TOKENS},stride=100",
    "pile": (
        f"width={WIDTH},batch_size={BATCH},budget={UPDATES}steps,window={TOKENS},"
        "validation_bytes=4096"
    ),
    "mqar": (
        f"{_COMMON},level=custom,pairs=4,tokens=32,vocabulary=64,train_examples=0,"
        "test_examples=8"
    ),
    "flip_flop": f"{_COMMON},level=L1,test_examples=8",
    "knapsack": f"{_COMMON},level=L1,test_examples=8",
    "word_problem": f"{_COMMON},level=L1,test_examples=8",
    "edit_distance": f"{_COMMON},level=L1,test_examples=8",
}


def run_cell(row: str, task: str) -> dict[str, Any]:
    """Trains one cell; whatever happens becomes its record.

    Returns:
      "row", "task", "status" (ok, diverged, refused, crashed), "reason", "loss" (of
      each update), "metric" and "validation" (the primary metric), "cpu_seconds",
      "git".
    """
    began = time.process_time()
    record: dict[str, Any] = {"row": row, "task": task, "status": "ok", "reason": ""}
    try:
        record |= _train(row, task)
    except InputError as error:
        record |= {"status": "refused", "reason": str(error)}
    except Exception as error:  # a cell that fails is a cell of the table
        text = (str(error).strip() or "no message").splitlines()[0][:200]
        where = _place(error)
        record |= {
            "status": "crashed",
            "reason": f"{type(error).__name__}: {text} at {where}",
        }
    record["cpu_seconds"] = round(time.process_time() - began, 2)
    return record | {"git": _git()}


def config_of(row: str, task: str) -> dict[str, Any]:
    """The recipe of a cell, as `run.py` would read it."""
    config = read_recipe([f"--config=configs/{task}.py:{row},{RECIPES[task]}"])
    return config | {"xla": config["xla"] | {"compilation_cache": ""}}


def _train(row: str, name: str) -> dict[str, Any]:
    config = config_of(row, name)
    stack = _stack(row)
    asked = "positions" in config["model"] and learns_positions(config["model"])
    task, ends = _task(name, asked)
    model = Pieces(ends, middle_of(stack), task.readout)
    optimizer = build.build_optimizer(config, Budget(UPDATES), lambda line: None)
    order = task.order(batch_size=BATCH, seed=config["seed"])
    rows = order.steps(0, UPDATES, UPDATES)
    parameters_key, run_key = jax.random.split(jax.random.key(config["seed"]))
    variables = model.init(parameters_key, _batch(task, rows[0], np.ones(BATCH)))
    state = TrainState.create(variables, optimizer, run_key, ema=False)
    losses = []
    for update in range(UPDATES):
        state, statistics = train_step(
            state,
            _batch(task, rows[update], np.ones(BATCH)),
            jnp.float32(update / UPDATES),
            Update(model, task, optimizer),
        )
        if int(state.broken_step) >= 0:
            leaf = int(state.broken_leaf)
            what = f"the gradient of {leaf_names(state.params)[leaf]}"
            return {
                "loss": losses,
                "status": "diverged",
                "reason": f"update {update}: {what if leaf >= 0 else 'the loss'} "
                "is not finite",
            }
        losses.append(float(statistics["total_loss"]))
    programs = SimpleNamespace(
        update=Update(model, task, optimizer),
        placement=Placement.of_runs(1),
        evaluate=functools.partial(_evaluate, model, task),
        batches_per_evaluation=1,
        evaluation_batch_size=BATCH,
    )
    validation = evaluation_batches(task.splits["validation"], programs)
    (metrics,) = score(state, task.arrays, programs, validation)
    value = float(metrics[task.primary])
    broken = not math.isfinite(value)
    return {
        "loss": losses,
        "metric": task.primary,
        "validation": None if broken else value,
        "status": "diverged" if broken else "ok",
        "reason": f"validation {task.primary} is {value}" if broken else "",
    }


def _evaluate(
    model: Pieces,
    task: Task,
    variables: Any,
    arrays: Any,
    examples_kb: np.ndarray,
    weight_kb: np.ndarray,
) -> Statistics:
    with jax.transfer_guard("allow"):
        batch = _batch(task, examples_kb[0], weight_kb[0])
        return task.loss(model.apply(unpack(variables), batch)[0], batch)[1]


def _batch(task: Task, examples_b: np.ndarray, weight_b: np.ndarray) -> Batch:
    batch = dict(task.gather(task.arrays, jnp.asarray(examples_b)))
    return batch | {"weight_b": jnp.asarray(weight_b, jnp.float32)}


class Ends(nn.Module):
    """Encoder and head of a task, under the names they have in a `Model`."""

    encoder: nn.Module
    head: nn.Module

    def encode(self, batch: Batch) -> jax.Array:
        """x_btd."""
        return self.encoder(batch)

    def decode(self, h_btd: jax.Array, batch: Batch) -> Any:
        """The head's outputs; the encoder comes first, for it owns what they share."""
        self.encoder(batch)
        return self.head(h_btd, batch)

    def both(self, batch: Batch, last_only: bool) -> Any:
        """Makes every parameter: the stack returns what has the shape it is given."""
        h_btd = self.encoder(batch)
        return self.head(h_btd[:, -1:] if last_only else h_btd, batch)


class Middle(nn.Module):
    """The stack, under the name it has in a `Model`."""

    stack: Stack

    def __call__(self, x_btd: Any, reset_bt: Any, last_only: bool) -> jax.Array:
        """h_btd."""
        return self.stack(x_btd, None, reset_bt, last_only=last_only)[0]


class Piece:
    """A module's methods, each compiled once for its shapes."""

    def __init__(self, module: nn.Module):
        self._module = module
        self._jitted: dict[Any, Callable[..., Any]] = {}

    def init(self, key: Any, method: str, *arguments: Any, **static: Any) -> Any:
        """First weights, drawn as `Model.init` draws them: by their path."""

        def init(key: Any, *arguments: Any) -> Any:
            return self._module.init(key, *arguments, **static, method=method)

        return dict(
            self._compiled(("init", method, *static.items()), init)(key, *arguments)
        )

    def apply(
        self, variables: Any, rngs: Any, method: str, *arguments: Any, **static: Any
    ) -> tuple[Any, Any]:
        """Outputs, and what the module sowed."""

        def apply(variables: Any, rngs: Any, *arguments: Any) -> Any:
            return self._module.apply(
                variables,
                *arguments,
                **static,
                method=method,
                rngs=rngs,
                mutable=["losses", "metrics"],
            )

        compiled = self._compiled((method, *static.items()), apply)
        return compiled(variables, rngs, *arguments)

    def _compiled(self, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._jitted.setdefault(key, jax.jit(function))


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What `train_step` takes for a `Model`."""

    ends: Piece
    middle: Piece
    readout: str

    def init(self, key: jax.Array, batch: Batch) -> dict[str, Any]:
        """The variables that `Model.init` makes."""
        last = self.readout == "last"
        ends = self.ends.init(key, "both", batch, last_only=last)
        x_btd, _ = self.ends.apply(ends, {}, "encode", batch)
        middle = self.middle.init(
            key, "__call__", x_btd, batch.get("reset_bt"), last_only=last
        )
        names = {*ends, *middle} - {"losses", "metrics"}
        return {n: {**ends.get(n, {}), **middle.get(n, {})} for n in names}

    def apply(
        self, variables: Any, batch: Batch, rngs: Any = None, mutable: Any = False
    ) -> Any:
        """((outputs, no state), sown), without `mutable` only the first."""

        def part(inside: bool) -> dict[str, Any]:
            return {
                kind: {k: v for k, v in found.items() if (k == "stack") == inside}
                for kind, found in variables.items()
            }

        ends, rngs = part(False), rngs or {}
        x_btd, first = self.ends.apply(ends, rngs, "encode", batch)
        h_btd, second = self.middle.apply(
            part(True),
            rngs,
            "__call__",
            x_btd,
            batch.get("reset_bt"),
            last_only=self.readout == "last",
        )
        outputs, third = self.ends.apply(ends, rngs, "decode", h_btd, batch)
        if not mutable:
            return outputs, None
        sown = {
            kind: {**first.get(kind, {}), **third.get(kind, {}), **second.get(kind, {})}
            for kind in mutable
        }
        return (outputs, None), {k: v for k, v in sown.items() if flatten_dict(v)}


@functools.lru_cache(maxsize=1)
def _stack(row: str) -> Stack:
    """The stack of a row; it knows nothing of the task."""
    config = config_of(row, "word_problem")
    return build.build_backbone(config)


@functools.lru_cache(maxsize=1)
def middle_of(stack: Stack) -> Piece:
    """The compiled stack of the row that is going on."""
    return Piece(Middle(stack))


@functools.cache
def _task(name: str, learned_positions: bool) -> tuple[Task, Piece]:
    """A task with its functions compiled, its data on the device, and its ends."""
    config = config_of("lstm", name)
    if learned_positions:
        config["model"]["positions"] = "learned"
    task = build.build_task(config, lambda line: None)
    validation = task.splits["validation"][:VALIDATED]
    if not task.arrays and name != "pile":
        task, validation = _padded(task, validation)
    task = dataclasses.replace(
        task,
        arrays=jax.device_put(dict(task.arrays)),
        splits={"validation": validation},
        gather=jax.jit(task.gather),
        loss=jax.jit(task.loss),
    )
    return task, Piece(Ends(task.encoder, task.head))


def _padded(task: Task, validation: np.ndarray) -> tuple[Task, np.ndarray]:
    """Sequences padded on the right, as those of a curriculum's shorter levels are."""
    length = task.tokens_per_example

    def pad(rows: np.ndarray) -> np.ndarray:
        """Nothing is asked in what is added: the target there is IGNORE, -1."""
        added = np.zeros((*rows.shape[:-1], TOKENS - length), rows.dtype)
        added[..., 1, :] = -1
        return np.concatenate([rows, added], axis=-1)

    def order(**given: Any) -> Any:
        own = task.order(**given)
        return SimpleNamespace(
            steps_per_epoch=own.steps_per_epoch,
            steps=lambda *steps: pad(own.steps(*steps)),
        )

    gather: Any = task.gather
    answers = {TOKENS: gather.args[0][length]}
    encoder: Any = task.encoder
    if encoder.positions:
        encoder = encoder.clone(positions=TOKENS)
    padded = dataclasses.replace(
        task,
        encoder=encoder,
        order=order,
        gather=functools.partial(gather.func, answers),
        tokens_per_example=TOKENS,
    )
    return padded, pad(validation)


@functools.cache
def _git() -> str | None:
    return git_revision()


def _place(error: Exception) -> str:
    """File and line of this package that an exception came from."""
    place, trace = "an unknown place", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if "jaxbench/" in path:
            place = f"{path.rpartition('jaxbench/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
