"""Settings of the heads over chunks, checked. Imports no jax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError, nearest

# Of the diffusion process. Inference takes some of them.
TRAINING_STEPS = 100
SCHEDULES = ("rescaled", "published")
SOLVERS = ("euler", "midpoint", "rk4")
# Head -> its settings and their defaults; each module says what they mean. The width of
# a head is its own `hidden`, as in the papers, and does not follow model.width.
DEFAULTS: dict[str, dict[str, Any]] = {
    "diffusion": {
        "horizon": 8,
        "steps": 20,
        "schedule": "rescaled",
        "hidden": 256,
        "layers": 4,
    },
    "act": {
        "horizon": 8,
        "kl_weight": 10.0,
        "latent": 32,
        "hidden": 128,
        "layers": 2,
        "heads": 8,
    },
    "flow_matching": {
        "horizon": 8,
        "steps": 20,
        "solver": "euler",
        "hidden": 256,
        "layers": 4,
    },
}
_WORDS = {"schedule": SCHEDULES, "solver": SOLVERS}


def resolve(head: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a head: its defaults, and what was given over them.

    Args:
      head: any head's name; those that are not in `DEFAULTS` have no settings.
      given: from `model.head_options`.

    Raises:
      InputError: a setting the head does not have, or a value it cannot have.
    """
    known = DEFAULTS.get(head, {})
    for name in given:
        if not known:
            raise InputError(
                f"model.head_options: head={head} has no options, {name}={given[name]} "
                f"is one of {', '.join(h for h, d in DEFAULTS.items() if name in d)}"
                if any(name in d for d in DEFAULTS.values())
                else f"model.head_options: head={head} has no options; leave out {name}"
            )
        if name not in known:
            raise InputError(
                f"model.head_options: head={head} has no option {name!r}; nearest: "
                f"{nearest(name, known)}"
            )
    found = {name: _value(name, d, given.get(name, d)) for name, d in known.items()}
    if head == "diffusion" and found["steps"] > TRAINING_STEPS:
        raise InputError(
            f"model.head_options: steps={found['steps']} of inference are more than "
            f"the {TRAINING_STEPS} that diffusion trains with; take at most those"
        )
    if "heads" in found and found["hidden"] % found["heads"]:
        raise InputError(
            f"model.head_options: heads={found['heads']} must divide "
            f"hidden={found['hidden']}"
        )
    return found


def _value(name: str, default: Any, value: Any) -> Any:
    """One checked value, of its default's type."""
    where = f"model.head_options: {name}={value}"
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise InputError(
                f"{where} is none of {', '.join(_WORDS[name])}; nearest: "
                f"{nearest(str(value), _WORDS[name], 1)}"
            )
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float):
        if not (number and 0 <= value < math.inf):
            raise InputError(f"{where} must be a finite number >= 0")
        return float(value)
    if not (number and isinstance(value, int) and value >= 1):
        raise InputError(f"{where} must be a whole number of at least 1")
    return value
