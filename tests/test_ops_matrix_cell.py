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


def average(a, s, v, k):
    return a[:, None] * s + np.outer((1 - a) * v, k)


# The primitive; the shape of what comes with q, k and v at every frame, between 0 and 1
# but for logits; shapes of weights; and a frame of one head in float64, the values as
# rows of S, on the parts of extras and weights that belong to the head.
CASES = {
    "tanh_delta": (
        "tanh_delta", (H, V), (),
        lambda s, k, v, a: np.tanh(a[:, None] * s + np.outer(v - s @ k, k)),
    ),
    "tanh_delta_head": (
        "tanh_delta", (H, 1), (),
        lambda s, k, v, a: np.tanh(a * s + np.outer(v - s @ k, k)),
    ),
    "tanh_delta_whole": (
        "tanh_delta", None, (),
        lambda s, k, v: np.tanh(s + np.outer(v - s @ k, k)),
    ),
    "tanh_memory": (
        "tanh_memory", (H, K), (),
        lambda s, k, v, z: np.tanh(s @ np.diag(z) + np.outer(v, k)),
    ),
    "gated_keep": (
        "gated_memory", (H, V), ((H, V),),
        lambda s, k, v, keep, d: average(sigmoid(keep + d * (s @ k)), s, v, k),
    ),
    "gated_gain": (
        "gated_memory", (H, V), ((H, V), (H, V)),
        lambda s, k, v, keep, d, b: average(
            sigmoid(keep), s, v * sigmoid(d * (s @ k) + b), k
        ),
    ),
    "slots": (
        "slot_memory", (1, V), ((1, V, V),),
        lambda s, k, v, keep, w: average(keep, s, np.tanh(np.tanh(s @ k) @ w + v), k),
    ),
    "matrix_rnn": (
        "matrix_rnn", (H,), ((H, V, V),),
        lambda s, k, v, f, w: f * s + (1 - f) * np.tanh(w.T @ s + np.outer(v, k)),
    ),
}  # fmt: skip
FORMS = {
    name: (
        getattr(matrix_cell, primitive),
        functools.partial(getattr(matrix_cell, primitive), block=None),
    )
    for name, (primitive, *_) in CASES.items()
}
names = pytest.mark.parametrize("name", CASES)


def draw(name: str, length: int, seed: int = 0):
    """q, k, v and what comes with them, weights, state and resets, heads kept."""
    rng = np.random.default_rng(seed)
    _, extra, weights, _ = CASES[name]
    heads = 1 if name == "slots" else H
    shared = 1 if name in ("slots", "matrix_rnn") else H

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    q, k = (normal(B, length, shared, K) for _ in range(2))
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    inputs = [q, k, normal(B, length, heads, V)]
    if extra is not None:
        drawn = normal(B, length, *extra)
        inputs.append(drawn if name.startswith("gated") else sigmoid(drawn))
    weights = [0.7 * normal(*shape) for shape in weights]
    reset_bt = rng.random((B, length)) < 0.2
    # One sequence goes on from the state it is given.
    reset_bt[0, 0] = False
    return inputs, weights, 0.5 * normal(B, heads, K, V), reset_bt


def make(name: str, length: int, seed: int = 0):
    """The same, as the primitive takes them."""
    inputs, weights, state, reset_bt = draw(name, length, seed)
    if name == "tanh_delta_whole":
        weights = [None]
    if name == "gated_keep":
        weights = [*weights, None]
    if name == "gated_gain":
        weights = [None, tuple(weights)]
    if name == "slots":
        inputs, weights, state = (
            [x[:, :, 0] for x in inputs],
            [weights[0][0]],
            state[:, 0],
        )
    if name == "matrix_rnn":
        inputs[:2] = [x[:, :, 0] for x in inputs[:2]]
    return tuple(inputs), tuple(weights), state, reset_bt


def oracle(name, length, seed=0):
    """Outputs and the last state in float64, by loops over everything."""
    drawn = draw(name, length, seed)
    *doubles, reset_bt = jax.tree.map(lambda x: np.asarray(x, np.float64), drawn)
    (q, k, v, *extra), weights, state = doubles
    q, k = (np.broadcast_to(x, (*v.shape[:3], K)) for x in (q, k))
    outputs, last = np.zeros(v.shape), np.array(state)
    for b, h in np.ndindex(state.shape[:2]):
        s, own = state[b, h].T, [w[h] for w in weights]
        for t in range(length):
            s = np.zeros((V, K)) if reset_bt[b, t] else s
            at = (b, t, h)
            s = CASES[name][3](s, k[at], v[at], *(x[at] for x in extra), *own)
            outputs[at] = s @ q[at]
        last[b, h] = s.T
    return (outputs[:, :, 0], last[:, 0]) if name == "slots" else (outputs, last)


@names
def test_forms_are_the_recurrences_of_the_sources(name):
    inputs, weights, state, reset_bt = make(name, LENGTHS[-1])
    expected = oracle(name, LENGTHS[-1])
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
@pytest.mark.parametrize("name", [*(n for n in CASES if "tanh" in n), "matrix_rnn"])
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
