"""Ensembles of runs of configs/world.py that differ in their seed alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxbench.bench.defaults import identity
from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    read_finished,
    restore_variables,
)
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.table import find
from jaxbench.tasks.world.frame import Scales

# Members may differ in these.
_FREE = ("seed", "purpose", "model.remat")


@dataclasses.dataclass(frozen=True)
class World:
    """An ensemble of M world models with the same architecture and scales.

    Attributes:
      model: encoder, backbone and head, the same for all.
      variables: of the members, every leaf with a leading axis [M].
      scales: of the task they were trained on.
      residual: whether the head predicts the change to the next frame.
    """

    model: Model
    variables: Any
    scales: Scales
    residual: bool

    @classmethod
    def of(
        cls, model: Model, members: Sequence[Any], scales: Scales, residual: bool
    ) -> World:
        """Stacks the members' variables, one or more."""
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        return cls(model, stacked, scales, residual)

    @property
    def members(self) -> int:
        """Number of members, M."""
        return int(jax.tree.leaves(self.variables)[0].shape[0])


def load(folders: Sequence[Path], which: str = "best") -> tuple[World, Run]:
    """Reads finished runs as the members of one ensemble.

    Args:
      folders: of the runs.
      which: "best" or "last" weights.

    Returns:
      The world, and the first run, whose task holds the data of them all.

    Raises:
      InputError: no finished run, one of another task, its data is gone or changed, or
        runs that differ in more than their seed.
    """
    found = [_read(folder) for folder in folders]
    for folder, (config, result) in zip(folders[1:], found[1:], strict=True):
        _require_the_same(folders[0], found[0], folder, (config, result))
    names = [folder.resolve() for folder in folders]
    twice = next(
        (f for f, n in zip(folders, names, strict=True) if names.count(n) > 1), None
    )
    if twice is not None:
        raise InputError(f"the run {twice} is named twice; name each member once")
    first = open_run(folders[0])
    members = []
    for folder, (config, result) in zip(folders, found, strict=True):
        run = dataclasses.replace(first, folder=folder, config=config, result=result)
        members.append(restore_variables(run, which, one_device())[0])
    world = World.of(
        first.model,
        members,
        Scales.of(first.task.arrays),
        first.config["model"]["residual"],
    )
    return world, first


def _read(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    config, result = read_finished(folder)
    if find(config["task"]).emits != "frame":
        raise InputError(
            f"the run {folder} is of the task {config['task']!r}, which predicts no "
            "frames; give a run of configs/world.py"
        )
    return config, result


def _require_the_same(
    folder: Path,
    given: tuple[Mapping[str, Any], Mapping[str, Any]],
    other: Path,
    found: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> None:
    """Refuses members of other data, another model or other training."""
    prints = [
        str((result["data"] or {}).get("fingerprint")) for _, result in (given, found)
    ]
    if prints[0] != prints[1]:
        raise InputError(
            f"the runs {folder} and {other} are of different data (fingerprints "
            f"{prints[0][:12]} and {prints[1][:12]}), so of different scales; an "
            "ensemble needs runs that differ in seed alone"
        )
    kept = [
        {k: v for k, v in identity(config).items() if k not in _FREE}
        for config, _ in (given, found)
    ]
    for key in dict.fromkeys([*kept[0], *kept[1]]):
        if key.startswith(("model.", "train.")) and kept[0].get(key) != kept[1].get(
            key
        ):
            raise InputError(
                f"the runs {folder} and {other} differ in {key} "
                f"({kept[0].get(key)} and {kept[1].get(key)}); an ensemble needs runs "
                "that differ in seed alone"
            )
