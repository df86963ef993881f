"""Values no run could use, found before jax is loaded and any data is read."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve
from jaxbench.models.row import PUBLISHED, SIZES
from jaxbench.tasks.zelda.chunks import options as chunks
from jaxbench.training.budget import parse_budget
from jaxbench.training.records import flatten

TASKS = (
    *("zelda", "pile", "world"),
    *("mqar", "flip_flop", "knapsack", "word_problem", "edit_distance"),
)
DTYPES = ("float32", "bfloat16")
# What a letter behind a count multiplies it by.
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# A rule holds where the recipe has the key.
CHOICES = {
    "task": TASKS,
    "protocol": ("clean", "compat"),
    "purpose": ("score", "sweep"),
    "data.sampler": ("random", "sequential"),
    "data.filler": ("zero", "random"),
    "data.group": ("A5", "A4xZ5", "Z60"),
    "model.positions": ("row", "none", "learned"),
    "model.head": ("independent", "autoregressive", *chunks.DEFAULTS),
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
    "train.keep_best",
    "goal.evaluations",
)
NOT_NEGATIVE = (
    "seed",
    "data.split_seed",
    "data.max_files",
    "data.delay",
    "data.max_delay",
    "data.noise_scale",
    "data.workers",
    "data.validation_bytes",
    "data.seed",
    "data.train_examples",
    "data.test_examples",
    "data.pairs",
    "data.tokens",
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
    "train.patience",
    "train.min_delta",
    "xla.memory_limit",
)
FRACTIONS = (
    "data.validation_fraction",
    "model.dropout",
    "train.warmup_fraction",
    "train.ema_decay",
    "train.label_smoothing",
    "goal.patience",
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
    for path in ("data.mirror", "data.noise"):
        if path in given and not 0 <= given[path] <= 1:
            raise InputError(f"{path}={given[path]} must lie in [0, 1]")
    for path in ("goal.solved", "goal.advance"):
        if path in given and not 0 < given[path] <= 1:
            raise InputError(f"{path}={given[path]} must lie in (0, 1]")
    resolve(config["model"]["backbone"]).layers(config["model"]["depth"])
    parse_options(config["model"]["options"])
    _check_head(config)
    _check_length(config["train"])
    _check_size(config["model"])


def _check_head(config: Mapping[str, Any]) -> None:
    """The options of the head, and whether its protocol has what it learns."""
    model = config["model"]
    if "head" not in model:
        return
    given = parse_options(model.get("head_options", ""), "model.head_options")
    chunks.resolve(model["head"], given)
    if model["head"] in chunks.DEFAULTS and config["protocol"] != "clean":
        raise InputError(
            f"model.head={model['head']} needs protocol=clean: compat's windows do not "
            "say where a game ends, so there are no chunks; use head=independent"
        )


def _check_length(train: Mapping[str, Any]) -> None:
    """How long a run is, by whichever keys the recipe has for it."""
    if "budget" in train:
        parse_budget(train["budget"])
    elif not (train["epochs"] or train["max_steps"]):
        raise InputError("train.epochs and train.max_steps are both 0; set one")


def _check_size(model: Mapping[str, Any]) -> None:
    """How wide a model is: its width, or what decides it; never both."""
    keys = [key for key in ("width", "size", "parameters", "flops") if key in model]
    given = [key for key in keys if model[key]]
    if not given:
        others = [f"model.{key}" for key in keys if key != "width"]
        also = "".join(f" or {key}" for key in others)
        raise InputError(f"model.width=0 must be positive; set it{also}")
    if len(given) > 1:
        unset = {"width": "model.width=0"}
        said = " and ".join(f"model.{key}={model[key]!r}" for key in given)
        keep = " or ".join(unset.get(key, f"model.{key}=''") for key in given)
        raise InputError(
            f"{said} {'both' if len(given) == 2 else 'all'} say how wide the model is; "
            f"keep one of them: set {keep}"
        )
    for key in ("parameters", "flops"):
        if model.get(key):
            parse_count(f"model.{key}", model[key])
    size = model.get("size", "")
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


def parse_count(name: str, text: str) -> int:
    """Reads "200k", "1.5m", "2g" or "2000000" as a number.

    Args:
      name: of the key, for the message.
      text: a number, with k, m or g for thousands, millions or 10^9 of them.

    Raises:
      InputError: anything else, or no whole number of at least 1.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmg]?)", text.strip().lower())
    value = Decimal(found[1]) * UNITS[found[2]] if found else Decimal(0)
    if value < 1 or value % 1:
        raise InputError(
            f"{name}={text!r} must be a number such as 200k, 1.5m or 2000000"
        )
    return int(value)


def parse_options(text: str, key: str = "model.options") -> dict[str, Any]:
    """Reads options of mixers, `field=value` with spaces between.

    Values are numbers, True, False, or words; what type a field has, its mixer says.

    Args:
      text: the options.
      key: of the config, for the messages.

    Raises:
      InputError: an item without `=`, or a field given twice.
    """
    options: dict[str, Any] = {}
    for item in text.split():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise InputError(
                f"{key}: {item!r} must be field=value, for example heads=8"
            )
        if name in options:
            raise InputError(f"{key}: {name!r} is given twice in {text!r}")
        try:
            options[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            options[name] = value
    return options
