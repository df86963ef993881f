"""What recipes share: the text after the colon, and the defaults of every run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxbench.errors import InputError, nearest

# Keys of every recipe, and their values where the recipe says nothing else.
MODEL = {
    "width": 256,  # 0: what follows, or a recipe's size, decides
    "parameters": "",  # of the stack, e.g. 200k: finds the width
    "flops": "",  # of the stack a token, forward, e.g. 400k: finds the width
    "options": "",  # of the mixers: "heads=8 window=16 channel.experts=4"
    "dropout": 0.0,  # on residual branches
    "remat": False,  # recompute activations in the backward pass
}
TRAIN = {
    "batch_size": 64,
    "learning_rate": 1e-3,
    "ssm_learning_rate": 1e-3,  # cap for decays, time steps, state matrices
    "schedule": "cosine",  # constant, cosine, linear, cosine_restarts, ...
    "final_fraction": 0.0,  # of the learning rate, at the end
    "clip_norm": 1.0,
    "weight_decay": 0.01,
    "decay_vectors": False,  # decay biases, norms and SSM parameters too
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "dtype": "float32",  # compute type: float32, bfloat16
    "parameter_dtype": "float32",  # of parameters and Adam's moments
    "ema_decay": 0.0,  # of averaged parameters for evaluation; 0 for none
    "steps_per_dispatch": 16,
    "checkpoint_every": 1000,  # steps, besides each evaluation
    "start_from": "",  # folder of a run, whose best weights are the first ones
    "max_skips": 0,  # updates that may not be finite before the run is over
}
# Each says how wide a model is; who gives one takes back the defaults of the others.
SIZED = ("width", "size", "parameters", "flops")
# Settings that must reach XLA before it starts; see bench/environment.py.
XLA = {
    "platform": "",  # "cpu", "cuda"; "" for the best one there is
    "allocator": "default",  # default, platform, bfc, cuda_async, vmm
    "preallocate": False,  # take the GPU's memory at once
    "memory_fraction": 0.0,  # of the GPU's memory; 0 for XLA's own default
    "memory_limit": 0.0,  # GB a run may need; 0 for what the device has
    "compilation_cache": "~/.cache/jaxbench/xla",  # "" for none
    "flags": "",  # appended to XLA_FLAGS
}


def recipe(
    task: str,
    *,
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    train: Mapping[str, Any],
) -> ConfigDict:
    """A recipe: what one task has, over what all have in common.

    Args:
      task: a name of `jaxbench/tasks/table.py`.
      data: all keys of that section.
      model: at least the backbone, a row of the zoo or a pattern of rows.
      train: at least how long a run is: all of `epochs` and `max_steps` (0 for the one
        that does not count) and `evaluate_every`, or `budget` and `evaluations`; and
        the warm-up, `warmup_steps` or `warmup_fraction`.

    Raises:
      InputError: one of those is missing.
    """
    _check_given(task, model, train)
    config = ConfigDict()
    config.task = task
    config.protocol = "clean"  # clean, compat
    config.seed = 0  # of parameters and of the order of training
    config.purpose = "score"  # score; sweep: a point of a learning-rate curve
    config.data = ConfigDict(dict(data))
    config.model = ConfigDict(MODEL | model)
    config.model.depth = config_dict.placeholder(int)  # None: the row's own
    config.train = ConfigDict(TRAIN | train)
    config.xla = ConfigDict(XLA)
    return config


def _check_given(task: str, model: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    """Refuses a recipe that leaves out what has no default."""
    missing = [] if "backbone" in model else ["model.backbone"]
    length = ("budget",) if "budget" in train else ("epochs", "max_steps")
    missing += [f"train.{key}" for key in length if key not in train]
    for either in (
        ("evaluate_every", "evaluations"),
        ("warmup_steps", "warmup_fraction"),
    ):
        if not set(either) & set(train):
            missing.append(" or ".join(f"train.{key}" for key in either))
    if missing:
        raise InputError(
            f"the recipe of {task!r} lacks {', '.join(missing)}; common.recipe has no "
            "default for it"
        )


def split_argument(argument: str) -> tuple[str, dict[str, str]]:
    """Splits the text after the colon: `backbone,key=value,...`.

    The first item may be bare: it names the backbone or is a pattern of backbones.

    Raises:
      InputError: a later item without `=`, or a key given twice.
    """
    items = [item.strip() for item in argument.split(",") if item.strip()]
    backbone = ""
    if items and "=" not in items[0]:
        backbone = items.pop(0)
    settings: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(
                f"{item!r} in the text after the colon must be key=value; only the "
                "first item, the backbone, stands alone"
            )
        if key in settings:
            raise InputError(f"{key!r} is given twice in {argument!r}")
        settings[key] = value
    return backbone, settings


def apply_settings(config: ConfigDict, settings: dict[str, str]) -> None:
    """Overwrites fields of `config` by key, each value read as its default's type.

    A key is a dotted path (`train.epochs`) or a last part that is unique (`epochs`).
    One that says how wide a model is takes the place of the others.

    Raises:
      InputError: unknown or ambiguous key (nearest keys named), or a value that is
        not of the field's type.
    """
    paths = _leaf_paths(config)
    if {key.rpartition(".")[2] for key in settings} & {*SIZED}:
        for key in {*SIZED} & {*config.model}:
            config.model[key] = type(config.model[key])()
    for key, text in settings.items():
        matches = [p for p in paths if p == key or p.endswith("." + key)]
        if key in paths:
            matches = [key]
        if not matches:
            raise InputError(
                f"unknown key {key!r} in the text after the colon; nearest: "
                f"{nearest(key, {*paths, *(p.rsplit('.', 1)[-1] for p in paths)})}"
            )
        if len(matches) > 1:
            raise InputError(f"key {key!r} is ambiguous: {', '.join(matches)}")
        path = matches[0]
        section = config
        *parents, leaf = path.split(".")
        for parent in parents:
            section = section[parent]
        section[leaf] = _parse(path, text, section.get_type(leaf))


def _leaf_paths(config: ConfigDict, prefix: str = "") -> list[str]:
    paths: list[str] = []
    for name in config:
        value = config[name]
        if isinstance(value, ConfigDict):
            paths += _leaf_paths(value, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def _parse(path: str, text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() in ("true", "yes", "1", "on"):
            return True
        if text.lower() in ("false", "no", "0", "off"):
            return False
    elif kind is str:
        return text
    else:
        try:
            return kind(text)
        except ValueError:
            pass
    raise InputError(f"{path}={text!r} is not of type {kind.__name__}")
