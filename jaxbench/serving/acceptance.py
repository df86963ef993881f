"""Which of a draft's tokens a target keeps, and what it puts in place of the first it
does not: speculative sampling.

A draft draws tokens x_1 .. x_K one after the other from its q_k = q(. | x_<k), a target
gives p_k = p(. | x_<k) of the same tokens in one call. Leviathan et al. 2023
(arXiv:2211.17192) and Chen et al. 2023 (arXiv:2302.01318): keep x_k with probability
min(1, p_k(x_k) / q_k(x_k)); at the first that is not kept draw from
max(0, p_k - q_k), normalised; where all are kept draw one more from p_{K+1}.

Why this is lossless. Given x_<k, a value x comes out of place k by being proposed and
kept, with probability q(x) min(1, p(x) / q(x)) = min(p(x), q(x)), or by a draw from the
residual, which happens with probability 1 - sum_y min(p(y), q(y)) = sum_y
max(0, p(y) - q(y)), the residual's own normaliser, so with probability
max(0, p(x) - q(x)). The sum of the two is p(x). The places after k are then drawn given
x_<=k by the same argument, or not at all before the next round. Nothing is asked of the
draft: a bad one costs time, not truth.

A controller is several groups of classes, and max(0, p - q) over whole controllers does
not factorise even where p and q do. So the chain runs over groups, not over
controllers: each group of each controller is a token of the argument above, with p and
q given the groups before it (for heads that are independent, the same whatever those
are). The first group that is not kept is drawn from its residual. The rest of that
controller has no proposal any more, since the draft's was made after another value, and
is drawn from the target's own conditionals, which is p by definition. Every group of
every controller is then drawn from p given all before it, so by the chain rule the
sequence is the target's. The price of going by groups: with independent heads a
controller is kept with probability prod_g sum min(p_g, q_g), and whole controllers
could be with sum min(p, q), which is more. The gain: no sum runs over the
256 * 17^4 * 5 controllers there are.

The mode `threshold` keeps a token while p / q >= a threshold and draws from p at the
first that is not kept. It is what is often built, and does NOT preserve the target's
distribution: what the draft likes too much is kept every time.

Everything here is for one sequence; `jax.vmap` over a leading axis does many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

# p of group g of token n, given the groups before g in `labels_g`: the target's.
Conditional = Callable[[jax.Array, int, jax.Array], jax.Array]


class Accepted(NamedTuple):
    """What came of K proposed tokens.

    Attributes:
      kept: int32, how many were kept, 0..K.
      token: what follows them, int32: a scalar, or [G] where tokens have groups.
    """

    kept: jax.Array
    token: jax.Array


def probabilities(logits_v: jax.Array, temperature: float) -> jax.Array:
    """softmax(logits / temperature) over the last axis; at 0 all on the likeliest."""
    if temperature == 0:
        likeliest = jnp.argmax(logits_v, axis=-1)
        return jax.nn.one_hot(likeliest, logits_v.shape[-1], dtype=jnp.float32)
    return jax.nn.softmax(logits_v.astype(jnp.float32) / temperature, axis=-1)


def button_probabilities(logits_n: jax.Array, temperature: float) -> jax.Array:
    """Probabilities of all combinations of N independent buttons, [..., 2^N].

    Bit i of a combination's index is button i, as `controller.pack` has it. Temperature
    divides the logits; at 0 a button is pressed where its logit is above 0.
    """
    count = logits_n.shape[-1]
    bits_vn = (jnp.arange(2**count)[:, None] >> jnp.arange(count)[None]) & 1
    if temperature == 0:
        chosen = (logits_n > 0).astype(jnp.int32) @ 2 ** jnp.arange(count)
        return jax.nn.one_hot(chosen, 2**count, dtype=jnp.float32)
    # Logs are summed: a product of eight small probabilities would vanish.
    scaled_1n = logits_n[..., None, :].astype(jnp.float32) / temperature
    on, off = jax.nn.log_sigmoid(scaled_1n), jax.nn.log_sigmoid(-scaled_1n)
    shape = (1,) * (logits_n.ndim - 1) + bits_vn.shape
    pressed_vn = bits_vn.reshape(shape) == 1
    return jnp.exp(jnp.sum(jnp.where(pressed_vn, on, off), axis=-1))


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
    """Keeps proposed tokens and draws the one that follows.

    Args:
      p_kv: of the target, [K + 1, V], row k given the proposals before k.
      q_kv: of the draft, [K, V]; `proposed_k` was drawn from exactly these.
      proposed_k: int32 [K].
      key: of the draws.
      threshold: None is lossless; a number keeps while p / q is not below it.

    Returns:
      How many are kept, and the token after them.
    """

    def conditional(n: jax.Array, g: int, labels_g: jax.Array) -> jax.Array:
        del g, labels_g
        return p_kv[n]

    kept, token_g = accept_groups(
        (p_kv[:-1],),
        (q_kv,),
        proposed_k[:, None],
        conditional,
        key,
        threshold=threshold,
    )
    return Accepted(kept, token_g[0])


def accept_groups(
    p: Sequence[jax.Array],
    q: Sequence[jax.Array],
    proposed_kg: jax.Array,
    conditional: Conditional,
    key: jax.Array,
    *,
    threshold: float | None = None,
) -> Accepted:
    """`accept` for tokens of G groups, controllers for example.

    Args:
      p: of the target, for each group [K, classes]: given the proposals before token k
        and, in token k, the proposed groups before this one.
      q: of the draft, the same; `proposed_kg` was drawn from exactly these.
      proposed_kg: int32 [K, G].
      conditional: `conditional(n, g, labels_g)`, the target's p of group g of token n
        (n = 0..K, traced) given the groups before g in `labels_g`.
      key: of the draws.
      threshold: None is lossless; a number keeps a whole token while the product over
        its groups of p / q is not below it, and draws all groups of the next anew.

    Returns:
      How many whole tokens are kept, and the token [G] after them, in which groups
      before the first that was not kept are the proposed ones. Costs G calls of
      `conditional`.
    """
    groups = proposed_kg.shape[1]
    accept_key, *draw_keys = jax.random.split(key, 1 + groups)

    def chosen(given: Sequence[jax.Array]) -> jax.Array:
        columns = [
            jnp.take_along_axis(x_kv, proposed_kg[:, g, None], axis=-1)
            for g, x_kv in enumerate(given)
        ]
        return jnp.concatenate(columns, axis=-1)

    p_kg, q_kg = chosen(p), chosen(q)
    if threshold is None:
        # u < p / q without the division; u is below 1, so p = q is always kept.
        u_kg = jax.random.uniform(accept_key, proposed_kg.shape)
        kept_kg = u_kg * q_kg < p_kg
    else:
        ratio_k = jnp.sum(jnp.log(p_kg) - jnp.log(q_kg), axis=-1, keepdims=True)
        # A ratio of exactly the threshold may come out a rounding below it.
        kept_k = ratio_k >= jnp.log(threshold) - 1e-6
        kept_kg = jnp.broadcast_to(kept_k, proposed_kg.shape)
    # The end counts as the first not kept: with q = 0 there, its residual is p.
    first = jnp.argmin(jnp.append(kept_kg.reshape(-1), False))
    count, group = first // groups, first % groups
    labels_g = jnp.pad(proposed_kg, ((0, 1), (0, 0)))[count]
    for g in range(groups):
        p_v = conditional(count, g, labels_g)
        if threshold is None:
            q_v = jnp.pad(q[g], ((0, 1), (0, 0)))[count]
            p_v = jnp.where(g == group, residual(p_v, q_v), p_v)
        drawn = draw(p_v, draw_keys[g])
        labels_g = labels_g.at[g].set(jnp.where(g < group, labels_g[g], drawn))
    return Accepted(count.astype(jnp.int32), labels_g)
