"""Values no run could use, found before jax is loaded and any data is read."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve
from jaxbench.models.row import PUBLISHED, SIZES
from jaxbench.training.budget import parse_budget
from jaxbench.training.records import flatten

TASKS = ("zelda", "pile")
DTYPES = ("float32", "bfloat16")
# A rule holds where the recipe has the key.
CHOICES = {
    "task": TASKS,
    "protocol": ("clean", "compat"),
    "purpose": ("score", "sweep"),
    "data.sampler": ("random", "sequential"),
    "model.head": ("independent", "autoregressive"),
    "model.readout": ("last", "all"),
    "train.dtype": DTYPES,
    "train.parameter_dtype": DTYPES,
}
POSITIVE = (
    "data.window",
    "data.stride",
    "data.simulated_games",
    "train.batch_size",
    "train.steps_per_dispatch",
    "train.learning_rate",
)
NOT_NEGATIVE = (
    "seed",
    "data.split_seed",
    "data.max_files",
    "data.delay",
    "data.workers",
    "data.validation_bytes",
    "model.width",
    "train.epochs",
    "train.max_steps",
    "train.warmup_steps",
    "train.clip_norm",
    "train.weight_decay",
    "train.evaluate_every",
    "train.evaluations",
    "train.checkpoint_every",
    "train.max_skips",
    "xla.memory_limit",
)
FRACTIONS = (
    "data.validation_fraction",
    "model.dropout",
    "train.warmup_fraction",
    "train.ema_decay",
    "train.label_smoothing",
)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuses values that no run could use, before any data is read.

    Raises:
      InputError: naming the key, the value and the rule.
    """

    given = flatten(config)
    for path, valid in CHOICES.items():
        if path in given and given[path] not in valid:
            raise InputError(
                f"{path}={given[path]!r} is unknown; nearest: "
                f"{nearest(str(given[path]), valid)}"
            )
    for path in POSITIVE:
        if path in given and given[path] <= 0:
            raise InputError(f"{path}={given[path]} must be positive")
    for path in NOT_NEGATIVE:
        if path in given and given[path] < 0:
            raise InputError(f"{path}={given[path]} must not be negative")
    for path in FRACTIONS:
        if path in given and not 0 <= given[path] < 1:
            raise InputError(f"{path}={given[path]} must lie in [0, 1)")
    resolve(config["model"]["backbone"]).layers(config["model"]["depth"])
    parse_options(config["model"]["options"])
    _check_length(config["train"])
    _check_size(config["model"])


def _check_length(train: Mapping[str, Any]) -> None:
    """How long a run is, by whichever keys the recipe has for it."""
    if "budget" in train:
        parse_budget(train["budget"])
    elif not (train["epochs"] or train["max_steps"]):
        raise InputError("train.epochs and train.max_steps are both 0; set one")


def _check_size(model: Mapping[str, Any]) -> None:
    """How wide a model is: its width, or a size that decides it."""
    size, width = model.get("size", ""), model["width"]
    if not size and width < 1:
        also = " or model.size" if "size" in model else ""
        raise InputError(f"model.width={width} must be positive; set it{also}")
    if size and width:
        raise InputError(
            f"model.size={size!r} and model.width={width} both say how wide the model "
            "is; set model.size='' to give the width, or model.width=0"
        )
    known = [*SIZES, PUBLISHED]
    if size and size not in known:
        raise InputError(
            f"model.size={size!r} is unknown; nearest: {nearest(size, known)}"
        )


def check_finite(arrays: Mapping[str, Any]) -> None:
    """Refuses data that holds NaN or infinity, naming the first place.

    Raises:
      InputError: the array, the place and the value.
    """
    for name, array in arrays.items():
        values = np.asarray(array)
        if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
            continue
        place = tuple(map(int, np.argwhere(~np.isfinite(values))[0]))
        count = int(np.size(values) - np.isfinite(values).sum())
        raise InputError(
            f"the data holds {values[place]} at {name}{list(place)}, the first of "
            f"{count:,} numbers that are not finite; mend or leave out its source"
        )


def parse_options(text: str) -> dict[str, Any]:
    """Reads options of mixers, `field=value` with spaces between.

    Values are numbers, True, False, or words; what type a field has, its mixer says.

    Raises:
      InputError: an item without `=`, or a field given twice.
    """
    options: dict[str, Any] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(
                f"model.options: {item!r} must be field=value, for example heads=8"
            )
        if name in options:
            raise InputError(f"model.options: {name!r} is given twice in {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options
