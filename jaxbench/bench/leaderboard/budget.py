"""What the runs of one ranking had to train with: so many seconds, or so much text."""

from __future__ import annotations

import dataclasses

from jaxbench.bench.leaderboard.read import Run
from jaxbench.bench.terms import terms, text_size


@dataclasses.dataclass(frozen=True, order=True)
class Budget:
    """A budget as a ranking holds it equal.

    Attributes:
      unit: "steps" or "seconds"; empty where a task's rankings do not depend on it, or
        where a result does not say.
      total: so many of them.
      step_bytes: text of one step; 0 for a budget of seconds, where it is each recipe's
        own affair, and for runs that never took a step.
      device: where a budget of seconds was spent: the same seconds buy more elsewhere.
    """

    unit: str = ""
    total: float = 0.0
    step_bytes: int = 0
    device: str = ""

    @classmethod
    def of(cls, run: Run) -> Budget:
        """What a run says of its budget, as far as its task's rankings depend on it."""
        unit, total = run.text("budget", "unit"), run.number("budget", "total")
        known = unit in ("steps", "seconds")
        if total is None or not (known and terms(run.text("task")).equal_budgets):
            return cls()
        if unit == "seconds":
            return cls(unit, float(total), device=run.device)
        steps, seen = run.number("steps"), run.seen_bytes or 0
        return cls(unit, float(total), round(seen / steps) if steps else 0)

    @property
    def whole(self) -> bool:
        """Whether it says all that it could."""
        return not self.unit or bool(self.device or self.step_bytes)

    def agrees(self, other: Budget) -> bool:
        """Whether a run that knows this much may have had that budget."""
        if not self.unit:
            return True
        return (self.unit, self.total) == (other.unit, other.total) and (
            not self.whole or self == other
        )

    @property
    def name(self) -> str:
        """In a heading: "equal time (600 s)"; empty without a budget."""
        if self.unit == "seconds":
            return f"equal time ({self.total:,.10g} s)"
        if self.unit and self.step_bytes:
            return f"equal text ({text_size(self.total * self.step_bytes)})"
        return f"equal text ({self.total:,.0f} steps)" if self.unit else ""

    def sentence(self) -> str:
        """What is equal, and what is not."""
        if self.unit == "seconds":
            return (
                f"Equal time: {self.total:,.10g} s of training, compilation and first "
                f"steps excluded, on {self.device or 'an unknown device'}"
            )
        steps = f"{self.total:,.0f} steps"
        if not self.step_bytes:
            return f"Equal text: {steps}"
        return f"Equal text: {text_size(self.total * self.step_bytes)} in {steps}"
