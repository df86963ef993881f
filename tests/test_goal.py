"""When a task counts as solved: pure bookkeeping over validations."""

from __future__ import annotations

import dataclasses

import pytest

from jaxbench.errors import InputError
from jaxbench.tasks.pentathlon.curriculum import parse_levels
from jaxbench.training.goal import Convergence, EarlyStopping, Goal

GOAL = Goal(metric="accuracy", threshold=0.99, advance=0.9, evaluations=3)
LEVELS = ("L1", "L2", "L3", "mixed")


def judged(goal: Goal, lessons: list[str], scores: list[float], losses=None):
    """What a goal makes of validations at steps 10, 20, ..."""
    now, moved = Convergence(), []
    for index, score in enumerate(scores):
        loss = losses[index] if losses else 1.0 / (index + 1)
        step = 10 * (index + 1)
        if goal.judge(now, lessons, step, {"accuracy": score, "loss": loss}):
            moved.append(step)
    return now, moved


def test_solved_is_three_in_a_row_and_counts_from_the_first():
    now, _ = judged(GOAL, ["L1"], [0.5, 0.99, 0.995, 0.98, 0.99, 0.99])
    assert now.solved_step is None and not GOAL.reached(now)
    now, _ = judged(GOAL, ["L1"], [0.5, 0.99, 0.995, 0.98, 0.99, 0.99, 1.0, 0.1])
    assert now.solved_step == 50 and GOAL.reached(now)
    assert now.passed == {"L1": 50}


def test_a_curriculum_moves_on_at_the_lower_threshold_and_ends_at_the_higher():
    scores = [0.9, 0.95, 0.91, 0.5, 0.9, 0.9, 0.9, 0.97, 0.98, 0.98]
    now, moved = judged(GOAL, ["L1", "L2", "L3"], scores)
    assert moved == [30, 70] and now.passed == {"L1": 10, "L2": 50}
    # 0.98 would pass a lesson, but not the last one.
    assert now.lesson == 2 and now.solved_step is None
    now, _ = judged(GOAL, ["L1", "L2", "L3"], [*scores, 0.99, 0.99, 1.0])
    assert now.passed["L3"] == 110 == now.solved_step


def test_a_plateau_ends_a_run_only_after_its_patience():
    goal = dataclasses.replace(GOAL, patience=40)
    flat = [1.0, 0.5, 0.499, 0.498, 0.4976]
    now, _ = judged(goal, ["L1"], [0.1] * 5, flat)
    assert now.stalled_step is None and now.gain_step == 20
    now, _ = judged(goal, ["L1"], [0.1] * 6, [*flat, 0.4976])
    assert now.stalled_step == 60 and goal.reached(now)
    # A gain of 0.5 % counts, and a streak is never given up.
    now, _ = judged(goal, ["L1"], [0.1] * 6, [*flat[:4], 0.49, 0.49])
    assert now.stalled_step is None
    now, _ = judged(goal, ["L1"], [0.1] * 5 + [0.99], [*flat, 0.4976])
    assert now.stalled_step is None
    assert not dataclasses.replace(goal, stop=False).reached(
        Convergence(solved_step=10, stalled_step=None)
    )


def test_levels_are_one_or_a_stretch():
    assert parse_levels("L2", LEVELS) == ("L2",)
    assert parse_levels("L1..L3", LEVELS) == ("L1", "L2", "L3")
    assert parse_levels("L3..mixed", LEVELS) == ("L3", "mixed")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("L9", r"no level 'L9'; nearest: .*levels: L1, L2, L3, mixed"),
        ("L1..", r"'L1\.\.' is a curriculum without an end; name its last level"),
        ("..L2", r"'\.\.L2' is a curriculum without a beginning"),
        ("L3..L1", r"'L3\.\.L1' leads backwards"),
        ("L1..L1", r"leads backwards"),
        ("L1..L7", r"no level 'L7'"),
        ("", r"no level ''"),
    ],
)
def test_levels_that_cannot_be_are_one_line(text, says):
    with pytest.raises(InputError, match=says) as error:
        parse_levels(text, LEVELS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("maximize", [False, True])
def test_early_stopping_waits_for_gains_that_count(maximize):
    sign = -1.0 if maximize else 1.0
    rule = EarlyStopping("score", maximize, patience=2, min_delta=0.1)

    def after(values):
        now = Convergence()
        for index, value in enumerate(values):
            assert not rule.reached(now)
            found = rule.judge(now, ["all"], index + 1, {"score": sign * value})
            assert found is False
        return now

    now = after([1.0, 0.95, 0.85, 0.8])
    assert now.stalled_step is None and now.gain_step == 3 and now.streak == 1
    now = after([1.0, 0.95, 0.91])
    assert now.stalled_step == 3 and rule.reached(now)
    # Each gain is measured against the best, so small ones add up.
    assert after([1.0, 0.95, 0.89, 0.85]).stalled_step is None
