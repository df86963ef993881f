"""P5: TTT-Linear against a float64 loop that differentiates the inner loss itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import relative_error

from jaxbench.ops import fast_weights as ops

BATCH, HEADS, WIDTH = 3, 2, 4


def one_by_one(form):
    """A form that takes its arrays in the order of `ttt_linear`."""
    return lambda q, k, v, eta, model, state=None, reset=None: form(
        ops.TTTFrames(q, k, v, eta), state, reset, model=model
    )


STEP = one_by_one(ops.ttt_linear_step)
FORMS = {"reference": one_by_one(ops.ttt_linear_reference), "chunks": ops.ttt_linear}
# (frames, mini-batch): one frame, less than a mini-batch, exactly whole ones, a tail,
# one frame each.
SHAPES = [(1, 3), (3, 8), (12, 4), (14, 5), (6, 1)]


def layer_norm(z, gamma, beta):
    return gamma * (z - z.mean()) / np.sqrt(z.var() + 1e-6) + beta


def inner_loss(w, c, k, v, gamma, beta):
    return 0.5 * np.sum((k + layer_norm(k @ w + c, gamma, beta) - v) ** 2)


def inner_gradient(w, c, k, v, gamma, beta):
    """With the whole Jacobian of LN, by definition: d LN_i / d z_j."""
    z = k @ w + c
    spread = np.sqrt(z.var() + 1e-6)
    centre = np.eye(len(z)) - 1 / len(z)
    unit = (z - z.mean()) / spread
    jacobian = gamma[:, None] * (centre - np.outer(unit, unit) / len(z)) / spread
    delta = (k + layer_norm(z, gamma, beta) - v) @ jacobian
    return np.outer(k, delta), delta


def one_head(frames, model, state, resets):
    """One row, one head, one frame after the other, gradients kept in a list."""
    w0, c0, gamma, beta, tau = model
    w, c, held_w, held_c, count = state
    outputs = []
    for q, k, v, eta, reset in zip(*frames, resets, strict=True):
        if reset:
            w, c, held_w, held_c, count = w0, c0, 0 * w0, 0 * c0, 0
        grad_w, grad_c = inner_gradient(w, c, k, v, gamma, beta)
        held_w, held_c = held_w + eta * grad_w, held_c + eta * grad_c
        w_now, c_now = w - tau[count] * held_w, c - tau[count] * held_c
        outputs.append(q + layer_norm(q @ w_now + c_now, gamma, beta))
        count += 1
        if count == len(tau):
            w, c, held_w, held_c, count = w_now, c_now, 0 * w0, 0 * c0, 0
    return np.array(outputs), (w, c, held_w, held_c, count)


def loop(q, k, v, eta, model, state, reset):
    """All rows and heads of `one_head`."""
    outputs, after = np.zeros(q.shape), [np.array(leaf) for leaf in state]
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            outputs[b, :, h], last = one_head(
                [x[b, :, h] for x in (q, k, v, eta)],
                [*(leaf[h] for leaf in model[:4]), model.tau_m],
                [*(leaf[b, h] for leaf in state[:4]), state.count_b[b]],
                reset[b],
            )
            for leaf, value in zip(after[:4], last[:4], strict=True):
                leaf[b, h] = value
        after[4][b] = last[4]
    return outputs, ops.FastWeights(*after)


def sample(length, size, seed=0):
    """Frames, inner model, state in the middle of mini-batches, resets."""
    rng = np.random.default_rng([seed, length, size])

    def normal(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype(np.float32)

    row = (BATCH, length, HEADS)
    eta = (0.5 * rng.random(row)).astype(np.float32)
    tau = np.maximum(1 / np.arange(1, size + 1) + 0.1 * rng.normal(size=size), 0)
    matrices, vectors = (HEADS, WIDTH, WIDTH), (HEADS, WIDTH)
    model = ops.InnerModel(
        normal(*matrices, scale=0.5),
        normal(*vectors, scale=0.5),
        1 + normal(*vectors, scale=0.3),
        normal(*vectors, scale=0.3),
        tau.astype(np.float32),
    )
    state = ops.FastWeights(
        normal(BATCH, *matrices),
        normal(BATCH, *vectors),
        normal(BATCH, *matrices, scale=0.5),
        normal(BATCH, *vectors, scale=0.5),
        np.array([size - 1, size // 2, 0], np.int32),
    )
    frames = (normal(*row, WIDTH), normal(*row, WIDTH), normal(*row, WIDTH), eta)
    return frames, model, state, rng.random((BATCH, length)) < 0.2


def fresh_loop(frames, model, reset):
    """The loop from the learned W and c, in the type of `model`."""
    w, c = (np.stack([leaf] * BATCH) for leaf in model[:2])
    count = np.zeros(BATCH, np.int32)
    return loop(*frames, model, ops.FastWeights(w, c, 0 * w, 0 * c, count), reset)


def fresh_state(model):
    return ops.initial_fast_weights(jax.tree.map(jnp.asarray, model), BATCH)


def test_the_inner_gradient_is_that_of_the_inner_loss():
    """By small differences, and the closed form the operation uses."""
    frames, model, state, _ = sample(1, 3, seed=1)
    _, k, v, _ = (x[0, 0, 0].astype(np.float64) for x in frames)
    w, c = (x[0, 0].astype(np.float64) for x in state[:2])
    gamma, beta = (x[0].astype(np.float64) for x in model[2:4])
    grad_w, grad_c = inner_gradient(w, c, k, v, gamma, beta)
    for index in np.ndindex(w.shape):
        step = np.zeros(w.shape)
        step[index] = 1e-6
        ends = [inner_loss(w + s * step, c, k, v, gamma, beta) for s in (1, -1)]
        assert grad_w[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)
    start = state._replace(grad_w_bhkk=0 * state[2], grad_c_bhk=0 * state[3])
    start = start._replace(count_b=np.zeros(BATCH, np.int32))
    q, k, v, _ = (x[:, 0] for x in frames)
    got = STEP(q, k, v, np.ones((BATCH, HEADS)), model, start)[1]
    assert relative_error(got.grad_w_bhkk[0, 0], grad_w) < 1e-5
    assert relative_error(got.grad_c_bhk[0, 0], grad_c) < 1e-5


def check(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert relative_error(x, y) < 1e-5
    assert got[1].count_b.dtype == jnp.int32


@pytest.mark.parametrize(("length", "size"), SHAPES)
def test_values(length, size):
    frames, model, state, reset = sample(length, size)
    want = loop(*frames, model, state, reset)
    for run in FORMS.values():
        check(jax.jit(run)(*frames, model, state, reset), want)
    none = np.zeros_like(reset)
    check(jax.jit(ops.ttt_linear)(*frames, model), fresh_loop(frames, model, none))


def test_values_with_a_state_or_resets_alone():
    frames, model, state, reset = sample(14, 5, seed=1)
    run = jax.jit(ops.ttt_linear)
    want = loop(*frames, model, state, np.zeros_like(reset))
    check(run(*frames, model, state), want)
    check(run(*frames, model, None, reset), fresh_loop(frames, model, reset))


@pytest.mark.parametrize("fresh", [True, False])
def test_gradients(fresh):
    """Along random directions, against differences of the float64 loop."""
    frames, model, state, reset = sample(10, 4, seed=2)
    reset = None if fresh else reset
    resets = np.zeros((BATCH, 10), bool) if fresh else reset
    rng = np.random.default_rng(3)
    weights = [rng.normal(size=x.shape) for x in (frames[0], *state[:4])]
    leaves, tree = jax.tree.flatten((frames, model, None if fresh else state[:4]))

    def loss(y, after):
        return sum((w * x).sum() for w, x in zip(weights, (y, *after[:4]), strict=True))

    def exact_loss(leaves):
        frames, model, start = jax.tree.unflatten(tree, leaves)
        if fresh:
            return loss(*fresh_loop(frames, model, resets))
        start = ops.FastWeights(*start, state.count_b)
        return loss(*loop(*frames, model, start, resets))

    def gradient(run):
        def run_loss(leaves):
            frames, model, start = jax.tree.unflatten(tree, leaves)
            start = None if fresh else ops.FastWeights(*start, state.count_b)
            return loss(*run(*frames, model, start, reset))

        return jax.jit(jax.grad(run_loss))(leaves)

    found = {name: gradient(run) for name, run in FORMS.items()}
    exact = [leaf.astype(np.float64) for leaf in leaves]
    for i, leaf in enumerate(exact):
        direction = rng.normal(size=leaf.shape)
        ends = []
        for sign in (1, -1):
            moved = list(exact)
            moved[i] = leaf + sign * 1e-6 * direction
            ends.append(exact_loss(moved))
        want = (ends[0] - ends[1]) / 2e-6
        for name in FORMS:
            products = np.asarray(found[name][i], np.float64) * direction
            assert abs(products.sum() - want) < 1e-4 * np.abs(products).sum(), (name, i)


def test_whole_is_chunks_is_steps_over_a_long_run():
    length = 301
    frames, model, _, _ = sample(length, 7, seed=4)
    reset = np.random.default_rng(5).random((BATCH, length)) < 0.02
    run, step = jax.jit(ops.ttt_linear), jax.jit(STEP)
    whole, last = run(*frames, model, None, reset)
    state, parts = None, []
    for start, stop in ((0, 1), (1, 151), (151, 301)):
        cut = [x[:, start:stop] for x in frames]
        y, state = run(*cut, model, state, reset[:, start:stop])
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-4
    np.testing.assert_array_equal(state.count_b, last.count_b)
    state = fresh_state(model)
    for t in range(length):
        y, state = step(*(x[:, t] for x in frames), model, state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 1e-4
    assert relative_error(state.w_bhkk, last.w_bhkk) < 1e-4


def test_weights_learn_the_map_of_the_frames():
    """Targets a fixed linear map away: the inner loss falls along the sequence."""
    rng = np.random.default_rng(6)
    length, size = 400, 4
    k = rng.normal(size=(1, length, 1, 8)).astype(np.float32)
    wanted = rng.normal(size=(8, 8))
    z = k @ wanted
    z = (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)
    v = (k + z).astype(np.float32)
    model = ops.InnerModel(
        (0.5 * rng.normal(size=(1, 8, 8))).astype(np.float32),
        np.zeros((1, 8), np.float32),
        np.ones((1, 8), np.float32),
        np.zeros((1, 8), np.float32),
        np.ones(size, np.float32),
    )
    eta = np.full((1, length, 1), 0.05, np.float32)
    y, _ = jax.jit(ops.ttt_linear)(k, k, v, eta, model)
    error = np.square(np.asarray(y) - v).mean((0, 2, 3))
    assert error[-50:].mean() < 1e-3 * error[:10].mean()


def test_places_count_from_the_start_of_the_episode():
    reset = np.zeros((2, 8), bool)
    reset[1, 3] = True
    count = np.array([2, 1], np.int32)
    places = ops.mini_batch_places(count, reset, 8, 3)
    np.testing.assert_array_equal(
        places, [[2, 0, 1, 2, 0, 1, 2, 0], [1, 2, 0, 0, 1, 2, 0, 1]]
    )
    np.testing.assert_array_equal(
        ops.mini_batch_places(count, None, 3, 3), [[2, 0, 1], [1, 2, 0]]
    )
