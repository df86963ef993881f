"""Copies over two devices: each is its single run, wherever it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxbench.bench.copies import describe_placement

ROOT = Path(__file__).resolve().parents[1]

# Started with two devices: trains two runs beside one another, and each alone.
PROGRAM = """
import json, sys
from pathlib import Path

import jax

from configs import mqar
from jaxbench.bench.copies import run_copies
from jaxbench.bench.job import run_job
from jaxbench.training.copies import CopyPlacement

RECIPE = (
    "gru,pairs=2,tokens=12,vocabulary=16,level=custom,train_examples=0,width=8,"
    "batch_size=8,max_steps=12,evaluate_every=6,steps_per_dispatch=4,eps=1e-4,"
    "checkpoint_every=0,test_examples=50,warmup_fraction=0.0,patience=0.0,"
    "compilation_cache=,learning_rate={rate},seed={seed}"
)
assert jax.device_count() == 2
assert [CopyPlacement.of(n).devices for n in (1, 2, 3, 4)] == [1, 2, 1, 2]
folder = Path(sys.argv[1])
configs = [
    json.loads(mqar.get_config(RECIPE.format(rate=rate, seed=seed)).to_json())
    for rate, seed in [(5e-4, 0), (2e-4, 1)]
]
beside = run_copies(configs, [folder / f"beside{i}" for i in range(2)])
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
    *said, last = done.stdout.strip().splitlines()
    says = "2 runs as one program, 1 on each of 2 devices"
    assert any(says in line for line in said), said
    beside, alone = json.loads(last)
    for one, other in zip(beside, alone, strict=True):
        assert one["status"] == other["status"] == "ok", (
            one["reason"],
            other["reason"],
        )
        assert one["steps"] == other["steps"] == 12
        assert one["copies"] == 2
        for which in ("best", "last"):
            assert one[which]["step"] == other[which]["step"]
        assert one["last"]["metrics"]["loss"] == pytest.approx(
            other["last"]["metrics"]["loss"], rel=1e-5
        )
        assert one["scores"]["test"]["loss"] == pytest.approx(
            other["scores"]["test"]["loss"], rel=1e-5
        )
    # They are different runs.
    assert len({run["last"]["metrics"]["loss"] for run in beside}) == 2


def test_a_person_is_told_where_copies_train(monkeypatch):
    monkeypatch.setattr("jax.local_device_count", lambda: 4)
    assert describe_placement(8, 4) == "8 runs as one program, 2 on each of 4 devices"
    assert "on 3 of 4 devices" in describe_placement(3, 3)
    assert "one run at a time" in describe_placement(1, 1)
    monkeypatch.setattr("jax.local_device_count", lambda: 1)
    assert describe_placement(8, 1) == "8 runs as one program"
