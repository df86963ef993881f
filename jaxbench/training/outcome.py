"""What is kept of each run while it trains: its record, its files, its time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxbench.tasks.task import Order
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.goal import Convergence, EarlyStopping, Goal
from jaxbench.training.writers import MetricWriter


@dataclasses.dataclass
class Outcome:
    """What a run has come to: the record that every checkpoint carries.

    Attributes:
      status: "ok", "diverged" or "interrupted".
      reason: why, where and what to do, when status is not "ok".
      step: updates done.
      best: {"step", "metrics"} of the best validation so far, or None.
      last: the same of the newest validation, or None.
      skips, first_skip: updates left out because they were not finite, and the step of
        the first of them (-1: none).
      first_steps, first_seconds: updates at the start of each process that the rates
        and a budget of seconds leave out, and how long they took.
      train_seconds, evaluate_seconds: of the other updates, and of validations. Of runs
        that train together each has its share.
      convergence: how far the run is on its way to its goal, where it has one.
    """

    status: str = "ok"
    reason: str = ""
    step: int = 0
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    skips: int = 0
    first_skip: int = -1
    first_steps: int = 0
    first_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    convergence: Convergence = dataclasses.field(default_factory=Convergence)

    @classmethod
    def resumed(cls, step: int, facts: Mapping[str, Any]) -> Outcome:
        """What a run had come to, from the facts of its checkpoint."""
        facts = dict(facts)
        convergence = Convergence(**facts.pop("convergence", {}))
        return cls(step=step, convergence=convergence, **facts)

    def is_over(self, budget: Budget, goal: Goal | EarlyStopping | None) -> bool:
        """Whether there is nothing left to train: solved, given up, out of budget."""
        reached = goal is not None and goal.reached(self.convergence)
        return reached or budget.done(self.step, self.train_seconds)

    def facts(self) -> dict[str, Any]:
        """The part that a resumed run goes on from."""
        return {
            "best": self.best,
            "last": self.last,
            "first_steps": self.first_steps,
            "first_seconds": self.first_seconds,
            "train_seconds": self.train_seconds,
            "evaluate_seconds": self.evaluate_seconds,
            "convergence": dataclasses.asdict(self.convergence),
        }


@dataclasses.dataclass
class TrainingRun:
    """One of the runs that train together.

    Attributes:
      orders: of each lesson, which rows make up which step.
      outcome: the run's record, written in place; its step stands still once the run
        has ended.
      checkpoints, writer: where states and metrics go.
      ended: whether the run makes no more updates.
    """

    orders: Sequence[Order]
    outcome: Outcome
    checkpoints: Checkpoints
    writer: MetricWriter
    ended: bool = False

    @property
    def order(self) -> Order:
        """Which rows make up which step of the lesson that is trained now."""
        return self.orders[self.outcome.convergence.lesson]


class Meter:
    """Times updates that are known to have ended, and shares the time among runs.

    The runs that have not ended share it equally, so that the seconds of all add up to
    those of the clock. How far a budget of seconds has come is asked of the first run,
    which is then the only one.

    Args:
      runs: those that train together.
      clock: seconds.
    """

    def __init__(self, runs: Sequence[TrainingRun], clock: Callable[[], float]):
        self._runs, self._clock = runs, clock
        self._step = runs[0].outcome.step
        self._since = clock()

    def start(self) -> None:
        """Goes on after something that is neither training nor validation."""
        self._since = self._clock()

    def reach(self, step: int) -> None:
        """Update `step` has just been seen to have ended."""
        self._share("train_seconds")
        self._step = max(step, self._step)

    def leave_out(self, steps: int) -> None:
        """The first `steps` updates have ended; they do not count."""
        for run in self._runs:
            run.outcome.first_steps += 0 if run.ended else steps
        self._share("first_seconds")
        self._step += steps

    def evaluated(self) -> None:
        """A validation has just ended."""
        self._share("evaluate_seconds")

    def _share(self, name: str) -> None:
        now = self._clock()
        going = [run.outcome for run in self._runs if not run.ended]
        for outcome in going:
            each = (now - self._since) / len(going)
            setattr(outcome, name, getattr(outcome, name) + each)
        self._since = now

    @property
    def seconds_per_step(self) -> float:
        """What an update takes; 0 while that is not known."""
        outcome = self._runs[0].outcome
        counted = self._step - outcome.first_steps
        if counted > 0 and outcome.train_seconds > 0:
            return outcome.train_seconds / counted
        if outcome.first_steps:
            return outcome.first_seconds / outcome.first_steps
        return 0.0

    def seconds_at(self, step: int) -> float:
        """When update `step` ends, in training seconds, as far as can be told."""
        return self._runs[0].outcome.train_seconds + self.seconds_per_step * max(
            step - self._step, 0
        )

    def last_step(self, budget: Budget) -> int:
        """The update with which the budget will be spent, as far as can be told."""
        if budget.steps is not None:
            return budget.steps
        step, each = self._runs[0].outcome.step, self.seconds_per_step
        left = budget.total - self.seconds_at(step)
        return step + max(1, math.ceil(left / each)) if each else step + 1
