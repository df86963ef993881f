"""A finished run that takes seconds to make, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs import zelda
from jaxbench.bench import job

SETTINGS = (
    "width=16,batch_size=16,steps_per_dispatch=4,max_steps=8,warmup_steps=2,"
    "compilation_cache="
)


def small_config(folder: Path, text: str) -> dict[str, Any]:
    """The recipe `text` on three simulated games, which are kept in `folder`."""
    text = f"{text},{SETTINGS},simulated_games=3,cache={folder / 'cache'}"
    return json.loads(zelda.get_config(text).to_json())


def finished_run(folder: Path, text: str) -> Path:
    """Trains the recipe `text` for eight steps, in `folder`."""
    result = job.run_job(small_config(folder, text), folder / "run")
    assert result["status"] == "ok", result["reason"]
    return folder / "run"
