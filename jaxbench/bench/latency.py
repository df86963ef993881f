"""Milliseconds from one frame in host memory to the controller read back, batch 1."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench.facts import device
from jaxbench.bench.trained import (
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.table import find
from jaxbench.tasks.task import Task
from jaxbench.tasks.zelda.chunks import acting
from jaxbench.tasks.zelda.chunks.targets import KEYS as CHUNK_KEYS
from jaxbench.tasks.zelda.stream import Stream, open_stream

# A frame of the game.
BUDGET_MS = 1000 / 60
WARM_UP = 100
# Games whose first window's worth of frames is streamed to compare.
COMPARED_GAMES = 4
# The typical frame's largest difference, in units of the largest logit (at least 1).
TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1}

Clock = Callable[[], float]
Variables = Mapping[str, Any]


def measure_latency(
    folder: Path,
    *,
    frames: int = 2000,
    which: str = "best",
    window: bool = True,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measures how long a trained policy takes to answer one frame.

    The whole policy is timed: encoder, stack, heads, the likeliest controller (group
    by group where the head is autoregressive; of a head over chunks the one of
    temperature 0, all steps of denoising and the average over chunks, where it has
    one, included; windows have no chunks to average over). Inputs are frames of the
    validation games in the order of play, as the encoder reads them, in host memory;
    each call moves its own to the device and ends when the controller is back. So
    the time includes the transfer both ways and leaves out reading the game.

    "step" streams: one frame, the state carried on the device, a reset where a game
    begins; after the last game the first follows. "window" answers every frame from
    the run's window of frames (30 by default) and no state, as without a recurrence.
    Garbage collection is off and the first calls are not counted. Before that, the
    stream's logits are compared with those of the program that was trained; of a head
    over chunks, the numbers of the chunk.

    Args:
      folder: of a finished run; its `result.json` gets the answer as `latency`.
      frames: calls timed in each mode.
      which: "best" or "last" weights.
      window: whether to time windows too.
      clock: seconds, for tests.

    Returns:
      device; budget_ms; frames; weights {which, step}; agrees, the largest absolute
      difference between a streamed and a whole window's logit, None where no game
      holds a whole window; step {p50_ms, p99_ms, max_ms, makes_60fps (p99 below the
      budget), share_of_frame (p99 over the budget)}; window, the same and its length,
      or None.

    Raises:
      InputError: no finished run, no checkpoint, its data is gone, or its task has
        nothing to play.
      ValueError: stream and window disagree on most frames: the stream is not what was
        trained.
    """
    if frames < 1:
        raise InputError(f"frames={frames} must be at least 1")
    run, placement = open_run(folder), one_device()
    if find(run.task.name).emits != "controller":
        raise InputError(
            f"the run {folder} is of the task {run.task.name!r}, which is neither "
            "played nor written: there is nothing to answer in time; name runs of "
            "configs/zelda.py or configs/pile.py"
        )
    variables, at_step = restore_variables(run, which, placement)
    arrays = jax.device_put(dict(run.task.arrays), placement.whole)
    stream = open_stream(run.task, arrays, "validation", frames)
    dtype = run.config["train"]["dtype"]
    agrees = check_agreement(run.model, run.task, variables, arrays, stream, dtype)
    del arrays
    length = run.task.tokens_per_example
    measured = {
        "device": device(),
        "budget_ms": BUDGET_MS,
        "frames": frames,
        "weights": {"which": which, "step": at_step},
        "agrees": agrees,
        "step": summarize(time_step(run.model, variables, stream, frames, clock)),
        "window": None,
    }
    if window:
        times = time_window(run.model, variables, stream, frames, length, clock)
        measured["window"] = summarize(times) | {"length": length}
    write_measurement(folder, ("latency",), measured)
    return measured


def act(
    model: Model, batch: dict[str, jax.Array], state: Any, plan: acting.Plan
) -> tuple[jax.Array, tuple[Any, acting.Plan]]:
    """The likeliest controller after a batch's last frame, int32 [B, 6], and the state.

    A method for `Model.apply`; plan and state are those of the frame before.
    """
    x_btd = model.encoder(batch)
    h_btd, state = model.stack(x_btd, state, batch["reset_bt"], last_only=True)
    drawn = acting.draw(model.head, h_btd, jax.random.key(0), temperature=0.0)
    chosen, plan = acting.follow(plan, drawn[:, -1], batch["reset_bt"][:, -1])
    return chosen, (state, plan)


class StepPlayer:
    """Answers frame after frame; the state stays on the device.

    Args:
      model, variables: the policy.
      stream: what it sees; after the last frame comes the first.
    """

    def __init__(self, model: Model, variables: Variables, stream: Stream):
        def step(variables: Variables, state: Any, batch: Any) -> Any:
            return model.apply(variables, batch, *state, method=act)

        self._step = jax.jit(step, donate_argnums=1)
        plan = acting.first_plan(model.head, 1)
        self._initial = initial_state(model, variables), plan
        self._variables = variables
        self._stream = stream
        self.restart()

    def restart(self) -> None:
        """Begins anew, from the initial state."""
        # A copy, because each call gives its state's memory to the next.
        self._state = jax.tree.map(jnp.copy, self._initial)

    def __call__(self, n: int) -> np.ndarray:
        """The controller for the n-th frame, on the host, int32 [1, 6]."""
        batch = self._stream.frame(n % len(self._stream))
        chosen, self._state = self._step(self._variables, self._state, batch)
        return np.asarray(chosen)


class WindowPlayer:
    """Answers each frame from the last `length` frames and nothing else."""

    def __init__(self, model: Model, variables: Variables, stream: Stream, length: int):
        def whole(variables: Variables, batch: Any) -> jax.Array:
            plan = acting.first_plan(model.head, 1)
            return model.apply(variables, batch, None, plan, method=act)[0]

        self._whole = jax.jit(whole)
        self._variables = variables
        self._stream = stream
        self._length = length

    def __call__(self, n: int) -> np.ndarray:
        """The controller for the n-th frame, on the host, int32 [1, 6]."""
        batch = self._stream.window(n % len(self._stream), self._length)
        return np.asarray(self._whole(self._variables, batch))


def time_step(
    model: Model, variables: Variables, stream: Stream, frames: int, clock: Clock
) -> np.ndarray:
    """Milliseconds of each of `frames` streamed calls."""
    player = StepPlayer(model, variables, stream)
    for n in range(WARM_UP):
        player(n)
    player.restart()
    return time_calls(player, frames, clock)


def time_window(
    model: Model,
    variables: Variables,
    stream: Stream,
    frames: int,
    length: int,
    clock: Clock,
) -> np.ndarray:
    """Milliseconds of each of `frames` calls on windows."""
    player = WindowPlayer(model, variables, stream, length)
    for n in range(WARM_UP):
        player(n)
    return time_calls(player, frames, clock)


def time_calls(call: Callable[[int], Any], count: int, clock: Clock) -> np.ndarray:
    """Milliseconds of call(0) .. call(count - 1), garbage collection off."""
    seconds = np.empty(count)
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for n in range(count):
            start = clock()
            call(n)
            seconds[n] = clock() - start
    finally:
        if collected:
            gc.enable()
    return seconds * 1e3


def summarize(times_ms: np.ndarray) -> dict[str, Any]:
    """Percentiles of times, and whether their 99th fits a frame."""
    p99 = float(np.percentile(times_ms, 99))
    return {
        "p50_ms": float(np.percentile(times_ms, 50)),
        "p99_ms": p99,
        "max_ms": float(times_ms.max()),
        "makes_60fps": p99 < BUDGET_MS,
        "share_of_frame": p99 / BUDGET_MS,
    }


def initial_state(model: Model, variables: Variables) -> Any:
    """The state an episode starts from, for one stream."""

    def make(variables: Variables) -> Any:
        return model.apply(variables, 1, method="initial_state")

    return jax.jit(make)(variables)


def check_agreement(
    model: Model,
    task: Task,
    variables: Variables,
    arrays: Mapping[str, jax.Array],
    stream: Stream,
    dtype: str,
) -> float | None:
    """Compares streamed logits with the training program's on the same frames.

    That is defined while a game is not longer than a window; under compat, whose
    windows reach into the game before, at the one frame where they are equally long.
    A router or a threshold that flips at one frame is no disagreement, so what must be
    small is the median over frames.

    Returns:
      The largest absolute difference of a logit; None where no frame can be compared.

    Raises:
      ValueError: the median is above `TOLERANCE[dtype]`.
    """
    index = comparable(stream, task.tokens_per_example, task.protocol)
    if not len(index):
        return None

    @jax.jit
    def whole(variables: Variables, arrays: Any, examples_b: jax.Array) -> Any:
        batch = dict(task.gather(arrays, examples_b))
        seen = {name: x for name, x in batch.items() if name not in CHUNK_KEYS}
        outputs, _ = model.apply(variables, seen)
        return {k: v[:, -1] for k, v in outputs.items()}, batch["target_bta"][:, -1:]

    @jax.jit
    def step(variables: Variables, state: Any, batch: Any) -> Any:
        outputs, state = model.apply(variables, batch, state)
        return {name: logits[:, -1] for name, logits in outputs.items()}, state

    expected, target = jax.device_get(whole(variables, arrays, stream.examples[index]))
    # An autoregressive head reads the true groups in both programs.
    targets = dict(zip(index.tolist(), target, strict=True))
    streamed: dict[int, dict[str, np.ndarray]] = {}
    state = initial_state(model, variables)
    for n in range(int(index[-1]) + 1):
        if n - stream.first_n[n] >= task.tokens_per_example:
            continue
        label = targets.get(n, np.zeros((1, 6), np.int32))[None]
        batch = stream.frame(n) | {"target_bta": label}
        logits, state = step(variables, state, batch)
        if n in targets:
            streamed[n] = jax.device_get(logits)
    difference_n = np.zeros(len(index))
    for name, rows in expected.items():
        ours = np.concatenate([streamed[n][name] for n in index.tolist()])
        apart = np.abs(ours - rows).reshape(len(index), -1)
        difference_n = np.maximum(difference_n, apart.max(axis=-1))
    scale = max(1.0, *(float(np.abs(rows).max()) for rows in expected.values()))
    typical = float(np.median(difference_n))
    if not typical <= TOLERANCE[dtype] * scale:
        raise ValueError(
            f"streamed logits differ from the whole window's by {typical:.3g} at the "
            f"median of {len(index)} frames, logits up to {scale:.3g}"
        )
    return float(difference_n.max())


def comparable(stream: Stream, window: int, protocol: str) -> np.ndarray:
    """Frames of the first games at which a training window holds all that was seen."""
    seen = np.arange(len(stream)) - stream.first_n + 1
    games = np.flatnonzero(stream.start_n)[:COMPARED_GAMES]
    within = seen == window if protocol == "compat" else seen <= window
    return np.flatnonzero(within & np.isin(stream.first_n, games))
