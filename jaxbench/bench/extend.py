"""Runs that begin where another one ended. Imports no jax until a folder is copied.

`--extend=RUN` goes on with all that a finished run had, over a longer budget;
`train.start_from=RUN` takes its best weights and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import EXTENDED, identity
from jaxbench.bench.result import read_result
from jaxbench.bench.run_folder import config_hash, differences, read_config
from jaxbench.errors import InputError
from jaxbench.training.budget import Budget
from jaxbench.training.manifest import complete_steps

Config = Mapping[str, Any]

# In these a run may differ from the one that it extends.
LENGTH = (
    *("train.epochs", "train.max_steps", "train.budget", EXTENDED),
    *("train.evaluations", "train.evaluate_every", "train.checkpoint_every"),
)


def extended(config: Config, base: Path) -> dict[str, Any]:
    """The config of a run that goes on where the finished run in `base` ended.

    It says how long that run was, which makes it another run than one of the same
    length at a stretch: its learning rate followed the shorter schedule until there.

    Raises:
      InputError: no such run, one that did not end ok or has solved its task, or one
        that differs in more than its length.
    """
    result = read_result(base)
    if result is None:
        raise InputError(
            f"--extend={base} holds no finished run; name the folder of one"
        )
    if result["status"] != "ok":
        raise InputError(
            f"--extend={base}: that run ended {result['status']!r}; only one that "
            "ended ok can be trained longer"
        )
    theirs = read_config(base)
    step = (result["solved"] or {}).get("step")
    if step is not None and theirs["goal"]["stop"]:
        raise InputError(
            f"--extend={base}: that run has solved its task at step {step}; there is "
            "nothing to train longer for"
        )
    flat = [
        {k: v for k, v in identity(c).items() if k not in LENGTH}
        for c in (theirs, config)
    ]
    if different := differences(*flat):
        raise InputError(
            f"--extend={base}: the run may differ in its length alone ({different})"
        )
    if not complete_steps(base / "checkpoints" / "last"):
        raise InputError(f"--extend={base} has no checkpoint under checkpoints/last")
    budget = result["budget"]
    before = theirs["train"].get("extended")
    length = f"{budget['total']:g} {budget['unit']}"
    told = f"{before}, {length}" if before else length
    return {**config, "train": {**config["train"], "extended": told}}


def check_longer(config: Config, budget: Budget) -> None:
    """Refuses a budget that the run that is extended has spent already.

    Raises:
      InputError: saying how long it was.
    """
    if "extended" not in config["train"]:
        return
    behind = config["train"]["extended"].split(", ")[-1]
    total, unit = behind.split()
    if unit != budget.unit or float(total) >= budget.total:
        raise InputError(
            f"--extend: the run has {behind} behind it; a budget of {budget.total:g} "
            f"{budget.unit} all in all is no more of the same: raise it"
        )


def copy_run(base: Path, folder: Path) -> None:
    """Copies states and metrics of the run in `base`, where `folder` has none yet."""
    if (folder / "checkpoints").exists():
        return
    from jaxbench.training.checkpoint import Checkpoints

    partial = folder / "checkpoints.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(base / "checkpoints", partial)
    shutil.copy(base / "metrics.jsonl", folder / "metrics.jsonl")
    checkpoints = Checkpoints(partial)
    step = checkpoints.latest_step() or 0
    facts = checkpoints.facts(step)
    if facts["convergence"]["stalled_step"] is not None:
        # It had given up: the patience begins anew.
        fresh = {"stalled_step": None, "streak": 0, "gain_step": step}
        facts["convergence"] |= fresh
        checkpoints.note(step, facts)
    checkpoints.close()
    partial.rename(folder / "checkpoints")


def check_start(config: Config, folder: Path) -> None:
    """Refuses a run whose weights are to be taken and that has none.

    A run that has states of its own in `folder` needs it no more.

    Raises:
      InputError: there is no run, or no state under checkpoints/best.
    """
    given = config["train"]["start_from"]
    if not given or complete_steps(folder / "checkpoints" / "last"):
        return
    base = Path(given).expanduser()
    if not complete_steps(base / "checkpoints" / "best"):
        raise InputError(
            f"train.start_from={given!r} is no folder of a run with a checkpoint under "
            "checkpoints/best; name one"
        )
    read_config(base)


def describe_start(config: Config, step: int) -> dict[str, Any]:
    """What `result.json` says of the run whose weights a run began with."""
    folder = Path(config["train"]["start_from"]).expanduser()
    theirs = read_config(folder)
    return {
        "run": folder.name,
        "task": theirs["task"],
        "backbone": theirs["model"]["backbone"],
        "seed": theirs["seed"],
        "config_hash": config_hash(theirs),
        "step": step,
    }
