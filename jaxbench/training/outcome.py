"""What is kept of each run while it trains: its record and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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
      due: whether a validation belongs to `step` and has not been made. States are
        saved before they are scored: a run that is stopped in between loses nothing.
      best: {"step", "metrics"} of the best validation so far, or None.
      last: the same of the newest validation, or None.
      skips, first_skip: updates left out because they were not finite, and the step of
        the first of them (-1: none).
      first_steps, first_seconds: updates at the start of each process that the rates
        and a budget of seconds leave out, and how long they took.
      train_seconds, evaluate_seconds: of the other updates, and of validations. Of runs
        that train together each has its share.
      started_from: the run whose weights were the first ones; None for drawn ones.
      convergence: how far the run is on its way to its goal, where it has one.
    """

    status: str = "ok"
    reason: str = ""
    step: int = 0
    due: bool = False
    best: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    skips: int = 0
    first_skip: int = -1
    first_steps: int = 0
    first_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    started_from: dict[str, Any] | None = None
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
            "due": self.due,
            "best": self.best,
            "last": self.last,
            "first_steps": self.first_steps,
            "first_seconds": self.first_seconds,
            "train_seconds": self.train_seconds,
            "evaluate_seconds": self.evaluate_seconds,
            "started_from": self.started_from,
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


def go_on(checkpoints: Checkpoints, step: int, facts: Mapping[str, Any]) -> Outcome:
    """What a run had come to at `step`, of which it goes on; what came later is gone.

    Args:
      checkpoints: of the run.
      step: of a state under "last".
      facts: of that state.
    """
    checkpoints.forget_after(step)
    outcome = Outcome.resumed(step, facts)
    if outcome.best and outcome.best["step"] not in checkpoints.steps("best"):
        # It gave way to a better one, of an update that is made anew.
        outcome.best = None
    return outcome
