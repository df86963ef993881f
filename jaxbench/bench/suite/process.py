"""Starts, watches and stops a run as a child process, and writes how it ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from jaxbench.bench.environment import merged_environment, xla_environment
from jaxbench.bench.heartbeat import FILE, read_heartbeat
from jaxbench.bench.result import blank_result, curve, log_tail, read_result
from jaxbench.bench.run_folder import check_owner, claim, write_json
from jaxbench.bench.suite.devices import oom_kills
from jaxbench.bench.suite.plan import Cell
from jaxbench.training.interrupt import INTERRUPTED

LOG = "log.txt"
# From the request to stop until the run is killed; a save takes seconds.
GRACE_SECONDS = 30.0


@dataclasses.dataclass
class Child:
    """A run that is going on, or several that train side by side.

    Attributes:
      cells, configs, folders: what runs, and where.
      place: the index of the place it takes.
      process: the operating system's.
      log: its open log file.
      began: `time.monotonic()` at its start.
      kills_before: the kernel's count of out-of-memory kills at its start.
      stopped: (status, reason, when) once it was asked to stop.
    """

    cells: tuple[Cell, ...]
    configs: tuple[dict[str, Any], ...]
    folders: tuple[Path, ...]
    place: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float
    kills_before: int
    stopped: tuple[str, str, float] | None = None

    @property
    def folder(self) -> Path:
        """The first run's, which holds the log of all."""
        return self.folders[0]

    @property
    def config(self) -> dict[str, Any]:
        """The first run's; those of the others differ in seed and rate."""
        return self.configs[0]

    def __str__(self) -> str:
        if len(self.cells) == 1:
            return str(self.cells[0])
        return f"{self.cells[0].backbone}, {len(self.cells)} runs side by side"

    @property
    def seconds(self) -> float:
        """How long it has been going."""
        return time.monotonic() - self.began

    def heartbeat(self) -> tuple[dict[str, Any], float]:
        """The newest progress, and how many seconds ago the run reported it."""
        content, written = read_heartbeat(self.folder)
        return content, time.time() - written if written else self.seconds

    def stop(self, status: str, reason: str) -> None:
        """Asks it to save and end; the second time, or when it does not, kills it."""
        if self.stopped is None:
            self.stopped = (status, reason, time.monotonic())
            self.process.terminate()

    def ended(self) -> bool:
        """Whether it has ended; kills what was asked to stop and did not."""
        if self.process.poll() is not None:
            return True
        if self.stopped and time.monotonic() - self.stopped[2] > GRACE_SECONDS:
            self.process.kill()
        return False


def start(
    cells: Sequence[Cell],
    base: Mapping[str, Any],
    suite: Path,
    *,
    place: int,
    environment: Mapping[str, str],
    cores: set[int] | None,
) -> Child:
    """Starts a run in its own process, environment and log.

    Args:
      cells: the run, or several that are to train side by side.
      base: the suite's config.
      suite: its folder.
      place: index of the place it takes.
      environment: what that place adds to this process's environment.
      cores: the CPU cores it may use; None for all.

    Raises:
      InputError: its folder belongs to another config.
    """
    configs = tuple(cell.config(base) for cell in cells)
    folders = tuple(cell.folder(suite) for cell in cells)
    for config, folder in zip(configs, folders, strict=True):
        check_owner(folder, config)
        claim(folder, config)
        # What an earlier attempt left must not be taken for this one's.
        for name in ("result.json", "error.txt", FILE):
            (folder / name).unlink(missing_ok=True)
    log = (folders[0] / LOG).open("ab")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "jaxbench.bench.suite.child",
            str(os.getpid()),
            *map(str, folders),
        ],
        env=child_environment(configs[0], environment),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # A Ctrl-C in the terminal reaches the suite alone, which stops its runs.
        start_new_session=True,
    )
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, cores)
    return Child(
        cells=tuple(cells),
        configs=configs,
        folders=folders,
        place=place,
        process=process,
        log=log,
        began=time.monotonic(),
        kills_before=oom_kills(),
    )


def child_environment(
    config: Mapping[str, Any], added: Mapping[str, str]
) -> dict[str, str]:
    """This process's environment, XLA's settings where the user has none, `added`."""
    settings = xla_environment(config["xla"])
    return merged_environment(settings, os.environ) | dict(added)


def settle(child: Child) -> dict[Cell, dict[str, Any]]:
    """The results of a run that has ended; written where the run could not.

    Whatever happened becomes a row: a run that was killed, crashed, hung or refused its
    data gets a status, a reason, and the last lines of its log. Of runs side by side
    each gets its own.
    """
    child.log.close()
    return {
        cell: _settle(child, config, folder)
        for cell, config, folder in zip(
            child.cells, child.configs, child.folders, strict=True
        )
    }


def _settle(child: Child, config: dict[str, Any], folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    result = read_result(folder)
    status, reason = fate(child, result)
    if result is None:
        result = blank_result(config, status, reason)
        content, _ = child.heartbeat()
        result["steps"] = content.get("step", 0)
        result["examples"] = result["steps"] * config["train"]["batch_size"]
        result["curve"] = curve(folder / "metrics.jsonl", "")
    result |= {"status": status, "reason": reason}
    if status != "ok":
        result["log_tail"] = log_tail(child.folder / LOG)
    write_json(path, result)
    return result


def fate(child: Child, result: Mapping[str, Any] | None) -> tuple[str, str]:
    """How a run ended: a status, and a reason a person can act on."""
    code = child.process.returncode
    whole = result is not None and code in (0, 1)
    if result is not None and (whole or not child.stopped):
        return result["status"], result["reason"]
    if child.stopped:
        return child.stopped[0], child.stopped[1]
    if code == 2:
        lines = [x for x in log_tail(child.folder / LOG) if x.startswith("error: ")]
        said = lines[-1].removeprefix("error: ") if lines else "see the log"
        return "crashed", f"unusable input: {said}"
    if code < 0:
        return killed(-code, child)
    if code == INTERRUPTED:
        return "interrupted", "ended by a signal before it trained; run it again"
    return "crashed", f"the process ended with code {code}; see {child.folder / LOG}"


def killed(number: int, child: Child) -> tuple[str, str]:
    """Status and reason of a run that a signal ended."""
    name = signal.Signals(number).name
    content, _ = child.heartbeat()
    where = content.get("phase", "its start")
    if "step" in content:
        where = f"step {content['step']}"
    if number == signal.SIGKILL and oom_kills() > child.kills_before:
        return "oom", (
            f"the kernel killed it for want of memory at {where}; lower "
            "train.batch_size, model.width or --jobs, or give --memory_limit so that "
            "it is fitted before the start"
        )
    advice = {
        signal.SIGKILL: "someone killed it; --retry goes on from its last checkpoint",
        signal.SIGABRT: "the runtime gave up; its last lines say why",
        signal.SIGSEGV: "a fault in native code; its last lines say where",
    }.get(signal.Signals(number), "--retry goes on from its last checkpoint")
    return "crashed", f"ended by {name} at {where}: {advice}"
