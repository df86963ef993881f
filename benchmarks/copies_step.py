"""An update of several copies as one program against as many updates of one.

Rows of zelda at width 64, batch 64: the train program of a single run and that of eight
copies, compiled and called in turn in one process. Starting a process, which a suite
does for every run that is alone, is not in it (`benchmarks/side_by_side.py` has it).

    python benchmarks/copies_step.py
    python benchmarks/copies_step.py --rows=gru --copies=12 --width=32

Prints, for each row, CPU time of compiling both, predicted memory of both, and CPU time
of an update of one copy both ways with their ratio: above 1, one program takes less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROWS = "gru,mlp,deltanet,mamba2,transformer,s4"
DISPATCH, ROUNDS = 4, 3


def main() -> None:
    """Prints a line for each row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", default=ROWS)
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--replays", default="", help="folder; simulated games if none")
    options = parser.parse_args()
    print(
        f"{'row':14} {'compile s':>13} {'memory MB':>13} {'update of one, ms':>19} "
        f"{'ratio':>6}"
    )
    for row in options.rows.split(","):
        print(measure(row, options), flush=True)


def measure(row: str, options: argparse.Namespace) -> str:
    """Compiles both programs of a row and calls them in turn."""
    import jax
    import numpy as np

    from configs import zelda
    from jaxbench.bench import build
    from jaxbench.training.budget import Budget
    from jaxbench.training.programs import (
        Placement,
        compile_programs,
        first_batch,
        place_span,
    )

    text = f"{row},width={options.width},simulated_games=4,warmup_steps=1"
    config = json.loads(zelda.get_config(text).to_json())
    config["data"]["replays"] = options.replays
    batch, count = config["train"]["batch_size"], options.copies
    task = build.build_task(config, lambda line: None)
    model = build.build_model(build.build_backbone(config), task)
    update = build.build_update(config, model, task, Budget(100), lambda line: None)
    home, places = Placement.of_runs(1), Placement.of_runs(count)
    initialize = build.build_first_state(config, update, home)
    sizes: dict[str, Any] = {
        "batch_size": batch,
        "steps_per_dispatch": DISPATCH,
        "batches_per_evaluation": 1,
    }
    began = time.process_time()
    alone = compile_programs(update, initialize, home, **sizes)
    middle = time.process_time()
    beside = compile_programs(update, initialize, places, **sizes)
    ended = time.process_time()
    arrays = jax.device_put(dict(task.arrays), home.whole)
    rows = jax.device_put(first_batch(task, batch), home.whole)
    state = initialize(0, arrays, rows)
    states = places.stack([state] * count)
    spread_arrays = jax.device_put(arrays, places.whole)
    examples = task.order(batch_size=batch, seed=0).steps(0, DISPATCH, DISPATCH)
    stacked = np.stack([examples] * count, axis=1)
    span = place_span(home, [DISPATCH], 0.0, 1.0, 100.0)
    spans = place_span(places, [DISPATCH] * count, 0.0, 1.0, 100.0)
    one, each = [], []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        state, found = alone.train(
            state, arrays, jax.device_put(examples, home.batch), span
        )
        jax.block_until_ready(found)
        one.append((time.process_time() - start) / DISPATCH)
        start = time.process_time()
        states, found = beside.train(
            states, spread_arrays, jax.device_put(stacked, places.batch), spans
        )
        jax.block_until_ready(found)
        each.append((time.process_time() - start) / DISPATCH / count)
    # The first call of each warms up.
    single, copy = (1e3 * statistics.median(times[1:]) for times in (one, each))
    return (
        f"{row:14} {middle - began:6.1f} {ended - middle:6.1f} "
        f"{alone.predicted_bytes / 1e6:6.0f} {beside.predicted_bytes / 1e6:6.0f} "
        f"{single:9.1f} {copy:9.1f} {single / copy:6.2f}"
    )


if __name__ == "__main__":
    main()
