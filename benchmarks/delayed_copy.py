"""Can a backbone say what it saw some frames ago? A few hundred steps of training.

Every frame shows a new random bit; the model is asked for the bit of `--delay` frames
before. The last frame alone knows nothing of it, so without memory the mean squared
error is 1: the floor. One layer stack at its own depth, Adam, fresh bits at each step.

    python benchmarks/delayed_copy.py
    python benchmarks/delayed_copy.py --rows=snn,ltc --steps=800

Prints the error of the last 20 steps for each row that moves information along time,
worst last. Exit code 1 if one is not below the floor by 3 %.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FLOOR, BEATS = 1.0, 0.97


def train(
    backbone: str,
    *,
    delay: int = 10,
    steps: int = 200,
    width: int = 32,
    batch: int = 32,
    learning_rate: float = 5e-3,
    seed: int = 0,
) -> np.ndarray:
    """Returns the mean squared error of every step."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxbench.models.build import build_stack

    stack, length = build_stack(backbone, width=width), 2 * delay
    code_key, init_key, bit_key = jax.random.split(jax.random.key(seed), 3)
    code_vd = jax.random.normal(code_key, (2, width))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.warmup_constant_schedule(0.0, learning_rate, steps // 10)),
    )

    @jax.jit
    def run(keys: jax.Array) -> jax.Array:
        variables = stack.init(init_key, code_vd[jnp.zeros((1, length), jnp.int32)])
        constants = {k: v for k, v in variables.items() if k != "params"}

        def loss(params: dict, key: jax.Array) -> jax.Array:
            bit_bt = jax.random.bernoulli(key, shape=(batch, length)).astype(jnp.int32)
            y_btd, _ = stack.apply({**constants, "params": params}, code_vd[bit_bt])
            wanted = 2.0 * bit_bt[:, :-delay] - 1
            return jnp.mean((y_btd[:, delay:, 0] - wanted) ** 2)

        def step(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), value

        params = variables["params"]
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[1]

    return np.asarray(run(jax.random.split(bit_key, steps)))


def main() -> int:
    """Trains the rows asked for and prints them, best first."""
    from jaxbench.errors import InputError
    from jaxbench.models.backbone import canonical, resolve
    from jaxbench.models.zoo import ROWS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="names, comma between; all")
    parser.add_argument("--delay", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=32)
    options = parser.parse_args()
    try:
        names = [canonical(name) for name in options.rows.split(",") if name]
    except InputError as error:
        print(f"delayed_copy: error: {error}", file=sys.stderr)
        return 2
    names = names or [name for name in ROWS if resolve(name).temporal]
    found = {}
    for name in names:
        errors = train(
            name, delay=options.delay, steps=options.steps, width=options.width
        )
        found[name] = float(np.mean(errors[-20:]))
        print(f"{name:24s} {found[name]:.4f}", flush=True)
    print(f"\nerror after {options.steps} steps, delay {options.delay}; floor {FLOOR}")
    for name in sorted(found, key=found.__getitem__):
        verdict = "" if found[name] < BEATS else "  does not beat the floor"
        print(f"{name:24s} {found[name]:.4f}{verdict}")
    return 0 if all(value < BEATS for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
