"""The five tasks: oracle and constant through the real evaluation, splits, orders."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import edit_distance, flip_flop, knapsack, mqar, word_problem
from jaxbench.bench import build
from jaxbench.bench.check import check_values
from jaxbench.data.synthetic.event import IGNORE
from jaxbench.data.synthetic.streams import keys
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.pentathlon.events import EVENTS, build_event
from jaxbench.tasks.pentathlon.loss import answer_loss, summarize
from jaxbench.training.step import make_evaluate_program

RECIPES = {
    "mqar": mqar,
    "flip_flop": flip_flop,
    "knapsack": knapsack,
    "word_problem": word_problem,
    "edit_distance": edit_distance,
}
SETTINGS = {
    "mqar": [
        "level=L0,vocabulary=1024",
        "level=L0,filler=random,vocabulary=1024",
        "pairs=3,tokens=16,level=custom,vocabulary=64",
    ],
    "flip_flop": ["level=L1", "level=L1,train_mix=yes"],
    "knapsack": ["level=L1", "level=L2,target=digits", "level=L1,target=dp"],
    "word_problem": ["level=L1", "level=L1,group=Z60", "level=L1,group=A4xZ5"],
    "edit_distance": ["level=L1", "level=L1,target=dp"],
}
CASES = [(task, text) for task, texts in SETTINGS.items() for text in texts]
CASES += [(task, "protocol=compat") for task in RECIPES]
FIRST = [(task, SETTINGS[task][0]) for task in ("mqar", "knapsack")]


def config(task: str, text: str) -> dict[str, Any]:
    small = "" if "compat" in text else ",test_examples=60,train_examples=0"
    made = RECIPES[task].get_config(f"mlp,{text},width=8{small}")
    return json.loads(made.to_json())


def made(task: str, text: str):
    settings = config(task, text)
    check_values(settings)
    return build.build_task(settings, print), build_event(settings)


class Sayer(nn.Module):
    """A head that says what it is told, whatever the model thinks."""

    vocabulary: int

    @nn.compact
    def __call__(self, h_btd, batch):
        return 20.0 * jax.nn.one_hot(batch["said_bm"], self.vocabulary)


# Rows that are scored at once.
BATCH = 50


def judge(task):
    """Scores whoever says given answers: the evaluation program of a task.

    A function of a split, its answers [N, T], and how many of them count.
    """
    plain = task.gather

    def gather(arrays, examples):
        batch = plain(arrays, examples[:, :2])
        chosen = jnp.take_along_axis(examples[:, 2], batch["position_bm"], axis=1)
        return batch | {"said_bm": jnp.maximum(chosen, 0)}

    mine = dataclasses.replace(
        task, gather=gather, head=Sayer(task.encoder.table.vocabulary)
    )
    model = Model(mine.encoder, build.build_stack("mlp", width=8), mine.head, "all")
    program = jax.jit(make_evaluate_program(model, mine))

    def zeros(examples):
        batch = jax.eval_shape(gather, {}, examples)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)

    def said(split: str, answers_nt: np.ndarray, most: int = 100) -> dict[str, float]:
        rows = np.concatenate([task.splits[split], answers_nt[:, None]], axis=1)[:most]
        weight_n = np.ones(len(rows), np.float32)
        more = -len(rows) % BATCH
        rows, weight_n = (
            np.pad(rows, ((0, more), (0, 0), (0, 0))),
            np.pad(weight_n, (0, more)),
        )
        variables, total = zeros(rows[:BATCH]), {}
        for first in range(0, len(rows), BATCH):
            now = slice(first, first + BATCH)
            sums = program(variables, {}, rows[None, now], weight_n[None, now])
            for name, value in sums.items():
                total[name] = total.get(name, 0) + np.asarray(value, np.float64)
        return mine.summarize(total)

    return said


@pytest.mark.parametrize(
    ("task", "text"),
    [
        pytest.param(*case, marks=[pytest.mark.integration] * (case not in FIRST))
        for case in CASES
    ],
)
def test_the_oracle_scores_the_ceiling_and_a_constant_the_floor(task, text):
    """Through gather, head, loss and summary, on validation and every test split."""
    built, event = made(task, text)
    said = judge(built)
    # The last of them is the longest where there are longer ones.
    for split in dict.fromkeys(("validation", "test", *built.finals[-1:])):
        if split not in built.splits:
            continue
        rows = built.splits[split]
        asked_nt = rows[:, 1] != IGNORE
        metrics = said(split, event.solve(rows[:, 0], asked_nt))
        # The report's flip-flop and word problem have chance in them.
        noise = 0 if built.ceiling[built.primary] == 1.0 else 0.02
        assert metrics[built.primary] >= built.ceiling[built.primary] - 1e-3 - noise
        if built.ceiling[built.primary] == 1.0:
            assert metrics["loss"] < 1e-3 and metrics["sequence_accuracy"] == 1.0
    rows = built.splits["validation"]
    answers = rows[:, 1][rows[:, 1] != IGNORE]
    constant = int(np.bincount(answers).argmax())
    metrics = said("validation", np.full(rows[:, 0].shape, constant), 1000)
    floors = [floor[built.primary] for floor in built.floors.values()]
    assert metrics[built.primary] <= max(*floors, 1 / 3) + 0.05
    assert metrics[built.primary] < built.ceiling[built.primary] + 0.01


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(task, marks=[pytest.mark.integration] * (task == "edit_distance"))
        for task in sorted(RECIPES)
    ],
)
def test_every_level_builds_and_no_test_example_is_trained_on(task):
    small = "vocabulary=1024," if task == "mqar" else ""
    event = build_event(config(task, f"{small}level=L1"))
    for level in event.levels[:3]:
        built, _ = made(task, f"{small}level={level}")
        order = built.order(batch_size=32, seed=0)
        rows = order.steps(0, 3, 5)
        assert rows.shape == (5, 32, 2, built.tokens_per_example)
        np.testing.assert_array_equal(rows[2], rows[4])
        # A step is a function of the seed and its number.
        np.testing.assert_array_equal(rows[1:3], order.steps(1, 2, 2))
        other = built.order(batch_size=32, seed=1).steps(0, 3, 5)
        assert (rows != other).any()
        test = keys(built.splits["test"][:, 0])
        for drawn in (*rows[:3], built.splits["validation"]):
            if drawn.shape[-1] == built.splits["test"].shape[-1]:
                assert not np.isin(keys(drawn[:, 0]), test).any()
        # Another seed of the data: other test examples, another fingerprint.
        moved, _ = made(task, f"{small}level={level},data.seed=1")
        assert moved.source["fingerprint"] != built.source["fingerprint"]
        again, _ = made(task, f"{small}level={level},seed=1")
        assert again.source["fingerprint"] == built.source["fingerprint"]


def test_a_fixed_training_set_is_gone_through_in_permutations():
    built, _ = made("mqar", "level=L0")
    settings = config("mqar", "level=L0")
    settings["data"]["train_examples"] = 50
    fixed = build.build_task(settings, print)
    order = fixed.order(batch_size=20, seed=0)
    rows = np.concatenate(order.steps(0, 5, 5))
    counts = np.unique(rows.reshape(100, -1), axis=0, return_counts=True)[1]
    # Two epochs of 50 examples in five batches of 20, across the epoch's end.
    assert sorted(counts) == [2] * 50
    np.testing.assert_array_equal(order.steps(3, 1, 1)[0], rows[60:80])
    assert built.source["fingerprint"] == fixed.source["fingerprint"]


def test_levels_of_a_curriculum_are_padded_and_learned_in_turn():
    built, event = made("knapsack", "level=L1..L3")
    assert [stage.name for stage in built.stages] == ["L1", "L2", "L3"]
    length = event.length("L3")
    for stage in built.stages:
        rows = stage.order(batch_size=8, seed=0).steps(0, 1, 1)[0]
        assert rows.shape == (8, 2, length)
        assert built.splits[stage.split].shape[2] == length
        own = event.length(stage.name)
        assert (rows[:, 1, own:] == IGNORE).all()
        assert (rows[:, 1] != IGNORE).any(axis=1).all()
    assert set(built.finals) >= {"test"}


def test_learned_positions_exclude_longer_tests_with_the_reason():
    plain, _ = made("mqar", "level=L1")
    learned, _ = made("mqar", "level=L1,positions=learned")
    assert not plain.excluded and "length_512" in plain.finals
    assert learned.finals == ("test",)
    assert learned.excluded["length_512"] == (
        "its 512 tokens are more than the 64 positions the model has learned"
    )
    assert learned.encoder.positions == 64
    # A row that asks for them need not be told.
    settings = config("mqar", "level=L1")
    settings["model"]["backbone"] = "vanilla_report"
    assert build.build_task(settings, print).encoder.positions == 64
    settings["protocol"], settings["data"] = "compat", {"level": "K32"}
    assert build.build_task(settings, print).encoder.positions == 128
    with pytest.raises(InputError, match="longer than the 64 positions"):
        batch = plain.gather({}, plain.splits["length_512"][:1])
        learned.encoder.init(jax.random.key(0), batch)


def test_the_loss_counts_answers_and_only_answers():
    """Against a loop in float64."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3, 7)).astype(np.float32)
    target = np.array([[1, 2, 3], [4, -1, -1], [5, 6, -1], [0, 0, 0]])
    weight = np.array([1, 1, 1, 0], np.float32)
    values = np.array([np.nan, 10, 20, 30, 40, 50, 60.0])
    batch = {"target_bm": jnp.asarray(target), "weight_b": jnp.asarray(weight)}
    program = jax.jit(functools.partial(answer_loss, values))
    loss, sums = program(jnp.asarray(logits), batch)
    found = summarize({k: np.asarray(v) for k, v in sums.items()})
    nats, hits, whole, last, shares, errors = [], [], [], [], [], []
    for b in range(3):
        right = []
        for m in range(3):
            if target[b, m] < 0:
                continue
            z = logits[b, m].astype(np.float64)
            nats.append(np.log(np.exp(z).sum()) - z[target[b, m]])
            right.append(z.argmax() == target[b, m])
            final = z.argmax(), target[b, m]
        hits += right
        whole.append(all(right))
        last.append(right[-1])
        shares.append(np.mean(right))
        number = 0.0 if np.isnan(values[final[0]]) else values[final[0]]
        errors.append(abs(number - values[final[1]]) / values[final[1]])
    assert abs(float(loss) - np.mean(nats)) < 1e-5
    assert abs(found["loss"] - np.mean(nats)) < 1e-5
    assert abs(found["accuracy"] - np.mean(hits)) < 1e-6
    assert abs(found["sequence_accuracy"] - np.mean(whole)) < 1e-6
    assert abs(found["last_accuracy"] - np.mean(last)) < 1e-6
    assert abs(found["mean_accuracy"] - np.mean(shares)) < 1e-6
    assert abs(found["relative_error"] - np.mean(errors)) < 1e-5


def test_the_report_s_epochs_are_its_streams():
    """63 updates of 16, the last of 8 instances; every instance once, in order."""
    settings = config("mqar", "protocol=compat,batch_size=16")
    built = build.build_task(settings, print)
    event = build_event(settings)
    order = built.order(batch_size=16, seed=0)
    assert order.steps_per_epoch == 63
    rows = np.concatenate(order.steps(0, 63, 63))
    drawn = event.epoch(np.random.RandomState(42), "K32")
    np.testing.assert_array_equal(rows[:1000, 0], drawn.tokens_nt)
    np.testing.assert_array_equal(rows[:1000, 1], drawn.targets_nt)
    assert (rows[1000:, 1] == IGNORE).all()
    # Any epoch can be asked for anew, as a resumed run does.
    later = order.steps(63, 1, 1)
    np.testing.assert_array_equal(
        built.order(batch_size=16, seed=0).steps(63, 1, 1), later
    )
    assert (later[0] != rows[:16]).any()
    # Run 0 is validated on what run 1 trains on.
    other = np.concatenate(built.order(batch_size=16, seed=1).steps(0, 13, 13))
    np.testing.assert_array_equal(built.splits["validation"], other[:200])


@pytest.mark.parametrize(
    ("task", "text", "says"),
    [
        ("mqar", "level=L7", "no level 'L7'"),
        ("mqar", "level=L1..", "without an end"),
        ("mqar", "level=L4,vocabulary=64", "more pairs than the vocabulary"),
        ("mqar", "level=custom,pairs=8,tokens=20", "more pairs than the vocabulary"),
        ("mqar", "filler=noise", "data.filler='noise' is unknown"),
        ("word_problem", "group=S5", "data.group='S5' is unknown"),
        ("knapsack", "target=answer", "target='answer' is unknown"),
        ("flip_flop", "positions=sinusoid", "model.positions='sinusoid' is unknown"),
        ("flip_flop", "solved=1.5", r"goal.solved=1.5 must lie in \(0, 1\]"),
        ("flip_flop", "evaluations=0", "goal.evaluations=0 must be positive"),
        ("mqar", "protocol=compat,level=L1", "no level 'L1'"),
    ],
)
def test_what_cannot_be_is_one_line(task, text, says):
    with pytest.raises(InputError, match=says) as error:
        made(task, text)
    assert "\n" not in str(error.value)


def test_every_recipe_has_its_event_and_its_options():
    assert set(EVENTS) == set(RECIPES)
    for task, recipe in RECIPES.items():
        settings = recipe.get_config("")
        assert settings.task == task
        event = build_event(settings)
        assert event.name == task and settings.data.level in event.levels
