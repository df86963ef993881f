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
    config = ConfigDict()
    config.task = task
    config.protocol = "clean"  # clean, compat
    config.seed = 0  # of parameters and training examples
    config.purpose = "score"  # score; sweep: a point of a learning-rate curve

    config.data = ConfigDict(dict(compat_data if compat else data))
    if not compat:
        config.data.seed = 0  # of validation and test examples
        config.data.train_examples = 0  # of a fixed set; 0 draws new ones every step
        config.data.test_examples = 0  # at most, of each test split; 0 for all
        config.data.update(data)
    config.model = ConfigDict(
        {
            "backbone": backbone or ("deltanet_report" if compat else "deltanet"),
            "width": 256 if compat else 128,  # 0: parameters or flops decide
            "parameters": "",  # of the stack, e.g. 200k: finds the width
            "flops": "",  # of the stack a token, forward, e.g. 400k: finds the width
            "depth": common.optional_int(),  # None: the row's own
            "options": "",  # of the mixers: "heads=8 channel.multiple=2"
            "positions": "row",  # what the row asks for; none, learned
            "dropout": 0.1 if compat else 0.0,  # residual branches, embedded tokens
            "remat": False,  # recompute activations in the backward pass
        }
    )
    config.train = ConfigDict(
        {
            "epochs": 300 if compat else 0,  # of 1000 examples; compat alone has them
            "max_steps": 0 if compat else 10_000,
            "batch_size": 32 if compat else 64,
            "learning_rate": 3e-4 if compat else 1e-3,
            "ssm_learning_rate": 3e-4 if compat else 1e-3,  # cap for decays, time steps
            "schedule": "constant" if compat else "cosine",
            "final_fraction": 0.0,  # of the learning rate, at the end
            "warmup_fraction": 0.0 if compat else 0.05,  # of the steps
            "clip_norm": 1.0,
            "weight_decay": 0.0 if compat else 0.1,
            "decay_vectors": False,  # decay biases, norms and SSM parameters too
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "dtype": "float32",  # compute type: float32, bfloat16
            "parameter_dtype": "float32",  # of parameters and Adam's moments
            "ema_decay": 0.0,  # of averaged parameters for evaluation; 0 for none
            "steps_per_dispatch": 50,
            "evaluate_every": 0 if compat else 250,  # steps, besides each epoch's end
            "checkpoint_every": 1000,  # steps, besides each evaluation
            "max_skips": 0,  # updates that may not be finite before the run is over
        }
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
    config.xla = common.xla_defaults()
    if not compat:
        config.train.update(dict(train or {}))
    if settings.keys() & {"parameters", "flops"} and "width" not in settings:
        config.model.width = 0
    common.apply_settings(config, settings)
    return config
