"""Opens the folder of a finished run: its task, its model, its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxbench.bench import build
from jaxbench.bench.result import FINISHED, SCHEMA, read_result
from jaxbench.bench.run_folder import read_config, write_json
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.table import find
from jaxbench.tasks.task import Order, Task
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.packed import on_host
from jaxbench.training.programs import FirstState, Placement, first_batch
from jaxbench.training.step import Update


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has ended by itself.

    Attributes:
      folder: the run folder.
      config: resolved, with `model.remat` as the memory plan had it in the end.
      micro_batches: parts an update's batch was worked through in.
      result: the content of `result.json`.
      task: on the data that the run was trained on.
      model: without weights.
    """

    folder: Path
    config: Mapping[str, Any]
    micro_batches: int
    result: Mapping[str, Any]
    task: Task
    model: Model

    def update(self) -> Update:
        """What one training update of the run computes."""
        given = (self.config, self.model, self.task, self.budget(), lambda line: None)
        return build.build_update(*given, micro_batches=self.micro_batches)

    def order(self) -> Order:
        """Which examples made up which training step."""
        batch_size = self.config["train"]["batch_size"]
        return self.task.order(batch_size=batch_size, seed=self.config["seed"])

    def budget(self) -> Budget:
        """How many steps or seconds the run was given."""
        return build.build_budget(self.config, self.task, self.order())

    def initializer(self, placement: Placement) -> FirstState:
        """Makes the run's first train state, given its seed."""
        return build.build_first_state(self.config, self.update(), placement)


def open_run(folder: Path) -> Run:
    """Reads a run's folder and builds its task and model anew.

    Raises:
      InputError: no run of this version lies there, it has not ended, or its data is
        gone or another.
    """
    config, result = read_finished(folder)
    memory = result["memory"]
    config = {**config, "model": {**config["model"], "remat": memory["remat"]}}
    task = _build_task(folder, config, result)
    return Run(
        folder=folder,
        config=config,
        micro_batches=memory["micro_batches"],
        result=result,
        task=task,
        model=build.build_model(build.build_backbone(config), task),
    )


def read_finished(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved config and the result of a run that has ended by itself.

    Raises:
      InputError: no run of this version lies there, or it has not ended.
    """
    result, config = _result(folder), read_config(folder)
    if result["schema"] != SCHEMA:
        raise InputError(
            f"the run {folder} was made by another version (schema {result['schema']}, "
            f"this one reads {SCHEMA}); run it again in another folder"
        )
    if result["status"] not in FINISHED:
        raise InputError(
            f"the run {folder} is not finished ({result['status']}: "
            f"{result['reason']}); run it again first"
        )
    return config, result


def restore_variables(run: Run, which: str, placement: Placement) -> tuple[Any, int]:
    """Reads trained weights.

    Args:
      run: the run that trained them.
      which: "best" or "last".
      placement: where to put them.

    Returns:
      Variables for `Model.apply`, averaged where the run kept an average, and the step
      they were saved at.

    Raises:
      InputError: there is no such checkpoint, or it does not fit the run's config.
    """
    if which not in ("best", "last"):
        raise InputError(f"which={which!r} is neither 'best' nor 'last'")
    folder = run.folder / "checkpoints"
    checkpoints = Checkpoints(folder) if (folder / which).is_dir() else None
    if checkpoints is None or checkpoints.latest_step(which) is None:
        raise InputError(
            f"the run {run.folder} has no checkpoint under {folder / which}; "
            "run it again in another folder"
        )

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement.whole)

    batch_size = run.config["train"]["batch_size"]
    arrays = jax.tree.map(abstract, dict(run.task.arrays))
    rows = abstract(first_batch(run.task, batch_size))
    shapes = run.initializer(placement).shapes(arrays, rows)
    state, _ = checkpoints.restore(jax.tree.map(abstract, shapes), which)
    checkpoints.close()
    variables = jax.device_put(on_host(state.evaluation_variables()), placement.whole)
    return variables, int(jax.device_get(state.step))


def one_device() -> Placement:
    """Everything whole on the first device, however many there are."""
    return Placement.of_runs(1)


def write_measurement(folder: Path, path: tuple[str, ...], value: Any) -> None:
    """Sets one field of a run's `result.json`, say ("throughput", "steady").

    The file is read anew, so that what other processes wrote meanwhile is kept.
    """
    result = _result(folder)
    inside = result
    for name in path[:-1]:
        # Nothing was measured there yet.
        if inside.get(name) is None:
            inside[name] = {}
        inside = inside[name]
    inside[path[-1]] = value
    write_json(folder / "result.json", result)


def _result(folder: Path) -> dict[str, Any]:
    result = read_result(folder)
    if result is None:
        raise InputError(
            f"{folder} holds no result.json: it is no folder of a finished run; give "
            "one that run.py or a suite made, or run it again"
        )
    return result


def _build_task(
    folder: Path, config: Mapping[str, Any], result: Mapping[str, Any]
) -> Task:
    data_path = find(config["task"]).data_path
    given = config["data"][data_path] if data_path else ""
    if given and not Path(given).expanduser().exists():
        raise InputError(
            f"the data of the run {folder} is gone: there is no {given}; put it back, "
            "or call from the folder that the path starts in"
        )
    try:
        task = build.build_task(config, lambda line: None)
    except InputError as error:
        raise InputError(
            f"the data of the run {folder} cannot be read again: {error}"
        ) from error
    was = (result["data"] or {}).get("fingerprint")
    now = task.source.get("fingerprint")
    if was != now:
        raise InputError(
            f"the data of the run {folder} has changed: its fingerprint was "
            f"{str(was)[:12]} and is now {str(now)[:12]}; put the same data back"
        )
    return task
