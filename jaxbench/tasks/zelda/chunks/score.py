"""The loss of chunks, and what the controllers they decode to are worth.

A policy over chunks has no likelihood, so there is no loss in nats. What is compared is
decoded: the first controller of the chunk at temperature 0, by the accuracies, F1 and
accuracies on changes that the other heads have. `accuracy/all`, the share of frames
with all six groups right, selects the best checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.task import Batch, Statistics
from jaxbench.tasks.zelda import controller, floors, windows
from jaxbench.tasks.zelda import loss as label_loss
from jaxbench.tasks.zelda.chunks import action, targets
from jaxbench.tasks.zelda.encoder import buttons
from jaxbench.tasks.zelda.protocols import Data

PRIMARY = "accuracy/all"


def loss(outputs: Mapping[str, Any], batch: Batch) -> tuple[jax.Array, Statistics]:
    """The objective's mean over scored frames, and sums; see `Task.loss`.

    Sums of decoded controllers are there where the outputs have them: in evaluation.
    """
    weight = batch["weight_b"][:, None] * batch["valid_bt"].astype(jnp.float32)
    total = jnp.sum(weight * outputs["objective_bt"])
    sums = {"weight": jnp.sum(weight), "objective": total}
    for name, value in outputs["terms"].items():
        sums[f"objective/{name}"] = jnp.sum(weight * value)
    if "action_bthc" in outputs:
        labels = action.decode(outputs["action_bthc"])
        previous = batch["previous_bta"][:, -labels.shape[1] :]
        sums |= of_labels(labels[..., 0, :], batch["target_bta"], previous, weight)
        counted = weight[..., None] * batch["chunk_valid_bth"]
        right = _groups_right(labels, batch["chunk_btha"]).mean(-1)
        sums["place/weight"] = counted.sum((0, 1))
        sums["place/right"] = (counted * right).sum((0, 1))
    return total / jnp.maximum(sums["weight"], 1e-9), sums


def summarize(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics of summed statistics.

    Returns:
      objective, and its terms where it has several. In evaluation besides:
      accuracy/all, all six groups right; accuracy/, f1/ and change/ as
      `zelda.loss.summarize` has them; place/1 ..., the mean accuracy of the six groups
      at each place of the chunk, over the frames that count there.
    """
    s = {name: np.asarray(value, np.float64) for name, value in sums.items()}
    weight = s["weight"]
    names = [name for name in s if name.split("/")[0] == "objective"]
    metrics = {name: label_loss.ratio(s[name], weight) for name in names}
    if "right/all" in s:
        metrics[PRIMARY] = label_loss.ratio(s["right/all"], weight)
        metrics |= label_loss.accuracies(s)
    if "place/right" in s:
        metrics |= _by_place(
            [
                label_loss.ratio(right, count)
                for right, count in zip(
                    s["place/right"], s["place/weight"], strict=True
                )
            ]
        )
    return metrics


def measure_floors(
    data: Data, horizon: int, *, window: int, delay: int, readout: str
) -> dict[str, dict[str, float]]:
    """Decoded metrics of the predictors that never look at the game.

    As `floors.measure`: marginal says the commonest label of every group, for the whole
    chunk, and copy_previous the controller before the chunk. Neither has an objective.
    """
    validation = data.labels["validation"]
    rows = windows.scored_rows(
        data.arrays, data.splits["validation"], window=window, readout=readout
    )
    found = {}
    for name, predict in (
        ("marginal", floors.marginal(data.labels["train"])),
        ("copy_previous", floors.repeat),
    ):
        said = np.asarray(_likeliest(predict(validation[1])))
        found[name] = floors.evaluate(predict, validation, _floor, summarize) | (
            _by_place(
                targets.places_right(
                    data.arrays, rows, said, horizon=horizon, delay=delay
                )
            )
        )
    return found


def _by_place(values: list[float]) -> dict[str, float]:
    return {f"place/{k}": value for k, value in enumerate(values, start=1)}


def _floor(
    logits: Mapping[str, jax.Array], batch: Batch
) -> tuple[jax.Array, Statistics]:
    """Sums of a floor's decoded controllers; its scalar means nothing."""
    said = _likeliest(logits)
    weight = batch["weight_b"][:, None] * batch["valid_bt"].astype(jnp.float32)
    sums = of_labels(said, batch["target_bta"], batch["previous_bta"], weight)
    return jnp.zeros(()), sums


def _likeliest(logits: Mapping[str, Any]) -> jax.Array:
    """The likeliest labels [..., 6] of each group's logits."""
    weights = 2 ** jnp.arange(len(controller.BUTTONS))
    packed = (jnp.asarray(logits["buttons"]) > 0).astype(jnp.int32) @ weights
    rest = [jnp.argmax(logits[name], -1) for name in controller.COMPONENTS[1:]]
    return jnp.stack([packed, *rest], axis=-1).astype(jnp.int32)


def of_labels(
    said: jax.Array, target: jax.Array, previous: jax.Array, weight: jax.Array
) -> Statistics:
    """Sums for `summarize` of controllers that were decided on, [B, T, 6].

    Those of `zelda.loss`, and right/all. Frames count by weight [B, T].
    """
    certain = {"buttons": jnp.where(buttons(said[..., 0]), 1.0, -1.0)}
    for i, name in enumerate(controller.COMPONENTS[1:], start=1):
        certain[name] = jax.nn.one_hot(said[..., i], controller.CLASSES[name])
    right = jnp.sum(weight * (said == target).all(-1))
    sums = label_loss.counts(certain, target, previous, weight)
    return sums | {"right/all": right, "weight": jnp.sum(weight)}


def _groups_right(said: jax.Array, true: jax.Array) -> jax.Array:
    """Whether each group is right, of buttons the share, float32 [..., 6]."""
    same = (buttons(said[..., 0]) == buttons(true[..., 0])).mean(-1)
    rest = (said[..., 1:] == true[..., 1:]).astype(jnp.float32)
    return jnp.concatenate([same[..., None], rest], axis=-1)
