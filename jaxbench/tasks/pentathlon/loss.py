"""Cross-entropy of the answers, and in how many ways they can be right."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbench.data.synthetic.event import IGNORE
from jaxbench.tasks.task import Batch, Statistics

# What `Event.scored` ranks by.
PRIMARY = {
    "labels": "accuracy",
    "last": "last_accuracy",
    "sequence": "sequence_accuracy",
}


def answer_loss(
    values_v: np.ndarray | None, logits_bmv: jax.Array, batch: Batch
) -> tuple[jax.Array, Statistics]:
    """Mean negative log-likelihood of the answers, in nats, every answer alike.

    Args:
      values_v: the number each token stands for as an answer (NaN: none), for the
        relative error of the last answer; None where answers are no numbers.
      logits_bmv: [B, M, V].
      batch: "target_bm", of which `IGNORE` counts nothing, and "weight_b".

    Returns:
      The mean over answers, and sums: "nats", "weight" (answers), "hits"; "sequences",
      "whole" (sequences all of whose answers are right), "share" (of right answers,
      summed over sequences), "last_hits"; with values "relative_error",
      "within_1_percent" and "not_a_number" of the last answer.
    """
    target_bm = batch["target_bm"]
    logits_bmv = logits_bmv.astype(jnp.float32)
    asked_bm = batch["weight_b"][:, None] * (target_bm != IGNORE)
    safe_bm = jnp.maximum(target_bm, 0)
    nats_bm = asked_bm * optax.softmax_cross_entropy_with_integer_labels(
        logits_bmv, safe_bm
    )
    said_bm = jnp.argmax(logits_bmv, axis=-1)
    hits_bm = asked_bm * (said_bm == safe_bm)
    asked_b, hits_b = jnp.sum(asked_bm, axis=1), jnp.sum(hits_bm, axis=1)
    counted_b = (asked_b > 0).astype(jnp.float32)
    # Targets come first, so the last one's place is their number less one.
    last_b1 = jnp.maximum(jnp.sum(target_bm != IGNORE, axis=1) - 1, 0)[:, None]

    def last(values_bm: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values_bm, last_b1, axis=1)[:, 0]

    nats, weight = jnp.sum(nats_bm), jnp.sum(asked_bm)
    statistics = {
        "nats": nats,
        "weight": weight,
        "hits": jnp.sum(hits_b),
        "sequences": jnp.sum(counted_b),
        "whole": jnp.sum(counted_b * (hits_b == asked_b)),
        "share": jnp.sum(hits_b / jnp.maximum(asked_b, 1.0)),
        "last_hits": jnp.sum(last(hits_bm)),
    }
    if values_v is not None:
        statistics |= _errors(values_v, last(said_bm), last(safe_bm), counted_b)
    return nats / jnp.maximum(weight, 1.0), statistics


def _errors(
    values_v: np.ndarray, said_b: jax.Array, wanted_b: jax.Array, counted_b: jax.Array
) -> Statistics:
    """How far off the number is that was said; no number is as far off as 0."""
    is_number_v = np.isfinite(values_v)
    number_v = jnp.asarray(np.where(is_number_v, values_v, 0.0), jnp.float32)
    said, wanted = number_v[said_b], number_v[wanted_b]
    error_b = jnp.abs(said - wanted) / jnp.maximum(jnp.abs(wanted), 1.0)
    return {
        "relative_error": jnp.sum(counted_b * error_b),
        "within_1_percent": jnp.sum(counted_b * (error_b <= 0.01)),
        "not_a_number": jnp.sum(counted_b * ~jnp.asarray(is_number_v)[said_b]),
    }


def summarize(statistics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics from summed statistics.

    "loss" (nats an answer), "accuracy" (share of right answers, every answer alike),
    "mean_accuracy" (that share in each sequence, averaged over sequences),
    "sequence_accuracy" (sequences without an error), "last_accuracy" (last answers);
    where answers are numbers "relative_error", "within_1_percent", "not_a_number".
    """
    answers = max(float(statistics["weight"]), 1.0)
    sequences = max(float(statistics["sequences"]), 1.0)
    metrics = {
        "loss": float(statistics["nats"]) / answers,
        "accuracy": float(statistics["hits"]) / answers,
        "mean_accuracy": float(statistics["share"]) / sequences,
        "sequence_accuracy": float(statistics["whole"]) / sequences,
        "last_accuracy": float(statistics["last_hits"]) / sequences,
    }
    for name in ("relative_error", "within_1_percent", "not_a_number"):
        if name in statistics:
            metrics[name] = float(statistics[name]) / sequences
    return metrics
