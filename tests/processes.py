"""Commands run as a user runs them: as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A run that trains in seconds: few simulated games, a small model.
SMALL = (
    "--config.data.simulated_games=3",
    "--config.data.window=8",
    "--config.model.width=16",
    "--config.train.batch_size=16",
    "--config.train.steps_per_dispatch=4",
    "--config.train.max_steps=12",
    "--config.train.warmup_steps=2",
)


def environment(cache: Path | None = None) -> dict[str, str]:
    """This process's environment; `cache` becomes the home of the default caches."""
    variables = dict(os.environ)
    if cache is not None:
        variables["HOME"] = str(cache)
    return variables


def run_py(
    *arguments: str, cwd: Path, cache: Path | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs `python run.py arguments` in `cwd`."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def jaxbench(
    *arguments: str, cwd: Path, cache: Path | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Runs `jaxbench arguments` in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "jaxbench.cli", *arguments],
        cwd=cwd,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def config(recipe: str = "zelda.py:gru") -> str:
    """The --config flag of a recipe."""
    return f"--config={ROOT / 'configs' / recipe}"
