"""When a task counts as solved, and when a run may give up: pure bookkeeping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

# A validation loss has gained where it fell by this share.
GAIN = 0.005


@dataclasses.dataclass
class Convergence:
    """How far a run is on its way to the goal; every checkpoint carries it.

    Attributes:
      lesson: index of the part of the curriculum that is trained now.
      streak: validations in a row that were good enough, up to now.
      streak_step: the step of the first of them.
      passed: name of a lesson -> the step from which it counts as learned.
      solved_step: the same of the last lesson; None while it is not.
      best_loss, gain_step: the lowest validation loss of this lesson, and the step at
        which it last fell by `GAIN`.
      stalled_step: the step at which the run gave up, or None.
    """

    lesson: int = 0
    streak: int = 0
    streak_step: int = 0
    passed: dict[str, int] = dataclasses.field(default_factory=dict)
    solved_step: int | None = None
    best_loss: float | None = None
    gain_step: int = 0
    stalled_step: int | None = None


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends a run whose validations gain nothing more.

    Attributes:
      metric: a validation metric.
      maximize: whether more of it is better.
      patience: validations in a row without a gain, at the last of which it ends.
      min_delta: what counts as a gain over the best one before, in the metric's unit.
    """

    metric: str
    maximize: bool
    patience: int
    min_delta: float = 0.0

    def judge(
        self,
        now: Convergence,
        lessons: Sequence[str],
        step: int,
        metrics: Mapping[str, float],
    ) -> bool:
        """Takes in a validation; False: there is no next lesson to begin."""
        del lessons
        # As a loss: the lower, the better.
        value = -metrics[self.metric] if self.maximize else metrics[self.metric]
        if now.best_loss is None or value < now.best_loss - self.min_delta:
            now.best_loss, now.gain_step, now.streak = value, step, 0
        else:
            now.streak += 1
        if now.streak >= self.patience:
            now.stalled_step = step
        return False

    def reached(self, now: Convergence) -> bool:
        """Whether training ends."""
        return now.stalled_step is not None


@dataclasses.dataclass(frozen=True)
class Goal:
    """What a run tries to reach.

    A lesson is learned once the metric is at its threshold in so many validations in a
    row; it counts from the first of them. The run is solved with its last lesson.

    Attributes:
      metric: a validation metric, of which more is better.
      threshold: for the last lesson.
      advance: for those before it.
      evaluations: in a row.
      patience: steps without a gain in validation loss after which the run gives up; 0
        for never. Retrieval stays on a plateau for thousands of steps before it comes.
      stop: whether training ends when the goal is reached.
    """

    metric: str
    threshold: float
    advance: float
    evaluations: int = 3
    patience: int = 0
    stop: bool = True

    def judge(
        self,
        now: Convergence,
        lessons: Sequence[str],
        step: int,
        metrics: Mapping[str, float],
    ) -> bool:
        """Takes in a validation; returns whether the next lesson begins."""
        last = now.lesson == len(lessons) - 1
        wanted = self.threshold if last else self.advance
        if metrics[self.metric] >= wanted:
            now.streak_step = now.streak_step if now.streak else step
            now.streak += 1
        else:
            now.streak = 0
        self._watch_gain(now, step, metrics.get("loss"))
        if now.streak < self.evaluations or now.solved_step is not None:
            return False
        now.passed[lessons[now.lesson]] = now.streak_step
        if last:
            now.solved_step = now.streak_step
            return False
        now.lesson += 1
        now.streak, now.best_loss, now.gain_step = 0, None, step
        return True

    def reached(self, now: Convergence) -> bool:
        """Whether training ends, solved or given up."""
        return self.stop and (
            now.solved_step is not None or now.stalled_step is not None
        )

    def _watch_gain(self, now: Convergence, step: int, loss: float | None) -> None:
        if loss is None:
            return
        if now.best_loss is None or loss < now.best_loss * (1 - GAIN):
            now.best_loss, now.gain_step = loss, step
        elif self.patience and not now.streak and step - now.gain_step >= self.patience:
            now.stalled_step = step
