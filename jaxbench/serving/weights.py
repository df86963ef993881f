"""A finished run's model and weights, without the data they were trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from jaxbench.bench import build
from jaxbench.bench.trained import read_finished
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.rules import parse_options
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda import controller, imitation
from jaxbench.tasks.zelda import view as views
from jaxbench.training.manifest import check, complete_steps

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
    variables, step = _restore(folder, which, _shapes(model))
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


def _restore(
    folder: Path, which: str, expected: Mapping[str, Any]
) -> tuple[Variables, int]:
    place = (folder / "checkpoints" / which).absolute()  # orbax refuses relative paths
    with _quiet():
        steps = complete_steps(place)
        if not steps:
            raise InputError(
                f"the run {folder} has no checkpoint under {place}; run it again in "
                "another folder"
            )
        check(place / str(steps[-1]))
        state = place / str(steps[-1]) / "state"
        reader = ocp.PyTreeCheckpointer()
        try:
            saved = reader.metadata(state).item_metadata.tree
            # `TrainState.ema_params` is empty where no average was kept.
            averaged = isinstance(saved["ema_params"], dict) and saved["ema_params"]
            params = "ema_params" if averaged else "params"
            device = SingleDeviceSharding(jax.devices()[0])
            wanted = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=device
                ),
                {name: saved[name] for name in (params, "constants", "step")},
            )
            read = reader.restore(
                state,
                args=ocp.args.PyTreeRestore(
                    item=wanted,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                    partial_restore=True,
                ),
            )
        except (ValueError, KeyError, OSError, AttributeError) as error:
            raise InputError(
                f"the checkpoint {state} cannot be read "
                f"({str(error).splitlines()[0][:160]}); run it again in another folder"
            ) from error
        finally:
            reader.close()
    found = {"params": read[params], "constants": read["constants"]}
    if _described(found) != _described(expected):
        raise InputError(
            f"the checkpoint {state} does not fit the run's config.json: "
            f"{_difference(_described(found), _described(expected))}; put the folder's "
            "own files back"
        )
    return found, int(read["step"])


def _described(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    name = next(k for k in {**expected, **found} if found.get(k) != expected.get(k))
    return (
        f"{name} is {found.get(name, 'absent')} there and "
        f"{expected.get(name, 'absent')} in the model"
    )


def _floats(tree: Any) -> list[np.ndarray]:
    leaves = (np.asarray(leaf) for leaf in jax.tree.leaves(tree))
    return [
        x.astype(np.float32) for x in leaves if jnp.issubdtype(x.dtype, np.floating)
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences orbax's warnings about a folder that is only read."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
