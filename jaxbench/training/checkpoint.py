"""Checkpoints of a run through orbax: the last state, and the best one."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxbench.errors import InputError
from jaxbench.training import manifest
from jaxbench.training.disk import disk_is_full, full_disk_message
from jaxbench.training.packed import on_host, pack_like, unpacked_shapes
from jaxbench.training.state import TrainState


class Checkpoints:
    """Keeps the newest two states under `last/`, and the best ones under `best/`.

    A save is complete or absent: orbax writes to a temporary folder and renames it,
    then a `manifest` is written into it, and only then the oldest state goes.
    On disk parameters and moments are trees, under the names that modules gave them.

    Args:
      folder: the run's `checkpoints` folder; made when missing.
      keep: how many best states; the newest of them is the best of all.
    """

    def __init__(self, folder: Path, *, keep: int = 1):
        self.folder = folder.absolute()  # orbax refuses relative paths
        self._keep = {"last": 2, "best": keep}
        self._managers = {which: self._manager(which) for which in self._keep}

    def save(self, which: str, state: TrainState, facts: dict[str, Any]) -> None:
        """Writes `state` and JSON `facts` under `which` ("last" or "best").

        Raises:
          InputError: the disk is full; the checkpoint before this one is intact.
        """
        step = int(jax.device_get(state.step))
        manager, folder = self._managers[which], self.folder / which
        if step in manifest.complete_steps(folder):
            return
        if which == "last":
            # It may be of a step of the same number that was lost.
            self._noted.unlink(missing_ok=True)
        # Looked up first, so that no half of one is written where a whole cannot be.
        if shutil.disk_usage(self.folder).free < tree_bytes(state):
            raise InputError(full_disk_message(self.folder))
        try:
            with _quiet_orbax():
                if step in manager.all_steps():
                    # A process ended between the last two steps of saving it.
                    self._delete(which, step)
                manager.save(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(on_host(state)),
                        facts=ocp.args.JsonSave(facts),
                    ),
                )
                manager.wait_until_finished()
                manifest.write(folder / str(step))
                keep = manifest.complete_steps(folder)[-self._keep[which] :]
                for old in manager.all_steps():
                    if old < keep[0]:
                        self._delete(which, old)
        except Exception as error:
            if disk_is_full(error):
                raise InputError(full_disk_message(self.folder)) from error
            raise

    def note(self, step: int, facts: dict[str, Any]) -> None:
        """Replaces the facts of the newest state under "last", which stays as it is."""
        partial = self._noted.with_suffix(".partial")
        try:
            partial.write_text(json.dumps({"step": step, "facts": facts}))
            partial.replace(self._noted)
        except OSError as error:
            if disk_is_full(error):
                raise InputError(full_disk_message(self.folder)) from error
            raise

    def forget_after(self, step: int) -> None:
        """Removes states of later steps, whose updates are made anew."""
        for which, manager in self._managers.items():
            for later in [s for s in manager.all_steps() if s > step]:
                self._delete(which, later)

    def latest_step(self, which: str = "last") -> int | None:
        """The newest complete step under `which`, or None."""
        return max(manifest.complete_steps(self.folder / which), default=None)

    def steps(self, which: str = "last") -> set[int]:
        """The steps of all complete states under `which`."""
        return set(manifest.complete_steps(self.folder / which))

    def facts(self, step: int) -> dict[str, Any]:
        """The facts that were saved with a state under "last".

        Raises:
          InputError: a file of the checkpoint is not the one that was written.
        """
        manifest.check(self.folder / "last" / str(step))
        restored = self._managers["last"].restore(
            step, args=ocp.args.Composite(facts=ocp.args.JsonRestore())
        )
        return self._noted_facts(step) or restored["facts"]

    def restore(
        self, abstract: TrainState, which: str = "last", step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads a state of `which`, placed as `abstract` says.

        Args:
          abstract: a state of `jax.ShapeDtypeStruct`s with shardings.
          which: "last" or "best".
          step: of the state; None is the newest.

        Raises:
          InputError: there is none, a file of it is not the one that was written, or
            its shapes are not those of `abstract`.
        """
        step = self.latest_step(which) if step is None else step
        if step is None:
            raise InputError(f"no checkpoint under {self.folder / which}")
        manifest.check(self.folder / which / str(step))
        try:
            restored = self._managers[which].restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(unpacked_shapes(abstract)),
                    facts=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError) as error:
            raise InputError(
                f"the checkpoint {self.folder / which}/{step} does not fit this "
                f"configuration ({str(error).splitlines()[0][:160]}); use another "
                "--workdir"
            ) from error
        noted = self._noted_facts(step) if which == "last" else None
        return pack_like(abstract, restored["state"]), noted or restored["facts"]

    def close(self) -> None:
        """Waits for and releases both managers."""
        for manager in self._managers.values():
            manager.close()

    @property
    def _noted(self) -> Path:
        return self.folder / "noted.json"

    def _noted_facts(self, step: int) -> dict[str, Any] | None:
        """What `note` wrote of this step; None where it wrote nothing that is whole."""
        try:
            noted = json.loads(self._noted.read_text())
            return noted["facts"] if noted["step"] == step else None
        except (OSError, ValueError, KeyError, TypeError):
            # The validation that it tells of is made again.
            return None

    def _delete(self, which: str, step: int) -> None:
        """Removes a state; from the first moment on it is not complete."""
        (self.folder / which / str(step) / manifest.FILE).unlink(missing_ok=True)
        self._managers[which].delete(step)

    def _manager(self, which: str) -> ocp.CheckpointManager:
        folder = self.folder / which
        options = ocp.CheckpointManagerOptions(
            # A save must have happened when it returns, for a kill right after it.
            enable_async_checkpointing=False,
        )
        folder.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(folder, options=options)


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Keeps orbax from printing the tracebacks of an error that it raises anyway.

    Its threads write on for a while after it has raised, and each then finds the event
    loop closed that it reports to: they are not heard from then on.
    """
    logger = logging.getLogger("absl")
    level, hook = logger.level, sys.unraisablehook
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = _of_the_main_thread
    try:
        yield
        sys.unraisablehook = hook
    finally:
        logger.setLevel(level)


def _of_the_main_thread(unraisable: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        sys.__unraisablehook__(unraisable)


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays of a tree, or of their shapes; PRNG keys count nothing."""
    return sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def require_space(folder: Path, state_bytes: int, *, keep: int = 1) -> None:
    """Refuses to start a run whose checkpoints cannot fit.

    So many states exist at once: two under `last`, `keep` under `best`, and one that
    is being written.

    Raises:
      InputError: naming the free and the needed bytes.
    """
    existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    needed = (3 + keep) * state_bytes + (16 << 20)
    if free < needed:
        raise InputError(
            f"the disk of {folder} has {free / 1e6:,.0f} MB free and the run needs "
            f"about {needed / 1e6:,.0f} MB; free some or choose another --workdir"
        )
