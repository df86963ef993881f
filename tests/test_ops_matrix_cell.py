"""Cells with a matrix for a state, forms and oracles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import sigmoid
from primitive_laws import LAWS, Primitive

from jaxbench.ops import matrix_cell

B, H, K, V = 2, 3, 5, 4


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


def draw(name, rng, length):
    """q, k, v and what comes with them, weights and a state, heads kept."""
    _, extra, weights, _ = CASES[name]
    heads = 1 if name == "slots" else H
    shared = 1 if name in ("slots", "matrix_rnn") else H

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    q, k = (normal(B, length, shared, K) for _ in range(2))
    k = k / np.linalg.norm(k, axis=-1, keepdims=True)
    frames = [q, k, normal(B, length, heads, V)]
    if extra is not None:
        drawn = normal(B, length, *extra)
        frames.append(drawn if name.startswith("gated") else sigmoid(drawn))
    weights = [0.7 * normal(*shape) for shape in weights]
    return frames, weights, 0.5 * normal(B, heads, K, V)


def loop(name, frames, weights, state, reset_bt):
    """Outputs and the last state in float64, by loops over everything."""
    q, k, v, *extra = frames
    q, k = (np.broadcast_to(x, (*v.shape[:3], K)) for x in (q, k))
    outputs, last = np.zeros(v.shape), np.array(state)
    for b, h in np.ndindex(state.shape[:2]):
        s, own = state[b, h].T, [w[h] for w in weights]
        for t in range(v.shape[1]):
            s = np.zeros((V, K)) if reset_bt[b, t] else s
            at = (b, t, h)
            s = CASES[name][3](s, k[at], v[at], *(x[at] for x in extra), *own)
            outputs[at] = s @ q[at]
        last[b, h] = s.T
    return outputs, last


def form(name, frames, weights, state, reset_bt, **given):
    """The primitive on what `draw` draws."""
    run = functools.partial(getattr(matrix_cell, CASES[name][0]), **given)
    if name == "slots":
        state = None if state is None else state[:, 0]
        one = [x[:, :, 0] for x in frames]
        o, state = run(*one, weights[0][0], state, reset_bt)
        return o[:, :, None], state[:, None]
    if name == "matrix_rnn":
        q, k, *rest = frames
        return run(q[:, :, 0], k[:, :, 0], *rest, *weights, state, reset_bt)
    if name == "gated_gain":
        weights = [None, tuple(weights)]
    missing = {"tanh_delta_whole": 1, "gated_keep": 1}.get(name, 0)
    return run(*frames, *weights, *[None] * missing, state, reset_bt)


def step(name, frames, weights, state, reset_b):
    """A call with one frame."""
    one = [x[:, None] for x in frames]
    o, state = form(name, one, weights, state, reset_b[:, None])
    return o[:, 0], state


PRIMITIVES = {
    name: Primitive(
        forms={
            "reference": functools.partial(form, name, block=None),
            "chosen": functools.partial(form, name),
        },
        step=functools.partial(step, name),
        loop=functools.partial(loop, name),
        draw=functools.partial(draw, name),
        near=2e-5,
        slope=1e-4,
    )
    for name in CASES
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", CASES)
def test_law(name, law):
    LAWS[law](PRIMITIVES[name])


@pytest.mark.integration
@pytest.mark.parametrize("name", ["tanh_delta", "gated_keep", "matrix_rnn"])
def test_blocks_need_a_fraction_of_the_memory_of_a_plain_scan(name):
    length = 256
    inputs, weights, state = draw(name, np.random.default_rng(0), length)
    sizes = []
    for run in map(PRIMITIVES[name].forms.get, ("chosen", "reference")):

        def loss(inputs, run=run):
            return run(inputs, weights, state, None)[0].sum()

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
    inputs, weights, state = draw(name, np.random.default_rng(seed), 1)
    if name == "matrix_rnn":
        weights = (np.broadcast_to(np.eye(V, dtype=np.float32), (H, V, V)),)
    for scale in (0.0, 1.0, 3.0):

        def after(s):
            return form(name, inputs, weights, s, None)[1]

        assert stretch(after, jnp.asarray(scale * state)) <= 1 + 1e-5


@pytest.mark.parametrize("seed", range(2))
def test_slots_with_keys_of_length_one_do_not_stretch_states(seed):
    frames, _, state = draw("slots", np.random.default_rng(seed), 1)
    (q, k, v, keep), state = (x[:, :, 0] for x in frames), state[:, 0]
    half = np.asarray(jax.nn.initializers.orthogonal(0.5)(jax.random.key(seed), (V, V)))

    def after(s, k=k, v=v):
        return matrix_cell.slot_memory(q, k, v, keep, half, s)[1]

    assert stretch(after, jnp.asarray(state)) <= (1 + keep.max()) / 2 + 1e-5
    # At an empty memory: a + (1 - a) |W| |k|^2, along k.
    long = functools.partial(after, k=17 * k, v=np.zeros_like(v))
    assert stretch(long, jnp.zeros_like(state)) > 0.2 * 17**2 * (1 - keep).min()
