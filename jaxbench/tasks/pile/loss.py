"""Cross-entropy of the next byte, and what is told of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxbench.tasks.task import Batch, Statistics

# A window is scored in so many parts of its length: later bytes have seen more.
PARTS = 4


def byte_loss(logits_btv: jax.Array, batch: Batch) -> tuple[jax.Array, Statistics]:
    """Mean negative log-likelihood of the target bytes, in nats.

    Targets below 0 are padding and count nothing; so does an example of weight 0.

    Returns:
      The mean over counted bytes, and sums: "nats", "weight" (bytes), "hits" (bytes
      whose most likely value was right), "nats_by_part" and "bytes_by_part", [4], by
      quarter of the window.
    """
    target_bt = batch["target_bt"]
    weight_bt = batch["weight_b"][:, None] * (target_bt >= 0)
    safe_bt = jnp.maximum(target_bt, 0)
    logits_btv = logits_btv.astype(jnp.float32)
    nats_bt = weight_bt * optax.softmax_cross_entropy_with_integer_labels(
        logits_btv, safe_bt
    )
    hits_bt = weight_bt * (jnp.argmax(logits_btv, axis=-1) == safe_bt)
    total, weight = jnp.sum(nats_bt), jnp.sum(weight_bt)
    statistics = {
        "nats": total,
        "weight": weight,
        "hits": jnp.sum(hits_bt),
        "nats_by_part": _by_part(nats_bt),
        "bytes_by_part": _by_part(weight_bt),
    }
    return total / jnp.maximum(weight, 1.0), statistics


def summarize(statistics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Metrics from summed statistics; those of an empty part are left out."""
    counted = float(statistics["weight"])
    nats = float(statistics["nats"]) / counted
    metrics = {
        "nats_per_byte": nats,
        "bits_per_byte": nats / math.log(2),
        "accuracy": float(statistics["hits"]) / counted,
        "bytes": counted,
    }
    parts = zip(statistics["nats_by_part"], statistics["bytes_by_part"], strict=True)
    for i, (part, count) in enumerate(parts, start=1):
        if count:
            metrics[f"nats_per_byte/quarter_{i}"] = float(part) / float(count)
    return metrics


def _by_part(values_bt: jax.Array) -> jax.Array:
    """Sums over the batch of `PARTS` nearly equal spans of time, [PARTS]."""
    length = values_bt.shape[1]
    # Constants of the program: which part a position belongs to.
    part_t = np.arange(length) * PARTS // length
    by_time_t = jnp.sum(values_bt, axis=0)
    return jax.ops.segment_sum(by_time_t, part_t, PARTS)
