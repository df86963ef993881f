"""Commands in this process: their main functions are given arguments.

A process of its own takes seconds to begin, and what a command says, returns and leaves
is the same. Those that are about processes start them, see `processes`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from processes import ROOT

import run
from jaxbench import cli
from jaxbench.bench import environment
from jaxbench.serving import each_run


@dataclasses.dataclass(frozen=True)
class Done:
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


def run_py(*arguments: str, cwd: Path, cache: Path | None = None) -> Done:
    """As `python run.py arguments` in `cwd`; `cache` is the home of default caches."""
    return _called(lambda: run.main(["run.py", *arguments]), cwd, cache)


def jaxbench(*arguments: str, cwd: Path, cache: Path | None = None) -> Done:
    """As `jaxbench arguments` in `cwd`."""
    return _called(lambda: cli.main(arguments), cwd, cache)


def example(name: str, *arguments: str, cwd: Path) -> Done:
    """As `python examples/name arguments` in `cwd`."""
    path = str(ROOT / "examples" / name)

    def main() -> int:
        with mock.patch.object(sys, "argv", [path, *arguments]):
            runpy.run_path(path, run_name="__main__")
        return 0

    return _called(main, cwd, None)


@contextlib.contextmanager
def measured_here() -> Iterator[None]:
    """Commands that measure each run in a process of its own do so in this one."""

    def run_here(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = each_run.main(arguments[2:])
        return subprocess.CompletedProcess(arguments, code, stdout=out.getvalue())

    with mock.patch.object(each_run.subprocess, "run", run_here):
        yield


def _called(main: Callable[[], int], cwd: Path, cache: Path | None) -> Done:
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)
    )
    home = {} if cache is None else {"HOME": str(cache)}
    # XLA's settings are this process's, which has begun.
    nothing = mock.Mock()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.dict(os.environ, home),
        mock.patch.object(environment, "apply_environment", nothing),
        mock.patch.object(run, "apply_environment", nothing),
    ):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return Done(code, *said)


def assert_one_line_error(done: Done, *texts: str) -> None:
    """Unusable input: exit code 2 and one line of error that holds `texts`."""
    assert done.returncode == 2, (done.returncode, done.stderr)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    for text in texts:
        assert text in errors[0], errors[0]
