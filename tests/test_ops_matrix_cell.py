"""Cells with a matrix for a state, forms and oracles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import sigmoid

from jaxbench.ops import matrix_cell

B, H, K, V = 2, 3, 5, 4
# One frame, and more than two blocks with frames left over.
LENGTHS = (1, 2 * matrix_cell.BLOCK + 5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# Oracles: one sequence, one head, one frame, written with values as rows of S.


def next_tanh_delta(s, k, v, a):
    return np.tanh(a[:, None] * s + np.outer(v - s @ k, k))


def next_tanh_memory(s, k, v, z):
    return np.tanh(s @ np.diag(z) + np.outer(v, k))


def next_gated_keep(s, k, v, keep, slope):
    a = sigmoid(keep + slope * (s @ k))[:, None]
    return a * s + (1 - a) * np.outer(v, k)


def next_gated_gain(s, k, v, keep, slope, bias):
    a, g = sigmoid(keep)[:, None], sigmoid(slope * (s @ k) + bias)
    return a * s + (1 - a) * np.outer(v * g, k)


def next_slots(s, k, v, keep, w):
    content = np.tanh(np.tanh(s @ k) @ w + v)
    return keep[:, None] * s + (1 - keep)[:, None] * np.outer(content, k)


def next_matrix_rnn(s, k, v, f, w):
    return f * s + (1 - f) * np.tanh(w.T @ s + np.outer(v, k))


def make(name: str, length: int, seed: int = 0):
    """Inputs over time, weights, state and resets of a primitive."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def over_time(*shape):
        return normal(B, length, *shape)

    q, k, v = over_time(H, K), unit(over_time(H, K)), over_time(H, V)
    state = 0.5 * normal(B, H, K, V)
    if name == "tanh_delta":
        inputs, weights = (q, k, v, sigmoid(over_time(H, V))), ()
    elif name == "tanh_delta_head":
        inputs, weights = (q, k, v, sigmoid(over_time(H, 1))), ()
    elif name == "tanh_delta_whole":
        inputs, weights = (q, k, v), (None,)
    elif name == "tanh_memory":
        inputs, weights = (q, k, v, np.tanh(over_time(H, K))), ()
    elif name == "gated_keep":
        inputs, weights = (q, k, v, over_time(H, V)), (normal(H, V), None)
    elif name == "gated_gain":
        gain = (normal(H, V), normal(H, V))
        inputs, weights = (q, k, v, over_time(H, V)), (None, gain)
    elif name == "slots":
        keep = sigmoid(over_time(V))
        inputs = (q[:, :, 0], k[:, :, 0], v[:, :, 0], keep)
        weights, state = (0.5 * normal(V, V),), state[:, 0]
    else:
        f = sigmoid(over_time(H))
        inputs, weights = (q[:, :, 0], k[:, :, 0], v, f), (0.7 * normal(H, V, V),)
    reset_bt = rng.random((B, length)) < 0.2
    # One sequence goes on from the state it is given.
    reset_bt[0, 0] = False
    return inputs, weights, state, reset_bt


PRIMITIVES = {
    "tanh_delta": "tanh_delta",
    "tanh_delta_head": "tanh_delta",
    "tanh_delta_whole": "tanh_delta",
    "tanh_memory": "tanh_memory",
    "gated_keep": "gated_memory",
    "gated_gain": "gated_memory",
    "slots": "slot_memory",
    "matrix_rnn": "matrix_rnn",
}
FORMS = {
    name: (
        getattr(matrix_cell, primitive),
        functools.partial(getattr(matrix_cell, primitive), block=None),
    )
    for name, primitive in PRIMITIVES.items()
}
names = pytest.mark.parametrize("name", PRIMITIVES)


def oracle(name, inputs, weights, state, reset_bt):
    """Outputs and the last state in float64, by loops over everything."""
    as64 = functools.partial(jax.tree.map, lambda x: np.asarray(x, np.float64))
    inputs, weights, state = as64((inputs, weights, state))
    one_head = name == "slots"
    if one_head:
        inputs = tuple(x[:, :, None] for x in inputs)
        weights, state = (weights[0][None],), state[:, None]
    q, k, v = inputs[:3]
    if name == "matrix_rnn":
        q, k = (np.broadcast_to(x[:, :, None], (*v.shape[:3], K)) for x in (q, k))
    outputs, last = np.zeros(v.shape), np.zeros((B, v.shape[2], V, K))
    for b in range(B):
        for h in range(v.shape[2]):
            s = state[b, h].T
            for t in range(v.shape[1]):
                s = np.zeros((V, K)) if reset_bt[b, t] else s
                now = (s, k[b, t, h], v[b, t, h])
                extra = inputs[3][b, t, h] if len(inputs) > 3 else np.ones(V)
                if name.startswith("tanh_delta"):
                    s = next_tanh_delta(*now, np.broadcast_to(extra, (V,)))
                elif name == "tanh_memory":
                    s = next_tanh_memory(*now, extra)
                elif name == "gated_keep":
                    s = next_gated_keep(*now, extra, weights[0][h])
                elif name == "gated_gain":
                    s = next_gated_gain(*now, extra, *(x[h] for x in weights[1]))
                elif name == "slots":
                    s = next_slots(*now, extra, weights[0][h])
                else:
                    s = next_matrix_rnn(*now, extra, weights[0][h])
                outputs[b, t, h] = s @ q[b, t, h]
            last[b, h] = s
    last = np.swapaxes(last, 2, 3)  # here S has its keys in rows
    return (outputs[:, :, 0], last[:, 0]) if one_head else (outputs, last)


@names
def test_forms_are_the_recurrences_of_the_sources(name):
    inputs, weights, state, reset_bt = make(name, LENGTHS[-1])
    expected = oracle(name, inputs, weights, state, reset_bt)
    none = np.zeros_like(reset_bt)
    for run in map(jax.jit, FORMS[name]):
        actual = run(*inputs, *weights, state, reset_bt)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, 2e-5, 2e-5), actual, expected
        )
        fresh = run(*inputs, *weights)
        same = run(*inputs, *weights, np.zeros_like(state), none)
        jax.tree.map(np.testing.assert_array_equal, fresh, same)


@pytest.mark.parametrize("length", LENGTHS)
@names
def test_values_and_gradients_agree_with_the_reference(name, length):
    inputs, weights, state, reset_bt = make(name, length, seed=1)
    rng = np.random.default_rng(2)
    shape = jax.eval_shape(FORMS[name][0], *inputs, *weights, state, reset_bt)
    cotangent = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), shape
    )

    def gradient(run):
        def loss(inputs, weights, state):
            result = run(*inputs, *weights, state, reset_bt)
            products = jax.tree.map(lambda x, y: jnp.sum(x * y), result, cotangent)
            return sum(jax.tree.leaves(products)), result

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(inputs, weights, state)

    fast, reference = (jax.jit(gradient, static_argnums=0)(r) for r in FORMS[name])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-5), fast, reference
    )
    for leaf in jax.tree.leaves(fast[0]):
        assert np.abs(leaf).max() > 0


@pytest.mark.integration
@pytest.mark.parametrize("name", ["tanh_delta", "gated_keep", "matrix_rnn"])
def test_blocks_need_a_fraction_of_the_memory_of_a_plain_scan(name):
    length = 256
    inputs, weights, state, _ = make(name, length)
    sizes = []
    for run in FORMS[name]:

        def loss(inputs, run=run):
            return run(*inputs, *weights, state)[0].sum()

        compiled = jax.jit(jax.grad(loss)).lower(inputs).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    states = 4 * length * B * H * K * V
    assert sizes[1] - sizes[0] > states and sizes[0] < 0.6 * sizes[1], sizes


def stretch(step, s) -> float:
    """The largest singular value of the Jacobian of a map of states."""
    jacobian = jax.jacobian(lambda flat: step(flat.reshape(s.shape)).ravel())(s.ravel())
    return float(np.linalg.norm(np.asarray(jacobian), 2))


@pytest.mark.integration
@pytest.mark.parametrize(
    "name", [*(n for n in PRIMITIVES if "tanh" in n), "matrix_rnn"]
)
@pytest.mark.parametrize("seed", range(2))
def test_no_step_of_a_cell_with_a_tanh_stretches_states(name, seed):
    """M2RNN where its matrices are the identity, as at the start."""
    inputs, weights, state, _ = make(name, 1, seed)
    if name == "matrix_rnn":
        weights = (np.broadcast_to(np.eye(V, dtype=np.float32), (H, V, V)),)
    for scale in (0.0, 1.0, 3.0):

        def step(s):
            return FORMS[name][0](*inputs, *weights, s)[1]

        assert stretch(step, jnp.asarray(scale * state)) <= 1 + 1e-5


@pytest.mark.parametrize("seed", range(2))
def test_slots_with_keys_of_length_one_do_not_stretch_states(seed):
    (q, k, v, keep), _, state, _ = make("slots", 1, seed)
    half = np.asarray(jax.nn.initializers.orthogonal(0.5)(jax.random.key(seed), (V, V)))

    def step(s, k=k, v=v):
        return matrix_cell.slot_memory(q, k, v, keep, half, s)[1]

    assert stretch(step, jnp.asarray(state)) <= (1 + keep.max()) / 2 + 1e-5
    # At an empty memory: a + (1 - a) |W| |k|^2, along k.
    long = functools.partial(step, k=17 * k, v=np.zeros_like(v))
    assert stretch(long, jnp.zeros_like(state)) > 0.2 * 17**2 * (1 - keep).min()
