"""Which runs can train as one program. Imports no jax: a suite's parent asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxbench.bench.run_folder import differences, identity
from jaxbench.errors import InputError

# What they may differ in: numbers of their state, or of their batches.
VARIED = ("seed", "train.learning_rate")

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
    if config["protocol"] == "compat" and "goal" in config:
        raise InputError(
            "protocol=compat validates every seed on other instances, so its runs "
            "cannot be one program; leave out --side_by_side"
        )
    budget = config["train"].get("budget", "steps")
    if not budget.endswith(("steps", "B")):
        raise InputError(
            f"train.budget={budget!r} ends by the clock, at other steps for each run; "
            "give runs side by side a budget of steps or bytes"
        )
