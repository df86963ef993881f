"""A task small enough to train in a test: predict the mean of a window."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbench.data.order import EpochOrder
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.tasks.task import Task
from jaxbench.training import loop
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.optimizer import adamw, schedule
from jaxbench.training.outcome import Outcome, TrainingRun, go_on
from jaxbench.training.programs import (
    FirstState,
    Placement,
    compile_programs,
    evaluation_batches,
    first_batch,
    place_span,
)
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.step import Update
from jaxbench.training.writers import MetricWriter

WINDOW = 5


class Encoder(nn.Module):
    width: int

    @nn.compact
    def __call__(self, batch):
        return nn.Dense(self.width)(batch["x_btd"])


class Head(nn.Module):
    @nn.compact
    def __call__(self, h_btd, batch):
        return nn.Dense(1)(h_btd)[:, -1, 0]


def gather(arrays, examples_b):
    index_bt = examples_b[:, None] + jnp.arange(WINDOW)[None]
    x_bt = arrays["signal"][index_bt]
    reset_bt = jnp.zeros(index_bt.shape, bool).at[:, 0].set(True)
    return {"x_btd": x_bt[..., None], "reset_bt": reset_bt, "y_b": x_bt.mean(-1)}


def loss(outputs_b, batch):
    weight_b = batch["weight_b"]
    error_b = (outputs_b - batch["y_b"]) ** 2
    total, count = jnp.sum(weight_b * error_b), jnp.sum(weight_b)
    return total / count, {"error": total, "weight": count}


def summarize(statistics):
    return {"loss": float(statistics["error"] / statistics["weight"])}


def toy_task(examples: int = 64, signal: np.ndarray | None = None) -> Task:
    if signal is None:
        signal = np.random.default_rng(0).normal(size=200)
    rows = np.arange(examples, dtype=np.int32)
    return Task(
        name="toy",
        protocol="clean",
        encoder=Encoder(8),
        head=Head(),
        readout="last",
        arrays={"signal": signal.astype(np.float32)},
        splits={"train": rows, "validation": np.arange(150, 150 + 21, dtype=np.int32)},
        order=functools.partial(EpochOrder, rows),
        gather=gather,
        loss=loss,
        summarize=summarize,
        primary="loss",
        maximize=False,
        tokens_per_example=WINDOW,
        floors={},
        source={"source": "toy"},
    )


def toy_model(task: Task, backbone: str = "mlp", dropout: float = 0.0) -> Model:
    stack = build_stack(backbone, width=8, depth=1, dropout=dropout)
    return Model(encoder=task.encoder, stack=stack, head=task.head, readout="last")


BATCH = 8


def optimizer(rate: float = 1e-2, **overrides) -> optax.GradientTransformation:
    settings = dict(
        shape=schedule("constant"),
        learning_rate=rate,
        ssm_learning_rate=rate,
        weight_decay=0.0,
        decay_vectors=False,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        clip_norm=1.0,
    )
    return adamw(**(settings | overrides))


class Parts:
    """Everything `loop.train` needs, for the toy task."""

    def __init__(
        self,
        *,
        task=None,
        backbone="mlp",
        rate=1e-2,
        dropout=0.0,
        ema=0.0,
        k=4,
        max_skips=0,
    ):
        self.task = task or toy_task()
        self.model = toy_model(self.task, backbone, dropout=dropout)
        self.placement = Placement.over_all_devices(BATCH)
        update = Update(
            *(self.model, self.task, optimizer(rate)),
            ema_decay=ema,
            max_skips=max_skips,
        )
        self.initialize = FirstState(update, self.placement)
        self.programs = compile_programs(
            update,
            self.initialize,
            self.placement,
            batch_size=BATCH,
            steps_per_dispatch=k,
            batches_per_evaluation=2,
        )
        self.order = self.task.order(batch_size=BATCH, seed=3)
        self.arrays = {
            name: jax.device_put(value, self.placement.whole)
            for name, value in self.task.arrays.items()
        }
        self.validation = evaluation_batches(
            self.task.splits["validation"], self.programs
        )

    def start(self):
        rows = jnp.asarray(first_batch(self.task, BATCH))
        return self.initialize(3, self.arrays, rows)

    def span(self, count, total=100):
        return place_span(self.placement, [count], 0.0, 1.0, total)

    def train(self, folder, budget, *, stop=lambda: None, **overrides):
        budget = budget if isinstance(budget, Budget) else Budget(budget)
        folder.mkdir(exist_ok=True)
        checkpoints = Checkpoints(folder / "checkpoints")
        outcome = Outcome()
        if checkpoints.latest_step() is None:
            state, writer = self.start(), MetricWriter(folder)
        else:
            state, facts = checkpoints.restore(self.programs.abstract_state)
            outcome = go_on(checkpoints, int(state.step), facts)
            writer = MetricWriter(folder, resume_step=outcome.step, due=outcome.due)
        settings = dict(evaluate_every=0, checkpoint_every=3) | overrides
        with TrainingProgress(budget.steps or 0) as progress:
            state = loop.train(
                state,
                [TrainingRun([self.order], outcome, checkpoints, writer)],
                self.arrays,
                programs=self.programs,
                lessons=[loop.Lesson("", self.validation)],
                budget=budget,
                progress=progress,
                stop=stop,
                **settings,
            )
        checkpoints.close()
        writer.close()
        return state, outcome
