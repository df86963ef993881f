"""How long a trained policy takes to answer one frame, and where the time goes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench.facts import device
from jaxbench.bench.trained import (
    Run,
    one_device,
    open_run,
    restore_variables,
    write_measurement,
)
from jaxbench.data import slippi
from jaxbench.data.game import Game
from jaxbench.data.replays import select_players
from jaxbench.data.simulation.record import simulate_replays
from jaxbench.errors import InputError
from jaxbench.serving.bad_frame import problems
from jaxbench.serving.decide import (
    Memory,
    Variables,
    act,
    bind,
    first_memory,
    read,
)
from jaxbench.serving.policy import Controller, Policy, frame_inputs, read_rows
from jaxbench.serving.timing import BUDGET_MS, WARM_UP, percentiles, time_in_turn
from jaxbench.serving.writing import agreement
from jaxbench.tasks.table import find
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda import view as views
from jaxbench.tasks.zelda.chunks import acting
from jaxbench.tasks.zelda.stream import INPUTS, Stream, open_stream
from jaxbench.tasks.zelda.view import View, view_of_replay

# Games whose first window's worth of frames is streamed to compare.
COMPARED_GAMES = 4
# Calls by which the share of each part is told.
PARTS = 500

Clock = Callable[[], float]
Call = Callable[[int], Any]


def measure_latency(
    folder: Path,
    *,
    frames: int = 2000,
    which: str = "best",
    window: bool = True,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measures how long a trained policy takes to answer one frame, batch 1.

    What is timed is `Policy.step`, from a frame as the game gives it (`View`) to the
    controller to hold: its checks, its features, the transfer both ways, encoder,
    backbone and head (all steps of denoising and the average over chunks included), at
    temperature 0. "step" carries the backbone's state, "window" sees the run's window
    of frames anew at every frame. Frames are those of the run's validation replays, in
    the order of play, or of one simulated game where it has no replays; after the last
    comes the first, and a game starts anew.

    A run of the protocol compat cannot play: its model reads the frame whose input it
    predicts. Of these the compiled step is timed, on ready-made encoder inputs.

    Garbage collection is off and the first calls are not counted. Before that, the
    streamed scores are compared with those of the program that was trained.

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
      budget), share_of_frame (p99 over the budget), parts (see `parts_of`, not under
      compat)}; window, the same without parts and its length, or None.

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
    agrees = check_agreement(run, variables, arrays, stream)
    length = run.task.tokens_per_example
    seen = played_frames(run, frames) if run.task.protocol == "clean" else []

    def timed(mode: str) -> dict[str, Any]:
        if seen:
            call = step_caller(policy_of(run, variables, mode), seen)
        else:
            held = length if mode == "window" else 0
            call = stream_caller(run, variables, stream, held)
        return summarize(time_in_turn({mode: call}, frames, WARM_UP, clock)[mode])

    step = timed("stateful")
    if seen:
        policy = policy_of(run, variables, "stateful")
        step["parts"] = parts_of(policy, seen, step["p50_ms"])
    measured = {
        "device": device(),
        "budget_ms": BUDGET_MS,
        "frames": frames,
        "weights": {"which": which, "step": at_step},
        "agrees": agrees,
        "step": step,
        "window": timed("window") | {"length": length} if window else None,
    }
    write_measurement(folder, ("latency",), measured)
    return measured


def policy_of(run: Run, variables: Variables, mode: str) -> Policy:
    """The policy that plays a run of the protocol clean, whoever the fighter is."""
    data = run.config["data"]
    return Policy.of(
        *(run.model, variables),
        window=data["window"],
        delay=data["delay"],
        character=data["character"],
        any_character=True,
        mode=mode,
    )


def step_caller(policy: Policy, seen: Sequence[View]) -> Call:
    """`call(n)`: what `policy.step` answers to the n-th frame."""
    state = policy.initial_state()

    def call(n: int) -> Controller:
        nonlocal state
        state, held = policy.step(state, seen[n % len(seen)])
        return held

    return call


def stream_caller(run: Run, variables: Variables, stream: Stream, window: int) -> Call:
    """`call(n)`: the labels of the compiled step for the n-th encoder input, [1, 6]."""
    step = _stream_step(run, variables, 0, window)
    frame = stream.frame(0)
    memory = first_memory(run.model, variables, 1, window=window, frame=frame)

    def call(n: int) -> np.ndarray:
        nonlocal memory
        labels_ba, memory = step(memory, stream.frame(n % len(stream)))
        return np.asarray(labels_ba)

    return call


def parts_of(policy: Policy, seen: Sequence[View], whole_ms: float) -> dict[str, float]:
    """Where the median step of a policy with a carried state spends its time.

    The compiled step is split by two more programs, which end after the encoder and
    after the backbone.

    Returns:
      Milliseconds at the median: checks, of the frame; features, on the host; encoder,
      with the transfer to the device and the features there; backbone; head, with the
      transfer back; rest, what lacks to `whole_ms`.
    """
    model, variables = policy.model, policy.variables
    memory, none = policy.initial_state().memory, np.zeros(1, bool)
    neutral_ba = controller.NEUTRAL.astype(np.int32)[None]
    rows = [read_rows(views.arrays(view)) for view in seen[:WARM_UP]]

    def encoder(variables: Variables, memory: Memory, *frame: Any) -> Any:
        return model.apply(
            variables, frame_inputs(*frame), method=lambda model, x: model.encoder(x)
        )

    def backbone(variables: Variables, memory: Memory, *frame: Any) -> Any:
        return read(model, variables, frame_inputs(*frame), memory, 0)

    def call_of(program: Callable[..., Any], *idle: Any) -> Call:
        return lambda n: jax.block_until_ready(
            program(memory, rows[n % len(rows)], neutral_ba, none, *idle)
        )

    calls = {
        "checks": lambda n: problems(seen[n % len(seen)]),
        "features": lambda n: views.arrays(seen[n % len(seen)]),
        "encoder": call_of(bind(encoder, variables)),
        "backbone": call_of(bind(backbone, variables)),
        "head": call_of(policy.answer, none),
    }
    times = time_in_turn(calls, min(len(seen), PARTS))
    parts = {name: float(np.median(x)) for name, x in times.items()}
    parts["head"] -= parts["backbone"]
    parts["backbone"] -= parts["encoder"]
    parts["rest"] = whole_ms - sum(parts.values())
    return {name: max(0.0, part) for name, part in parts.items()}


def played_frames(run: Run, count: int) -> list[View]:
    """Up to `count` frames of a run's validation games, as their player saw them.

    Of its replays, else of a simulated game of its own.
    """
    found: list[View] = []
    for game in _games(run):
        player = select_players([game], run.config["data"]["character"])[0][1]
        begin = int(np.searchsorted(game.frame_t, 0))
        end = min(len(game.frame_t), begin + count - len(found))
        found += [view_of_replay(game, player, t) for t in range(begin, end)]
        if len(found) == count:
            break
    return found


def _games(run: Run) -> Iterator[Game]:
    data = run.config["data"]
    if data["replays"]:
        folder = Path(data["replays"]).expanduser()
        paths = {path.name: path for path in folder.rglob("*") if path.is_file()}
        for name in run.task.source["splits"]["validation"]["games"]:
            yield slippi.parse(paths[name])
        return
    anyone = data["character"].strip().lower() == "any"
    character = "zelda" if anyone else data["character"]
    with tempfile.TemporaryDirectory() as made:
        yield slippi.parse(*simulate_replays(made, games=1, character=character))


def summarize(times_ms: np.ndarray) -> dict[str, Any]:
    """Percentiles of times, and whether their 99th fits a frame."""
    found = percentiles(times_ms)
    return {
        **found,
        "makes_60fps": found["p99_ms"] < BUDGET_MS,
        "share_of_frame": found["p99_ms"] / BUDGET_MS,
    }


def check_agreement(
    run: Run, variables: Variables, arrays: Mapping[str, jax.Array], stream: Stream
) -> float | None:
    """Compares streamed scores with those of training's windows, on the same frames.

    That is defined while a game is not longer than a window; under compat, whose
    windows reach into the game before, at the one frame where they are equally long.

    Returns:
      The largest absolute difference of a logit, or of a number of a chunk; None where
      no frame can be compared.

    Raises:
      ValueError: see `writing.agreement`.
    """
    task, length = run.task, run.task.tokens_per_example
    index = comparable(stream, length, task.protocol)
    if not len(index):
        return None
    first = np.arange(length)[None] == 0
    plan = acting.first_plan(run.model.head, len(index))

    @jax.jit
    def whole(variables: Variables, arrays: Any, examples_b: jax.Array) -> Any:
        batch = task.gather(arrays, examples_b)
        frames = {name: batch[name] for name in INPUTS[task.protocol]}
        # Compat's windows start from the initial state: a reset at their first frame.
        starts = jnp.asarray(np.repeat(first, len(index), axis=0))
        frames["reset_bt"] = batch.get("reset_bt", starts)
        memory = {"backbone": None, "plan": plan}
        return act(run.model, variables, frames, memory)[1]

    def rows(scores: Any) -> np.ndarray:
        flat = [np.reshape(x, (len(x), -1)) for x in jax.device_get(scores).values()]
        return np.concatenate(flat, axis=-1)

    expected = rows(whole(variables, arrays, stream.examples[index]))
    step, streamed = _stream_step(run, variables, 1, 0), []
    memory = first_memory(run.model, variables, 1)
    for n in range(int(index[-1]) + 1):
        if n - stream.first_n[n] >= length:
            continue
        scores, memory = step(memory, stream.frame(n))
        if n in index:
            streamed.append(rows(scores))
    dtype = run.config["train"]["dtype"]
    return agreement(np.concatenate(streamed), expected, dtype, "frames")


def comparable(stream: Stream, window: int, protocol: str) -> np.ndarray:
    """Frames of the first games at which a training window holds all that was seen."""
    seen = np.arange(len(stream)) - stream.first_n + 1
    games = np.flatnonzero(stream.start_n)[:COMPARED_GAMES]
    within = seen == window if protocol == "compat" else seen <= window
    return np.flatnonzero(within & np.isin(stream.first_n, games))


def _stream_step(run: Run, variables: Variables, output: int, window: int) -> Any:
    """Compiles (memory, frame) -> (output, memory); output 0 is labels, 1 scores."""

    def step(variables: Variables, memory: Memory, frame: Any) -> Any:
        found = act(run.model, variables, frame, memory, window=window)
        return found[output], found[2]

    return bind(step, variables)
