"""How a task says what its boards show: columns as paths into results, and needs.

A task declares a `TaskBoard` in `jaxbench/tasks/NAME/board.py`; `declared` finds it by
the task's name in a result. Nothing here imports jax: boards are made without it.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxbench.tasks.table import TASKS

# From the content of a result to a value; None where there is none.
Value = Callable[[Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a board.

    Attributes:
      key: its name in CSV and JSON, stable.
      path: where a result holds the value: keys with dots between. A part "*" stands
        for any key, one column each, whose name replaces "*" in `key` and `label`. Or a
        function of the result.
      label: for people, short.
      unit: "" for none, "B" for bytes, "FLOP", "%" for shares from 0 to 1; otherwise
        as it is printed.
      better: "low" or "high" where one is.
      digits: decimals; None for three significant digits.
      group: the view that shows it: "score", "parts", "play", "size", "speed", "cost",
        "export"; "" for the file with all columns alone.
      explain: one sentence for people who do not know it.
      over_seeds: how the values of a row's runs become one: "median", "mean", "max",
        "sum", "share" (of runs of which it is true) or "censored" (the median of times,
        texts such as "> 648" being later than any).
    """

    key: str
    path: str | Value
    label: str
    unit: str = ""
    better: str | None = None
    digits: int | None = None
    group: str = ""
    explain: str = ""
    over_seeds: str = "median"


@dataclasses.dataclass(frozen=True)
class Need:
    """What a reader may want of a backbone.

    Attributes:
      words: as in "which backbone should I use to ...": "predict the next controller".
      column: key of the column that answers; "score" for the one that sorts the board.
      limit: rows at or below it (above, where more is better) will do; None where the
        best is wanted.
      limit_words: of the limit, "a frame of 16.7 ms".
      timed: whether the values are times of one machine, not scores: their order
        depends on what else ran there.
      exact: whether the values are the same for every seed, as a size is.
    """

    words: str
    column: str
    limit: float | None = None
    limit_words: str = ""
    timed: bool = False
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class Published:
    """Numbers that others published, to stand beside ours.

    Attributes:
      header, rows: cells as text, ours among them.
      remarks: what must be known to compare them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskBoard:
    """What the boards of one task show.

    Attributes:
      about: what is learned, as in "which sequence backbone should I use to ...".
      scores: metrics that can sort a board, the one to prefer first. A board is sorted
        by the first that all its runs have.
      maximize: those of `scores` of which more is better.
      labels: name -> (label, unit, digits, sentence) of `scores`.
      columns: besides those of every task.
      headlines: keys of the five columns that a run's last words show after its score.
      needs: in the order of the answer.
      row_options: data options in which rows of one board may differ.
      equal_budget: whether only runs of one budget are compared.
      floors: name in results -> what that predictor does.
      says_not: from the first result to sentences on what scores do not say.
      variant: from a result to words that tell boards of this task apart.
      published: from a board as JSON has it to numbers of others, or None.
    """

    about: str
    scores: tuple[str, ...]
    maximize: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, str, int, str]] = dataclasses.field(
        default_factory=dict
    )
    columns: tuple[Column, ...] = ()
    headlines: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    row_options: tuple[str, ...] = ()
    equal_budget: bool = False
    floors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    says_not: Callable[[Mapping[str, Any]], list[str]] = lambda result: []
    variant: Callable[[Mapping[str, Any]], str] = lambda result: ""
    published: Callable[[Mapping[str, Any]], Published | None] = lambda board: None


# What boards of every task have.
COMMON = (
    Column("rate", "learning_rate", "learning rate", explain="its peak", group="cost"),
    Column(
        "params_total",
        "params.total",
        "all parameters",
        better="low",
        digits=0,
        group="size",
        explain="of the whole model",
    ),
    Column(
        "params_backbone",
        "params.backbone",
        "backbone parameters",
        better="low",
        digits=0,
        group="size",
        explain="parameters without encoder and heads",
    ),
    Column(
        "state_bytes",
        "state_bytes",
        "state",
        "B",
        "low",
        group="size",
        explain="what one stream carries from one input to the next",
    ),
    Column(
        "peak_bytes",
        "memory.peak_bytes",
        "peak memory",
        "B",
        "low",
        group="size",
        explain="most that the process held at once in training",
    ),
    Column(
        "predicted_bytes",
        "memory.predicted_bytes",
        "planned memory",
        "B",
        "low",
        group="size",
        explain="of a training step, by the compiler, before the start",
    ),
    Column(
        "steps_per_s",
        "throughput.steps_per_s",
        "updates",
        "updates/s",
        better="high",
        group="cost",
        explain="updates a second over the whole run, compilation excluded",
    ),
    Column(
        "tokens_per_s",
        "throughput.tokens_per_s",
        "inputs",
        "inputs/s",
        better="high",
        group="cost",
        explain="frames, bytes or tokens a second in training",
    ),
    Column(
        "train_seconds",
        "seconds.train",
        "training",
        "s",
        better="low",
        group="cost",
        explain="seconds of updates, without compilation, start and evaluation",
    ),
    Column(
        "step_flops",
        "step_flops",
        "an update",
        "FLOP",
        "low",
        group="cost",
        explain="operations of an update, as the compiler counts them",
    ),
    Column("steps", "steps", "updates", digits=0, group="cost"),
    Column("examples", "examples", "examples", digits=0, group="cost"),
    Column("best_step", "best.step", "best at", digits=0, group="parts"),
)


def declared(task: str) -> TaskBoard | None:
    """What the boards of a task show; None for a task that declares nothing.

    The declaration is `BOARD` in the module `board` beside the task's description.
    """
    package = TASKS.get(task, task).rpartition(".")[0]
    if not package:
        return None
    try:
        return importlib.import_module(f"{package}.board").BOARD
    except ModuleNotFoundError as error:
        if not f"{package}.board.".startswith(f"{error.name}."):
            raise
        return None
