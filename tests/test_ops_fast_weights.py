"""P5: TTT-Linear against a float64 loop that differentiates the inner loss itself."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import relative_error
from primitive_laws import LAWS, Primitive, known

from jaxbench.ops import fast_weights as ops

BATCH, HEADS, WIDTH = 3, 2, 4


def bundled(form):
    """A form of the laws: frames are q, k, v and eta; fixed is the inner model."""
    return lambda frames, model, state, reset: form(
        ops.TTTFrames(*frames), state, reset, model=model
    )


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


def loop(frames, model, state, reset):
    """All rows and heads of `one_head`."""
    q, k, v, eta = frames
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


def draw(size, rng, length):
    """Frames, inner model, and a state in the middle of mini-batches of `size`."""

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
    return [*(normal(*row, WIDTH) for _ in range(3)), eta], model, state


def start(model, state):
    del state
    return jax.device_get(
        ops.initial_fast_weights(jax.tree.map(jnp.asarray, model), BATCH)
    )


STEP = bundled(ops.ttt_linear_step)
# One frame each, a few of them and a tail, and less than one mini-batch.
PRIMITIVES = {
    size: Primitive(
        forms={
            "reference": bundled(ops.ttt_linear_reference),
            "chosen": lambda frames, *rest: ops.ttt_linear(*frames, *rest),
        },
        step=STEP,
        loop=loop,
        draw=functools.partial(draw, size),
        near=1e-5,
        close=1e-4,
        slope=1e-4,
        rate=0.2,
        start=start,
    )
    for size in (1, 7, 80)
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", PRIMITIVES)
def test_law(size, law):
    LAWS[law](PRIMITIVES[size])


def test_gradients_with_only_resets_or_only_a_state():
    known(PRIMITIVES[7])


def test_the_inner_gradient_is_that_of_the_inner_loss():
    """By small differences, and the closed form the operation uses."""
    frames, model, state = draw(3, np.random.default_rng(1), 1)
    _, k, v, _ = (x[0, 0, 0].astype(np.float64) for x in frames)
    w, c = (x[0, 0].astype(np.float64) for x in state[:2])
    gamma, beta = (x[0].astype(np.float64) for x in model[2:4])
    grad_w, grad_c = inner_gradient(w, c, k, v, gamma, beta)
    for index in np.ndindex(w.shape):
        step = np.zeros(w.shape)
        step[index] = 1e-6
        ends = [inner_loss(w + s * step, c, k, v, gamma, beta) for s in (1, -1)]
        assert grad_w[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)
    begun = state._replace(grad_w_bhkk=0 * state[2], grad_c_bhk=0 * state[3])
    begun = begun._replace(count_b=np.zeros(BATCH, np.int32))
    q, k, v, _ = (x[:, 0] for x in frames)
    got = STEP([q, k, v, np.ones((BATCH, HEADS))], model, begun, None)[1]
    assert relative_error(got.grad_w_bhkk[0, 0], grad_w) < 1e-5
    assert relative_error(got.grad_c_bhk[0, 0], grad_c) < 1e-5


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
