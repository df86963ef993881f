"""A finished language run scored again: on other text, or with its state carried."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.tasks.table import find

# Streams that read side by side, each its own part of the text.
STREAMS = 32


def score_command(options: argparse.Namespace) -> int:
    """Scores every named run and prints a table; returns the exit code.

    Raises:
      InputError: no finished run of this suite, or no such split.
    """
    table = Table(title=f"{options.split} split", title_justify="left")
    table.add_column("run")
    for name in ("bytes", "nats/byte", "bits/byte", "accuracy", "state"):
        table.add_column(name, justify="right")
    for folder in options.folders:
        metrics = score_run(
            folder, split=options.split, carry=options.carry, which=options.which
        )
        table.add_row(
            str(folder),
            f"{metrics['bytes']:,.0f}",
            f"{metrics['nats_per_byte']:.4f}",
            f"{metrics['bits_per_byte']:.4f}",
            f"{metrics['accuracy']:.4f}",
            "carried" if options.carry else "reset every window",
        )
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    return os.EX_OK


def open_language_run(folder: Path) -> Run:
    """Opens a finished run of the suite `pile`.

    Raises:
      InputError: as `open_run`, or the run is of another suite.
    """
    run = open_run(folder)
    if find(run.task.name).emits != "byte":
        raise InputError(
            f"the run {folder} is of the suite {run.task.name!r}, which writes no "
            "text; name a run of configs/pile.py"
        )
    return run


def score_run(
    folder: Path, *, split: str = "test", carry: bool = False, which: str = "best"
) -> dict[str, float]:
    """Scores trained weights on a held-out split, every byte once.

    Args:
      folder: of a finished run; `result.json` gets the answer as
        `scores.<split>`, or `scores.<split>_carried`.
      split: "test" or "validation": the slice of it that the run's config scores.
      carry: whether the state goes on from window to window. The text is then read
        as up to `STREAMS` parts side by side, each of which begins from a new state.
      which: "best" or "last" weights.

    Returns:
      The task's metrics.

    Raises:
      InputError: no finished run, no checkpoint, its data is gone, or no such split.
    """
    run = open_language_run(folder)
    if split not in run.task.splits:
        raise InputError(
            f"--split={split!r}: the run's corpus has {', '.join(run.task.splits)}"
        )
    variables, _ = restore_variables(run, which, one_device())
    streams = STREAMS if carry else 0
    metrics = run.task.summarize(score(run, variables, split, streams))
    name = f"{split}_carried" if carry else split
    write_measurement(folder, ("scores", name), metrics)
    return metrics


def score(run: Run, variables: Any, split: str, streams: int) -> dict[str, Any]:
    """Summed statistics of a split; `streams` 0 resets the state at every window."""
    rows = run.task.splits[split]
    batch = run.config["train"]["batch_size"]
    length = -(-len(rows) // (streams or batch))
    width = streams or batch
    # Windows of a stream follow each other along the first axis.
    index = np.arange(length * width).reshape(width, length).T
    examples = rows[np.minimum(index, len(rows) - 1)]
    weights = (index < len(rows)).astype(np.float32)

    def start(variables: Any) -> Any:
        return run.model.apply(variables, width, method="initial_state")

    def step(variables: Any, state: Any, examples: Any, weight_b: Any) -> Any:
        given = dict(run.task.gather({}, examples)) | {"weight_b": weight_b}
        outputs, state = run.model.apply(variables, given, state)
        return run.task.loss(outputs, given)[1], state

    first = jax.jit(start)(variables)
    run_step = jax.jit(step)
    state, total = first, None
    for examples_bt, weight_b in zip(examples, weights, strict=True):
        sums, after = run_step(variables, state, examples_bt, weight_b)
        state = after if streams else first
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    assert total is not None
    return total
