"""From a resolved config to the parts of a run: task, model, optimiser."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.models.sizes import match, solve
from jaxbench.models.stack import Stack
from jaxbench.tasks.rules import parse_count, parse_options
from jaxbench.tasks.table import find
from jaxbench.tasks.task import Order, Task
from jaxbench.training.budget import Budget, read_budget
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.meter import PASSES_OF_AN_UPDATE
from jaxbench.training.optimizer import adamw, schedule
from jaxbench.training.programs import FirstState, Placement
from jaxbench.training.step import Update

Config = Mapping[str, Any]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_task(config: Config, say: Callable[[str], None]) -> Task:
    """Reads or makes the data and builds the task.

    Raises:
      InputError: data that cannot be used.
    """
    return find(config["task"]).build(config, model_shape(config)[0], say)


def model_shape(config: Config) -> tuple[int, int | None, dict[str, Any]]:
    """Width, depth (None: the row's own) and options of the configured model.

    Raises:
      InputError: an unknown backbone or option, or a size, a number of parameters or
        of FLOPs that no width reaches.
    """
    model = config["model"]
    name, options = model["backbone"], parse_options(model["options"])
    given: dict[str, Any] = {"depth": model["depth"], "options": options}
    if model["width"]:
        return model["width"], model["depth"], options
    if model.get("size"):
        shape = solve(name, model["size"], compat=_as_published(config), **given)
    elif model["parameters"]:
        count = parse_count("model.parameters", model["parameters"])
        shape = match(name, count, **given)
    else:
        count = parse_count("model.flops", model["flops"])
        length = find(config["task"]).positions(config)
        shape = match(name, count, length=length, **given)
    return shape.width, shape.depth, dict(shape.options)


def build_backbone(config: Config) -> Stack:
    """Builds the configured stack.

    Raises:
      InputError: an unknown backbone or option, or a value that cannot be.
    """
    width, depth, options = model_shape(config)
    return build_stack(
        config["model"]["backbone"],
        width=width,
        depth=depth,
        dropout=config["model"]["dropout"],
        dtype=DTYPES[config["train"]["dtype"]],
        remat=config["model"]["remat"],
        options=options,
        compat=_as_published(config),
    )


def _as_published(config: Config) -> bool:
    """Whether rows are built with the faults of their byte-level publication."""
    return config["protocol"] == "compat" and find(config["task"]).emits == "byte"


def build_model(stack: Stack, task: Task) -> Model:
    """Wraps a backbone in the task's encoder and head."""
    return Model(
        encoder=task.encoder, stack=stack, head=task.head, readout=task.readout
    )


def build_budget(config: Config, task: Task, order: Order) -> Budget:
    """How long the configured run is.

    Raises:
      InputError: nothing at all, or a budget that cannot be read.
    """
    train = config["train"]
    if "budget" in train:
        return read_budget(
            train["budget"],
            batch_size=train["batch_size"],
            tokens_per_example=task.tokens_per_example,
        )
    steps = train["epochs"] * order.steps_per_epoch
    if train["max_steps"]:
        steps = min(steps or sys.maxsize, train["max_steps"])
    return Budget(steps)


def build_goal(
    config: Config, task: Task, budget: Budget
) -> Goal | EarlyStopping | None:
    """What ends a run before its budget; None where the recipe has nothing that does.

    Thresholds are shares of what the best predictor reaches.
    """
    if config["train"].get("patience"):
        return EarlyStopping(
            metric=task.primary,
            maximize=task.maximize,
            patience=config["train"]["patience"],
            min_delta=config["train"]["min_delta"],
        )
    if "goal" not in config:
        return None
    goal, ceiling = config["goal"], task.ceiling[task.primary]
    return Goal(
        metric=task.primary,
        threshold=goal["solved"] * ceiling,
        advance=goal["advance"] * ceiling,
        evaluations=goal["evaluations"],
        patience=int(goal["patience"] * budget.total),
        stop=goal["stop"],
    )


def evaluate_every(config: Config, budget: Budget, task: Task) -> float:
    """Steps, or seconds, between two validations.

    They are fewer than `train.evaluations` where they would cost more than
    `train.evaluation_share` of a budget of steps; of one of seconds, the loop sees to
    it.
    """
    train = config["train"]
    if "evaluations" not in train:
        return train["evaluate_every"]
    if not train["evaluations"]:
        return 0
    count, share = train["evaluations"], train["evaluation_share"]
    if budget.unit == "seconds":
        return budget.total / count
    if share:
        rows = len(task.splits[task.stages[-1].split])
        updates = rows / train["batch_size"] / PASSES_OF_AN_UPDATE
        count = max(1, min(count, round(share * budget.total / updates)))
    return math.ceil(budget.total / count)


def build_update(
    config: Config,
    model: Model,
    task: Task,
    budget: Budget,
    say: Callable[[str], None],
    *,
    micro_batches: int = 1,
) -> Update:
    """What an update of the configured run computes; `model` may differ in remat."""
    return Update(
        model,
        task,
        build_optimizer(config, budget, say),
        ema_decay=config["train"]["ema_decay"],
        micro_batches=micro_batches,
        max_skips=config["train"]["max_skips"],
    )


def build_first_state(
    config: Config, update: Update, placement: Placement
) -> FirstState:
    """What makes first states of the configured run, at `placement`."""
    return FirstState(update, placement, DTYPES[config["train"]["parameter_dtype"]])


def build_optimizer(
    config: Config, budget: Budget, say: Callable[[str], None]
) -> optax.GradientTransformation:
    """Builds the optax chain of a run."""
    train = config["train"]
    shape = schedule(
        train["schedule"],
        warmup=_warmup(train, budget, say),
        final_fraction=train["final_fraction"],
    )
    return adamw(
        shape=shape,
        learning_rate=train["learning_rate"],
        ssm_learning_rate=min(train["learning_rate"], train["ssm_learning_rate"]),
        weight_decay=train["weight_decay"],
        decay_vectors=train["decay_vectors"],
        b1=train["b1"],
        b2=train["b2"],
        eps=train["eps"],
        clip_norm=train["clip_norm"],
    )


def _warmup(
    train: Mapping[str, Any], budget: Budget, say: Callable[[str], None]
) -> float:
    """The part of the budget that is warm-up; a tenth where its steps do not fit."""
    if "warmup_fraction" in train:
        return train["warmup_fraction"]
    warmup = train["warmup_steps"]
    if warmup < budget.total or train["schedule"] == "constant":
        return warmup / budget.total
    shorter = budget.total // 10
    say(
        f"train.warmup_steps={warmup} does not fit {budget.total:.0f} steps; "
        f"warming up for {shorter:.0f}"
    )
    return shorter / budget.total
