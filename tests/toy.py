"""A task small enough to train in a test: predict the mean of a window."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.tasks.task import Task

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
    return Task(
        name="toy",
        protocol="clean",
        encoder=Encoder(8),
        head=Head(),
        readout="last",
        arrays={"signal": signal.astype(np.float32)},
        splits={
            "train": np.arange(examples, dtype=np.int32),
            "validation": np.arange(150, 150 + 21, dtype=np.int32),
        },
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
