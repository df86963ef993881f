"""Throughput: the run's own train program, timed, and set against the device."""

from __future__ import annotations

import io
import itertools
import json
import shutil

import boards
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxbench.bench import throughput
from jaxbench.bench.speed_tables import throughput_table
from jaxbench.bench.throughput import measure_throughput
from jaxbench.bench.trained import one_device, open_run, write_measurement
from jaxbench.bench.utilization import memory_bandwidth
from jaxbench.errors import InputError
from jaxbench.models.flops import count_flops
from jaxbench.training.programs import first_batch
from jaxbench.training.step import train_step

PEAK, BANDWIDTH = 1e12, 1e11


@pytest.fixture(scope="module")
def run(shared_runs):
    """The session's run; tests that write take a copy."""
    return shared_runs("policy")


@pytest.fixture
def device(monkeypatch):
    """A device whose peaks are known."""
    monkeypatch.setattr(throughput, "matmul_peak", lambda dtype: PEAK)
    monkeypatch.setattr(throughput, "memory_bandwidth", lambda: BANDWIDTH)


class Ticks:
    """A clock by whose readings the timed calls took the given seconds in turn."""

    def __init__(self, durations):
        self.now, self.durations = 0.0, iter(durations)
        self.starting = True

    def __call__(self):
        if not self.starting:
            self.now += next(self.durations)
        self.starting = not self.starting
        return self.now


@pytest.mark.integration
def test_rates_come_from_the_clock_and_the_median_group(run, tmp_path, device):
    folder = shutil.copytree(run, tmp_path / "run")
    before = json.loads((folder / "result.json").read_text())
    # Two dispatches to warm up, of which the second takes 0.5 s: two fill one second.
    clock = Ticks([9.0, 0.5, 1.0, 4.0, 2.0])
    steady = measure_throughput(folder, repeats=3, seconds=1.0, clock=clock)
    assert next(clock.durations, None) is None  # so many groups, no more
    assert steady["repeats"] == 3 and steady["steps_per_repeat"] == 2 * 4
    assert steady["steps_per_s"] == 4.0 and steady["examples_per_s"] == 4.0 * 16
    assert steady["slowest_steps_per_s"] == 2 and steady["fastest_steps_per_s"] == 8
    assert steady["compile_seconds"] > 0
    rate, count = steady["steps_per_s"], jax.device_count()
    assert steady["matmul_fraction"] == pytest.approx(
        steady["flops_per_step"] * rate / (PEAK * count)
    )
    assert steady["bandwidth_fraction"] == pytest.approx(
        steady["bytes_per_step"] * rate / (BANDWIDTH * count)
    )

    after = json.loads((folder / "result.json").read_text())
    assert after["throughput"].pop("steady") == steady
    before["throughput"].pop("steady")
    assert after == before and list(after) == list(before)


@pytest.mark.integration
def test_flops_and_bytes_are_those_of_one_update(run, tmp_path, device):
    folder = shutil.copytree(run, tmp_path / "run")
    steady = measure_throughput(folder, repeats=1, seconds=0.01)
    opened = open_run(folder)
    weights = opened.result["params"]["total"]
    placement, rows = one_device(), first_batch(opened.task, 16)
    state = opened.initializer(placement)(0, dict(opened.task.arrays), rows)

    def update(state, arrays, rows):
        batch = dict(opened.task.gather(arrays, rows)) | {"weight_b": jnp.ones(16)}
        return train_step(state, batch, jnp.float32(0.5), opened.update())

    # One update alone counts what the loop over four of them says of one.
    arrays = {name: jnp.asarray(value) for name, value in opened.task.arrays.items()}
    once = count_flops(update, state, arrays, jnp.asarray(rows))
    assert steady["flops_per_step"] == once
    # The compiler counts elementwise work too, but the scan over frames once.
    ratio = steady["flops_per_step_compiler"] / once
    assert 0.5 < ratio < 2
    # Parameters and both moments are read and written at least once.
    assert steady["bytes_per_step"] > 2 * 3 * 4 * weights


@pytest.mark.integration
def test_what_cannot_be_measured_says_why(run, tmp_path, device):
    with pytest.raises(InputError, match="repeats=0 must be at least 1"):
        measure_throughput(run, repeats=0)
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "status": "oom", "reason": "too big"}))
    with pytest.raises(InputError, match=r"is not finished \(oom: too big\)"):
        measure_throughput(folder)
    path.write_text(json.dumps(result))
    config = json.loads((folder / "config.json").read_text())
    config["train"]["learning_rate"] = 1e30
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"diverges at step .* from new weights"):
        measure_throughput(folder, repeats=1, seconds=0.01)
    assert json.loads(path.read_text()) == result


@pytest.mark.integration
def test_the_memory_plan_of_the_run_is_the_one_that_is_timed(
    run, tmp_path, device, monkeypatch
):
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / "result.json"
    result = json.loads(path.read_text())
    result["memory"] |= {"remat": True, "micro_batches": 4}
    path.write_text(json.dumps(result))

    def spy(update, *arguments, **options):
        raise LookupError(update.model.stack.remat, update.micro_batches)

    monkeypatch.setattr(throughput, "compile_programs", spy)
    with pytest.raises(LookupError) as caught:
        measure_throughput(folder)
    assert caught.value.args == (True, 4)


def test_a_measurement_changes_one_field(tmp_path):
    path = tmp_path / "result.json"
    own = {"a": 0.1 + 0.2, "b": {"c": None, "d": [1e-300, "é"]}, "e": 3}
    content = boards.result() | own
    boards.write(tmp_path, content)
    write_measurement(tmp_path, ("b", "c"), {"x": 1})
    written = json.loads(path.read_text())
    assert written == {**content, "b": {**content["b"], "c": {"x": 1}}}
    assert list(written) == list(content)


def test_the_bandwidth_is_a_rate_by_the_triads_count(monkeypatch):
    assert memory_bandwidth(1024) > 1e5
    ticks = itertools.count()
    # Every call takes one second: three arrays of 1000 float32 numbers a second.
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    assert memory_bandwidth(1000) == 3 * 4 * 1000


def test_the_table_sorts_and_keeps_failures():
    def found(rate):
        return {
            "device": {"kind": "cpu"},
            "steps_per_s": rate,
            "examples_per_s": 64 * rate,
            "compile_seconds": 1.25,
            "flops_per_step": 2_000_000_000,
            "flops_per_step_compiler": None,
            "bytes_per_step": 5e8,
            "matmul_fraction": 0.125,
            "bandwidth_fraction": None,
        }

    rows = [("slow", found(1.0)), ("bad", "why"), ("fast", found(20.0))]
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(throughput_table(rows))
    text = console.export_text()
    lines = [line for line in text.splitlines() if "│" in line]
    cells = [[c.strip() for c in line.strip("│").split("│")] for line in lines]
    shared = ["1.2", "2", "-", "0.5", "12.5%", "-"]
    assert cells == [
        ["fast", "1,280", "20.00", *shared],
        ["slow", "64", "1.00", *shared],
        ["bad", "failed", *[""] * 7],
    ]
    assert "bad: why" in text


def test_a_while_loop_of_the_train_program_is_counted_as_one_step():
    """What `_use` relies on: the compiler's account does not grow with the count."""

    def steps(count, x):
        def body(carry):
            return carry[0] + 1, carry[1] @ carry[1]

        return jax.lax.while_loop(lambda c: c[0] < count, body, (0, x))[1]

    compiled = jax.jit(steps).lower(np.int32(7), jnp.ones((64, 64))).compile()
    assert compiled.cost_analysis()["flops"] == pytest.approx(2 * 64**3, rel=0.01)
