"""What every backbone costs: parameters, state, predicted memory, time of a step.

One training step of each row of the zoo: Dense, the stack at its own depth, Dense on
the last frame, cross-entropy of 81 classes, AdamW, float32, everything trained at once,
nothing rematerialised. Memory is what the compiler says a step needs (arguments +
outputs + temporaries - aliased), known before anything runs. Times are medians, in this
process, one row after the other: of its CPU time on a CPU, where others may share the
cores and ratios to S4's say most, of wall time elsewhere.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --rows=s4,ttt --width=64 --json=costs.json

A row that cannot be built, compiled or run is a line that says why. Exit code 1 if
there is one, or if a step needs more than `--limit_gb`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FEATURES, CLASSES = 288, 81


def main() -> int:
    """Measures the rows asked for and prints the table."""
    from jaxbench.errors import InputError
    from jaxbench.models.backbone import canonical
    from jaxbench.models.zoo import ROWS

    arguments = _parser().parse_args()
    try:
        names = [canonical(name) for name in arguments.rows.split(",") if name]
    except InputError as error:
        print(f"backbones: error: {error}", file=sys.stderr)
        return 2
    names = names or list(ROWS)
    rows = []
    for name in names:
        start = time.perf_counter()
        try:
            row = measure(name, arguments)
        except Exception as error:  # a row that fails is a row of the table
            first_line = str(error).splitlines()[0] if str(error) else ""
            row = {"name": name, "failure": f"{type(error).__name__}: {first_line}"}
        row["seconds"] = time.perf_counter() - start
        rows.append(row)
        print(_line(row), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1))
    _print_table(rows, arguments)
    limit = arguments.limit_gb * 1e9
    broken = [row for row in rows if "failure" in row or row["predicted_bytes"] > limit]
    return 1 if broken else 0


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Builds, compiles and times one row."""
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.jax_models import Classifier
    from jaxbench.models.build import build_stack, count_parameters, state_bytes
    from jaxbench.training.programs import predicted_bytes

    stack = build_stack(name, width=arguments.width)
    model, optimizer = Classifier(stack, CLASSES), optax.adamw(1e-3)
    rng = np.random.default_rng(0)
    shape = (arguments.batch, arguments.length, FEATURES)
    x_btf = jnp.asarray(rng.normal(size=shape), jnp.float32)
    label_b = jnp.asarray(rng.integers(0, CLASSES, arguments.batch))

    def initialize(key: jax.Array) -> tuple[Any, Any]:
        variables = model.init(key, x_btf)
        return variables, optimizer.init(variables["params"])

    def step(variables: Any, state: Any, x_btf: jax.Array, label_b: jax.Array) -> Any:
        def loss_of(params: Any) -> jax.Array:
            logits, sown = model.apply(
                {**variables, "params": params}, x_btf, mutable=["losses", "metrics"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label_b)
            return loss.mean() + sum(jax.tree.leaves(sown.get("losses", {})))

        params = variables["params"]
        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return {**variables, "params": params}, state, loss

    abstract = jax.eval_shape(initialize, jax.random.key(0))
    compiled = (
        jax.jit(step, donate_argnums=(0, 1)).lower(*abstract, x_btf, label_b).compile()
    )
    stack_state = jax.eval_shape(
        lambda variables: stack.apply(variables, 1, method="initial_state"),
        jax.eval_shape(stack.init, jax.random.key(0), x_btf[:, :, : arguments.width]),
    )
    row = {
        "name": name,
        "depth": len(stack.layers),
        "parameters": count_parameters(abstract[0]["params"]["stack"]),
        "state_bytes": state_bytes(stack_state),
        "predicted_bytes": predicted_bytes(compiled),
    }
    if arguments.steps:
        on_cpu = jax.default_backend() == "cpu"
        clock = time.process_time if on_cpu else time.perf_counter
        carry = jax.jit(initialize)(jax.random.key(0))
        times = []
        for _ in range(arguments.steps + 1):
            start = clock()
            *carry, loss = compiled(*carry, x_btf, label_b)
            loss = float(loss)
            times.append(clock() - start)
        row["step_seconds"] = float(np.median(times[1:]))
        if not np.isfinite(loss):
            row["failure"] = f"loss {loss} after {arguments.steps + 1} steps"
    return row


def _line(row: dict[str, Any]) -> str:
    if "failure" in row:
        return f"{row['name']:24s} FAILED {row['failure']} ({row['seconds']:.0f} s)"
    step = row.get("step_seconds")
    return (
        f"{row['name']:24s} parameters {row['parameters']:>10,}  state "
        f"{row['state_bytes']:>9,} B  memory {row['predicted_bytes'] / 1e6:8,.0f} MB  "
        f"step {'-' if step is None else f'{step * 1e3:8.0f} ms'}  "
        f"({row['seconds']:.0f} s in all)"
    )


def _print_table(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    import jax

    device = jax.devices()[0]
    times = {row["name"]: row.get("step_seconds") for row in rows}
    print(
        f"\nbatch {arguments.batch}, T {arguments.length}, width {arguments.width}, "
        f"each row's own depth; jax {jax.__version__} on {device.device_kind}\n"
    )
    print("| backbone | layers | parameters | state bytes | memory MB | step / s4 |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        if "failure" in row:
            print(f"| {row['name']} | | | | | {row['failure']} |")
            continue
        ratio = "-"
        if times.get("s4") and row.get("step_seconds"):
            ratio = f"{row['step_seconds'] / times['s4']:.2f}"
        print(
            f"| {row['name']} | {row['depth']} | {row['parameters']:,} | "
            f"{row['state_bytes']:,} | {row['predicted_bytes'] / 1e6:,.0f} | {ratio} |"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="names, comma between; all")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--length", type=int, default=30)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="timed; 0 compiles only")
    parser.add_argument("--limit_gb", type=float, default=8.0)
    parser.add_argument("--json", default="", help="file for the rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
