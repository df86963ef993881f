"""TTT against a float64 loop over frames, and what an episode starts with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import gelu

from jaxbench.errors import InputError
from jaxbench.mixers.ttt import TTT

WIDTH, HEADS, BATCH, LENGTH = 16, 2, 2, 11
HEAD = WIDTH // HEADS


def frames(seed, length=LENGTH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


def variables_of(mixer):
    return draw(mixer, frames(0))


def norm(z, scale, shift):
    return scale * (z - z.mean()) / np.sqrt(z.var() + 1e-6) + shift


def rotate(x, place):
    """Pairs (i, i + K/2) as complex numbers, turned by the angle of the place."""
    half = len(x) // 2
    turned = (x[:half] + 1j * x[half:]) * np.exp(
        1j * place * 1e4 ** (-np.arange(half) / half)
    )
    return np.concatenate([turned.real, turned.imag])


def head_step(q, k, v, eta, p, head, state):
    """One frame of one head: (w, c, held_w, held_c, count) and y."""
    w, c, held_w, held_c, count = state
    cut = slice(head * HEAD, (head + 1) * HEAD)
    scale, shift = p["inner_scale"][cut], p["inner_shift"][cut]
    q, k = rotate(q, count), rotate(k, count)
    z = k @ w + c
    unit = (z - z.mean()) / np.sqrt(z.var() + 1e-6)
    e = (norm(z, scale, shift) - (v - k)) * scale
    spread = np.sqrt(z.var() + 1e-6)
    delta = (e - e.mean() - unit * (e * unit).mean()) / spread
    held_w, held_c = held_w + eta * np.outer(k, delta), held_c + eta * delta
    tau = max(1 / (count + 1) + p["theta"][count], 0)
    w_now, c_now = w - tau * held_w, c - tau * held_c
    y = q + norm(q @ w_now + c_now, scale, shift)
    if count + 1 == len(p["theta"]):
        return (w_now, c_now, 0 * w, 0 * c, 0), y
    return (w, c, held_w, held_c, count + 1), y


def loop(variables, x_btd, state, reset_bt, gated=False):
    p = jax.tree.map(np.float64, variables["params"])
    outputs, after = np.zeros(x_btd.shape), jax.tree.map(np.array, state)
    for b in range(BATCH):
        heads = [[leaf[b, h] for leaf in state[:4]] for h in range(HEADS)]
        heads = [(*leaves, int(state[4][b])) for leaves in heads]
        for t, x in enumerate(np.float64(x_btd[b])):
            q, k, v = np.split(x @ p["qkv"]["kernel"], 3)
            logit = x @ p["eta"]["kernel"] + p["eta"]["bias"]
            y = np.zeros(WIDTH)
            for h in range(HEADS):
                cut = slice(h * HEAD, (h + 1) * HEAD)
                if reset_bt[b, t]:
                    w, c = p["inner_kernel"][h], p["inner_bias"][cut]
                    heads[h] = (w, c, 0 * w, 0 * c, 0)
                eta = 1 / (1 + np.exp(-logit[h])) / HEAD
                heads[h], y[cut] = head_step(
                    q[cut], k[cut], v[cut], eta, p, h, heads[h]
                )
            y = norm(y, p["norm"]["scale"], p["norm"]["bias"])
            if gated:
                y = gelu(x @ p["gate_project"]["kernel"]) * y
            outputs[b, t] = y @ p["out"]["kernel"]
        for i in range(4):
            after[i][b] = np.stack([head[i] for head in heads])
        after[4][b] = heads[0][4]
    return outputs, after


@pytest.mark.parametrize(("mini_batch", "gate"), [(10, False), (4, True)])
def test_equals_a_float64_loop(mini_batch, gate):
    mixer = TTT(WIDTH, heads=HEADS, mini_batch=mini_batch, gate=gate)
    variables = variables_of(mixer)
    apply = jax.jit(mixer.apply)
    reset = np.zeros((BATCH, LENGTH), bool)
    # Into the middle of a mini-batch, whose place the rotation and tau go on from.
    _, state = apply(variables, frames(1, 7), None, reset[:, :7])
    assert (np.asarray(state.count_b) == 7 % mini_batch).all()
    reset[0, [2, 8, 9]] = True
    got = apply(variables, frames(2), state, reset)
    want = loop(variables, frames(2), jax.device_get(state), reset, gate)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, 2e-5, 2e-5)


def test_an_episode_starts_with_the_learned_weights():
    mixer = TTT(WIDTH, heads=HEADS)
    variables = variables_of(mixer)
    state = mixer.apply(variables, BATCH, method="initial_state")
    kernel = variables["params"]["inner_kernel"]
    bias = variables["params"]["inner_bias"].reshape(HEADS, HEAD)
    for row in range(BATCH):
        np.testing.assert_array_equal(state.w_bhkk[row], kernel)
        np.testing.assert_array_equal(state.c_bhk[row], bias)
    assert not np.any(state.grad_w_bhkk) and not np.any(state.count_b)
    assert state.count_b.dtype == jnp.int32


@pytest.mark.integration
def test_learned_weights_get_gradients_from_resets_alone():
    """A carried state holds copies; only an episode that starts reads the originals."""
    mixer = TTT(WIDTH, heads=HEADS)
    variables = variables_of(mixer)
    _, state = jax.jit(mixer.apply)(variables, frames(3))

    @jax.jit
    @jax.grad
    def gradient(params, reset_bt):
        y_btd, _ = mixer.apply({"params": params}, frames(4), state, reset_bt)
        return jnp.sum(y_btd * frames(5))

    reset = np.zeros((BATCH, LENGTH), bool)
    names = ("inner_kernel", "inner_bias")
    grads = gradient(variables["params"], reset)
    assert all(not np.any(grads[name]) for name in names)
    reset[0, 6] = True
    grads = gradient(variables["params"], reset)
    assert all(np.abs(grads[name]).max() > 1e-3 for name in names)


def test_places_past_a_negative_tau_learn_nothing():
    """tau is cut off at 0: then a full mini-batch leaves W and c as they were."""
    mixer = TTT(WIDTH, heads=HEADS, mini_batch=3)
    variables = variables_of(mixer)
    params = {**variables["params"], "theta": np.full(3, -2, np.float32)}
    variables = {"params": params}
    _, state = jax.jit(mixer.apply)(variables, frames(6))
    start = mixer.apply(variables, BATCH, method="initial_state")
    np.testing.assert_array_equal(state.w_bhkk, start.w_bhkk)
    assert (np.asarray(state.count_b) == LENGTH % 3).all()
    assert np.abs(state.grad_w_bhkk).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide width=16"),
        ({"heads": 0}, "heads=0"),
        ({"heads": 16}, "even width"),
        ({"mini_batch": 0}, "mini_batch=0 must be at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TTT(WIDTH, **options).init(jax.random.key(0), frames(0))
