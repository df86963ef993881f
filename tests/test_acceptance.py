"""Speculative sampling: what comes out is drawn from the target, whatever the draft."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxbench.serving import acceptance
from jaxbench.serving.acceptance import (
    accept,
    draw,
    probabilities,
    residual,
)

DRAWS = 20_000
CLASSES = 4
LENGTH = 3
# A right sampler falls below it once in a thousand seeds; these seeds do not.
ALPHA = 1e-3


def p_value(found: np.ndarray, expected_share: np.ndarray) -> float:
    """Chi-square of counts against shares; cells expected below 5 are one cell."""
    expected = expected_share * found.sum()
    small = expected < 5
    pooled = [np.append(x[~small], x[small].sum()) for x in (found, expected)]
    keep = pooled[1] > 0
    return float(stats.chisquare(pooled[0][keep], pooled[1][keep]).pvalue)


def tables(draft: str, lookahead: int) -> tuple[np.ndarray, np.ndarray]:
    """p and q of the next token given the place and the token before."""
    generator = np.random.default_rng(0)
    shape = (LENGTH + 2 * lookahead + 2, CLASSES)
    p = 0.6 * generator.dirichlet(np.ones(CLASSES), shape) + 0.4 / CLASSES
    if draft == "good":
        q = 0.8 * p + 0.2 * generator.dirichlet(np.ones(CLASSES), shape)
    else:
        # Nearly always what the target wants least.
        q = 0.97 * np.eye(CLASSES)[p.argmin(-1)] + 0.03 / CLASSES
    return p, q


def sequences(
    p: np.ndarray, q: np.ndarray, lookahead: int, threshold: float | None = None
) -> np.ndarray:
    """Draws of the first LENGTH tokens, [DRAWS, LENGTH], in as many rounds as needed.

    The token before the first is 0.
    """
    keys = jax.random.split(jax.random.key(7), DRAWS)
    program = sequence_program(lookahead, threshold is not None)
    return np.asarray(program(keys, jnp.asarray(p), jnp.asarray(q), threshold or 0.0))


@functools.cache
def sequence_program(lookahead: int, with_threshold: bool):
    """The program of `sequences`, compiled once for all tables of one size."""

    def one(key, p_tvv, q_tvv, threshold):
        def body(_, carry):
            place, before, written, key = carry
            key, accept_key, *draft_keys = jax.random.split(key, 2 + lookahead)
            last, read, q_kv = before, [before], []
            for k in range(lookahead):
                q_kv.append(q_tvv[place + k, last])
                last = draw(q_kv[-1], draft_keys[k])
                read.append(last)
            places = place + jnp.arange(lookahead + 1)
            p_kv = p_tvv[places, jnp.stack(read)]
            kept, token = accept(
                p_kv,
                jnp.stack(q_kv),
                jnp.stack(read[1:]),
                accept_key,
                threshold=threshold if with_threshold else None,
            )
            out = jnp.stack([*read[1:], token]).at[kept].set(token)
            longer = jax.lax.dynamic_update_slice(written, out, (place,))
            going = place < LENGTH
            return (
                jnp.where(going, place + kept + 1, place),
                jnp.where(going, token, before),
                jnp.where(going, longer, written),
                key,
            )

        start = jnp.zeros(LENGTH + lookahead + 1, jnp.int32)
        carry = (jnp.int32(0), jnp.int32(0), start, key)
        return jax.lax.fori_loop(0, LENGTH, body, carry)[2][:LENGTH]

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, None)))


def sequence_p_value(drawn: np.ndarray, p: np.ndarray) -> float:
    found = np.zeros((CLASSES,) * LENGTH)
    np.add.at(found, tuple(drawn.T), 1)
    exact = np.zeros_like(found)
    for tokens in itertools.product(range(CLASSES), repeat=LENGTH):
        before = (0, *tokens)
        exact[tokens] = np.prod([p[t, before[t], tokens[t]] for t in range(LENGTH)])
    assert exact.sum() == pytest.approx(1)
    return p_value(found.ravel(), exact.ravel())


@pytest.mark.parametrize("draft", ["good", "terrible"])
@pytest.mark.parametrize(
    "lookahead", [2, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 3, 4))]
)
def test_sequences_follow_the_targets_distribution(lookahead, draft):
    p, q = tables(draft, lookahead)
    assert sequence_p_value(sequences(p, q, lookahead), p) > ALPHA


@pytest.mark.parametrize("draft, threshold", [("good", 0.8), ("terrible", 0.05)])
def test_the_same_test_finds_out_a_threshold(draft, threshold):
    p, q = tables(draft, 2)
    assert sequence_p_value(sequences(p, q, 2, threshold), p) < 1e-6


def test_the_same_test_finds_out_a_redraw_from_the_target(monkeypatch):
    """Instead of from the residual: the mistake next to the right thing."""
    monkeypatch.setattr(acceptance, "residual", lambda p_v, q_v: p_v)
    sequence_program.cache_clear()
    p, q = tables("terrible", 2)
    assert sequence_p_value(sequences(p, q, 2), p) < 1e-6
    sequence_program.cache_clear()


def test_acceptance_is_the_overlap_of_the_two():
    p, q = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.2, 0.6])

    def one(key):
        draft_key, key = jax.random.split(key)
        p_kv, q_kv = jnp.stack([p, p]), q[None]
        return accept(p_kv, q_kv, draw(q, draft_key)[None], key).kept

    kept = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), DRAWS))
    share = float(jnp.mean(kept))
    overlap = float(jnp.minimum(p, q).sum())
    assert share == pytest.approx(overlap, abs=4 * 0.5 / DRAWS**0.5)


def test_threshold_keeps_by_the_ratio_and_nothing_else():
    p_kv = jnp.array([[0.4, 0.6], [0.39, 0.61], [1.0, 0.0]])
    q_kv = jnp.array([[0.5, 0.5], [0.5, 0.5]])
    judge = jax.jit(functools.partial(accept, threshold=0.8))
    for seed in range(20):
        key = jax.random.key(seed)
        kept, token = judge(p_kv, q_kv, jnp.array([0, 0]), key)
        assert kept == 1  # 0.4 / 0.5 is the threshold, 0.39 / 0.5 below it
        kept, token = judge(p_kv, q_kv, jnp.array([0, 1]), key)
        assert kept == 2 and token == 0


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_a_draft_like_the_target_is_always_kept(temperature):
    logits = 3 * jax.random.normal(jax.random.key(0), (5, 7))
    p_kv = probabilities(logits, temperature)

    def one(key):
        draft_key, key = jax.random.split(key)
        return accept(p_kv, p_kv[:4], draw(p_kv[:4], draft_key), key).kept

    kept = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 2000))
    assert (kept == 4).all()


def test_the_residual_is_what_the_draft_has_too_little_of():
    p, q = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.2, 0.6])
    np.testing.assert_allclose(residual(p, q), [0.75, 0.25, 0], rtol=1e-6)
    np.testing.assert_array_equal(residual(p, p), p)


def test_what_has_no_probability_is_never_drawn():
    p_v = jnp.array([0.0, 0.5, 0.0, 0.5])
    keys = jax.random.split(jax.random.key(0), 2000)
    assert set(np.asarray(jax.vmap(lambda key: draw(p_v, key))(keys))) == {1, 3}
