"""Tells a suite, in a small file, how far a run has come. Imports no jax."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = "progress.json"
EVERY_SECONDS = 0.5


class Heartbeat:
    """Writes `progress.json` into the folders of runs, at most twice a second.

    A suite shows it, and takes a run whose file does not change for one that hangs.

    Args:
      folders: of the runs that train together. Nothing is written while a folder does
        not exist: a run that is refused leaves nothing behind.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = folders
        self._written = 0.0
        self._content: dict[str, Any] = {}

    def phase(self, name: str) -> None:
        """Says what begins or goes on: "data", "compile", "evaluate", "test".

        The step, where there is one, stays as it was.
        """
        self._write(self._content | {"phase": name})

    def step(
        self, step: int, total: int, loss: float, rate: float, left: float
    ) -> None:
        """Says how far training is; `rate` in steps a second, `left` in seconds."""
        if time.monotonic() - self._written < EVERY_SECONDS and step < total:
            return
        self._write(
            {
                "phase": "train",
                "step": step,
                "total": total,
                "loss": loss,
                "steps_per_s": rate,
                "seconds_left": left,
            }
        )

    def _write(self, content: dict[str, Any]) -> None:
        for folder in (f for f in self._folders if f.is_dir()):
            self._written = time.monotonic()
            self._content = content
            partial = folder / (FILE + ".partial")
            partial.write_text(json.dumps(content))
            os.replace(partial, folder / FILE)


def read_heartbeat(folder: Path) -> tuple[dict[str, Any], float]:
    """The newest content (empty if none) and when it was written, in Unix seconds."""
    path = folder / FILE
    try:
        return json.loads(path.read_text()), path.stat().st_mtime
    except (OSError, ValueError):
        return {}, 0.0
