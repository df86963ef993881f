"""Speculative sampling: which of a draft's tokens are kept, and what follows them.

A draft draws tokens x_1 .. x_K one after the other from its q_k = q(. | x_<k), a target
gives p_k = p(. | x_<k) of the same tokens in one call. Keep x_k with probability
min(1, p_k(x_k) / q_k(x_k)); at the first that is not kept draw from max(0, p_k - q_k),
normalised; where all are kept draw one more from p_{K+1}.  Source: Leviathan et al.
2023, arXiv:2211.17192, algorithm 1; Chen et al. 2023, arXiv:2302.01318, algorithm 2.

The result has the target's distribution. Given x_<k, a value x comes out of place k by
being proposed and kept, with probability q(x) min(1, p(x) / q(x)) = min(p(x), q(x)), or
by a draw from the residual, which happens with probability 1 - sum_y min(p(y), q(y)) =
sum_y max(0, p(y) - q(y)), the residual's own normaliser, so with probability
max(0, p(x) - q(x)). The sum of the two is p(x). A bad draft costs time, not truth.

The mode `threshold` keeps a token while p / q >= a threshold and draws from p at the
first that is not kept. It is what is often built, and does NOT preserve the target's
distribution: what the draft likes too much is kept every time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Accepted(NamedTuple):
    """Result of one round of acceptance over K proposed tokens.

    Attributes:
      kept: int32, how many were kept, 0..K.
      token: int32, the one that follows them.
    """

    kept: jax.Array
    token: jax.Array


def probabilities(logits_v: jax.Array, temperature: float) -> jax.Array:
    """softmax(logits / temperature) over the last axis; at 0 all on the likeliest."""
    if temperature == 0:
        likeliest = jnp.argmax(logits_v, axis=-1)
        return jax.nn.one_hot(likeliest, logits_v.shape[-1], dtype=jnp.float32)
    return jax.nn.softmax(logits_v.astype(jnp.float32) / temperature, axis=-1)


def draw(p_v: jax.Array, key: jax.Array) -> jax.Array:
    """Draws from probabilities, int32 of the leading shape; never one that is 0."""
    return jax.random.categorical(key, jnp.log(p_v), axis=-1).astype(jnp.int32)


def residual(p_v: jax.Array, q_v: jax.Array) -> jax.Array:
    """max(0, p - q), normalised; p where they are equal, which rounding can bring."""
    left_v = jnp.maximum(p_v - q_v, 0)
    total = jnp.sum(left_v, axis=-1, keepdims=True)
    return jnp.where(total > 0, left_v / jnp.where(total > 0, total, 1), p_v)


def accept(
    p_kv: jax.Array,
    q_kv: jax.Array,
    proposed_k: jax.Array,
    key: jax.Array,
    *,
    threshold: float | None = None,
) -> Accepted:
    """Keeps proposed tokens of one sequence and draws the one that follows.

    Args:
      p_kv: of the target, [K + 1, V], row k given the proposals before k.
      q_kv: of the draft, [K, V]; `proposed_k` was drawn from exactly these.
      proposed_k: int32 [K].
      key: of the draws.
      threshold: None is lossless; a number keeps while p / q is not below it.
    """
    accept_key, draw_key = jax.random.split(key)
    place = jnp.arange(len(proposed_k))
    p_k, q_k = p_kv[place, proposed_k], q_kv[place, proposed_k]
    if threshold is None:
        # u < p / q without the division; u is below 1, so p = q is always kept.
        kept_k = jax.random.uniform(accept_key, proposed_k.shape) * q_k < p_k
    else:
        # A ratio of exactly the threshold may come out a rounding below it.
        kept_k = jnp.log(p_k) - jnp.log(q_k) >= jnp.log(threshold) - 1e-6
    # The end counts as the first not kept: with q = 0 there, its residual is p.
    kept = jnp.argmin(jnp.append(kept_k, False)).astype(jnp.int32)
    p_v = p_kv[kept]
    if threshold is None:
        p_v = residual(p_v, jnp.pad(q_kv, ((0, 1), (0, 0)))[kept])
    return Accepted(kept, draw(p_v, draw_key))
