"""Text from a trained run: a continued prompt, and how fast bytes come."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.bench.facts import device
from jaxbench.bench.latency import TOLERANCE, WARM_UP, time_calls
from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.tasks.pile.text import SEPARATOR, Writer
from jaxbench.tasks.table import find


def sample_command(options: argparse.Namespace) -> int:
    """Prints a prompt and how the run continues it; returns the exit code.

    Raises:
      InputError: no finished run of this suite, a prompt that is not bytes, or a
        number out of its range.
    """
    if options.bytes < 0:
        raise InputError(f"--bytes={options.bytes} must not be negative")
    prompt = read_prompt(options)
    run = open_language_run(options.folder)
    variables, step = restore_variables(run, options.which, one_device())
    writer = Writer(
        run.model, variables, temperature=options.temperature, seed=options.seed
    )
    out = sys.stdout.buffer
    out.write(prompt)
    out.flush()
    writer(0)  # Compiles, so that the rate below is of writing alone.
    writer.restart()
    begin = time.perf_counter()
    for byte in writer.go_on(prompt, options.bytes):
        out.write(bytes([byte]))
        if out.isatty():
            out.flush()
    seconds = time.perf_counter() - begin
    out.write(b"\n")
    out.flush()
    done = len(SEPARATOR + prompt) + options.bytes
    print(
        f"jaxbench sample: {options.which} weights, step {step}; {done:,} bytes read "
        f"or written in {seconds:.2f} s, {done / seconds:,.0f} a second on "
        f"{device()['kind']}",
        file=sys.stderr,
        flush=True,
    )
    return os.EX_OK


def read_prompt(options: argparse.Namespace) -> bytes:
    """The prompt of the options: text, hexadecimal digits, or a file.

    Raises:
      InputError: digits that are no bytes, or a file that cannot be read.
    """
    if options.prompt_file is not None:
        try:
            return options.prompt_file.read_bytes()
        except OSError as error:
            raise InputError(
                f"--prompt_file={options.prompt_file} cannot be read: {error.strerror}"
            ) from error
    if not options.hex:
        # What the shell gave, byte for byte, even where it is no UTF-8.
        return os.fsencode(options.prompt)
    try:
        return bytes.fromhex(options.prompt)
    except ValueError as error:
        raise InputError(
            f"--prompt={options.prompt!r} is not bytes in hexadecimal: two digits of "
            "0-9a-f each, for example 48656c6c6f"
        ) from error


def open_language_run(folder: Path) -> Run:
    """Opens a finished run of the suite `pile`.

    Raises:
      InputError: as `open_run`, or the run is of another suite.
    """
    run = open_run(folder)
    if find(run.task.name).emits != "byte":
        raise InputError(
            f"the run {folder} is of the suite {run.task.name!r}, which writes no "
            "text; name a run of configs/pile.py"
        )
    return run


def measure_decode(
    folder: Path,
    *,
    count: int = 2000,
    which: str = "best",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Measures how long a trained run takes for each byte it reads, batch 1.

    Each call moves one byte of held-out text to the device, runs the step form, takes
    the likeliest next byte and ends when that is on the host. The first calls are not
    counted and garbage collection is off. Before that, the step form's logits on a
    window are compared with those of the program that was trained.

    Args:
      folder: of a finished run; its `result.json` gets the answer as `decode`.
      count: calls timed.
      which: "best" or "last" weights.
      clock: seconds, for tests.

    Returns:
      device; bytes, the calls; weights {which, step}; agrees, the largest absolute
      difference of a logit; bytes_per_s at the median; p50_ms, p99_ms, max_ms.

    Raises:
      InputError: no finished run, no checkpoint, or its data is gone.
      ValueError: step form and whole window disagree: not what was trained.
    """
    if count < 1:
        raise InputError(f"frames={count} must be at least 1")
    run = open_language_run(folder)
    variables, at_step = restore_variables(run, which, one_device())
    agrees = check_steps(run, variables)
    targets = run.task.splits["validation"][:, 1:]
    text = targets[targets >= 0]
    writer = Writer(run.model, variables, temperature=0)

    def read(n: int) -> int:
        return writer(int(text[n % len(text)]))

    for n in range(WARM_UP):
        read(n)
    times_ms = time_calls(read, count, clock)
    p50 = float(np.percentile(times_ms, 50))
    measured = {
        "device": device(),
        "bytes": count,
        "weights": {"which": which, "step": at_step},
        "agrees": agrees,
        "bytes_per_s": 1e3 / p50,
        "p50_ms": p50,
        "p99_ms": float(np.percentile(times_ms, 99)),
        "max_ms": float(times_ms.max()),
    }
    write_measurement(folder, ("decode",), measured)
    return measured


def check_steps(run: Run, variables: Any) -> float:
    """Compares the step form's logits with the whole window's, on one window.

    Returns:
      The largest absolute difference of a logit.

    Raises:
      ValueError: the median over bytes is above `latency.TOLERANCE`.
    """
    row = run.task.splits["validation"][:1]

    @jax.jit
    def whole(variables: Any, examples: jax.Array) -> jax.Array:
        return run.model.apply(variables, run.task.gather({}, examples))[0]

    expected_tv = np.asarray(whole(variables, row))[0]
    writer = Writer(run.model, variables, temperature=0)
    streamed = []
    for byte in row[0, :-1]:
        writer(max(int(byte), 0))
        streamed.append(np.asarray(writer.logits_v))
    difference_t = np.abs(np.stack(streamed) - expected_tv).max(axis=-1)
    scale = max(1.0, float(np.abs(expected_tv).max()))
    typical = float(np.median(difference_t))
    if not typical <= TOLERANCE[run.config["train"]["dtype"]] * scale:
        raise ValueError(
            f"the step form's logits differ from the whole window's by {typical:.3g} "
            f"at the median of {len(difference_t)} bytes, logits up to {scale:.3g}"
        )
    return float(difference_t.max())
