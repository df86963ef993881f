"""Seeds and rates trained as one program against the same runs one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import mqar
from jaxbench.bench.beside import check_copies
from jaxbench.bench.job import describe_placement, run_job, run_jobs
from jaxbench.bench.trained import one_device, open_run, restore_variables
from jaxbench.errors import InputError
from jaxbench.training.records import read_metrics
from jaxbench.training.stop import StopSignals

ROOT = Path(__file__).resolve().parents[1]

# Rates and an epsilon at which rounding does not grow: at 1e-2 two equal runs of this
# model are apart by 1e-3 after ten steps, whatever the order of their sums.
BACKBONE = "gru"
RUNS = [(0, 5e-4), (1, 5e-4), (0, 2e-4)]


def config(seed: int, rate: float, **settings) -> dict:
    given = {
        **dict(pairs=2, tokens=12, vocabulary=16, level="custom", train_examples=0),
        **dict(width=16, max_steps=60, batch_size=16, evaluate_every=20),
        **dict(steps_per_dispatch=7, learning_rate=rate, seed=seed),
        **dict(checkpoint_every=30, eps=1e-4, test_examples=200),
    } | settings
    text = ",".join(f"{name}={value}" for name, value in given.items())
    found = json.loads(mqar.get_config(f"{BACKBONE},{text}").to_json())
    found["xla"]["compilation_cache"] = ""
    return found


def weights(folder: Path, which: str):
    return restore_variables(open_run(folder), which, one_device())


def close(name: str, one: float, other: float) -> bool:
    """To 1e-5; rounding may decide an answer that is on the edge, of 200 or more."""
    tolerance = 0.01 if "accuracy" in name else 1e-5
    return abs(one - other) <= tolerance * max(1.0, abs(other))


def same(one: dict, other: dict) -> None:
    """All that a result says of what was computed, to 1e-5."""
    for name in ("status", "steps", "solved", "excluded", "data", "params"):
        assert one[name] == other[name], name
    for part in (one["best"], one["last"]), (other["best"], other["last"]):
        assert all(part)
    for which in ("best", "last"):
        assert one[which]["step"] == other[which]["step"]
        for name, value in one[which]["metrics"].items():
            assert close(name, value, other[which]["metrics"][name]), name
    for split, metrics in one["scores"].items():
        for name, value in metrics.items():
            assert close(name, value, other["scores"][split][name]), (split, name)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same three runs side by side and one by one; a low goal ends some early."""
    folder = tmp_path_factory.mktemp("copies")
    configs = [config(*run, solved=0.09, evaluations=1) for run in RUNS]
    beside = [folder / f"beside{i}" for i in range(len(RUNS))]
    alone = [folder / f"alone{i}" for i in range(len(RUNS))]
    together = run_jobs(configs, beside)
    one_by_one = [run_job(c, f) for c, f in zip(configs, alone, strict=True)]
    return configs, beside, alone, together, one_by_one


@pytest.mark.integration
def test_each_copy_is_its_single_run(trained):
    _, beside, alone, together, one_by_one = trained
    for one, other in zip(together, one_by_one, strict=True):
        assert one["status"] == "ok" and one["copies"] == len(RUNS)
        # Each has its share of the time, and no rate of its own.
        assert one["seconds"]["shared_by"] == len(RUNS)
        assert all(one["seconds"].values()) or one["seconds"]["first_steps"] == 0
        assert one["throughput"]["steps_per_s"] is None
        assert one["step_flops"] == other["step_flops"]
        same(one, other)
    # They are different runs, and not all end at the same step.
    assert len({r["last"]["metrics"]["loss"] for r in together}) == len(RUNS)
    assert len({r["steps"] for r in together}) > 1
    for mine, theirs in zip(beside, alone, strict=True):
        (a, step), (b, other_step) = weights(mine, "best"), weights(theirs, "best")
        assert step == other_step
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        curve = [read_metrics(f / "metrics.jsonl") for f in (mine, theirs)]
        assert [(r["step"], r["split"]) for r in curve[0]] == [
            (r["step"], r["split"]) for r in curve[1]
        ]
        for x, y in zip(*curve, strict=True):
            for name in x.keys() - {"split"}:
                edge = 0.02 if "accuracy" in name else 1e-3 * max(1.0, abs(y[name]))
                # The norm of the embedding's gradient enlarges what rounding does.
                edge *= 20 if name == "gradient_norm" else 1
                assert abs(x[name] - y[name]) <= edge, (name, x, y)


@pytest.mark.integration
def test_finished_copies_are_left_as_they_are(trained):
    configs, beside, *_ = trained
    before = [(f / "result.json").stat().st_mtime_ns for f in beside]
    again = run_jobs(configs, beside)
    assert [r["status"] for r in again] == ["ok"] * len(RUNS)
    assert before == [(f / "result.json").stat().st_mtime_ns for f in beside]


@pytest.mark.integration
def test_copies_go_on_where_they_were_stopped(trained, tmp_path, monkeypatch):
    configs, _, _, together, _ = trained
    folders = [tmp_path / f"run{i}" for i in range(len(RUNS))]
    asked = iter([None] * 5 + ["asked to stop"] * 100)
    with monkeypatch.context() as patched:
        patched.setattr(StopSignals, "reason", lambda self: next(asked))
        broken = run_jobs(configs, folders)
    assert "interrupted" in {r["status"] for r in broken}
    resumed = run_jobs(configs, folders)
    for one, other in zip(resumed, together, strict=True):
        same(one, other)


@pytest.mark.integration
def test_one_copy_that_diverges_does_not_stop_the_others(tmp_path):
    configs = [
        config(0, 1e-2),
        config(0, 1e30, clip_norm=0),
    ]
    configs[0]["train"]["clip_norm"] = 0.0
    for c in configs:
        c["train"]["ssm_learning_rate"] = 1e30
    good, bad = run_jobs(configs, [tmp_path / "good", tmp_path / "bad"])
    assert good["status"] == "ok" and good["steps"] == 60
    assert bad["status"] == "diverged" and "step" in bad["reason"]
    assert bad["steps"] < 60


@pytest.mark.slow
def test_memory_that_holds_one_copy_trains_them_one_after_the_other(tmp_path):
    configs = [config(seed, 5e-4, max_steps=7, checkpoint_every=0) for seed in (0, 1)]
    whole = run_jobs(configs, [tmp_path / "a", tmp_path / "b"])
    needs = whole[0]["memory"]["tried"][0]["predicted_bytes"]
    limited = [json.loads(json.dumps(c)) for c in configs]
    for c in limited:
        c["xla"]["memory_limit"] = 0.8 * needs / 1e9
    parts = run_jobs(limited, [tmp_path / "c", tmp_path / "d"])
    assert [r["copies"] for r in parts] == [1, 1]
    assert [stage["copies"] for stage in parts[0]["memory"]["tried"]] == [2, 1]
    assert not parts[0]["memory"]["remat"]
    for one, other in zip(parts, whole, strict=True):
        same(one, other)
    for c in limited:
        c["xla"]["memory_limit"] = 1e-6
    refused = run_jobs(limited, [tmp_path / "e", tmp_path / "f"])
    assert [r["status"] for r in refused] == ["oom", "oom"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"width": 8}}, "model.width is 16 there and 8 here"),
        ({"protocol": "compat"}, "protocol"),
    ],
)
def test_runs_that_are_no_copies_are_refused(change, says):
    one, other = config(0, 1e-2), config(1, 1e-2)
    for key, value in change.items():
        if isinstance(value, dict):
            other[key] |= value
        else:
            other[key] = value
    with pytest.raises(InputError, match=says):
        check_copies([one, other])


def test_a_budget_of_seconds_and_changing_validation_are_refused():
    timed = config(0, 1e-2)
    timed["train"]["budget"] = "10min"
    with pytest.raises(InputError, match="ends by the clock"):
        check_copies([timed])
    compat = config(0, 1e-2)
    compat["protocol"] = "compat"
    with pytest.raises(InputError, match="other instances"):
        check_copies([compat])


# Started with two devices: trains two runs beside one another, and each alone.
PROGRAM = """
import json, sys
from pathlib import Path

import jax

from configs import mqar
from jaxbench.bench.job import run_job, run_jobs
from jaxbench.training.programs import Placement

RECIPE = (
    "gru,pairs=2,tokens=12,vocabulary=16,level=custom,train_examples=0,width=8,"
    "batch_size=8,max_steps=12,evaluate_every=6,steps_per_dispatch=4,eps=1e-4,"
    "checkpoint_every=0,test_examples=50,warmup_fraction=0.0,patience=0.0,"
    "compilation_cache=,learning_rate={rate},seed={seed}"
)
assert jax.device_count() == 2
assert [Placement.of_runs(n).mesh.size for n in (1, 2, 3, 4)] == [1, 2, 1, 2]
folder = Path(sys.argv[1])
configs = [
    json.loads(mqar.get_config(RECIPE.format(rate=rate, seed=seed)).to_json())
    for rate, seed in [(5e-4, 0), (2e-4, 1)]
]
beside = run_jobs(configs, [folder / f"beside{i}" for i in range(2)])
alone = [run_job(c, folder / f"alone{i}") for i, c in enumerate(configs)]
print(json.dumps([beside, alone]))
"""


@pytest.mark.integration
def test_each_copy_is_its_single_run_on_two_devices(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=2"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 runs as one program, 1 on each of 2 devices" in done.stderr
    beside, alone = json.loads(done.stdout.strip().splitlines()[-1])
    for one, other in zip(beside, alone, strict=True):
        assert one["status"] == "ok" and one["steps"] == 12 and one["copies"] == 2
        same(one, other)
    # They are different runs.
    assert len({run["last"]["metrics"]["loss"] for run in beside}) == 2


def test_a_person_is_told_where_copies_train(monkeypatch):
    monkeypatch.setattr("jax.local_device_count", lambda: 4)
    assert describe_placement(8, 4) == "8 runs as one program, 2 on each of 4 devices"
    assert "on 3 of 4 devices" in describe_placement(3, 3)
    assert "one run at a time" in describe_placement(1, 1)
    monkeypatch.setattr("jax.local_device_count", lambda: 1)
    assert describe_placement(8, 1) == "8 runs as one program"
