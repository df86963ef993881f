"""P3 and P4: every form against float64 loops, at odd lengths, extremes and resets."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import one_by_one

from jaxbench.ops import delta_rule as delta_ops
from jaxbench.ops import gated_linear as gated_ops
from jaxbench.ops.delta_rule import delta_rule, solve_unit_lower

BATCH, HEADS, KEYS, VALUES = 2, 2, 3, 5
LENGTHS = [
    *(1, 65),
    pytest.param(100, marks=pytest.mark.integration),
    pytest.param(512, marks=pytest.mark.slow),
]


def gates(rng, shape, kind):
    """Logarithms of decays: mild, all 1, all 0, or all kinds next to each other."""
    if kind == "one":
        return np.zeros(shape)
    if kind == "zero":
        return np.full(shape, -np.inf)
    g = -np.exp(rng.normal(-2, 1, size=shape))
    if kind == "extreme":
        pick = rng.integers(0, 5, size=shape)
        g = np.select([pick == 0, pick == 1, pick == 2], [0, -1e-6, -30], g)
        g = np.where(pick == 3, -1000.0, g)
    return g


def inputs_of(length, *, per_key, kind="mild", delta=False, seed=0):
    rng = np.random.default_rng([seed, length, per_key])
    shape = (BATCH, length, HEADS)
    q, k = rng.normal(size=(2, *shape, KEYS))
    v = rng.normal(size=(*shape, VALUES))
    g = gates(rng, (*shape, KEYS) if per_key else shape, kind)
    state = rng.normal(size=(BATCH, HEADS, KEYS, VALUES))
    reset = rng.random((BATCH, length)) < 0.05
    arrays = [q, k, v, g]
    if delta:
        k = k / np.linalg.norm(k, axis=-1, keepdims=True)
        beta = rng.uniform(0, 1, size=(*shape, 1))
        decay = np.exp(g if per_key else g[..., None])
        arrays = [q, beta * k, v, g, -decay * k, beta * k]
    return [*(x.astype(np.float32) for x in (*arrays, state)), reset]


def loop(q, k, v, g, s, reset, a=None, b=None, bonus=None):
    """The recurrence for one batch row and head at a time, in float64."""
    q, k, v, g, s = (np.asarray(x, np.float64) for x in (q, k, v, g, s))
    o, last = np.zeros(v.shape), np.zeros(s.shape)
    for row in range(q.shape[0]):
        for head in range(q.shape[2]):
            state = s[row, head]
            for t in range(q.shape[1]):
                at = (row, t, head)
                state = np.zeros_like(state) if reset[row, t] else state
                before = state
                decay = np.diag(np.exp(np.broadcast_to(g[at], k[at].shape)))
                state = decay @ before + np.outer(k[at], v[at])
                if a is not None:
                    state += np.outer(b[at], before.T @ np.float64(a[at]))
                o[at] = state.T @ q[at]
                if bonus is not None:
                    u = np.diag(np.float64(bonus[head]))
                    o[at] = (before + u @ np.outer(k[at], v[at])).T @ q[at]
            last[row, head] = state
    return o, last


def close(actual, expected, tolerance=2e-5):
    for x, y in zip(actual, expected, strict=True):
        scale = max(np.abs(y).max(), 1.0)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale)


# One entry a primitive: reference, chunks, step, chosen form.
GATED = (
    *(
        one_by_one(
            getattr(gated_ops, f"gated_linear_attention_{form}"), gated_ops.GatedFrames
        )
        for form in ("reference", "chunks", "step")
    ),
    gated_ops.gated_linear_attention,
)
DELTA = (
    *(
        one_by_one(getattr(delta_ops, f"delta_rule_{form}"), delta_ops.DeltaFrames)
        for form in ("reference", "chunks", "step")
    ),
    delta_rule,
)
gated_linear_attention_chunks, delta_rule_chunks = GATED[1], DELTA[1]


@functools.cache
def compiled(function, with_gradient, **static):
    function = functools.partial(function, **static)

    def loss(arrays, reset, weight):
        o, s = function(*arrays, reset)
        return jnp.sum(o * weight) + jnp.sum(s**2), (o, s)

    if with_gradient:
        return jax.jit(jax.grad(loss, has_aux=True))
    return jax.jit(lambda arrays, reset: function(*arrays, reset))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("per_key", [False, True], ids=["head", "key"])
@pytest.mark.parametrize("delta", [False, True], ids=["gated", "delta"])
def test_forms_equal_a_float64_loop_and_their_gradients_agree(delta, per_key, length):
    reference, chunks, _, chosen = DELTA if delta else GATED
    *arrays, reset = inputs_of(length, per_key=per_key, delta=delta)
    arrays = tuple(arrays)
    q, k, v, g, *ab, s = arrays
    expected = loop(q, k, v, g, s, reset, *ab)
    weight = np.random.default_rng(9).normal(size=v.shape).astype(np.float32)
    of_reference, outputs = compiled(reference, True)(arrays, reset, weight)
    close(outputs, expected)
    of_chunks, outputs = compiled(chunks, True, chunk=32)(arrays, reset, weight)
    close(outputs, expected)
    close(of_chunks, of_reference, 1e-4)
    close(compiled(chosen, False)(arrays, reset), expected)


def test_shared_queries_and_keys_are_those_of_every_head():
    """In values; their gradients are the sums over the heads."""
    length = 65
    q, k, v, g, s, reset = inputs_of(length, per_key=False)
    q, k = q[:, :, :1], k[:, :, :1]
    weight = np.random.default_rng(9).normal(size=v.shape).astype(np.float32)
    repeated = (*(np.repeat(x, HEADS, axis=2) for x in (q, k)), v, g, s)
    expected = loop(*repeated, reset)
    by_head, _ = compiled(GATED[0], True)(repeated, reset, weight)
    summed = [x.sum(axis=2, keepdims=True) for x in by_head[:2]]
    for form, static in ((GATED[0], {}), (GATED[1], {"chunk": 32})):
        gradients, outputs = compiled(form, True, **static)(
            (q, k, v, g, s), reset, weight
        )
        close(outputs, expected)
        close(gradients[:2], summed, 1e-4)


@pytest.mark.parametrize("per_key", [False, True], ids=["head", "key"])
def test_writing_by_the_keys_is_b_equal_to_k(per_key):
    """A frame that writes once: b None is b = k, whose gradient joins that of k."""
    q, k, v, g, a, _, s, reset = inputs_of(65, per_key=per_key, delta=True)
    weight = np.random.default_rng(9).normal(size=v.shape).astype(np.float32)
    expected = loop(q, k, v, g, s, reset, a, k)
    twice, _ = compiled(DELTA[0], True)((q, k, v, g, a, k, s), reset, weight)
    for form, static in ((DELTA[0], {}), (DELTA[1], {"chunk": 32})):
        gradients, outputs = compiled(form, True, **static)(
            (q, k, v, g, a, None, s), reset, weight
        )
        close(outputs, expected)
        close(gradients[:2], (twice[0], twice[1] + twice[5]), 1e-4)


@pytest.mark.parametrize("kind", ["one", "zero", "extreme"])
@pytest.mark.parametrize("per_key", [False, True], ids=["head", "key"])
@pytest.mark.parametrize("delta", [False, True], ids=["gated", "delta"])
def test_forms_hold_at_the_ends_of_the_gates(delta, per_key, kind):
    """At the length of the test above: no program is compiled again."""
    reference, chunks, _, _ = DELTA if delta else GATED
    *arrays, reset = inputs_of(65, per_key=per_key, delta=delta, kind=kind, seed=1)
    arrays = tuple(arrays)
    q, k, v, g, *ab, s = arrays
    expected = loop(q, k, v, g, s, reset, *ab)
    weight = np.random.default_rng(9).normal(size=v.shape).astype(np.float32)
    of_reference, outputs = compiled(reference, True)(arrays, reset, weight)
    close(outputs, expected)
    of_chunks, outputs = compiled(chunks, True, chunk=32)(arrays, reset, weight)
    close(outputs, expected, 1e-4)
    close(of_chunks, of_reference, 2e-4)


@pytest.mark.integration
@pytest.mark.parametrize("chunk", [7, 40, 128])
@pytest.mark.parametrize("delta", [False, True], ids=["gated", "delta"])
def test_any_chunk_length_gives_the_same(delta, chunk):
    _, chunks, _, _ = DELTA if delta else GATED
    *arrays, reset = inputs_of(100, per_key=True, delta=delta, seed=2)
    q, k, v, g, *ab, s = arrays
    close(
        compiled(chunks, False, chunk=chunk)(tuple(arrays), reset),
        loop(q, k, v, g, s, reset, *ab),
    )


@pytest.mark.parametrize("length", [1, 65])
def test_the_bonus_reads_before_the_decay(length):
    *arrays, reset = inputs_of(length, per_key=True, seed=3)
    bonus = np.random.default_rng(3).normal(size=(HEADS, KEYS)).astype(np.float32)
    expected = loop(*arrays, reset, bonus=bonus)
    for function in (GATED[0], GATED[1], GATED[3]):
        run = jax.jit(functools.partial(function, bonus_hk=bonus))
        close(run(*arrays, reset), expected)


@pytest.mark.parametrize("delta", [False, True], ids=["gated", "delta"])
def test_a_step_is_one_frame_and_none_is_zero(delta):
    reference, _, step, _ = DELTA if delta else GATED
    *arrays, _, _ = inputs_of(1, per_key=False, delta=delta)
    o_bthv, s = jax.jit(reference)(*arrays)
    o_bhv, s_step = jax.jit(step)(*(x[:, 0] for x in arrays))
    close((o_bhv, s_step), (o_bthv[:, 0], s), 1e-6)


def test_delta_rule_without_reads_is_gated_linear_attention():
    q, k, v, g, s, reset = inputs_of(40, per_key=True, seed=4)
    nothing = np.zeros_like(k)
    expected = jax.jit(gated_linear_attention_chunks)(q, k, v, g, s, reset)
    close(jax.jit(delta_rule_chunks)(q, k, v, g, nothing, nothing, s, reset), expected)


def test_delta_rule_writes_what_it_will_read():
    """With beta 1 and a new key each frame, a key read back gives its value."""
    key = np.eye(KEYS, dtype=np.float32)[None, :, None]
    v = np.random.default_rng(5).normal(size=(1, KEYS, 1, VALUES)).astype(np.float32)
    g = np.zeros((1, KEYS, 1), np.float32)
    _, s = jax.jit(delta_rule_chunks)(key, key, v, g, -key, key)
    np.testing.assert_allclose(s[0, 0], v[0, :, 0], atol=1e-6)
    _, again = jax.jit(delta_rule_chunks)(key, key, -v, g, -key, key, s)
    np.testing.assert_allclose(again[0, 0], -v[0, :, 0], atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 15, 30, 64])
def test_blocks_solve_the_triangular_system(size):
    rng = np.random.default_rng(size)
    m = np.tril(rng.normal(size=(2, 1, size, size)), -1) / np.sqrt(size)
    r = rng.normal(size=(2, 1, size, 3))
    expected = np.linalg.solve(np.eye(size) - m, r)
    actual = solve_unit_lower(jnp.asarray(m, jnp.float32), jnp.asarray(r, jnp.float32))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_reflections_of_few_directions_do_not_lose_digits():
    """Keys in a plane, rates of 2: powers of the system reach 1e18, its inverse 2."""
    size, rng = 64, np.random.default_rng(0)
    k = rng.normal(size=(size, 2))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    m = np.tril(-2 * k @ k.T, -1)
    r = rng.normal(size=(size, 3))
    expected = np.linalg.solve(np.eye(size) - m, r)
    arrays = (jnp.asarray(x[None, None], jnp.float32) for x in (m, r))
    actual = solve_unit_lower(*arrays)[0, 0]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_no_triangular_solve_in_the_gradient_of_a_chosen_form():
    *arrays, reset = inputs_of(30, per_key=True, delta=True)
    program = jax.make_jaxpr(
        jax.grad(lambda *x: delta_rule(*x, reset)[0].sum(), argnums=(0, 1, 2))
    )(*arrays)
    assert "triangular_solve" not in str(program)
