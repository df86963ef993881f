"""Commands on many finished runs: which they are, and a process for each.

A call in a process of its own has a fresh backend and its run's settings of XLA, and
one that fails takes nobody with it. Imports no jax.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxbench.bench.result import read_result
from jaxbench.bench.run_folder import read_config
from jaxbench.bench.suite.process import child_environment
from jaxbench.errors import InputError, printable
from jaxbench.training.interrupt import INTERRUPTED, interruptible


def finished_runs(
    folders: Iterable[Path],
) -> list[tuple[Path, Mapping[str, Any]]]:
    """Folders and results of the runs at or below `folders` that ended ok.

    Runs of a sweep are left out: their weights are nobody's answer.

    Raises:
      InputError: a folder is missing, a run's file is damaged, or no run ended ok.
    """
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; name a run's or a suite's")
        for path in sorted(folder.rglob("result.json")):
            result = read_result(path.parent)
            if (path.parent / "config.json").exists():
                read_config(path.parent)
            if result and (result["status"], result["purpose"]) == ("ok", "score"):
                found.append((path.parent, result))
    if not found:
        raise InputError(
            f"no run that ended ok lies in {', '.join(map(str, folders))}; make one "
            "with run.py or jaxbench suite"
        )
    return found


def name_of(result: Mapping[str, Any]) -> str:
    """A run in tables: its backbone, and its seed where that is not 0."""
    seed = f", seed {result['seed']}" if result["seed"] else ""
    return result["backbone"] + seed


def in_a_process(
    module: str, folder: Path | None, given: Mapping[str, Any]
) -> Mapping[str, Any] | str:
    """Calls `module.answer(**given)` in a process of its own.

    What the call says on stderr is for the terminal; stdout is read here.

    Args:
      module: of this package, by its dotted name.
      folder: of the run whose settings of the environment hold; None for nobody's.
      given: arguments that JSON can hold.

    Returns:
      What the function returned, or a line on why it did not.
    """
    environment = None
    if folder is not None:
        try:
            environment = child_environment(read_config(folder), {})
        except InputError as error:
            return printable(str(error))
    done = subprocess.run(
        [sys.executable, "-m", __name__, module, json.dumps(given)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        return json.loads(lines[-1])
    if done.returncode == INTERRUPTED:
        return "interrupted by a signal"
    if done.returncode < 0:
        # Out of memory is one: the system kills without a word.
        return f"ended by the signal {signal.Signals(-done.returncode).name}"
    said = lines[-1] if lines else "the lines above say why"
    return f"exit code {done.returncode}: {said[:400]}"


def wide_console(width: int) -> Console:
    """The terminal, or `width` columns where the output is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def main(arguments: list[str]) -> int:
    """The child: prints what the function returns as one line of JSON."""
    _, module, given = arguments

    def call() -> int:
        try:
            found = importlib.import_module(module).answer(**json.loads(given))
        except InputError as error:
            print(printable(str(error)), flush=True)
            return 2
        print(json.dumps(found), flush=True)
        return os.EX_OK

    # A Ctrl-C reaches the parent too, which says so.
    return interruptible("", call, leaves=__name__ == "__main__")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
