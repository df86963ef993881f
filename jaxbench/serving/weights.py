"""A finished run's model and weights, without the data they were trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench import build
from jaxbench.bench.trained import read_finished
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.rules import parse_options
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda import controller, imitation
from jaxbench.tasks.zelda import view as views
from jaxbench.training.weights import read_weights

Variables = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class TrainedPolicy:
    """Model, weights and config of a finished run of the clean zelda task.

    Attributes:
      folder: the run's.
      config: its resolved config.
      result: its `result.json`.
      model: encoder, backbone and head.
      variables: to play with, on the first device; averaged where the run kept an
        average.
      step: updates behind the weights.
    """

    folder: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    model: Model
    variables: Variables
    step: int


def load_trained_policy(folder: Path | str, which: str = "best") -> TrainedPolicy:
    """Reads a run's model and the weights it is evaluated with.

    Neither replays nor optimiser state are read: the model follows from the config.

    Args:
      folder: of a finished run of configs/zelda.py, protocol clean.
      which: "best" or "last".

    Raises:
      InputError: no finished run of this version, another task, protocol compat, no
        such checkpoint, one of another model, or weights that are not finite.
    """
    folder = Path(folder)
    if which not in ("best", "last"):
        raise InputError(f"which={which!r} is neither 'best' nor 'last'")
    config, result = read_finished(folder)
    if find(config["task"]).emits != "controller":
        raise InputError(
            f"the run {folder} is of the task {config['task']!r}, which has no "
            "controller to press; give a run of configs/zelda.py"
        )
    if config["protocol"] != "clean":
        raise InputError(
            f"the run {folder} is of protocol {config['protocol']}, which cannot play: "
            "it reads the state after the frame whose input it predicts; train it with "
            "protocol=clean"
        )
    model = build_policy_model(config)
    variables, step = read_weights(folder, which, _shapes(model))
    if not all(np.isfinite(leaf).all() for leaf in _floats(variables)):
        raise InputError(
            f"the {which} weights of the run {folder} are not finite; give another run"
        )
    return TrainedPolicy(folder, config, result, model, variables, step)


def build_policy_model(config: Mapping[str, Any]) -> Model:
    """The model of a zelda run's resolved config, without weights and without data."""
    settings = config["model"]
    encoder, head = imitation.modules(
        config["protocol"],
        width=settings["width"],
        head=settings["head"],
        head_options=parse_options(settings["head_options"], "model.head_options"),
        dtype=build.DTYPES[config["train"]["dtype"]],
    )
    return Model(
        encoder=encoder,
        stack=build.build_backbone(config),
        head=head,
        readout=settings["readout"],
    )


def example_batch(games: int) -> dict[str, jax.Array]:
    """An example batch for the clean encoder and the heads, one frame long."""
    rows = jax.tree.map(jnp.asarray, views.arrays(views.blank(games)))
    labels = jnp.tile(jnp.asarray(controller.NEUTRAL, jnp.int32), (games, 1, 1))
    return views.inputs(rows) | {
        "previous_bta": labels,
        "target_bta": labels,
        "reset_bt": jnp.ones((games, 1), bool),
    }


def _shapes(model: Model) -> dict[str, Any]:
    """Shapes of the variables a checkpoint holds for a model."""
    found = jax.eval_shape(lambda: model.init(jax.random.key(0), example_batch(1)))
    return {name: found.get(name, {}) for name in ("params", "constants")}


def _floats(tree: Any) -> list[np.ndarray]:
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return [
        x.astype(np.float32) for x in leaves if jnp.issubdtype(x.dtype, np.floating)
    ]
