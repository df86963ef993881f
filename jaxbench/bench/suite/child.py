"""One run as a process of its own: `python -m jaxbench.bench.suite.child`.

Its arguments are the number of the suite's process and the run folder, which holds a
config.json by then; several folders are runs that train side by side. The suite has
exported the environment before this one began, so XLA's settings bind as they should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from jaxbench.bench.run_folder import read_config
from jaxbench.errors import InputError, printable
from jaxbench.training.interrupt import INTERRUPTED, interruptible

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Returns the exit code, as `run.py` does: 0, 1, 2, or 143."""
    return interruptible("run", lambda: _main(arguments), leaves=True)


def _main(arguments: list[str]) -> int:
    end_with_parent(int(arguments[1]))
    folders = [Path(argument) for argument in arguments[2:]]
    try:
        configs = [read_config(folder) for folder in folders]
        from jaxbench.bench.job import run_jobs

        results = run_jobs(configs, folders)
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr, flush=True)
        # Threads of a failed save would go on to print tracebacks of the same error.
        os._exit(2)
    statuses = {result["status"] for result in results}
    if "interrupted" in statuses:
        return INTERRUPTED
    return 0 if statuses == {"ok"} else 1


def end_with_parent(parent: int) -> None:
    """Asks the system to stop this run, which then saves, when its suite is killed.

    Linux only; elsewhere a run outlives its suite, and the run folder's lock keeps a
    second one out until it has ended.
    """
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    except (AttributeError, OSError):
        return
    if os.getppid() != parent:
        # The suite ended before the request reached the system.
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
