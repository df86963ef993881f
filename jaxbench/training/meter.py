"""How long updates and validations take, and what of a run is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from jaxbench.training.budget import Budget
from jaxbench.training.outcome import TrainingRun

# An update is a forward and a backward pass, which costs two of them.
PASSES_OF_AN_UPDATE = 3


class Meter:
    """Times updates that are known to have ended, and shares the time among runs.

    The runs that have not ended share it equally, so that the seconds of all add up to
    those of the clock. How far a budget of seconds has come is asked of the first run,
    which is then the only one.

    Args:
      runs: those that train together.
      clock: seconds.
      evaluation: how many updates read as many examples as a validation does; what one
        takes is estimated by it until one was made.
    """

    def __init__(
        self,
        runs: Sequence[TrainingRun],
        clock: Callable[[], float],
        evaluation: float = 0.0,
    ):
        self._runs, self._clock, self._evaluation = runs, clock, evaluation
        self._step = runs[0].outcome.step
        self._since = clock()
        # By the clock, in this process: (seconds, how many).
        self._updates, self._validations = (0.0, 0), (0.0, 0)

    def start(self) -> None:
        """Goes on after something that is neither training nor validation."""
        self._since = self._clock()

    def reach(self, step: int) -> None:
        """Update `step` has just been seen to have ended."""
        seconds, count = self._updates
        passed = self._share("train_seconds")
        self._updates = (seconds + passed, count + max(step - self._step, 0))
        self._step = max(step, self._step)

    def leave_out(self, steps: int) -> None:
        """The first `steps` updates have ended; they do not count."""
        for run in self._runs:
            run.outcome.first_steps += 0 if run.ended else steps
        self._share("first_seconds")
        self._step += steps

    def evaluated(self) -> None:
        """A validation has just ended."""
        seconds, count = self._validations
        self._validations = (seconds + self._share("evaluate_seconds"), count + 1)

    def _share(self, name: str) -> float:
        now = self._clock()
        passed = now - self._since
        going = [run.outcome for run in self._runs if not run.ended]
        for outcome in going:
            setattr(outcome, name, getattr(outcome, name) + passed / len(going))
        self._since = now
        return passed

    @property
    def seconds_per_step(self) -> float:
        """A run's share of what an update takes; 0 while that is not known."""
        outcome = self._runs[0].outcome
        counted = self._step - outcome.first_steps
        if counted > 0 and outcome.train_seconds > 0:
            return outcome.train_seconds / counted
        if outcome.first_steps:
            return outcome.first_seconds / outcome.first_steps
        return 0.0

    @property
    def steps_per_second(self) -> float:
        """Updates by the clock, validations and saves left out; 0: not known yet."""
        seconds, count = self._updates
        if seconds > 0 and count:
            return count / seconds
        return 1 / self.seconds_per_step if self.seconds_per_step else 0.0

    @property
    def seconds_per_evaluation(self) -> float:
        """What a validation takes: those made, or a guess; 0 while nothing is known."""
        seconds, count = self._validations
        if count:
            return seconds / count
        rate = self.steps_per_second
        return self._evaluation / rate / PASSES_OF_AN_UPDATE if rate else 0.0

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

    def interval(self, budget: Budget, every: float, share: float) -> float:
        """Seconds of training between two validations; 0 for none but the last.

        They may take `share` of the budget all together (0: any part of it), so slow
        ones are made less often than `every`.
        """
        if not (every and share):
            return every
        taken = self.seconds_per_evaluation
        most = int(share * budget.total / taken) if taken else math.inf
        if most < budget.total / every:
            every = budget.total / most if most > 1 else 0.0
        return every

    def validations_left(self, budget: Budget, step: int, every: float) -> int:
        """How many validations come after update `step`, the last one among them.

        `every` is in the budget's unit.
        """
        if not every:
            return 1
        done = budget.spent(step, self.seconds_at(step))
        # The one at the end counts, and no other at the same place.
        between = math.ceil(budget.total / every) - 1 - math.floor(done / every)
        return 1 + max(0, between)

    def seconds_left(self, budget: Budget, step: int, every: float) -> float:
        """What updates and validations after `step` will take by the clock."""
        rate = self.steps_per_second
        over = budget.done(step, self.seconds_at(step))
        more = 0 if over else self.last_step(budget) - step
        updates = more / rate if rate else 0.0
        validations = self.validations_left(budget, step, every)
        return updates + validations * self.seconds_per_evaluation

    def describe_evaluations(self, budget: Budget, every: float) -> str:
        """One line before training: what validations will take, of how much."""
        count = self.validations_left(budget, self._step, every)
        each = self.seconds_per_evaluation
        if budget.unit == "seconds":
            whole = budget.total
        else:
            whole = (budget.total - self._step) * self.seconds_per_step
        times = "once, at the end," if count == 1 else f"{count} times,"
        return (
            f"validates {times} about {each:.2g} s each: "
            f"{count * each / max(whole, 1e-9):.0%} of the time for training"
        )
