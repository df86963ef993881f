"""Runs a suite: starts what is not done yet, and gathers what has ended."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.beside import check_copies, pays, saved_step
from jaxbench.bench.check import check_values
from jaxbench.bench.defaults import digest, identity
from jaxbench.bench.result import STATUSES, read_result
from jaxbench.bench.run_folder import (
    check_place,
    damaged,
    differences,
    held,
    is_held,
    read_json,
    write_json,
)
from jaxbench.bench.suite.devices import core_share, slots, visible_gpus
from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.bench.suite.process import Child, settle, start
from jaxbench.bench.suite.view import SuiteView, budget_unit
from jaxbench.errors import InputError
from jaxbench.tasks.table import find
from jaxbench.training.stop import StopSignals

POLL_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a run is stopped.

    Attributes:
      timeout: seconds from its start; 0 for no limit.
      hang: seconds without any sign of progress; 0 for no limit. Longer than the
        longest compilation.
    """

    timeout: float = 0.0
    hang: float = 0.0


@dataclasses.dataclass(frozen=True)
class SuiteOutcome:
    """How a suite ended.

    Attributes:
      results: of all runs that have ended, in this or an earlier call.
      interrupted: whether it was asked to stop before it was done.
    """

    results: Mapping[Cell, Mapping[str, Any]]
    interrupted: bool

    def all_ok(self) -> bool:
        """Whether every run is there and ended well."""
        good = all(result["status"] == "ok" for result in self.results.values())
        return good and not self.interrupted


# In what the runs of a suite differ.
VARIED = ("seed", "purpose", "model.backbone", "train.learning_rate")


def default_suite_folder(base: Mapping[str, Any]) -> Path:
    """`runs/suites/<task>-<protocol>-<hash>`: the same settings, the same folder."""
    name = f"{base['task']}-{base['protocol']}-{digest(base, without=VARIED)[:8]}"
    return Path("runs") / "suites" / name


def shared_identity(base: Mapping[str, Any]) -> dict[str, Any]:
    """What all runs of a suite have in common; a folder holds one suite only."""
    return {k: v for k, v in identity(base).items() if k not in VARIED}


def finished_results(
    request: Request, folder: Path, *, retry: bool
) -> dict[Cell, dict[str, Any]]:
    """Results that stand: of all runs that ended, or with `retry` of those that are ok.

    A run that was interrupted has not ended: the suite goes on with it.
    """
    unfinished = [s for s in STATUSES if s != "ok"] if retry else ["interrupted"]
    results: dict[Cell, dict[str, Any]] = {}
    while True:
        known = len(results)
        for cell in request.cells(results):
            result = read_result(cell.folder(folder))
            if result is not None and result["status"] not in unfinished:
                results[cell] = result
        if len(results) == known:
            return results


def check_request(request: Request) -> None:
    """Refuses a suite that no run of could start, before anything is written.

    Raises:
      InputError: a value no run could use, or no data where it should be.
    """
    for cell in request.cells({}):
        check_values(cell.config(request.base))
    if request.side_by_side == "on":
        check_copies([request.cells({})[0].config(request.base)])
    task = find(request.base["task"])
    given = request.base["data"][task.data_path] if task.data_path else ""
    there = Path(given).expanduser()
    if given and not (there.is_dir() or (there.exists() and "file" in task.data_is)):
        raise InputError(f"data.{task.data_path}={given!r} is no {task.data_is}")


def run_suite(
    request: Request,
    folder: Path,
    *,
    command: Sequence[str],
    jobs: int,
    limits: Limits,
    retry: bool = False,
) -> SuiteOutcome:
    """Runs everything that is not done yet.

    Killed at any moment, the same call goes on where it was: runs that ended are read
    from their folders, the one that was going on resumes from its last checkpoint.

    Args:
      request: what to run.
      folder: of the suite; made when missing.
      command: how it was called, for the record.
      jobs: runs that go at once.
      limits: when to stop a run.
      retry: run again what ended with anything but "ok".

    Raises:
      InputError: the folder belongs to another suite, or another process holds it.
    """
    check_request(request)
    check_suite_owner(folder, request)
    with held(folder, "the suite"), StopSignals() as signals:
        check_suite_owner(folder, request)
        facts = {"command": list(command), "base": dict(request.base)}
        write_json(folder / "suite.json", facts)
        results = finished_results(request, folder, retry=retry)
        gpus = visible_gpus(request.base["xla"]["platform"])
        places = slots(jobs, gpus)
        with SuiteView(request, results, folder) as view:
            interrupted = _work(
                request, folder, results, places, bool(gpus), limits, signals, view
            )
    return SuiteOutcome(results, interrupted)


def check_suite_owner(folder: Path, request: Request) -> None:
    """Refuses a folder that holds something else, or a suite with other settings.

    A folder of results without a suite's own file, as boards are released, is a suite
    if its results say the same settings: they count, and what is missing is run.

    Raises:
      InputError: naming the first settings that differ.
    """
    check_place(folder, "--folder")
    saved = read_json(folder / "suite.json") if folder.is_dir() else None
    ours = shared_identity(request.base)
    if saved is not None:
        if not isinstance(saved.get("base"), dict) or "task" not in saved["base"]:
            raise damaged(folder / "suite.json", "it has no settings")
        different = differences(shared_identity(saved["base"]), ours)
    else:
        results = sorted(folder.glob("runs/*/*/result.json"))
        if not results:
            if folder.is_dir() and any(p.name != "lock" for p in folder.iterdir()):
                raise InputError(
                    f"{folder} is not empty and holds no suite; name another"
                )
            return
        different = next(filter(None, (_unlike(path, ours) for path in results)), "")
    if different:
        raise InputError(
            f"{folder} holds a suite with other settings ({different}); use another "
            "--folder or the same settings"
        )


def _unlike(path: Path, ours: Mapping[str, Any]) -> str:
    """In which shared settings a result differs, as far as it says; "" in none.

    Results from before they held their settings say task, protocol, width and how
    examples are cut.
    """
    result = read_json(path) or {}
    if result.get("config"):
        return differences(shared_identity(result["config"]), ours)
    known = {"task": result.get("task"), "protocol": result.get("protocol")}
    shape, data = result.get("shape") or {}, result.get("data") or {}
    said = {f"model.{name}": value for name, value in shape.items()}
    options = data.get("options") or {}
    said |= {f"data.{name}": value for name, value in options.items()}
    if "validation_fraction" in options:  # a split that is not named was not made
        said.setdefault("data.test_fraction", 0.0)
    # A width or depth of 0 or none in a config is solved for, or the row's own.
    known |= {k: v for k, v in said.items() if ours.get(k) and k != "data.seed"}
    return differences(known, {key: ours.get(key) for key in known})


def _work(
    request: Request,
    folder: Path,
    results: dict[Cell, dict[str, Any]],
    places: Sequence[Mapping[str, str]],
    on_gpu: bool,
    limits: Limits,
    signals: StopSignals,
    view: SuiteView,
) -> bool:
    """The loop; returns whether it was asked to stop."""
    children: dict[int, Child] = {}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    share = not on_gpu and len(places) > 1
    try:
        while True:
            stopping = signals.reason() is not None
            for place, child in list(children.items()):
                _check_limits(child, limits)
                if stopping:
                    child.stop("interrupted", "the suite was stopped; run it again")
                if child.ended():
                    del children[place]
                    for cell, result in settle(child).items():
                        results[cell] = result
                        view.ended(cell, result, child.seconds)
            going = {cell for child in children.values() for cell in child.cells}
            waiting = [
                cell
                for cell in request.cells(results)
                if cell not in results and cell not in going
            ]
            # An earlier suite's run may still be saving what it had.
            ready = [c for c in waiting if not is_held(c.folder(folder))]
            free = [i for i in range(len(places)) if i not in children]
            if not stopping and ready and free:
                place, cells = free[0], together(request, ready, len(free), folder)
                children[place] = start(
                    cells,
                    request.base,
                    folder,
                    place=place,
                    environment=places[place],
                    cores=core_share(place, len(places), cores) if share else None,
                )
                view.started(children[place])
            if not children and (stopping or not waiting):
                return stopping and bool(waiting or _interrupted(results))
            view.update(list(children.values()), waiting)
            time.sleep(POLL_SECONDS)
    finally:
        # Only when something unforeseen ends the loop are there any left.
        for child in children.values():
            child.process.kill()


def together(
    request: Request, ready: Sequence[Cell], free: int, folder: Path
) -> list[Cell]:
    """The first run that is ready, and those that train with it as one program.

    Where the suite may choose, these are runs that have come equally far (the others
    would have to go back), and no more of them than leave every place something to do.

    Args:
      request: what the suite was asked for.
      ready: runs that can start.
      free: places that have nothing to do.
      folder: of the suite.
    """
    first = ready[0]
    if request.side_by_side == "off":
        return [first]
    same = [cell for cell in ready if cell.beside(first)]
    if request.side_by_side == "on":
        return same
    if len(same) == 1 or not pays(first.config(request.base)):
        return [first]
    places = max(1, free // len({(c.backbone, c.purpose) for c in ready}))
    step = saved_step(first.folder(folder))
    equal = [cell for cell in same if saved_step(cell.folder(folder)) == step]
    return equal[: -(-len(same) // places)]


def _interrupted(results: Mapping[Cell, Mapping[str, Any]]) -> bool:
    return any(result["status"] == "interrupted" for result in results.values())


def _check_limits(child: Child, limits: Limits) -> None:
    content, silent = child.heartbeat()
    doing = content.get("phase", "start")
    if "step" in content:
        about = "about " if budget_unit(child.config) == "seconds" else ""
        doing = f"step {content['step']} of {about}{content['total']}"
    if limits.timeout and child.seconds > limits.timeout:
        child.stop(
            "timeout",
            f"not done after {limits.timeout:.0f} s, at {doing}; --timeout sets the "
            "limit, --retry goes on from the last checkpoint",
        )
    elif limits.hang and silent > limits.hang:
        child.stop(
            "timeout",
            f"hung: no sign of progress for {limits.hang:.0f} s, at {doing}; --hang "
            "sets the limit, --retry goes on from the last checkpoint",
        )
