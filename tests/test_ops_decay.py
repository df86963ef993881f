"""Products of decays inside a chunk, under a declared bound."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbench.ops.decay import (
    SMALLEST_LOG,
    decayed_products,
    decayed_products_reference,
    episode_numbers,
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
