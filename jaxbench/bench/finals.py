"""Test splits, scored once, with the best weights, when a run has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxbench.models.model import Model
from jaxbench.tasks.task import Task
from jaxbench.training.state import TrainState
from jaxbench.training.step import make_evaluate_program
from jaxbench.xla import OFTEN, compiler_options


def score_finals(
    model: Model,
    task: Task,
    state: TrainState,
    *,
    batch_size: int,
    report: Callable[[], None],
) -> dict[str, dict[str, float]]:
    """Metrics of every split in `task.finals`.

    Splits may have other lengths than training: each length is a program of its own,
    whose batches hold as many tokens as the training's do.

    Args:
      model, task: what to run.
      state: with the weights to score.
      batch_size: examples of a batch of training's length.
      report: called after every batch.
    """
    evaluate = jax.jit(
        make_evaluate_program(model, task), compiler_options=compiler_options(OFTEN)
    )
    variables = state.evaluation_variables()
    scores = {}
    for name in task.finals:
        rows = task.splits[name]
        tokens = batch_size * task.tokens_per_example
        size = min(max(1, tokens // rows.shape[-1]), len(rows))
        total: dict[str, np.ndarray] = {}
        for start in range(0, len(rows), size):
            index = start + np.arange(size)
            weight = (index < len(rows)).astype(np.float32)
            batch = rows[np.minimum(index, len(rows) - 1)]
            sums: Any = evaluate(variables, {}, batch[None], weight[None])
            for key, value in jax.device_get(sums).items():
                total[key] = total.get(key, 0.0) + np.asarray(value, np.float64)
            report()
        scores[name] = task.summarize(total)
    return scores
