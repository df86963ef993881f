"""Training speed once everything is compiled, and how much of the device it uses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.bench.facts import device
from jaxbench.bench.job import BATCHES_PER_EVALUATION
from jaxbench.bench.trained import Run, open_run, write_measurement
from jaxbench.bench.utilization import matmul_peak, memory_bandwidth
from jaxbench.errors import InputError
from jaxbench.models.flops import jaxpr_flops
from jaxbench.training.programs import (
    Placement,
    Programs,
    compile_programs,
    first_batch,
    place_span,
)

# Different dispatches of examples kept on the device and used in turn.
GROUPS_OF_EXAMPLES = 8


def measure_throughput(
    folder: Path,
    *,
    repeats: int = 5,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Measures the steady speed of a run's train program.

    The program is the run's own: its batch, dtype, remat, micro-batches, steps per
    dispatch, all visible devices, compiled ahead. It starts from new weights, so no
    checkpoint is needed. After two dispatches to warm up, `repeats` groups are timed,
    each of as many dispatches as fill `seconds` and ended by waiting for its last.

    FLOPs and bytes are of one update on all devices. `flops_per_step` counts matrix
    products and convolutions, each scan's body as often as it runs. The compiler's own
    account, `flops_per_step_compiler` and `bytes_per_step`, includes elementwise work
    but counts the body of an inner loop once: for a backbone that scans along time both
    are lower bounds, and so is `bandwidth_fraction`. It is none of `bytes_per_step`
    that caches can keep from memory, so a fraction may pass 1.

    Args:
      folder: of a finished run; its `result.json` gets the answer as
        `throughput.steady`.
      repeats: timed groups; the median counts.
      seconds: of one group, about.
      clock: seconds, for tests.

    Returns:
      device; steps_per_s, examples_per_s and tokens_per_s; slowest_steps_per_s and
      fastest_steps_per_s of the groups; compile_seconds (short where the compilation
      cache holds the program); flops_per_step; flops_per_step_compiler and
      bytes_per_step (None where the compiler does not say); matmul_peak_flops and
      bandwidth_bytes_per_s, measured on one device; matmul_fraction and
      bandwidth_fraction of all devices'; repeats, steps_per_repeat.

    Raises:
      InputError: no finished run, its data is gone, or it diverges at once.
    """
    if repeats < 1:
        raise InputError(f"repeats={repeats} must be at least 1")
    run = open_run(folder)
    batch_size = run.config["train"]["batch_size"]
    placement = Placement.over_all_devices(batch_size)
    programs = _compile(run, placement)
    steps, rates = _time(run, programs, placement, repeats, seconds, clock)
    rate = float(np.median(rates))
    measured = {
        "device": device(),
        "steps_per_s": rate,
        "examples_per_s": rate * batch_size,
        "tokens_per_s": rate * batch_size * run.task.tokens_per_example,
        "slowest_steps_per_s": min(rates),
        "fastest_steps_per_s": max(rates),
        "compile_seconds": programs.compile_seconds,
        **_use(programs, run.config["train"]["dtype"], rate),
        "repeats": repeats,
        "steps_per_repeat": steps,
    }
    write_measurement(folder, ("throughput", "steady"), measured)
    return measured


def _compile(run: Run, placement: Placement) -> Programs:
    train = run.config["train"]
    dispatched = min(train["steps_per_dispatch"], max(run.result["steps"], 1))
    return compile_programs(
        run.update(),
        run.initializer(placement),
        placement,
        batch_size=train["batch_size"],
        steps_per_dispatch=dispatched,
        batches_per_evaluation=BATCHES_PER_EVALUATION,
    )


def _time(
    run: Run,
    programs: Programs,
    placement: Placement,
    repeats: int,
    seconds: float,
    clock: Callable[[], float],
) -> tuple[int, list[float]]:
    """Updates of one group, and updates per second of each group."""
    order = run.order()
    epoch = order.steps_per_epoch or programs.steps_per_dispatch * GROUPS_OF_EXAMPLES
    length = min(programs.steps_per_dispatch, epoch)
    # The schedule stays where the run is half done: its rate is neither 0 nor gone.
    span = place_span(placement, [length], 0.5, 0.0, 1.0)
    examples = [
        jax.device_put(
            order.steps(start, length, programs.steps_per_dispatch), placement.batch
        )
        for start in range(0, epoch - length + 1, length)[:GROUPS_OF_EXAMPLES]
    ]
    arrays = {
        name: jax.device_put(np.asarray(value), placement.whole)
        for name, value in run.task.arrays.items()
    }
    batch_size = run.config["train"]["batch_size"]
    first = jax.device_put(first_batch(run.task, batch_size), placement.whole)
    state = run.initializer(placement)(run.config["seed"], arrays, first)

    def dispatch(times: int) -> float:
        nonlocal state
        start = clock()
        for i in range(times):
            group = examples[i % len(examples)]
            state, statistics = programs.train(state, arrays, group, span)
        jax.block_until_ready((state, statistics))
        return clock() - start

    dispatch(1)
    times = max(1, math.ceil(seconds / max(dispatch(1), 1e-6)))
    rates = [times * length / dispatch(times) for _ in range(repeats)]
    broken = int(jax.device_get(state.broken_step))
    if broken >= 0:
        raise InputError(
            f"the run {run.folder} diverges at step {broken} from new weights, so its "
            "speed cannot be measured; lower train.learning_rate in a new run"
        )
    return times * length, rates


def _use(programs: Programs, dtype: str, steps_per_s: float) -> dict[str, Any]:
    """FLOPs and bytes of an update, and which parts of the device they use."""
    devices = jax.device_count()
    # The outer loop over steps, of unknown length, is counted as one step; on several
    # devices the account is that of one.
    compiled: Any = programs.train
    account = compiled.cost_analysis() or {}
    flops, moved = account.get("flops"), account.get("bytes accessed")
    products = jaxpr_flops(programs.train_jaxpr)
    peak, bandwidth = matmul_peak(dtype), memory_bandwidth()
    return {
        "flops_per_step": products,
        "flops_per_step_compiler": flops and float(flops) * devices,
        "bytes_per_step": moved and float(moved) * devices,
        "matmul_peak_flops": peak,
        "bandwidth_bytes_per_s": bandwidth,
        "matmul_fraction": products * steps_per_s / (peak * devices),
        "bandwidth_fraction": moved and float(moved) * steps_per_s / bandwidth,
    }
