"""Finished runs that take seconds to make, in this process."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from configs import mqar, pile, world, zelda
from jaxbench.bench import job
from jaxbench.data.simulation.record import simulate_replays

SETTINGS = (
    "width=16,batch_size=16,steps_per_dispatch=4,max_steps=8,warmup_steps=2,"
    "compilation_cache="
)
TEXT = (
    "depth=1,window=32,batch_size=4,steps_per_dispatch=8,budget=48steps,"
    "validation_bytes=500,evaluations=2,learning_rate=1e-2,compilation_cache="
)
RECALL = (
    "width=16,depth=1,max_steps=40,batch_size=16,evaluate_every=10,steps_per_dispatch=5,"
    "train_examples=0,test_examples=40,level=custom,pairs=2,tokens=12,vocabulary=16,"
    "solved=0.02,positions=learned,compilation_cache="
)
# The runs that a session makes once: their recipes by name.
RECIPES = {
    "policy": (
        zelda,
        "gru,window=8,depth=1,delay=1,ema_decay=0.5,head=autoregressive",
    ),
    "world": (world, "gru,window=8,depth=1"),
    "text": (pile, f"gru,width=16,{TEXT}"),
    "draft": (pile, f"gru,width=8,{TEXT}"),
    "recall": (mqar, f"gru,{RECALL}"),
}


def small_config(folder: Path, text: str) -> dict[str, Any]:
    """The recipe `text` on three simulated games, which are kept in `folder`."""
    text = f"{text},{SETTINGS},simulated_games=3,cache={folder / 'cache'}"
    return json.loads(zelda.get_config(text).to_json())


def finished_run(folder: Path, text: str) -> Path:
    """Trains the recipe `text` for eight steps, in `folder`."""
    return _finished(small_config(folder, text), folder / "run")


def _finished(config: dict[str, Any], folder: Path) -> Path:
    result = job.run_job(config, folder)
    assert result["status"] == "ok", result["reason"]
    return folder


class SharedRuns:
    """Runs that tests of all workers read, copy, and never write into.

    Whoever asks first makes a run; the others wait for it. Data and its cache lie
    beside the runs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(self, name: str) -> Path:
        """The folder of the finished run `name`, one of `RECIPES`."""
        folder = self.folder / name
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                made = self.folder / f"{name}.partial"
                shutil.rmtree(made, ignore_errors=True)
                _finished(self.config(name), made)
                made.rename(folder)
        return folder

    def recipe(self, name: str) -> str:
        """What a run's --config says after `configs/`."""
        recipe, text = RECIPES[name]
        where = f"cache={self.folder / 'cache'}"
        if recipe in (zelda, world):
            text = f"{text},{SETTINGS},simulated_games=3,{where}"
        if recipe is pile:
            text = f"{text},{where},corpus={self.corpus()}"
        return f"{recipe.__name__.removeprefix('configs.')}.py:{text}"

    def config(self, name: str) -> dict[str, Any]:
        """The resolved config of a run."""
        text = self.recipe(name).partition(":")[2]
        return json.loads(RECIPES[name][0].get_config(text).to_json())

    def corpus(self) -> Path:
        """A text of 20,000 bytes in sentences of four words."""
        path = self.folder / "words.txt"
        if not path.exists():
            words = np.array(["to be ", "or not ", "that is ", "the question.\n"])
            drawn = np.random.default_rng(0).choice(words, 3000)
            made = path.with_suffix(".partial")
            made.write_bytes("".join(drawn).encode()[:20_000])
            made.rename(path)
        return path

    def replays(self) -> Path:
        """A folder of three simulated games of half a minute."""
        folder = self.folder / "replays"
        with (self.folder / "replays.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                made = folder.with_suffix(".partial")
                shutil.rmtree(made, ignore_errors=True)
                simulate_replays(made, games=3, seed=1, seconds=30)
                made.rename(folder)
        return folder
