"""What a run is doing now, in a small file that a suite reads. Imports no jax."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "progress.json"
EVERY_SECONDS = 0.5


class Heartbeat:
    """Writes `progress.json` into a run's folder, at most twice a second.

    A suite shows it, and takes a run whose file does not change for one that hangs.

    Args:
      folder: the run folder. Nothing is written while it does not exist: a run that is
        refused leaves nothing behind.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._written = 0.0
        self._content: dict[str, Any] = {}

    def phase(self, name: str) -> None:
        """Says what begins or goes on: "data", "compile", "evaluate".

        How far training is stays as it was.
        """
        self._write(self._content | {"phase": name})

    def step(self, step: int, total: int, loss: float, rate: float) -> None:
        """Says how far training is; `rate` in steps a second."""
        if time.monotonic() - self._written < EVERY_SECONDS and step < total:
            return
        self._write(
            {
                "phase": "train",
                "step": step,
                "total": total,
                "loss": loss,
                "steps_per_s": rate,
            }
        )

    def _write(self, content: dict[str, Any]) -> None:
        if not self._folder.is_dir():
            return
        self._written = time.monotonic()
        self._content = content
        partial = self._folder / (FILE + ".partial")
        partial.write_text(json.dumps(content))
        os.replace(partial, self._folder / FILE)


def read_heartbeat(folder: Path) -> tuple[dict[str, Any], float]:
    """The newest content (empty if none) and when it was written, in Unix seconds."""
    path = folder / FILE
    try:
        return json.loads(path.read_text()), path.stat().st_mtime
    except (OSError, ValueError):
        return {}, 0.0
