"""From a resolved config to the parts of a run: task, model, optimiser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax

from jaxbench.bench.check import parse_options
from jaxbench.data import replays
from jaxbench.data.simulation.record import simulate_replays
from jaxbench.errors import InputError, nearest
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.models.stack import Stack
from jaxbench.tasks.task import Task
from jaxbench.tasks.zelda import imitation
from jaxbench.training.optimizer import adamw, schedule

Config = Mapping[str, Any]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_task(config: Config, say: Callable[[str], None]) -> Task:
    """Reads or simulates the data and builds the task.

    Raises:
      InputError: an unknown task, or data that cannot be used.
    """
    builders = {"zelda": _zelda}
    if config["task"] not in builders:
        raise InputError(
            f"task={config['task']!r} is unknown; nearest: "
            f"{nearest(config['task'], builders)}"
        )
    return builders[config["task"]](config, say)


def _zelda(config: Config, say: Callable[[str], None]) -> Task:
    data, model, train = config["data"], config["model"], config["train"]
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
        validation_fraction=data["validation_fraction"],
        seed=data["split_seed"],
        drop_idle=data["drop_idle"],
        dtype=DTYPES[train["dtype"]],
        label_smoothing=train["label_smoothing"],
        focal_gamma=train["focal_gamma"],
        button_weight=train["button_weight"],
        stick_edge_weight=train["stick_edge_weight"],
        source=source,
    )


def build_backbone(config: Config) -> Stack:
    """Builds the configured stack.

    Raises:
      InputError: an unknown backbone or option, or a value that cannot be.
    """
    model = config["model"]
    return build_stack(
        model["backbone"],
        width=model["width"],
        depth=model["depth"],
        dropout=model["dropout"],
        dtype=DTYPES[config["train"]["dtype"]],
        remat=model["remat"],
        options=parse_options(model["options"]),
    )


def build_model(stack: Stack, task: Task) -> Model:
    """Wraps a backbone in the task's encoder and head."""
    return Model(
        encoder=task.encoder, stack=stack, head=task.head, readout=task.readout
    )


def build_optimizer(
    config: Config, total_steps: int, warmup_steps: int
) -> optax.GradientTransformation:
    """Builds the optax chain for a run of `total_steps` updates."""
    train = config["train"]
    shape = schedule(
        train["schedule"],
        learning_rate=1.0,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
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
