"""When a run ends: after so many steps, or after so many seconds. Imports no jax."""

from __future__ import annotations

import dataclasses
import math

from jaxbench.errors import InputError, nearest

BYTES = {"kB": 10**3, "MB": 10**6, "GB": 10**9}
SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclasses.dataclass(frozen=True)
class Budget:
    """A number of updates, or a number of seconds of training.

    Training seconds are those of the train program: compilation, the first steps after
    it and evaluations are not among them.

    Attributes:
      total: steps or seconds.
      unit: "steps" or "seconds".
    """

    total: float
    unit: str = "steps"

    @property
    def steps(self) -> int | None:
        """Updates of the whole run; None where the clock decides."""
        return int(self.total) if self.unit == "steps" else None

    def spent(self, step: int, seconds: float) -> float:
        """What is used up after `step` updates and `seconds` of training."""
        return float(step if self.unit == "steps" else seconds)

    def done(self, step: int, seconds: float) -> bool:
        """Whether nothing is left."""
        return self.spent(step, seconds) >= self.total


def parse_budget(text: str) -> tuple[float, str]:
    """Reads "10min", "90s", "50MB", "2000steps" as a number of a unit, in any case.

    Returns:
      The number in "seconds", "bytes" or "steps", and that word.

    Raises:
      InputError: no positive number, or no unit that is known.
    """
    number = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    unit = text.strip()[len(number) :]
    known = [*SECONDS, *BYTES, "steps"]
    unit = next((name for name in known if name.lower() == unit.lower()), unit)
    if unit not in known:
        hint = f"nearest: {nearest(unit, known)}" if unit else f"one of {known}"
        raise InputError(
            f"train.budget={text!r} needs a unit, for example 10min, 50MB or "
            f"2000steps; {hint}"
        )
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise InputError(
            f"train.budget={text!r} must be more than nothing, for example 10min, "
            "50MB or 2000steps"
        )
    if unit in SECONDS:
        return value * SECONDS[unit], "seconds"
    return value * BYTES.get(unit, 1), "bytes" if unit in BYTES else "steps"


def read_budget(text: str, *, batch_size: int, tokens_per_example: int) -> Budget:
    """The budget `text` stands for; bytes become whole steps, at least one.

    Raises:
      InputError: as `parse_budget`, or the bytes do not fill one step.
    """
    amount, unit = parse_budget(text)
    if unit == "seconds":
        return Budget(amount, "seconds")
    tokens = batch_size * tokens_per_example
    steps = int(amount // tokens) if unit == "bytes" else int(amount)
    if steps < 1:
        raise InputError(
            f"train.budget={text!r} is less than one step of {tokens:,} bytes; raise "
            "it or lower train.batch_size or data.window"
        )
    return Budget(steps)
