"""Memory known before the start: stages in order, each forced, same result."""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import numpy as np
import optax
import pytest
from drawn import draw
from toy import toy_model, toy_task

from configs import zelda
from jaxbench.bench import build, job
from jaxbench.bench.memory import device_memory, fit, gigabytes, stages
from jaxbench.data.order import EpochOrder
from jaxbench.training.state import TrainState
from jaxbench.training.step import loss_and_grads

BATCH = 256


def big_task():
    """The toy task with batches whose activations outweigh the parameters."""
    task = toy_task()
    rows = (np.arange(2 * BATCH) % 150).astype(np.int32)
    splits = {**task.splits, "train": rows}
    order = functools.partial(EpochOrder, rows)
    return dataclasses.replace(task, splits=splits, order=order)


def toy_config(limit_gb: float) -> dict:
    text = (
        f"ffn,width=8,depth=4,dropout=0,batch_size={BATCH},steps_per_dispatch=2,"
        "max_steps=4,warmup_steps=1,weight_decay=0"
    )
    config = json.loads(zelda.get_config(text).to_json())
    config["xla"]["memory_limit"] = limit_gb
    return config


@pytest.fixture
def toy_run(monkeypatch, tmp_path):
    """Runs the toy task as a job under a limit; returns its result."""
    monkeypatch.setattr(build, "build_task", lambda config, say: big_task())

    def run(name: str, limit_gb: float) -> dict:
        return job.run_job(toy_config(limit_gb), tmp_path / name)

    return run


def test_stages_go_from_cheap_to_dear():
    assert list(stages(1, False, 8, 1)) == [
        (1, False, 1), (1, True, 1), (1, True, 2), (1, True, 4), (1, True, 8),
    ]  # fmt: skip
    assert list(stages(1, True, 12, 2)) == [(1, True, 1), (1, True, 2)]
    assert list(stages(5, False, 4, 4)) == [
        (5, False, 1), (3, False, 1), (2, False, 1), (1, False, 1), (1, True, 1),
    ]  # fmt: skip


def test_the_first_stage_that_fits_is_taken():
    needs = {(False, 1): 900, (True, 1): 500, (True, 2): 300, (True, 4): 200}

    def compile_at(runs, remat, parts):
        assert runs == 1
        predicted = needs[remat, parts]
        return dataclasses.make_dataclass("Fake", ["predicted_bytes"])(predicted)

    def plan(limit):
        sizes = dict(runs=1, remat=False, batch_size=4, devices=1)
        return fit(compile_at, **sizes, limit_gb=limit / 1e9)

    for limit, stage in ((900, (False, 1)), (899, (True, 1)), (499, (True, 2))):
        facts = plan(limit).facts()
        assert (facts["remat"], facts["micro_batches"]) == stage
        assert facts["limit_bytes"] == limit
        assert facts["tried"][-1]["predicted_bytes"] == needs[stage]
    refused = plan(100)
    assert refused.programs is None and len(refused.tried) == 4
    assert "0.00 MB" in refused.refusal() and "4 micro-batches" in refused.refusal()


@pytest.mark.slow
def test_a_limit_forces_each_stage_and_the_run_says_so(toy_run):
    refused = toy_run("none", 1e-9)
    assert refused["status"] == "oom" and refused["steps"] == 0
    assert "micro-batches" in refused["reason"] and "MB" in refused["reason"]
    assert refused["data"]["source"] == "toy"
    tried = refused["memory"]["tried"]
    names = ("copies", "remat", "micro_batches")
    assert [tuple(t[name] for name in names) for t in tried] == list(
        stages(1, False, BATCH, 1)
    )
    predicted = [t["predicted_bytes"] for t in tried]
    assert predicted[0] > predicted[1] > predicted[2] > predicted[3]

    whole = toy_run("whole", 1.0)
    assert whole["memory"]["tried"] == tried[:1]
    assert not whole["memory"]["remat"]
    for stage in (1, 2, 3):
        result = toy_run(f"stage{stage}", predicted[stage] / 1e9)
        memory = result["memory"]
        assert result["status"] == "ok"
        assert memory["predicted_bytes"] == predicted[stage] <= memory["limit_bytes"]
        assert memory["micro_batches"] == (1, 1, 2, 4)[stage] and memory["remat"]
        assert result["examples"] == whole["examples"]
        np.testing.assert_allclose(
            result["last"]["metrics"]["loss"],
            whole["last"]["metrics"]["loss"],
            rtol=1e-5,
        )


def test_micro_batches_give_the_gradient_of_the_batch():
    task = toy_task()
    model = toy_model(task, "gru")
    rows = np.arange(12, dtype=np.int32)
    batch = dict(task.gather(task.arrays, rows))
    # Uneven weights: a mean of means would be another number.
    batch["weight_b"] = np.array([1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1], np.float32)
    variables = {"constants": {}} | draw(model, batch)
    state = TrainState.create(variables, optax.sgd(1.0), jax.random.key(1), ema=False)

    def at(parts: int):
        given = dict(model=model, task=task, micro_batches=parts)
        return jax.jit(functools.partial(loss_and_grads, **given))(state, batch)

    loss, statistics, grads = at(1)
    loss_m, statistics_m, grads_m = at(3)
    np.testing.assert_allclose(loss_m, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), grads_m, grads
    )
    assert set(statistics_m) == set(statistics)
    for name, value in statistics.items():
        np.testing.assert_allclose(statistics_m[name], value, rtol=1e-4)


@pytest.mark.slow
def test_sown_metrics_of_micro_batches_are_means():
    task = toy_task()
    model = toy_model(task, "mamba/moe")
    batch = dict(task.gather(task.arrays, np.arange(8, dtype=np.int32)))
    batch["weight_b"] = np.ones(8, np.float32)
    variables = model.init(jax.random.key(0), batch)
    state = TrainState.create(variables, optax.sgd(1.0), jax.random.key(1), ema=False)

    def statistics_of(rows, parts: int):
        part = {name: value[rows] for name, value in batch.items()}
        return loss_and_grads(state, part, model=model, task=task, micro_batches=parts)[
            1
        ]

    whole = statistics_of(slice(None), 4)
    # Micro-batch i takes every fourth row from i on.
    alone = [statistics_of(slice(i, None, 4), 1) for i in range(4)]
    means = [n for n in whole if n.startswith("model/") or n == "auxiliary_loss"]
    assert len(means) > 2
    for name in means:
        expected = np.mean([float(statistics[name]) for statistics in alone])
        np.testing.assert_allclose(whole[name], expected, rtol=1e-5)
    expected = sum(float(statistics["weight"]) for statistics in alone)
    assert float(whole["weight"]) == expected == 8


def test_the_memory_of_this_machine_is_known():
    limit, name = device_memory()
    assert limit is not None and limit > 1e8 and name == "this machine"
    assert gigabytes(2_500_000_000) == "2.50 GB" and gigabytes(1500) == "0.00 MB"
