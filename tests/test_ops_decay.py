"""Products of decays inside a chunk, and the chunk forms under a declared bound."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import one_by_one

from jaxbench.ops import delta_rule, gated_linear
from jaxbench.ops.decay import (
    SMALLEST_LOG,
    bounded,
    decayed_products,
    decayed_products_reference,
    episode_numbers,
)
from jaxbench.ops.gated_linear import gated_linear_attention

gated_linear_attention_chunks, gated_linear_attention_reference = (
    one_by_one(form, gated_linear.GatedFrames)
    for form in (
        gated_linear.gated_linear_attention_chunks,
        gated_linear.gated_linear_attention_reference,
    )
)
delta_rule_chunks, delta_rule_reference = (
    one_by_one(form, delta_rule.DeltaFrames)
    for form in (delta_rule.delta_rule_chunks, delta_rule.delta_rule_reference)
)

KEYS = 3
# As RWKV-7 and GLA declare theirs, and what holds for every gate.
FLOORS = (-0.61, -5.0, SMALLEST_LOG)

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def logs_of(rng, shape, kind, floor):
    """Log decays: drawn over the range, all 1, all at the bound, or ends by turns."""
    ends = rng.integers(0, 2, size=shape) * floor
    kinds = {
        "drawn": rng.uniform(floor, 0, size=shape),
        "one": np.zeros(shape),
        "bound": np.full(shape, floor),
        "ends": ends,
    }
    return kinds[kind].astype(np.float32)


def products_in_float64(before, after, cols, g, episode, weight):
    """A and the gradients of sum(weight * A), pair by pair."""
    before, after, col_b, col_a, g, weight = (
        np.asarray(x, np.float64) for x in (before, after, *cols, g, weight)
    )
    size = g.shape[2]
    i = np.arange(size)
    values = np.zeros(weight.shape)
    gradients = [np.zeros(x.shape) for x in (before, after, col_b, col_a, g)]
    for reader, (rows, last) in enumerate(((before, i - 1), (after, i))):
        # between[i, j, l]: l is after j and no later than what i reads from.
        between = (i[None, :, None] < i[None, None]) & (
            i[None, None] <= last[:, None, None]
        )
        seen = (i[None] <= last[:, None]) & (episode[:, :, None] == episode[:, None])
        decay = np.exp(np.einsum("bhlk,ijl->bhijk", g, between))
        decay *= seen[:, None, :, :, None]
        for writer, col in enumerate((col_b, col_a)):
            values[:, :, reader, :, writer] = np.einsum(
                "bhik,bhjk,bhijk->bhij", rows, col, decay
            )
            terms = decay * weight[:, :, reader, :, writer][..., None]
            gradients[reader] += np.einsum("bhijk,bhjk->bhik", terms, col)
            gradients[2 + writer] += np.einsum("bhijk,bhik->bhjk", terms, rows)
            each = terms * rows[:, :, :, None] * col[:, :, None]
            gradients[4] += np.einsum("bhijk,ijl->bhlk", each, between)
    return values, gradients


@pytest.mark.parametrize("kind", ["drawn", "one", "bound", "ends"])
@pytest.mark.parametrize("floor", FLOORS)
def test_products_and_their_gradients_are_those_of_every_pair(floor, kind):
    size, rng = 37, np.random.default_rng(5)
    shape = (2, 2, size, KEYS)
    arrays = [rng.normal(size=shape).astype(np.float32) for _ in range(4)]
    g = logs_of(rng, shape, kind, floor)
    episode = np.asarray(
        episode_numbers(jnp.asarray(rng.random((2, size)) < 0.1), 2, 1)
    )
    weight = rng.normal(size=(2, 2, 2, size, 2, size)).astype(np.float32)

    def loss(function, a, q, k, b, g):
        made = function((a,), (q,), (k, b), g, jnp.asarray(episode))
        return (made * weight).sum(), made

    expected = products_in_float64(*arrays[:2], arrays[2:], g, episode, weight)
    fast = functools.partial(decayed_products, floor=floor)
    for function in (decayed_products_reference, fast):
        run = functools.partial(loss, function)
        (_, values), gradients = jit(
            jax.value_and_grad(run, argnums=range(5), has_aux=True)
        )(*arrays, g)
        for actual, wanted in zip(
            (values, *gradients), (expected[0], *expected[1]), strict=True
        ):
            scale = max(np.abs(wanted).max(), 1.0)
            np.testing.assert_allclose(actual / scale, wanted / scale, atol=5e-6)


def inputs_of(length, floor, kind, resets):
    rng = np.random.default_rng([7, length])
    shape = (2, length, 2)
    q, k, v = rng.normal(size=(3, *shape, KEYS)).astype(np.float32)
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    g = logs_of(rng, (*shape, KEYS), kind, floor)
    state = rng.normal(size=(2, 2, KEYS, KEYS)).astype(np.float32)
    reset = np.full((2, length), True) if resets else rng.random((2, length)) < 0.05
    return q, k, v, g, state, reset


def loop(q, k, v, g, s, reset, read, write):
    """The recurrence in float64, one frame after the other."""
    q, k, v, g, s, read, write = (
        np.asarray(x, np.float64) for x in (q, k, v, g, s, read, write)
    )
    o = np.zeros(v.shape)
    for t in range(q.shape[1]):
        s = np.where(reset[:, t, None, None, None], 0, s)
        seen = np.einsum("bhk,bhkv->bhv", read[:, t], s)
        s = np.exp(g[:, t])[..., None] * s
        s = s + np.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        s = s + np.einsum("bhk,bhv->bhkv", write[:, t], seen)
        o[:, t] = np.einsum("bhk,bhkv->bhv", q[:, t], s)
    return o, s


@pytest.mark.parametrize("resets", [False, True], ids=["some", "everywhere"])
@pytest.mark.parametrize(
    ("length", "floor", "kind"),
    [
        (1, -0.61, "ends"),
        (30, -0.61, "bound"),
        (30, SMALLEST_LOG, "ends"),
        (65, -5.0, "ends"),
        (512, -0.61, "drawn"),
    ],
)
def test_chunks_under_a_bound_are_a_loop(length, floor, kind, resets):
    q, k, v, g, state, reset = inputs_of(length, floor, kind, resets)
    read, write = -np.exp(g) * k, 0.5 * k
    zero = np.zeros_like(k)
    linear = functools.partial(gated_linear_attention_chunks, chunk=64, floor=floor)
    delta = functools.partial(delta_rule_chunks, chunk=64, floor=floor)
    for actual, expected in (
        (
            jit(linear)(q, k, v, g, state, reset),
            loop(q, k, v, g, state, reset, zero, zero),
        ),
        (
            jit(delta)(q, write, v, g, read, write, state, reset),
            loop(q, write, v, g, state, reset, read, write),
        ),
    ):
        for mine, wanted in zip(actual, expected, strict=True):
            np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("length", [1, 30, 65])
@pytest.mark.parametrize("start", [False, True], ids=["none", "given"])
def test_gradients_under_a_bound_are_the_token_scans(length, start):
    q, k, v, g, state, reset = inputs_of(length, -0.61, "ends", False)
    arrays = (q, 0.5 * k, v, g, -np.exp(g) * k, 0.5 * k, *([state] if start else []))

    def gradient(function, **options):
        def loss(*x):
            s = x[6] if start else None
            o, last = function(*x[:6], s, reset, **options)
            return (jnp.cos(o) * o).sum() + jnp.sin(last).sum()

        return jit(jax.grad(loss, argnums=range(len(arrays))))(*arrays)

    expected = gradient(delta_rule_reference)
    actual = gradient(delta_rule_chunks, chunk=64, floor=-0.61)
    for mine, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-4, atol=2e-5)


def test_low_precision_inputs_are_summed_in_float32():
    q, k, v, g, state, reset = inputs_of(30, -5.0, "ends", False)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    actual = jit(functools.partial(gated_linear_attention_chunks, floor=-5.0))(
        *low, g, state, reset
    )
    zero = np.zeros_like(k)
    expected = loop(*(np.float64(x) for x in low), g, state, reset, zero, zero)
    for mine, wanted in zip(actual, expected, strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=2e-5)


def test_decays_below_the_bound_count_as_the_bound():
    q, k, v, _, state, reset = inputs_of(30, -5.0, "ends", False)
    g = np.full(k.shape, -np.inf, np.float32)
    clipped = np.asarray(bounded(jnp.asarray(g), -5.0))
    expected = jit(gated_linear_attention_reference)(q, k, v, clipped, state, reset)
    for frames in (30, 1):
        cut = [x[:, :frames] for x in (q, k, v, g)]
        made = gated_linear_attention(*cut, state, reset[:, :frames], floor=-5.0)
        np.testing.assert_allclose(
            made[0], expected[0][:, :frames], rtol=2e-5, atol=2e-5
        )
