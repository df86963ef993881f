"""When a run ends: after so many steps, or after so many seconds. Imports no jax."""

from __future__ import annotations

import dataclasses

from jaxbench.errors import InputError
from jaxbench.tasks.rules import parse_budget


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
