"""Text of a language model: continued byte by byte, and how fast bytes come."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench.facts import device
from jaxbench.bench.score import open_language_run
from jaxbench.bench.trained import (
    Run,
    one_device,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.serving.decide import bind, first_state, next_byte
from jaxbench.serving.timing import WARM_UP, percentiles, time_in_turn
from jaxbench.tasks import rules

# What stands before a text: the byte that ends a document.
SEPARATOR = b"\x1e"
# The median byte's (or frame's) largest difference of a logit between step form and
# whole window, in units of the largest logit (at least 1).
TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1}


class Writer:
    """Reads bytes one at a time and draws the next, with a carried state.

    The state stays on the device; a byte costs one call, whatever came before.

    Args:
      model, variables: trained.
      temperature: of the draw; 0 takes the likeliest byte.
      seed: of the draws.

    Raises:
      InputError: a temperature below 0, or a seed of too many bits.
    """

    def __init__(
        self,
        model: Model,
        variables: Mapping[str, Any],
        *,
        temperature: float = 1.0,
        seed: int = 0,
    ):
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature={temperature} must be 0 or more")
        rules.seed("seed", seed)

        def step(variables: Any, state: Any, byte: jax.Array, count: jax.Array) -> Any:
            key = jax.random.fold_in(jax.random.key(seed), count)
            return next_byte(model, variables, byte[None], state, key, temperature)

        self._step = bind(step, variables, donate_argnums=0)
        self._initial = first_state(model, variables)
        self.restart()

    def restart(self) -> None:
        """Begins anew: from the initial state, with the same draws."""
        # A copy, because each call gives its state's memory to the next.
        self._state = jax.tree.map(jnp.copy, self._initial)
        self._count = 0
        self.logits_v: jax.Array | None = None

    def __call__(self, byte: int) -> int:
        """Reads `byte` and draws the next one; `logits_v` are its float32 logits."""
        drawn_b, logits_bv, self._state = self._step(
            self._state, np.int32(byte), np.uint32(self._count)
        )
        self.logits_v = logits_bv[0]
        self._count += 1
        return int(drawn_b[0])

    def go_on(self, prompt: bytes, count: int) -> Iterator[int]:
        """Reads a prompt, then draws `count` bytes, each of which it reads in turn.

        Raises:
          InputError: the prompt is not bytes.
        """
        byte = 0
        for byte in SEPARATOR + check_prompt(prompt):
            drawn = self(byte)
        for _ in range(count):
            yield drawn
            drawn = self(drawn)


def check_prompt(prompt: Any) -> bytes:
    """Refuses what is not bytes.

    Raises:
      InputError: naming what it is instead.
    """
    if not isinstance(prompt, bytes | bytearray):
        raise InputError(
            f"a prompt must be bytes, not {type(prompt).__name__} "
            f"({str(prompt)[:40]!r}); encode text first, for example as UTF-8"
        )
    return bytes(prompt)


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
        f"or written in {seconds:.2f} s, {done / seconds:,.0f} a second, one call a "
        f"byte, on {device()['kind']}",
        file=sys.stderr,
        flush=True,
    )
    return os.EX_OK


def read_prompt(options: argparse.Namespace) -> bytes:
    """The prompt of the options: text, hexadecimal digits, or a file's content.

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

    found = percentiles(time_in_turn({"read": read}, count, WARM_UP, clock)["read"])
    measured = {
        "device": device(),
        "bytes": count,
        "weights": {"which": which, "step": at_step},
        "agrees": agrees,
        "bytes_per_s": 1e3 / found["p50_ms"],
        **found,
    }
    write_measurement(folder, ("decode",), measured)
    return measured


def check_steps(run: Run, variables: Any) -> float:
    """Compares the step form's logits with the whole window's, on one window.

    Returns:
      The largest absolute difference of a logit.

    Raises:
      ValueError: the median over bytes is above `TOLERANCE`.
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
    dtype = run.config["train"]["dtype"]
    return agreement(np.stack(streamed), expected_tv, dtype, "bytes")


def agreement(streamed: np.ndarray, whole: np.ndarray, dtype: str, what: str) -> float:
    """The largest difference between the scores of a step form and of a window.

    A router or a threshold that flips at one place is no disagreement, so what must be
    small is the median over places.

    Args:
      streamed, whole: [N, scores], of the same N frames or bytes.
      dtype: the run's, a key of `TOLERANCE`.
      what: "frames" or "bytes".

    Raises:
      ValueError: the median is above `TOLERANCE[dtype]` times the largest score.
    """
    apart_n = np.abs(streamed - whole).max(axis=-1)
    scale = max(1.0, float(np.abs(whole).max()))
    typical = float(np.median(apart_n))
    if not typical <= TOLERANCE[dtype] * scale:
        raise ValueError(
            f"streamed logits differ from the whole window's by {typical:.3g} at the "
            f"median of {len(apart_n)} {what}, logits up to {scale:.3g}"
        )
    return float(apart_n.max())
