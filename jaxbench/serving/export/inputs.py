"""Real inputs of an exported run: frames of its validation games, or held-out bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.bench.trained import Run
from jaxbench.errors import InputError
from jaxbench.serving.export.functions import LABELS, logits_name
from jaxbench.serving.export.limits import LEAST
from jaxbench.tasks.table import find
from jaxbench.tasks.task import Batch, Statistics
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.chunks.heads import ChunkHead
from jaxbench.tasks.zelda.chunks.score import of_labels
from jaxbench.tasks.zelda.stream import open_stream

Call = Mapping[str, np.ndarray]


class Inputs(NamedTuple):
    """Inputs for a run's exported functions, and how to score their outputs.

    Attributes:
      steps: inputs of one call after the other.
      windows: the same frames, each with what came before it; empty without a window.
      score: `score(outputs, of)`, metrics as the task's summary has them; `of` says
        which steps or windows the outputs are of.
    """

    steps: Sequence[Call]
    windows: Sequence[Call]
    score: Callable[[Sequence[Call], Sequence[int]], dict[str, float]]


def open_inputs(run: Run, count: int) -> Inputs:
    """Reads up to `count` validation frames in the order of play, or held-out bytes.

    Raises:
      InputError: the validation split holds fewer than `LEAST`.
    """
    if find(run.task.name).emits == "byte":
        return _bytes(run, count)
    return _frames(run, count)


def _frames(run: Run, count: int) -> Inputs:
    task = run.task
    arrays = jax.device_put(dict(task.arrays))
    stream = open_stream(task, arrays, "validation", count)
    count = _enough(run, len(stream), "frames")
    batch = jax.jit(task.gather)(arrays, stream.examples)
    truth = {
        name: batch[name][:, -1:] for name in ("target_bta", "previous_bta", "valid_bt")
    }
    sums = jax.jit(_sums_of_labels if _in_chunks(run) else _sums_of_logits(run))

    def score(found: Sequence[Call], of: Sequence[int]) -> dict[str, float]:
        kept = {name: x[np.asarray(of)] for name, x in truth.items()}
        kept["weight_b"] = jnp.ones(len(found))
        outputs = {
            name: jnp.asarray(np.stack([x[name] for x in found]))
            for name in found[0]
            if not name.startswith("next/")
        }
        return task.summarize(jax.device_get(sums(outputs, kept)))

    steps = [_in_float32(stream.frame(n)) for n in range(count)]
    length = task.tokens_per_example
    windows = [_in_float32(stream.window(n, length)) for n in range(count)]
    return Inputs(steps, windows, score)


def _in_chunks(run: Run) -> bool:
    return isinstance(run.model.head, ChunkHead)


def _sums_of_logits(run: Run) -> Callable[[Call, Batch], Statistics]:
    def sums(outputs: Call, truth: Batch) -> Statistics:
        logits = {name: outputs[logits_name(name)] for name in controller.COMPONENTS}
        return run.task.loss(logits, truth)[1]

    return sums


def _sums_of_labels(outputs: Call, truth: Batch) -> Statistics:
    """Metrics of the labels sent: policies over chunks have no likelihood."""
    weight = truth["weight_b"][:, None] * truth["valid_bt"].astype(jnp.float32)
    said = jnp.asarray(outputs[LABELS])
    return of_labels(said, truth["target_bta"], truth["previous_bta"], weight)


def _bytes(run: Run, count: int) -> Inputs:
    rows = run.task.splits["validation"]
    targets = rows[:, 1:]
    text = np.concatenate([rows[0, :1], targets[targets >= 0]]).astype(np.int32)
    text = np.maximum(text, 0)[: count + 1]
    count = _enough(run, len(text) - 1, "bytes")
    loss = jax.jit(lambda logits, batch: run.task.loss(logits, batch)[1])

    def score(found: Sequence[Call], of: Sequence[int]) -> dict[str, float]:
        logits = np.stack([x["logits_v"] for x in found])[None]
        batch: Batch = {
            "target_bt": jnp.asarray(text[None, np.asarray(of) + 1]),
            "weight_b": jnp.ones(1),
        }
        return run.task.summarize(jax.device_get(loss(logits, batch)))

    steps = [{"byte_b": text[n : n + 1]} for n in range(count)]
    return Inputs(steps, (), score)


def _enough(run: Run, have: int, what: str) -> int:
    if have < LEAST:
        raise InputError(
            f"the validation split of the run {run.folder} holds {have} {what}; an "
            f"export is compared with jax on at least {LEAST}"
        )
    return have


def _in_float32(call: Mapping[str, np.ndarray]) -> Call:
    """Widens bfloat16 inputs (protocol compat) to the float32 that the file reads."""
    return {
        name: x.astype(np.float32) if x.dtype == jnp.bfloat16 else x
        for name, x in call.items()
    }
