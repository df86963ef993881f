"""Measures the forms of the primitives and writes the table that picks among them.

For each primitive every form, and every block length worth trying, makes forward and
backward passes in turn with the others, in one process, on two shapes: short (64
sequences of 30 frames, width 256) and long (8 of 512 frames, width 512). The fastest
becomes the row for up to 64 frames, or for any length. The form that is in the table
stays where it is within 5 % of the fastest, so that noise changes nothing.

On a CPU time is CPU time of one thread pinned to one core, which other programs on the
machine disturb least; elsewhere it is time on the clock.

    python benchmarks/forms.py
    python benchmarks/forms.py --primitive=gru,lstm --dry-run

Prints medians of the repeats as ratios to the fastest, then writes the rows of the
backend that JAX runs on to `jaxbench/ops/forms.json`; all other rows stay as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import form_arguments as given
import jax
import jax.numpy as jnp
import numpy as np
from form_arguments import Shape

from jaxbench.mixers.elman import weighted
from jaxbench.ops import forms
from jaxbench.ops.cell import gru_scan, lstm_scan
from jaxbench.ops.convolution import causal_convolution
from jaxbench.ops.delta_rule import delta_rule
from jaxbench.ops.dense_cell import dense_cell
from jaxbench.ops.dense_linear import dense_linear
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.elementwise_cell import elementwise_cell
from jaxbench.ops.gated_linear import gated_linear_attention
from jaxbench.ops.lti import diagonal_ssm, dplr_ssm
from jaxbench.ops.selective_scan import selective_scan

# What a form may need besides its arguments and results.
MOST_BYTES = 8 << 30
# A form in the table stays where it is no slower than this, against the fastest.
NOISE = 1.05
# Forms of one shape must agree that well, relative, in loss and gradients.
TOLERANCE = 2e-2

# The widest vectors first.
VECTORS = ("avx512f", "avx2", "asimd")

SHAPES = (Shape(64, 30, 256, 64), Shape(8, 512, 512, None))
QUICK_SHAPES = (Shape(2, 6, 8, 64), Shape(2, 12, 8, None))

Arguments = Callable[[Shape, np.random.Generator], tuple[np.ndarray, ...]]


@dataclasses.dataclass(frozen=True)
class Primitive:
    """One primitive to measure.

    Attributes:
      run: the function that asks `forms.choose`; the output, or a tuple that starts
        with it.
      arguments: `(shape, generator) -> arrays`, what a training step gives to `run`.
      forms: names to try; "name:" is tried with each of `blocks`.
      blocks: block lengths to try.
    """

    run: Callable[..., Any]
    arguments: Arguments
    forms: tuple[str, ...]
    blocks: tuple[int, ...] = ()

    def candidates(self, length: int) -> list[str]:
        """Forms that differ at this length: one block that covers it is enough."""
        covering = min((b for b in self.blocks if b >= length), default=length)
        blocks = [b for b in self.blocks if b <= covering]
        names = []
        for form in self.forms:
            names += [f"{form}{b}" for b in blocks] if form.endswith(":") else [form]
        return names


def gated_cell(x: jax.Array, kernel: jax.Array, keep: jax.Array) -> Any:
    """`dense_cell` as the Elman ladder's E63 calls it."""
    return dense_cell(x, (kernel,), keep)


def weighted_cell(x: jax.Array, weight: jax.Array, keep: jax.Array) -> Any:
    """`elementwise_cell` as the Elman ladder's E65 calls it."""
    return elementwise_cell(weighted, (keep, x), (weight,))


CHUNKS = (16, 32, 64, 128)
# To add a primitive: one entry.
PRIMITIVES = {
    "diagonal": Primitive(diagonal, given.diagonal, ("scan", "associative")),
    "selective_scan": Primitive(
        selective_scan,
        given.selective_scan,
        ("scan", "fused:", "associative"),
        (5, 8, 16, 32, 64),
    ),
    "lstm": Primitive(lstm_scan, given.lstm, ("scan", "deferred")),
    "gru": Primitive(gru_scan, given.gru, ("scan", "deferred")),
    "dense_cell": Primitive(gated_cell, given.dense_cell, ("scan", "deferred")),
    "dense_linear": Primitive(
        dense_linear, given.dense_linear, ("scan", "doubling:"), (8, 16, 32, 64)
    ),
    "elementwise_cell": Primitive(
        weighted_cell, given.elementwise_cell, ("scan", "newton")
    ),
    "causal_convolution": Primitive(
        causal_convolution, given.convolution, ("toeplitz", "fft")
    ),
    "diagonal_ssm": Primitive(
        diagonal_ssm, given.diagonal_ssm, ("scan", "convolution", "fft")
    ),
    "dplr_ssm": Primitive(dplr_ssm, given.dplr_ssm, ("scan", "convolution")),
    "gated_linear": Primitive(
        gated_linear_attention, given.gated_linear, ("scan", "chunks:"), CHUNKS
    ),
    "gated_linear_keys": Primitive(
        gated_linear_attention, given.gated_linear_keys, ("scan", "chunks:"), CHUNKS
    ),
    "delta_rule": Primitive(delta_rule, given.delta_rule, ("scan", "chunks:"), CHUNKS),
    "delta_rule_keys": Primitive(
        delta_rule, given.delta_rule_keys, ("scan", "chunks:"), CHUNKS
    ),
}


def main() -> None:
    """Measures, prints the ratios, writes the table."""
    options = _options()
    _pin()
    backend = _backend(options.backend)
    print(
        f"{_device()}, jax {jax.__version__}; load average {os.getloadavg()[0]:.1f}; "
        f"median of {options.repeats} forward and backward passes\n\n"
        f"{'primitive':<20}{'B, T, D':<16}{'form':<14}{'ms':>9}  ratio",
        flush=True,
    )
    measured = []
    for name in options.primitive:
        chosen = []
        for shape in QUICK_SHAPES if options.quick else SHAPES:
            seconds = measure(PRIMITIVES[name], name, shape, options.repeats)
            _report(name, shape, seconds)
            present = _present(name, backend, shape)
            chosen.append((shape.max_length, pick(seconds, present)))
        measured += _rows(name, backend, chosen)
    text = as_text(merged(forms.rows(), measured))
    if options.dry_run:
        print("\nrows that would be written:")
        print("\n".join(json.dumps(row) for row in measured))
        return
    new = forms.TABLE.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(forms.TABLE)
    print(f"\n{len(measured)} rows written to {forms.TABLE.name}")


def measure(
    primitive: Primitive, name: str, shape: Shape, repeats: int
) -> dict[str, float]:
    """Times every form that fits in memory; returns median seconds by form.

    A form too large for `MOST_BYTES` has infinity.

    Raises:
      ValueError: a form's loss or gradients are not those of the first form.
    """
    rng = np.random.default_rng(0)
    arguments = jax.device_put(primitive.arguments(shape, rng))
    steps, seconds, expected = {}, {}, None
    for form in primitive.candidates(shape.length):
        step = _compiled(primitive.run, name, form, arguments)
        memory = step.memory_analysis()
        if memory is not None and memory.temp_size_in_bytes > MOST_BYTES:
            seconds[form] = float("inf")
            continue
        result = jax.device_get(step(*arguments))
        expected = expected or result
        _check_agreement(f"{name} as {form}, {shape[:3]}", result, expected)
        steps[form] = step
    times: dict[str, list[float]] = {form: [] for form in steps}
    on_cpu = jax.default_backend() == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    for _ in range(repeats):
        for form, step in steps.items():
            start = clock()
            jax.block_until_ready(step(*arguments))
            times[form].append(clock() - start)
    return seconds | {form: statistics.median(t) for form, t in times.items()}


def pick(seconds: dict[str, float], present: str | None) -> str:
    """Names the fastest form, or the present one where that is as fast."""
    best = min(seconds, key=seconds.__getitem__)
    if not np.isfinite(seconds[best]):
        raise ValueError(f"no form needs less than {MOST_BYTES / 1e9:.0f} GB")
    if seconds.get(present or "", float("inf")) <= NOISE * seconds[best]:
        return str(present)
    return best


def merged(old: Sequence[forms.Row], new: Sequence[forms.Row]) -> list[forms.Row]:
    """Replaces the rows of each new (primitive, backend); the others keep their place.

    New rows come where the first they replace was, or at the end.
    """
    groups: dict[tuple[str, str], list[forms.Row]] = {}
    for row in new:
        groups.setdefault((row["primitive"], row["backend"]), []).append(row)
    rows, done = [], set()
    for row in old:
        key = (row["primitive"], row["backend"])
        if key not in groups:
            rows.append(row)
        elif key not in done:
            rows += groups[key]
            done.add(key)
    return rows + [
        row for key, group in groups.items() if key not in done for row in group
    ]


def as_text(rows: Sequence[forms.Row]) -> str:
    """The table as JSON with a line for each row."""
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return f'{{\n  "rows": [\n{lines}\n  ]\n}}\n'


@contextlib.contextmanager
def forced(name: str, form: str) -> Iterator[None]:
    """Makes `forms.choose` answer `form` for one primitive while inside."""
    row = {"primitive": name, "max_length": None, "max_state": None, "form": form}
    mine = tuple({**row, "backend": b, "source": ""} for b in ("cpu", "gpu"))
    real = forms.rows
    rest = tuple(row for row in real() if row["primitive"] != name)
    forms.rows = lambda: (*mine, *rest)
    forms._choose.cache_clear()
    try:
        yield
    finally:
        forms.rows = real
        forms._choose.cache_clear()


def _compiled(
    run: Callable[..., Any], name: str, form: str, arguments: tuple[Any, ...]
) -> Any:
    def output(*arguments: Any) -> Any:
        y = run(*arguments)
        return y[0] if isinstance(y, tuple) else y

    def loss(*arguments: Any) -> Any:
        y = output(*arguments)
        # Weights that differ from place to place, so that no gradient is constant.
        weight = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return jnp.mean(y * weight)

    step = jax.value_and_grad(loss, argnums=tuple(range(len(arguments))))
    with forced(name, form):
        return jax.jit(step).lower(*arguments).compile()


def _check_agreement(what: str, result: Any, expected: Any) -> None:
    for index, (got, want) in enumerate(
        zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
    ):
        apart = np.linalg.norm(np.ravel(got - want))
        if not apart <= TOLERANCE * np.linalg.norm(np.ravel(want)) + 1e-6:
            part = "loss" if index == 0 else f"gradient of argument {index - 1}"
            raise ValueError(f"{what}: {part} is not that of the first form")


def _rows(
    name: str, backend: str, chosen: Sequence[tuple[int | None, str]]
) -> list[forms.Row]:
    """Rows in order of length; neighbours with one form become one row."""
    source = (
        f"python benchmarks/forms.py --primitive={name}, {_device()}, "
        f"jax {jax.__version__}"
    )
    rows: list[forms.Row] = []
    for max_length, form in chosen:
        if rows and rows[-1]["form"] == form:
            rows[-1]["max_length"] = max_length
            continue
        rows.append(
            {
                "primitive": name,
                "backend": backend,
                "max_length": max_length,
                "max_state": None,
                "form": form,
                "source": source,
            }
        )
    return rows


def _present(name: str, backend: str, shape: Shape) -> str | None:
    """The form the table has for this shape, if it has the primitive."""
    known = {(row["primitive"], row["backend"]) for row in forms.rows()}
    if (name, backend) not in known:
        return None
    return forms.choose(name, length=shape.length, state_size=1, backend=backend)


def _report(name: str, shape: Shape, seconds: dict[str, float]) -> None:
    best = min(seconds.values())
    size = ", ".join(map(str, shape[:3]))
    for form, value in sorted(seconds.items(), key=lambda item: item[1]):
        told = f"{1e3 * value:>9.2f}  {value / best:.2f}"
        if not np.isfinite(value):
            told = f"{'-':>9}  needs over {MOST_BYTES / 1e9:.0f} GB"
        print(f"{name:<20}{size:<16}{form:<14}{told}", flush=True)


def _device() -> str:
    """What ran: the accelerator's kind, or the processor and how much of it."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    name = platform.processor() or platform.machine()
    told: dict[str, str] = {}
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            told.setdefault(key.strip(), value.strip())
    flags = told.get("flags", "").split()
    vectors = [word for word in VECTORS if word in flags]
    family = f", family {told['cpu family']}" if "cpu family" in told else ""
    kind = "".join(f", {word.upper()}" for word in vectors[:1])
    name = told.get("model name", name)
    return f"{name}{family}{kind}, CPU time of one pinned thread"


def _pin() -> None:
    """Leaves this process one core and XLA one thread; before JAX starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false"
    os.environ["NPROC"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _backend(wanted: str | None) -> str:
    """Starts JAX; returns the family of rows that it measures."""
    if wanted == "cpu":
        jax.config.update("jax_platforms", "cpu")
    running = "cpu" if jax.default_backend() == "cpu" else "gpu"
    if wanted not in (None, running):
        sys.exit(f"--backend={wanted}, but JAX runs on {jax.default_backend()} here")
    return running


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--primitive",
        type=_primitives,
        default=list(PRIMITIVES),
        help=f"comma-separated, of {','.join(PRIMITIVES)}; default: all",
    )
    parser.add_argument(
        "--backend",
        choices=("cpu", "gpu"),
        help="rows to measure; default: those of the backend JAX runs on",
    )
    parser.add_argument("--repeats", type=_positive, default=9)
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes; needs --dry-run"
    )
    options = parser.parse_args()
    if options.quick and not options.dry_run:
        parser.error("--quick measures nothing worth writing; add --dry-run")
    return options


def _primitives(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PRIMITIVES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is none of {','.join(PRIMITIVES)}"
        )
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


if __name__ == "__main__":
    main()
