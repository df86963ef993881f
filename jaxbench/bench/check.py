"""Values no run could use, found before jax is loaded and any data is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve

CHOICES = {
    "protocol": ("clean", "compat"),
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
    if not (config["train"]["epochs"] or config["train"]["max_steps"]):
        raise InputError("train.epochs and train.max_steps are both 0; set one")
