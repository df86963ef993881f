"""From a resolved config to the parts of a run: task, model, optimiser."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax

from jaxbench.bench.check import parse_count, parse_options
from jaxbench.bench.events import EVENTS, build_event, build_original
from jaxbench.data import replays
from jaxbench.data.corpus.read import open_corpus
from jaxbench.data.game import Game
from jaxbench.data.simulation.record import simulate_replays
from jaxbench.models.backbone import resolve
from jaxbench.models.build import build_stack
from jaxbench.models.matching import match_flops, match_parameters
from jaxbench.models.model import Model
from jaxbench.models.sizes import solve
from jaxbench.models.stack import Stack
from jaxbench.tasks.pentathlon import original, sequence
from jaxbench.tasks.pentathlon.curriculum import parse_levels
from jaxbench.tasks.pile import language
from jaxbench.tasks.task import Order, Task
from jaxbench.tasks.world import next_frame
from jaxbench.tasks.zelda import imitation
from jaxbench.tasks.zelda.augment import Augment
from jaxbench.training.budget import Budget, read_budget
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.optimizer import adamw, schedule
from jaxbench.training.programs import FirstState, Placement
from jaxbench.training.step import Update

Config = Mapping[str, Any]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_task(config: Config, say: Callable[[str], None]) -> Task:
    """Reads or simulates the data and builds the task.

    Raises:
      InputError: data that cannot be used.
    """
    named = {"zelda": _zelda, "pile": _pile, "world": _world}
    builders = named | dict.fromkeys(EVENTS, _event)
    return builders[config["task"]](config, say)


def _event(config: Config, say: Callable[[str], None]) -> Task:
    del say
    data, model = config["data"], config["model"]
    shared = {
        "level": data["level"],
        "width": model_shape(config)[0],
        "positions": _positions(model),
        "dropout": model["dropout"],
        "dtype": DTYPES[config["train"]["dtype"]],
    }
    if config["protocol"] == "compat":
        return original.build(build_original(config), seed=config["seed"], **shared)
    return sequence.build(
        build_event(config),
        seed=data["seed"],
        train_examples=data["train_examples"],
        test_examples=data["test_examples"],
        **shared,
    )


def _positions(model: Mapping[str, Any]) -> str:
    """Whether tokens get learned positions; "row" is what the backbone asks for."""
    if model["positions"] != "row":
        return model["positions"]
    asked = resolve(model["backbone"]).learned_positions
    return "learned" if asked else "none"


def _pile(config: Config, say: Callable[[str], None]) -> Task:
    data = config["data"]
    if not data["corpus"]:
        say("no data.corpus: reading Python's own sources (results will say so)")
    corpus = open_corpus(
        data["corpus"],
        splits=data["splits"],
        cache=Path(data["cache"]).expanduser() if data["cache"] else None,
        say=say,
    )
    return language.build(
        corpus,
        protocol=config["protocol"],
        width=model_shape(config)[0],
        window=data["window"],
        sampler=data["sampler"],
        validation_bytes=data["validation_bytes"],
        dtype=DTYPES[config["train"]["dtype"]],
    )


def _games(
    data: Config, say: Callable[[str], None]
) -> tuple[list[Game], dict[str, Any]]:
    """The games that `data` names, simulated where it names none, and what they are."""
    cache = Path(data["cache"]).expanduser() if data["cache"] else None
    with tempfile.TemporaryDirectory() as scratch:
        if data["replays"]:
            folder = Path(data["replays"]).expanduser()
            replay_source: Path | list[Path] = folder
            source: dict[str, Any] = {"source": "replays", "folder": folder.name}
        else:
            say("no data.replays: simulating games (results will say so)")
            anyone = data["character"].strip().lower() == "any"
            replay_source = simulate_replays(
                (cache or Path(scratch)) / "simulated",
                games=data["simulated_games"],
                seed=data["split_seed"],
                character="zelda" if anyone else data["character"],
            )
            source = {"source": "simulated"}
        games, outcomes = replays.load_replays(
            replay_source,
            max_files=data["max_files"],
            workers=data["workers"],
            cache_dir=cache,
        )
    source["files"] = len(outcomes)
    source["skipped"] = {
        Path(o.name).name: o.reason for o in outcomes if o.status == "skipped"
    }
    return games, source


def _zelda(config: Config, say: Callable[[str], None]) -> Task:
    data, model, train = config["data"], config["model"], config["train"]
    games, source = _games(data, say)
    return imitation.build(
        games,
        protocol=config["protocol"],
        character=data["character"],
        width=model["width"],
        window=data["window"],
        stride=data["stride"],
        delay=data["delay"],
        readout=model["readout"],
        head=model["head"],
        head_options=head_options(model),
        validation_fraction=data["validation_fraction"],
        seed=data["split_seed"],
        drop_idle=data["drop_idle"],
        dtype=DTYPES[train["dtype"]],
        label_smoothing=train["label_smoothing"],
        focal_gamma=train["focal_gamma"],
        button_weight=train["button_weight"],
        stick_edge_weight=train["stick_edge_weight"],
        # Runs of older versions have none of these.
        max_delay=data.get("max_delay", 0),
        augment=Augment(
            mirror=data.get("mirror", 0.0),
            noise=data.get("noise", 0.0),
            noise_scale=data.get("noise_scale", 0.0),
        ),
        source=source,
    )


def _world(config: Config, say: Callable[[str], None]) -> Task:
    data, model = config["data"], config["model"]
    games, source = _games(data, say)
    return next_frame.build(
        games,
        protocol=config["protocol"],
        character=data["character"],
        width=model["width"],
        window=data["window"],
        stride=data["stride"],
        residual=model["residual"],
        validation_fraction=data["validation_fraction"],
        seed=data["split_seed"],
        dtype=DTYPES[config["train"]["dtype"]],
        source=source,
    )


def head_options(model: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the configured head; runs of older versions have none.

    Raises:
      InputError: text that is no options.
    """
    return parse_options(model.get("head_options", ""), "model.head_options")


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
    elif model.get("parameters"):
        count = parse_count("model.parameters", model["parameters"])
        shape = match_parameters(name, count, **given)
    else:
        count = parse_count("model.flops", model["flops"])
        shape = match_flops(name, count, length=_sequence_length(config), **given)
    return shape.width, shape.depth, dict(shape.options)


def _sequence_length(config: Config) -> int:
    """Tokens of the longest sequence that a synthetic task trains on."""
    event = build_event(config)
    levels = parse_levels(config["data"]["level"], event.levels)
    return max(event.length(level) for level in levels)


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
    return config["task"] == "pile" and config["protocol"] == "compat"


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


def evaluate_every(config: Config, budget: Budget) -> float:
    """Steps, or seconds, between two validations."""
    train = config["train"]
    if "evaluations" not in train:
        return train["evaluate_every"]
    if not train["evaluations"]:
        return 0
    every = budget.total / train["evaluations"]
    return every if budget.unit == "seconds" else math.ceil(every)


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
