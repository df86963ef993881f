"""Values no run could use, found before jax is loaded and any data is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve
from jaxbench.models.row import PUBLISHED, SIZES
from jaxbench.tasks.rules import (
    Rule,
    each,
    not_negative,
    number,
    one_of,
    parse_budget,
    parse_count,
    parse_options,
    positive,
    seed,
    within,
)
from jaxbench.tasks.table import find
from jaxbench.training.records import flatten

# Of the keys that recipes of several tasks have; a task adds those of its own. A rule
# holds where the recipe has the key.
RULES: dict[str, Rule] = {
    "protocol": one_of("clean", "compat"),
    "purpose": one_of("score", "sweep"),
    **each("train.dtype train.parameter_dtype", one_of("float32", "bfloat16")),
    **each("train.batch_size train.steps_per_dispatch", positive),
    **each("train.learning_rate train.keep_best goal.evaluations", positive),
    "seed": seed,
    **each("model.width train.epochs train.max_steps", not_negative),
    **each("train.warmup_steps train.clip_norm train.weight_decay", not_negative),
    **each("train.evaluate_every train.evaluations", not_negative),
    **each("train.checkpoint_every train.max_skips", not_negative),
    **each("train.patience train.min_delta xla.memory_limit", not_negative),
    **each("model.dropout train.warmup_fraction", within("[0, 1)")),
    **each("train.ema_decay goal.patience train.b1 train.b2", within("[0, 1)")),
    **each("train.eps train.ssm_learning_rate", positive),
    "train.final_fraction": within("[0, 1]"),
    **each("goal.solved goal.advance", within("(0, 1]")),
}


def check_values(config: Mapping[str, Any]) -> None:
    """Refuses values that no run could use, before any data is read.

    Raises:
      InputError: naming the key, the value and the rule.
    """
    task = find(config["task"])
    given = flatten(config)
    for key, value in given.items():
        if not key.endswith("seed"):
            number(key, value)
    for key, rule in (RULES | dict(task.rules)).items():
        if key in given:
            rule(key, given[key])
    resolve(config["model"]["backbone"]).layers(config["model"]["depth"])
    parse_options(config["model"]["options"])
    task.check(config)
    _check_length(config["train"])
    _check_size(config["model"])


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
    (key,) = given
    if key in ("parameters", "flops"):
        parse_count(f"model.{key}", model[key])
    known = [*SIZES, PUBLISHED]
    if key == "size" and model[key] not in known:
        raise InputError(
            f"model.size={model[key]!r} is unknown; nearest: "
            f"{nearest(model[key], known)}"
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
