"""Weights of a saved state alone, and a first state that has them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from jaxbench.errors import InputError
from jaxbench.training.manifest import check, complete_steps
from jaxbench.training.packed import on_host, pack_like
from jaxbench.training.state import TrainState


def read_weights(
    folder: Path, which: str, expected: Mapping[str, Any]
) -> tuple[Mapping[str, Any], int]:
    """Reads the variables that a run is scored with, and neither moments nor data.

    Args:
      folder: of the run.
      which: "best" or "last".
      expected: trees of shapes by collection, "params" and "constants".

    Returns:
      Variables on the first device, averaged where the run kept an average, and the
      step they were saved at.

    Raises:
      InputError: there is no such state, it is damaged, or its shapes are others.
    """
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
    different = _differences(_described(found), _described(expected))
    if different:
        raise InputError(
            f"the weights of the run {folder} do not fit this model: {different}; give "
            "a run of the same backbone, sizes and task"
        )
    return found, int(read["step"])


def start_from(state: TrainState, folder: Path) -> tuple[TrainState, int]:
    """A first state with the best weights of the run in `folder`, and their step.

    Parameters come from there, the average that is kept of them, and what is never
    trained; moments, step and key are those of `state`.

    Raises:
      InputError: as `read_weights`.
    """
    ours = {"params": on_host(state.params), "constants": state.constants}
    read, step = read_weights(folder, "best", ours)

    def like(mine: Any, theirs: Any) -> Any:
        return jax.tree.map(lambda m, t: np.asarray(t).astype(m.dtype), mine, theirs)

    params = pack_like(state.params, like(ours["params"], read["params"]))
    constants = jax.tree.map(
        lambda mine, theirs: jax.device_put(theirs, mine.sharding),
        state.constants,
        like(state.constants, read["constants"]),
    )
    averaged = not isinstance(state.ema_params, tuple)
    # A copy: donated buffers must not be shared between two leaves.
    average = jax.tree.map(jnp.copy, params) if averaged else ()
    state = state.replace(params=params, constants=constants, ema_params=average)
    return state, step


def _described(tree: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        "/".join(str(entry.key) for entry in path): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The first three leaves that differ, and how many more; "" where none does."""
    names = [k for k in {**expected, **found} if found.get(k) != expected.get(k)]
    told = [
        f"{name} is {found.get(name, 'absent')} there and "
        f"{expected.get(name, 'absent')} here"
        for name in names[:3]
    ]
    return ", ".join(told) + (f", and {len(names) - 3} more" if names[3:] else "")


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
