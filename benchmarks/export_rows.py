"""Which backbones can be exported to ONNX, and how close the files are to jax.

Each row of the zoo, small and untrained (hybrids at their own depth), is converted
twice: one step with its state, and a window. ONNX Runtime and jax then answer the same
random inputs, a reset among them; of the step several in a row, each with its own
state. The error is the largest difference over the largest output.

    python benchmarks/export_rows.py
    python benchmarks/export_rows.py --rows=original
    python benchmarks/export_rows.py --rows=mamba,s5 --unroll=0
    python benchmarks/export_rows.py --rows=s4,gru,mamba,deltanet --width=64 --before

A row that cannot be exported is a line that names the operation. Exit code 1 if there
is one, or if an error is above `--limit`.
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

STEPS, WINDOWS = 12, 3


def main() -> int:
    """Exports the rows asked for and prints a line for each."""
    from jaxbench.errors import InputError
    from jaxbench.models.backbone import canonical
    from jaxbench.models.zoo import ORIGINAL, ROWS

    arguments = _parser().parse_args()
    names = [name for name in arguments.rows.split(",") if name]
    if names == ["original"]:
        names = list(dict.fromkeys(ORIGINAL.values()))
    try:
        names = [canonical(name) for name in names]
    except InputError as error:
        print(f"export_rows: error: {error}", file=sys.stderr)
        return 2
    names = names or list(ROWS)
    rows = []
    for name in names:
        for length in (1, arguments.length):
            rows.append(measure(name, length, arguments))
            print(_line(rows[-1]), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1))
    bad = [row for row in rows if not row.get("error", np.inf) <= arguments.limit]
    print(f"{len(rows) - len(bad)} of {len(rows)} exported within {arguments.limit}")
    return 1 if bad else 0


def measure(name: str, length: int, arguments: Any) -> dict[str, Any]:
    """Exports one row at one length and compares it; a failure is a fact too."""
    import jax

    from jaxbench.errors import InputError

    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "length": length}
    try:
        row |= compare_row(
            name,
            length,
            width=arguments.width,
            depth=arguments.depth,
            unroll=arguments.unroll,
            before=arguments.before,
        )
    except Exception as error:  # a row that fails is a row of the table
        said = str(error).partition("\n")[0]
        known = isinstance(error, InputError)
        row["failure"] = said if known else f"{type(error).__name__}: {said}"
    jax.clear_caches()
    return row | {"seconds": time.perf_counter() - start}


def compare_row(
    name: str,
    length: int,
    *,
    width: int,
    depth: int,
    unroll: int | None = None,
    before: bool = False,
) -> dict[str, Any]:
    """Largest error of a row's ONNX file against jax, and what the file holds.

    Raises:
      InputError: an operation has no counterpart.
    """
    import jax

    from jaxbench.models.build import build_stack
    from jaxbench.models.zoo import ROWS
    from jaxbench.serving.export.parity import collect
    from jaxbench.serving.export.runtime import jax_call, to_onnx
    from jaxbench.to_onnx.int8 import all_nodes
    from jaxbench.to_onnx.runtime import open_model

    # A hybrid at another depth would lose its last layers.
    stack = build_stack(name, width=width, depth=None if ROWS[name].pattern else depth)
    rng = np.random.default_rng(0)
    x_btd = rng.normal(size=(1, length, width)).astype(np.float32)
    variables = jax.jit(stack.init)(jax.random.key(0), x_btd)
    exported, initial = of_stack(stack, variables, length, name)
    options = {} if unroll is None else {"unroll": unroll}
    model = to_onnx(exported, **options)
    calls = []
    for n in range(STEPS if length == 1 else WINDOWS):
        reset_bt = np.zeros((1, length), bool)
        if length == 1:
            reset_bt[0, 0] = n == STEPS // 2
        elif n:
            reset_bt[0, [0, length // 3]] = True
        x_btd = rng.normal(size=(1, length, width)).astype(np.float32)
        calls.append({"x_btd": x_btd, "reset_bt": reset_bt})
    ours = collect(jax_call(exported), calls, initial)
    theirs = collect(open_model(model), calls, initial)
    pairs = list(zip(ours, theirs, strict=True))
    scale = max(float(np.abs(a["y_btd"]).max()) for a, _ in pairs)
    error = max(float(np.abs(a["y_btd"] - b["y_btd"]).max()) for a, b in pairs)
    operations = [node.op_type for node in all_nodes(model.graph)]
    found: dict[str, Any] = {}
    if before:
        plain = to_onnx(exported, rules=(), **options)
        found["nodes_before"] = sum(1 for _ in all_nodes(plain.graph))
    return found | {
        "error": error / scale,
        "nodes": len(operations),
        "loops": operations.count("Scan"),
        "products": operations.count("MatMul"),
    }


def of_stack(stack: Any, variables: Any, length: int, name: str) -> tuple[Any, Any]:
    """A stack alone as a function to export, and its first state (None for a window).

    One frame streams; more are a window without a state, its last frame asked for.
    """
    from jaxbench.serving.export.functions import next_name, open_state, with_weights
    from jaxbench.serving.export.runtime import Port

    ports = [
        Port("x_btd", (1, length, stack.width), "float32"),
        Port("reset_bt", (1, length), "bool"),
    ]

    def window(variables: Any, x_btd: Any, reset_bt: Any) -> Any:
        return (stack.apply(variables, x_btd, None, reset_bt, last_only=True)[0],)

    if length > 1:
        return with_weights("window", window, variables, ports, ["y_btd"], name), None
    state = open_state(stack.apply(variables, 1, method="initial_state"))

    def step(variables: Any, x_btd: Any, reset_bt: Any, *given: Any) -> Any:
        y_btd, end = stack.apply(variables, x_btd, state.unpack(given), reset_bt)
        return (y_btd, *state.pack(end))

    outputs = ["y_btd", *map(next_name, state.ports)]
    inputs = [*ports, *state.ports]
    exported = with_weights("step", step, variables, inputs, outputs, name)
    return exported, state.initial


def _line(row: dict[str, Any]) -> str:
    what = "step" if row["length"] == 1 else f"window of {row['length']}"
    begin = f"{row['name']:24s} {what:12s}"
    if "failure" in row:
        return f"{begin} {row['failure']} ({row['seconds']:.0f} s)"
    before = f"{row['nodes_before']:5d} -> " if "nodes_before" in row else ""
    return (
        f"{begin} error {row['error']:.1e}  {before}{row['nodes']:5d} nodes, "
        f"{row['products']:3d} products, {row['loops']:2d} loops "
        f"({row['seconds']:.0f} s)"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rows", default="", help="names with commas, or original; all by default"
    )
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--length", type=int, default=30, help="of the window")
    parser.add_argument("--unroll", type=int, help="equations; 0: every loop a Scan")
    parser.add_argument(
        "--before", action="store_true", help="also count nodes made without rules"
    )
    parser.add_argument("--limit", type=float, default=1e-4, help="largest error")
    parser.add_argument("--json", default="", help="file for the rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
