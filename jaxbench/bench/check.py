"""Values no run could use, found before jax is loaded and any data is read."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve

CHOICES = {
    "protocol": ("clean", "compat"),
    "purpose": ("score", "sweep"),
    "model.head": ("independent", "autoregressive"),
    "model.readout": ("last", "all"),
    "train.dtype": ("float32", "bfloat16"),
}
POSITIVE = (
    "data.window",
    "data.stride",
    "data.simulated_games",
    "model.width",
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
    "train.epochs",
    "train.max_steps",
    "train.warmup_steps",
    "train.clip_norm",
    "train.weight_decay",
    "train.evaluate_every",
    "train.checkpoint_every",
    "xla.memory_limit",
)
FRACTIONS = (
    "data.validation_fraction",
    "model.dropout",
    "train.ema_decay",
    "train.label_smoothing",
)


def check_values(config: Mapping[str, Any]) -> None:
    """Refuses values that no run could use, before any data is read.

    Raises:
      InputError: naming the key, the value and the rule.
    """

    def value(path: str) -> Any:
        found: Any = config
        for part in path.split("."):
            found = found[part]
        return found

    for path, valid in CHOICES.items():
        if value(path) not in valid:
            raise InputError(
                f"{path}={value(path)!r} is unknown; nearest: "
                f"{nearest(str(value(path)), valid)}"
            )
    for path in POSITIVE:
        if value(path) <= 0:
            raise InputError(f"{path}={value(path)} must be positive")
    for path in NOT_NEGATIVE:
        if value(path) < 0:
            raise InputError(f"{path}={value(path)} must not be negative")
    for path in FRACTIONS:
        if not 0 <= value(path) < 1:
            raise InputError(f"{path}={value(path)} must lie in [0, 1)")
    resolve(config["model"]["backbone"]).layers(config["model"]["depth"])
    parse_options(config["model"]["options"])
    if not (config["train"]["epochs"] or config["train"]["max_steps"]):
        raise InputError("train.epochs and train.max_steps are both 0; set one")


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
