"""What the recipes of the five synthetic tasks share: model, training, goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import common


def recipe(
    task: str,
    argument: str,
    *,
    data: Mapping[str, Any],
    compat_data: Mapping[str, Any],
    train: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """A recipe of one task.

    Args:
      task: its name.
      argument: the text after the colon.
      data: its own keys of `config.data`.
      compat_data: those under `protocol=compat`.
      train: where its training differs from what is written here.
    """
    backbone, settings = common.split_argument(argument)
    compat = settings.get("protocol") == "compat"
    if not compat:
        data = {
            "seed": 0,  # of validation and test examples
            "train_examples": 0,  # of a fixed set; 0 draws new ones every step
            "test_examples": 0,  # at most, of each test split; 0 for all
            **data,
        }
    rate = 3e-4 if compat else 1e-3
    config = common.recipe(
        task,
        data=compat_data if compat else data,
        model={
            "backbone": backbone or ("deltanet_report" if compat else "deltanet"),
            "width": 256 if compat else 128,
            "positions": "row",  # what the row asks for; none, learned
            "dropout": 0.1 if compat else 0.0,  # residual branches, embedded tokens
        },
        train={
            "epochs": 300 if compat else 0,  # of 1000 examples; compat alone has them
            "max_steps": 0 if compat else 10_000,
            "batch_size": 32 if compat else 64,
            "learning_rate": rate,
            "ssm_learning_rate": rate,
            "schedule": "constant" if compat else "cosine",
            "warmup_fraction": 0.0 if compat else 0.05,  # of the steps
            "weight_decay": 0.0 if compat else 0.1,
            "steps_per_dispatch": 50,
            "evaluate_every": 0 if compat else 250,  # steps, besides each epoch's end
            **({} if compat else train or {}),
        },
    )
    config.goal = ConfigDict(
        {
            "solved": 0.8 if compat else 0.99,  # of the ceiling
            "advance": 0.9,  # of the ceiling, to the next level of a curriculum
            "evaluations": 1 if compat else 3,  # in a row
            "patience": 0.0
            if compat
            else 0.5,  # of the steps, without gain; 0: endless
            "stop": not compat,  # end a run that has reached its goal
        }
    )
    common.apply_settings(config, settings)
    return config
