"""Test splits, scored once, with the best weights, when a run has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxbench.training.loop import score
from jaxbench.training.programs import Programs, evaluation_batches
from jaxbench.training.state import TrainState
from jaxbench.training.step import make_evaluate_program
from jaxbench.xla import OFTEN, compiler_options


def score_finals(
    state: TrainState,
    arrays: Mapping[str, jax.Array],
    programs: Programs,
    check: Callable[[], None],
) -> dict[str, dict[str, float]]:
    """Metrics of every split in the task's `finals`.

    A split whose examples have the form of those that validate is scored by the program
    that validated. Others may have other lengths: each length is a program of its own,
    whose batches hold as many tokens as the training's do. So is the program of one of
    several runs side by side.

    Args:
      state: of one run, with the weights to score.
      arrays: the task's, on the devices.
      programs: of the run.
      check: called before every batch; what it raises ends the scoring.
    """
    task, size = programs.update.task, programs.evaluation_batch_size
    form = task.splits[task.stages[-1].split].shape[1:]
    alike = [name for name in task.finals if task.splits[name].shape[1:] == form]
    if programs.placement.runs > 1:
        alike = []
    scores = {}
    for name in alike:
        batches = evaluation_batches(task.splits[name], programs)
        (scores[name],) = score(state, arrays, programs, batches, check)
    others = [name for name in task.finals if name not in alike]
    if not others:
        return scores
    evaluate = jax.jit(
        make_evaluate_program(programs.update.model, task),
        compiler_options=compiler_options(OFTEN),
    )
    variables = state.evaluation_variables()
    for name in others:
        rows, count = task.splits[name], size
        if rows.shape[1:] != form:
            count = max(1, size * task.tokens_per_example // rows.shape[-1])
        count = min(count, len(rows))
        total: dict[str, np.ndarray] = {}
        for start in range(0, len(rows), count):
            check()
            index = start + np.arange(count)
            weight = (index < len(rows)).astype(np.float32)
            batch = rows[np.minimum(index, len(rows) - 1)]
            sums: Any = evaluate(variables, arrays, batch[None], weight[None])
            for key, value in jax.device_get(sums).items():
                total[key] = total.get(key, 0.0) + np.asarray(value, np.float64)
        scores[name] = task.summarize(total)
    return scores
