"""Decides which runs train as one program. Imports no jax, for a suite's parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import identity
from jaxbench.bench.run_folder import differences
from jaxbench.errors import InputError
from jaxbench.tasks.table import find
from jaxbench.training.budget import parse_budget
from jaxbench.training.manifest import complete_steps

# Settings in which such runs may differ: they change numbers in states and batches.
VARIED = ("seed", "train.learning_rate")

# Tokens of an update times width up to which one program is chosen: zelda's at width
# 64, where `benchmarks/copies_step.py` finds an update of a copy to take as much CPU
# time as alone, or up to a seventh less. Larger ones have not been measured.
LARGEST_UPDATE = 64 * 30 * 64

Config = Mapping[str, Any]


def check_copies(configs: Sequence[Config]) -> None:
    """Refuses configs that cannot be one program.

    Raises:
      InputError: they differ in more than seed and rate, or their examples or their
        length depend on the seed or the clock.
    """

    def rest(config: Config) -> dict[str, Any]:
        return {k: v for k, v in identity(config).items() if k not in VARIED}

    for config in configs[1:]:
        different = differences(rest(configs[0]), rest(config))
        if different:
            raise InputError(
                f"runs side by side may differ in {' and '.join(VARIED)} alone "
                f"({different})"
            )
    config = configs[0]
    if find(config["task"]).seed_chooses_data(config):
        raise InputError(
            "data.splits gives every seed other games, so its runs cannot be one "
            "program; leave out --side_by_side"
        )
    if config["protocol"] == "compat" and "goal" in config:
        raise InputError(
            "protocol=compat validates every seed on other instances, so its runs "
            "cannot be one program; leave out --side_by_side"
        )
    budget = config["train"].get("budget", "1steps")
    if parse_budget(budget)[1] == "seconds":
        raise InputError(
            f"train.budget={budget!r} ends by the clock, at other steps for each run; "
            "give runs side by side a budget of steps or bytes"
        )


def pays(config: Config) -> bool:
    """Whether runs of this config take less time as one program than one by one.

    They do where an update is small: much of its time is then overhead between
    operations, which one program has once for all runs, and the start of a process is
    much of a run. Larger ones have more to lose: memory, and updates/s.
    """
    try:
        check_copies([config])
    except InputError:
        return False
    tokens = config["train"]["batch_size"] * find(config["task"]).positions(config)
    # A width of 0 stands for one that a number of parameters decides.
    return 0 < tokens * config["model"]["width"] <= LARGEST_UPDATE


def saved_step(folder: Path) -> int:
    """The step of the newest checkpoint in a run folder; 0 where there is none."""
    return max(complete_steps(folder / "checkpoints" / "last"), default=0)
