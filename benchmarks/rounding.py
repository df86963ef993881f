"""How fast rounding grows in training: a copy, and one bit, against the single run.

Three trainings of one run of word_problem, level L1, update by update:

- the single run;
- the same run as one of two copies side by side, whose program sums in another order;
- the single run again, one bit of one parameter changed before the first update.

The second differs from the first by rounding; the third shows what training makes of a
difference of that size when nothing else is another. Printed are the distances of the
parameters from the single run's, relative to their norm. In float64 (--bits=64)
everything that is declared float32 is computed in float64: rounding starts 2^29 times
smaller, and a fault of either program would not.

    python benchmarks/rounding.py
    python benchmarks/rounding.py --backbones=deltanet --bits=32 --steps=200
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RECIPE = (
    "{backbone},level=L1,width=32,batch_size=32,max_steps={steps},learning_rate=3e-3,"
    "ssm_learning_rate=3e-3,steps_per_dispatch=1"
)
SHOWN = 8


def main() -> None:
    """Prints a table for each backbone and type; each is a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backbones", default="deltanet,transformer/conv")
    parser.add_argument("--bits", default="32,64")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    backbones, bits = options.backbones.split(","), options.bits.split(",")
    if len(backbones) == len(bits) == 1:
        measure(backbones[0], int(bits[0]), options.steps)
        return
    for backbone in backbones:
        for count in bits:
            given = [f"--backbones={backbone}", f"--bits={count}"]
            given += [f"--steps={options.steps}"]
            subprocess.run([sys.executable, __file__, *given], check=True)


def measure(backbone: str, bits: int, steps: int) -> None:
    """Trains the three, and prints how far they are apart at some of the updates."""
    os.chdir(ROOT)
    import jax
    import jax.numpy as jnp
    import numpy as np

    if bits == 64:
        jax.config.update("jax_enable_x64", True)
        # Modules name their types when they are called.
        jnp.float32 = jnp.float64

    from jaxbench.bench import build
    from jaxbench.bench.recipe import read_recipe
    from jaxbench.training import programs as compiled
    from jaxbench.training.programs import Placement, place_span

    build.DTYPES["float32"] = jnp.float32
    recipe = RECIPE.format(backbone=backbone, steps=steps)
    config = read_recipe([f"--config=configs/word_problem.py:{recipe}"])
    size = config["train"]["batch_size"]
    task = build.build_task(config, print)
    orders = [task.order(batch_size=size, seed=seed) for seed in (0, 1)]
    budget = build.build_budget(config, task, orders[0])
    model = build.build_model(build.build_backbone(config), task)
    update = build.build_update(config, model, task, budget, print)
    home = Placement.of_runs(1)
    first = build.build_first_state(config, update, home)
    alone, beside = (
        compiled.compile_programs(
            *(update, first, Placement.of_runs(runs)),
            batch_size=size,
            steps_per_dispatch=1,
            batches_per_evaluation=1,
        )
        for runs in (1, 2)
    )
    arrays = {
        k: jax.device_put(np.asarray(v), home.whole) for k, v in task.arrays.items()
    }
    rows = jax.device_put(compiled.first_batch(task, size), home.whole)

    def start(seed: int):
        return first(seed, arrays, rows)

    def with_another_bit(state):
        vectors = dict(state.params.vectors)
        matrix = np.array(vectors["matrix"])
        middle = len(matrix) // 2
        matrix[middle] = np.nextafter(matrix[middle], matrix.dtype.type(np.inf))
        vectors["matrix"] = jnp.asarray(matrix)
        return state.replace(params=state.params.replace(vectors=vectors))

    def parameters(state) -> np.ndarray:
        leaves = jax.tree.leaves(state.params)
        return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])

    single, bit = start(0), with_another_bit(start(0))
    copies = beside.placement.stack([start(0), start(1)])
    kind = jax.tree.leaves(single.params)[0].dtype
    print(f"\n{backbone}, {kind}\nupdate  as a copy   one bit  loss of the single run")
    shown = {*range(1, 4), *(round(steps * i / SHOWN) for i in range(1, SHOWN + 1))}
    for step in range(steps):
        batches = [order.steps(step, 1, 1) for order in orders]
        one = jax.device_put(batches[0], alone.placement.batch)
        two = jax.device_put(np.stack(batches, axis=1), beside.placement.batch)
        span = float(step), 1.0, steps
        given = one, place_span(alone.placement, [1], *span)
        single, told = alone.train(single, arrays, *given)
        bit, _ = alone.train(bit, arrays, *given)
        both = place_span(beside.placement, [1, 1], *span)
        copies, _ = beside.train(copies, arrays, two, both)
        if step + 1 in shown:
            mine = parameters(single)
            apart = [
                np.linalg.norm(parameters(other) - mine) / np.linalg.norm(mine)
                for other in (beside.placement.take(copies, 0), bit)
            ]
            loss = float(told["total_loss"])
            print(
                f"{step + 1:6d} {apart[0]:10.1e} {apart[1]:9.1e}  {loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
