"""Runs that end with a number of steps, of bytes, or of seconds of training."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from toy import BATCH, Parts, toy_task

from jaxbench.errors import InputError
from jaxbench.tasks.rules import parse_budget
from jaxbench.training import loop
from jaxbench.training.budget import Budget, read_budget
from jaxbench.training.meter import Meter
from jaxbench.training.outcome import Outcome, TrainingRun
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.records import read_metrics


@pytest.fixture
def parts(toy_parts) -> Parts:
    return toy_parts


class Clock:
    """A clock that only the train program moves: `each` seconds a step."""

    def __init__(self, parts: Parts, each: float):
        self.now = 100.0
        self.each = each
        self.train = parts.programs.train

    def __call__(self) -> float:
        return self.now

    def run(self, state, arrays, rows, span):
        self.now += self.each * int(span.updates)
        return jax.block_until_ready(self.train(state, arrays, rows, span))


def train(parts, folder, monkeypatch, budget, each=1.0, **overrides):
    clock = Clock(parts, each)
    programs = parts.programs
    moved = type(programs)(**{**vars(programs), "train": clock.run})
    monkeypatch.setattr(parts, "programs", moved)
    settings = dict(checkpoint_every=0, first_steps=5, clock=clock) | overrides
    return parts.train(folder, budget, **settings)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("10min", (600, "seconds")),
        ("90s", (90, "seconds")),
        ("1.5h", (5400, "seconds")),
        ("50MB", (50_000_000, "bytes")),
        ("2kB", (2000, "bytes")),
        ("2000steps", (2000, "steps")),
        ("300KB", (300_000, "bytes")),
        ("1gb", (10**9, "bytes")),
        ("5MIN", (300, "seconds")),
    ],
)
def test_budgets_are_read_with_their_unit(text, expected):
    assert parse_budget(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("0min", "must be more than nothing"),
        ("0MB", "must be more than nothing"),
        ("-5s", "must be more than nothing"),
        ("nans", "more than nothing|needs a unit"),
        ("600", "needs a unit"),
        ("10 minutes", r"needs a unit.*nearest: .*min"),
        ("50Mbit", r"needs a unit.*nearest: .*MB"),
        ("", "needs a unit"),
    ],
)
def test_a_budget_of_nothing_or_without_a_unit_is_refused(text, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_budget(text)
    assert "\n" not in str(caught.value)


def test_bytes_become_whole_steps():
    sizes = dict(batch_size=4, tokens_per_example=100)
    assert read_budget("1kB", **sizes) == Budget(2)
    assert read_budget("7steps", **sizes) == Budget(7)
    assert read_budget("2min", **sizes) == Budget(120, "seconds")
    with pytest.raises(InputError, match="less than one step of 400 bytes"):
        read_budget("0.3kB", **sizes)


def test_a_budget_of_seconds_ends_with_the_time(parts, tmp_path, monkeypatch):
    """The first five steps are made and left out; the last dispatch is cut short."""
    _, outcome = train(parts, tmp_path, monkeypatch, Budget(10, "seconds"), each=0.7)
    assert outcome.first_steps == 5
    assert outcome.first_seconds == pytest.approx(5 * 0.7)
    # 15 steps of 0.7 s are the first to fill 10 s.
    assert outcome.step == 5 + 15
    assert outcome.train_seconds == pytest.approx(15 * 0.7)
    assert outcome.last["step"] == 20


def test_slow_validations_are_made_less_often(parts, tmp_path, monkeypatch):
    """Each takes 3 s of a budget of 40 s: a fifth of it has room for two."""
    monkeypatch.setattr(parts, "order", Endless())
    clock = Clock(parts, 1.0)
    programs = type(parts.programs)(**{**vars(parts.programs), "train": clock.run})
    monkeypatch.setattr(parts, "programs", programs)
    score, said = loop.score, []

    def slow_score(*arguments):
        clock.now += 3
        return score(*arguments)

    monkeypatch.setattr(loop, "score", slow_score)
    monkeypatch.setattr(TrainingProgress, "say", lambda self, line: said.append(line))
    left = []
    monkeypatch.setattr(
        TrainingProgress, "update", lambda self, *facts: left.append(facts[-2:])
    )
    settings = dict(checkpoint_every=0, first_steps=5, evaluate_every=4, clock=clock)
    parts.train(tmp_path, Budget(40, "seconds"), evaluation_share=0.2, **settings)
    records = read_metrics(tmp_path / "metrics.jsonl")
    steps = [r["step"] for r in records if r["split"] == "validation"]
    # The guess before the first one, 4 batches of a third of an update, has room for 6.
    assert len(steps) <= 3 and steps[-1] == 45
    assert "validates 6 times, about 1.3 s each: 20% of the time" in said[0]
    # A second of the clock is a second of training, in which nothing is validated.
    assert all(rate == pytest.approx(1.0) for rate, _ in left)
    # In the end the last validation is all that is left, and it is counted.
    assert left[-2][1] > 3 and left[-1][1] == pytest.approx(3.0)


class Endless:
    """An order without epochs."""

    steps_per_epoch = 0

    def steps(self, start: int, count: int, pad_to: int) -> np.ndarray:
        return np.zeros((pad_to, BATCH), np.int32) + start


def test_validations_stand_at_parts_of_the_time(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "order", Endless())
    monkeypatch.setattr(loop, "LONGEST_DISPATCH", 100)
    train(parts, tmp_path, monkeypatch, Budget(40, "seconds"), evaluate_every=10)
    records = read_metrics(tmp_path / "metrics.jsonl")
    steps = [r["step"] for r in records if r["split"] == "validation"]
    # Dispatches end at multiples of 8; time 10 is step 15, and so on.
    assert steps == [16, 32, 40, 45]


def test_validating_and_saving_spend_nothing(parts, tmp_path, monkeypatch):
    clock = Clock(parts, 1.0)
    programs = type(parts.programs)(**{**vars(parts.programs), "train": clock.run})
    monkeypatch.setattr(parts, "programs", programs)
    score = loop.score

    def slow_score(*arguments):
        clock.now += 1000
        return score(*arguments)

    monkeypatch.setattr(loop, "score", slow_score)
    _, outcome = parts.train(
        tmp_path,
        Budget(12, "seconds"),
        checkpoint_every=0,
        first_steps=5,
        evaluate_every=3,
        clock=clock,
    )
    assert outcome.step == 17
    assert outcome.train_seconds == pytest.approx(12)


def test_an_interrupted_budget_of_seconds_goes_on(parts, tmp_path, monkeypatch):
    budget = Budget(20, "seconds")
    asked = []

    def stop():
        asked.append(1)
        return "enough" if len(asked) == 7 else None

    _, first = train(parts, tmp_path, monkeypatch, budget, stop=stop)
    assert first.status == "interrupted" and first.step == 16
    _, outcome = train(parts, tmp_path, monkeypatch, budget)
    # Each process leaves out its own first five steps.
    assert outcome.status == "ok" and outcome.first_steps == 10
    assert outcome.train_seconds == pytest.approx(20)
    assert outcome.step == 30


def test_the_schedule_sees_the_part_that_is_spent(parts, tmp_path, monkeypatch):
    spans = []
    clock = Clock(parts, 2.0)

    def run(state, arrays, rows, span):
        spans.append([float(x) for x in span])
        return clock.run(state, arrays, rows, span)

    programs = type(parts.programs)(**{**vars(parts.programs), "train": run})
    monkeypatch.setattr(parts, "programs", programs)
    parts.train(
        tmp_path,
        Budget(30, "seconds"),
        checkpoint_every=0,
        evaluate_every=0,
        first_steps=5,
        clock=clock,
    )
    # updates, spent, seconds a step, total; nothing is spent by the first five steps.
    assert spans[0] == [5, 0, 0, 30]
    assert spans[1][1:] == [0, 2, 30]
    assert [s[1] for s in spans[1:]] == sorted(s[1] for s in spans[1:])
    assert spans[-1][1] + spans[-1][0] * spans[-1][2] == pytest.approx(30)


def test_a_meter_counts_only_what_is_known_to_have_ended():
    times = iter([0.0, 3.0, 10.0, 11.0])
    outcome = Outcome()
    meter = Meter([TrainingRun([], outcome, None, None)], lambda: next(times))
    meter.leave_out(2)
    assert (outcome.first_steps, outcome.first_seconds) == (2, 3.0)
    assert meter.seconds_at(4) == pytest.approx(2 * 1.5)
    outcome.step = 9
    meter.reach(9)
    assert outcome.train_seconds == 7.0 and meter.seconds_per_step == 1.0
    assert meter.seconds_at(12) == 10.0
    assert meter.last_step(Budget(10, "seconds")) == 12
    meter.start()
    assert outcome.train_seconds == 7.0


def test_runs_that_go_on_share_the_time():
    times = iter([0.0, 6.0, 10.0, 13.0])
    runs = [TrainingRun([], Outcome(), None, None) for _ in range(3)]
    meter = Meter(runs, lambda: next(times))
    meter.reach(5)
    runs[0].ended = True
    meter.reach(10)
    meter.evaluated()
    assert [run.outcome.train_seconds for run in runs] == [2, 4, 4]
    assert [run.outcome.evaluate_seconds for run in runs] == [0, 1.5, 1.5]


def broken_task(*steps: int, seed: int = 3):
    """The toy task with a signal that is not finite in windows of the given steps."""
    task = toy_task()
    order = task.order(batch_size=BATCH, seed=seed)
    signal = np.array(task.arrays["signal"])
    rows = [int(order.steps(step, 1, 1)[0, 0]) for step in steps]
    for row in rows:
        signal[row] = np.nan
    hit = {
        step
        for step in range(order.steps_per_epoch)
        for row in order.steps(step, 1, 1)[0]
        if any(set(range(int(row), int(row) + 5)) & {r} for r in rows)
    }
    return toy_task(signal=signal), sorted(hit)


def test_so_many_updates_that_are_not_finite_are_skipped_and_no_more(
    tmp_path, monkeypatch
):
    task, hit = broken_task(5)
    parts = Parts(task=task, max_skips=len(hit), k=8)
    state, outcome = parts.train(tmp_path / "few", 8, checkpoint_every=0)
    assert outcome.status == "ok" and outcome.step == 8
    assert outcome.skips == len(hit) and outcome.first_skip == hit[0]
    assert int(state.step) == 8 and int(state.broken_step) == -1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    records = read_metrics(tmp_path / "few" / "metrics.jsonl")
    assert sum(r.get("skipped", 0) for r in records) == len(hit)

    task, more = broken_task(*range(2, 8))
    signal = jax.device_put(task.arrays["signal"], parts.placement.whole)
    monkeypatch.setattr(parts, "arrays", {"signal": signal})
    assert len(more) > len(hit)
    _, outcome = parts.train(tmp_path / "many", 8, checkpoint_every=0)
    last = more[len(hit)]
    assert outcome.status == "diverged" and outcome.step == last
    assert f"step {last}:" in outcome.reason
    assert f"after {len(hit)} skipped updates" in outcome.reason
    assert f"the first at step {more[0]}" in outcome.reason


def test_a_long_evaluation_is_seen_to_go_on(parts, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        "jaxbench.training.progress.TrainingProgress.evaluating",
        lambda self: said.append("evaluate"),
    )
    train(parts, tmp_path, monkeypatch, Budget(8))
    assert said == ["evaluate"] * len(parts.validation)
