"""What a model must beat: two predictors that never look at the game.

Both are fitted on the training split and measured on the validation split, with the
task's own loss function and metric names.

marginal: the training frequencies of every label as constant logits.
copy_previous: predicts that the controller does not change. Its accuracies, F1 and
change metrics are those of repeating the previous controller. A certain prediction has
no finite loss, so its losses are those of the fitted conditional p(label | previous
label) of every group (of every button), which is the best anything can do that sees
only that group's previous label.

All frequencies are smoothed by adding one to every count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.loss import Loss, summarize
from jaxbench.tasks.zelda.windows import Labels
from jaxbench.xla import ONCE, compiler_options

_CHUNK = 1 << 15
_CERTAIN = 30.0
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]
Summarize = Callable[[Mapping[str, np.ndarray]], dict[str, float]]


def measure(train: Labels, validation: Labels, loss: Loss) -> dict[str, dict]:
    """Metrics of both floors on the validation split.

    Args:
      train: targets [M, 6], previous controllers [M, 6], times scored [M].
      validation: the same of the validation split.
      loss: the task's.
    """
    copied = evaluate(repeat, validation, loss)
    conditional = evaluate(_conditional(train), validation, loss)
    losses = {
        name: value
        for name, value in conditional.items()
        if name.split("/")[0] in ("loss", "objective")
    }
    return {
        "marginal": evaluate(marginal(train), validation, loss),
        "copy_previous": copied | losses,
    }


def evaluate(
    predict: Predict, split: Labels, loss: Loss, metrics: Summarize = summarize
) -> dict[str, float]:
    """Metrics of logits that depend on the previous controller [M, 6] only."""
    jitted = _compiled(loss)
    # A power of two, so that splits of similar size share one compilation.
    chunk = min(_CHUNK, 1 << len(split[0]).bit_length())
    total: dict[str, np.ndarray] = {}
    for begin in range(0, len(split[0]), chunk):
        target, previous, count = (part[begin : begin + chunk] for part in split)
        pad = chunk - len(target)
        target, previous = (np.pad(a, ((0, pad), (0, 0))) for a in (target, previous))
        batch = {
            "target_bta": target[:, None].astype(np.int32),
            "previous_bta": previous[:, None].astype(np.int32),
            "valid_bt": np.ones((chunk, 1), bool),
            "weight_b": np.pad(count, (0, pad)).astype(np.float32),
        }
        logits = {name: value[:, None] for name, value in predict(previous).items()}
        sums = jax.device_get(jitted(logits, batch)[1])
        total = {k: v + total.get(k, np.float64(0)) for k, v in sums.items()}
    return metrics(total)


@functools.cache
def _compiled(loss: Loss) -> Callable[..., Any]:
    """One program for all floors."""
    return jax.jit(loss, compiler_options=compiler_options(ONCE))


def repeat(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Logits that put all probability on the given labels."""
    pressed = controller.unpack(labels[:, 0])
    logits = {"buttons": np.where(pressed, _CERTAIN, -_CERTAIN).astype(np.float32)}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        one_hot = np.eye(controller.CLASSES[name], dtype=np.float32)
        logits[name] = _CERTAIN * one_hot[labels[:, i]]
    return logits


def marginal(train: Labels) -> Predict:
    """Predicts the frequencies of a split's labels, whatever came before."""
    target, _, count = train
    nothing = np.zeros_like(target)
    tables = _tables(target, nothing, count)

    def predict(previous: np.ndarray) -> dict[str, np.ndarray]:
        return _look_up(tables, np.zeros_like(previous))

    return predict


def _conditional(train: Labels) -> Predict:
    tables = _tables(*train)
    return lambda previous: _look_up(tables, previous)


def _tables(
    target: np.ndarray, given: np.ndarray, count: np.ndarray
) -> dict[str, np.ndarray]:
    """Logits of label given label: buttons [8, 2] by button, others [K, K]."""
    true, before = controller.unpack(target[:, 0]), controller.unpack(given[:, 0])
    odds = np.zeros((8, 2))
    for b in range(8):
        counts = _joint(before[:, b], true[:, b], 2, count)
        odds[b] = np.log(counts[:, 1]) - np.log(counts[:, 0])
    tables = {"buttons": odds.astype(np.float32)}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        counts = _joint(given[:, i], target[:, i], controller.CLASSES[name], count)
        p = counts / counts.sum(1, keepdims=True)
        tables[name] = np.log(p).astype(np.float32)
    return tables


def _joint(given: np.ndarray, label: np.ndarray, k: int, w: np.ndarray) -> np.ndarray:
    pair = given.astype(np.int64) * k + label
    return 1.0 + np.bincount(pair, weights=w, minlength=k * k).reshape(k, k)


def _look_up(
    tables: dict[str, np.ndarray], previous: np.ndarray
) -> dict[str, np.ndarray]:
    before = controller.unpack(previous[:, 0]).astype(np.int64)
    logits = {"buttons": tables["buttons"][np.arange(8)[None], before]}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        logits[name] = tables[name][previous[:, i]]
    return logits
