"""Runs that go on with another one: longer, or from its weights alone."""

from __future__ import annotations

import json
import shutil

import jax
import numpy as np
import pytest
from small_run import RECALL

from configs import mqar
from jaxbench.bench import job
from jaxbench.bench.defaults import differs
from jaxbench.bench.extend import extended
from jaxbench.bench.result import group_hash
from jaxbench.errors import InputError
from jaxbench.training.checkpoint import Checkpoints
from jaxbench.training.records import read_metrics
from jaxbench.training.stop import StopSignals
from jaxbench.training.weights import read_weights, start_from


def config(*, width: int = 16, **train) -> dict:
    """The small recall run at a constant rate, which no length bends."""
    found = json.loads(mqar.get_config(f"gru,{RECALL}").to_json())
    found["model"]["width"] = width
    given = {"schedule": "constant", "warmup_fraction": 0.0} | train
    found["train"] |= given
    found["goal"] |= {"stop": False, "patience": 0.0, "solved": 0.9}
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A finished run of 20 updates."""
    folder = tmp_path_factory.mktemp("extend") / "base"
    assert job.run_job(config(max_steps=20), folder)["status"] == "ok"
    return folder


TIMES = ("seconds", "throughput", "memory")


@pytest.mark.integration
def test_an_extended_run_is_the_long_one_and_says_that_it_is_not(
    base, tmp_path, monkeypatch
):
    """At a constant rate; stopped on the way it ends with the same."""
    whole = job.run_job(config(max_steps=40), tmp_path / "whole")
    longer = extended(config(max_steps=40), base)
    before = (base / "result.json").read_bytes()
    asked = iter([None] * 2 + ["asked to stop"] * 100)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "reason", lambda self: next(asked))
        broken = job.run_job(longer, tmp_path / "longer", extend=base)
    assert broken["status"] == "interrupted" and broken["steps"] > 20
    result = job.run_job(longer, tmp_path / "longer", extend=base)
    assert (base / "result.json").read_bytes() == before
    for name in whole.keys() - {*TIMES, "group", "identity", "config", "command"}:
        if name not in ("extended", "config_hash", "compiler_options"):
            assert result[name] == whole[name], name
    both = [read_metrics(tmp_path / x / "metrics.jsonl") for x in ("whole", "longer")]
    assert both[0] == both[1]
    assert result["extended"] == "20 steps" and whole["extended"] is None
    assert result["identity"]["differs"]["train.extended"] == "20 steps"
    assert result["command"].endswith("--extend=RUN")
    assert "extended=20" not in result["command"]
    # Seeds of it are one row, wherever the runs lie that they extend.
    elsewhere = {**longer, "seed": 1}
    assert (
        group_hash(elsewhere) == group_hash(longer) != group_hash(config(max_steps=40))
    )
    once_more = extended(config(max_steps=50), tmp_path / "longer")
    assert once_more["train"]["extended"] == "20 steps, 40 steps"


def test_what_cannot_be_extended_is_refused_in_one_line(base, tmp_path):
    def refused(text, config, folder=base):
        with pytest.raises(InputError, match=text) as caught:
            job.run_job(extended(config, folder), tmp_path / "new", extend=folder)
        assert "\n" not in str(caught.value) and not (tmp_path / "new").exists()

    refused("holds no finished run", config(), tmp_path / "nothing")
    refused("in its length alone .model.width is 16 there and 8", config(width=8))
    refused("the run has 20 steps behind it; a budget of 20", config(max_steps=20))
    content = json.loads((base / "result.json").read_text())
    for change, text in (
        ({"status": "diverged"}, "ended 'diverged'"),
        ({"solved": {"step": 10}}, "has solved its task at step 10"),
    ):
        shutil.copytree(base, tmp_path / "other")
        (tmp_path / "other/result.json").write_text(json.dumps(content | change))
        stops = json.loads((base / "config.json").read_text())
        stops["goal"]["stop"] = True
        (tmp_path / "other/config.json").write_text(json.dumps(stops))
        refused(text, config(), tmp_path / "other")
        shutil.rmtree(tmp_path / "other")
    shutil.copytree(base, tmp_path / "other")
    shutil.rmtree(tmp_path / "other/checkpoints/last")
    refused("has no checkpoint under", config(), tmp_path / "other")


@pytest.mark.integration
def test_a_run_starts_from_the_weights_of_another(base, tmp_path, monkeypatch):
    """Its first validation, before any rate to speak of, is that of those weights."""
    given = config(max_steps=2, start_from=str(base), learning_rate=1e-12)
    asked = iter([None, "asked to stop"] + ["asked to stop"] * 100)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "reason", lambda self: next(asked))
        assert job.run_job(given, tmp_path / "new")["status"] == "interrupted"
    result = job.run_job(given, tmp_path / "new")
    theirs = json.loads((base / "result.json").read_text())
    for name, value in theirs["best"]["metrics"].items():
        assert result["best"]["metrics"][name] == pytest.approx(value, rel=1e-5), name
    told = result["started_from"]
    assert told["run"] == "base" and told["step"] == theirs["best"]["step"]
    assert told["config_hash"] == theirs["config_hash"]
    assert result["identity"]["differs"]["train.start_from"] == "base"
    assert differs(config(start_from="elsewhere/base")) == differs(
        config(start_from="/data/base")
    )


def test_weights_of_another_shape_are_named(base, tmp_path):
    def refused(text, config):
        with pytest.raises(InputError, match=text) as caught:
            job.run_job(config, tmp_path / "new")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("new/checkpoints/*/*"))

    refused("train.start_from='nowhere' is no folder", config(start_from="nowhere"))
    other = config(width=8, start_from=str(base))
    refused(r"do not fit this model: params/\S+ is \(.*16.*\) there and \(.*8", other)


def test_only_weights_are_taken(toy_parts, tmp_path):
    """Averaged ones, of which the average begins; moments, step and key are new."""
    toy_parts.train(tmp_path / "run", 8, checkpoint_every=0)
    state = toy_parts.start()
    key, moments = jax.random.key_data(state.key), jax.device_get(state.opt_state)
    started, step = start_from(state, tmp_path / "run")
    assert step == 8 and int(started.step) == 0
    np.testing.assert_array_equal(jax.random.key_data(started.key), key)
    for a, b in zip(
        jax.tree.leaves(moments), jax.tree.leaves(started.opt_state), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    saved = Checkpoints(tmp_path / "run" / "checkpoints")
    best, _ = saved.restore(toy_parts.programs.abstract_state, "best")
    saved.close()
    wanted = jax.tree.leaves(best.ema_params)
    for found in (started.params, started.ema_params):
        for a, b in zip(wanted, jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(a, b)
    # It trains: no buffer is shared between two of its leaves.
    rows = toy_parts.order.steps(0, 1, 8)
    toy_parts.programs.train(
        started, toy_parts.arrays, jax.numpy.asarray(rows), toy_parts.span(1)
    )
    with pytest.raises(InputError, match="params/more is absent there and"):
        more = {"params": {"more": np.zeros(3)}, "constants": {}}
        read_weights(tmp_path / "run", "best", more)
