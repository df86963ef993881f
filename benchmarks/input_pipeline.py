"""Windows per second: gathered on the device against fed by the host.

Both sides deliver the same windows of the same games to the same consumer, a jitted sum
over everything delivered, in turn within one process:

- device: frames lie on the device once, in compact types; a program of K steps gathers
  and encodes its windows by index (`task.gather`).
- host: the encoded frames of every player lie in host memory as one float32 matrix; a
  thread slices the windows of the next step with numpy while the device consumes those
  of this one.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --replays=FOLDER --character=falco

Prints medians of the ratio over the rounds, and the bytes each side holds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs import zelda
from jaxbench.bench.build import build_task
from jaxbench.tasks.task import Task
from jaxbench.tasks.zelda import features

# What a window of the original held: 288 columns of four bytes, for every window.
ORIGINAL_BYTES_PER_FRAME = 288 * 4
NAMES = ("numeric_btf", "action_state_btn", "character_btp", "item_type_bti")


def main() -> None:
    """Builds the task, times both sides in turn, prints a table."""
    options = _options()
    task = _task(options)
    rows = np.random.default_rng(0).permutation(task.splits["train"])
    groups = _groups(rows, options.steps, options.batch, options.rounds)
    device = _device_side(task)
    host, host_bytes = _host_side(task, options.window)
    device(groups[0])
    host(groups[0])
    ratios, rates = [], {"device": [], "host": []}
    for group in groups[1:]:
        windows = group.shape[0] * group.shape[1]
        seconds = {}
        for name, side in (("device", device), ("host", host)):
            start = time.perf_counter()
            side(group)
            seconds[name] = time.perf_counter() - start
            rates[name].append(windows / seconds[name])
        ratios.append(seconds["host"] / seconds["device"])
    frames = len(rows) + len(task.splits["validation"])
    _report(task, ratios, rates, frames, host_bytes, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replays", default="", help="folder; default: simulation")
    parser.add_argument("--character", default="zelda")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64, help="per measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--window", type=int, default=30)
    return parser.parse_args()


def _task(options: argparse.Namespace) -> Task:
    config = zelda.get_config(f"mlp,window={options.window}")
    config.data.replays = options.replays
    config.data.character = options.character
    return build_task(json.loads(config.to_json()), print)


def _groups(rows: np.ndarray, steps: int, batch: int, rounds: int) -> list[np.ndarray]:
    need = steps * batch
    repeated = np.resize(rows, (need * (rounds + 1), rows.shape[1]))
    return list(repeated.reshape(rounds + 1, steps, batch, rows.shape[1]))


def _consume(parts: dict[str, jax.Array]) -> jax.Array:
    return sum(parts[name].astype(jnp.float32).sum() for name in NAMES)


def _device_side(task: Task):
    arrays = {name: jax.device_put(a) for name, a in task.arrays.items()}

    @jax.jit
    def program(arrays, examples_kbe):
        def step(total, examples_be):
            return total + _consume(task.gather(arrays, examples_be)), None

        return jax.lax.scan(step, jnp.float32(0), examples_kbe)[0]

    def run(group: np.ndarray) -> float:
        return float(program(arrays, jax.device_put(group)))

    return run


def _host_side(task: Task, window: int):
    """Encodes every training frame once, then slices windows in a thread."""
    arrays = {name: jax.device_put(a) for name, a in task.arrays.items()}
    starts, columns = {}, []
    encode = jax.jit(
        lambda perspective_b, index_bt: {
            name: value
            for name, value in features.inputs(arrays, perspective_b, index_bt).items()
            if name in NAMES
        }
    )
    offset = 0
    for perspective in np.unique(task.splits["train"][:, 0]):
        chosen = task.splits["train"][:, 0] == perspective
        length = int(task.splits["train"][chosen, 1].max()) + 1
        index = np.arange(-(-length // 4096) * 4096, dtype=np.int32)
        parts = []
        for piece in index.reshape(-1, 4096):
            batch = encode(np.array([perspective]), piece[None])
            parts.append(
                np.concatenate(
                    [np.asarray(batch[name], np.float32)[0] for name in NAMES], -1
                )
            )
        columns.append(np.concatenate(parts)[:length])
        starts[int(perspective)] = offset
        offset += length
    matrix = np.concatenate(columns)
    start_of = np.zeros(max(starts) + 1, np.int64)
    for perspective, start in starts.items():
        start_of[perspective] = start
    back = np.arange(1 - window, 1)
    consume = jax.jit(lambda x: x.sum())

    def slice_windows(examples: np.ndarray) -> np.ndarray:
        index = np.maximum(examples[:, 1:2] + back[None], 0)
        return matrix[start_of[examples[:, 0]][:, None] + index]

    def run(group: np.ndarray) -> float:
        total = 0.0
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(slice_windows, group[0])
            for k in range(len(group)):
                windows = following.result()
                if k + 1 < len(group):
                    following = pool.submit(slice_windows, group[k + 1])
                total = total + consume(jax.device_put(windows))
        return float(total)

    return run, matrix.nbytes


def _report(task, ratios, rates, frames, host_bytes, options) -> None:
    held = sum(a.nbytes for a in task.arrays.values())
    original = frames * options.window * ORIGINAL_BYTES_PER_FRAME
    low, median, high = np.percentile(ratios, [10, 50, 90])
    print(
        f"device: {jax.devices()[0].device_kind}, {len(ratios)} rounds of "
        f"{options.steps} x {options.batch} windows of {options.window} frames"
    )
    print(f"windows/s, device over host: {median:.2f} (10-90 %: {low:.2f}-{high:.2f})")
    if jax.default_backend() != "cpu":
        for name, values in rates.items():
            print(f"  {name}: {np.median(values):,.0f} windows/s")
    print(f"bytes held, gathered on the device: {held:,} (host and device each)")
    print(f"bytes held, host-fed frame matrix:  {host_bytes:,} (host)")
    print(f"bytes of every window written out, as the original did: {original:,}")


if __name__ == "__main__":
    main()
