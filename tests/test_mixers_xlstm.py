"""mLSTM and sLSTM against their equations in units of 1, float64."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid, silu

from jaxbench.errors import InputError
from jaxbench.mixers.xlstm import MLSTM, SLSTM

WIDTH, BATCH, LENGTH = 16, 2, 9


@functools.cache
def compiled(mixer):
    return jax.jit(mixer.apply)


def drawn(mixer):
    return draw(mixer, frames(0))["params"]


def frames(seed, batch=BATCH, length=LENGTH):
    rng = np.random.default_rng([2, seed])
    return rng.normal(size=(batch, length, WIDTH)).astype(np.float32)


def head_norm(p, h_hk):
    centred = h_hk - h_hk.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return (centred / spread * p["head_norm"]["scale"]).reshape(-1)


def convolved(p, past_we, x_e):
    """One frame of the short convolution, and the inputs it will need."""
    past_we = np.concatenate([past_we, x_e[None]])
    y_e = (p["conv"]["kernel"] * past_we).sum(0) + p["conv"]["bias"]
    return silu(y_e), past_we[1:]


def dense(kernel_hkx):
    """The block-diagonal matrix of these blocks, written out."""
    blocks, rows, columns = kernel_hkx.shape
    matrix = np.zeros((blocks * rows, blocks * columns))
    for i, block in enumerate(kernel_hkx):
        matrix[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = block
    return matrix


def mlstm_frames(p, x_td, reset_t, state, heads=4):
    s_hkv, n_hk, m_h, past_we = state
    s_hkv = s_hkv * np.exp(m_h)[:, None, None]
    n_hk = n_hk * np.exp(m_h)[:, None]
    for x, reset in zip(x_td, reset_t, strict=True):
        if reset:
            s_hkv, n_hk, past_we = (np.zeros(a.shape) for a in (s_hkv, n_hk, past_we))
            m_h = np.full(m_h.shape, -np.inf)
        u, z = np.split(x @ p["project"]["kernel"], 2)
        c, past_we = convolved(p, past_we, u)
        q, k, v = c @ dense(p["query"]), c @ dense(p["key"]), u @ dense(p["value"])
        i, f = np.split(np.concatenate([q, k, v]) @ p["gates"], 2)
        i = np.exp(i + p["ssm_input_bias"])
        f = sigmoid(f + p["ssm_forget_bias"])
        m_h = np.maximum(m_h + np.log(f), np.log(i))
        q, k, v = (a.reshape(heads, -1) for a in (q, k, v))
        k = k / np.sqrt(k.shape[-1])
        h = np.zeros(v.shape)
        for a in range(heads):
            s_hkv[a] = f[a] * s_hkv[a] + i[a] * np.outer(k[a], v[a])
            n_hk[a] = f[a] * n_hk[a] + i[a] * k[a]
            den = max(abs(q[a] @ n_hk[a]), 1) + 1e-6 * np.exp(m_h[a])
            h[a] = q[a] @ s_hkv[a] / den
        yield ((head_norm(p, h) + p["skip"] * c) * silu(z)) @ p["out"]["kernel"]


def slstm_frames(p, x_td, reset_t, state, heads=4):
    h, c, n, m, past_wd = state
    unit = np.exp(m)
    h, c, n = (a.reshape(-1) for a in (h, c * unit, n * unit))
    biases = ("ssm_input_bias", "ssm_forget_bias", "bias", "ssm_output_bias")
    bias_4hk = np.stack([p[name] for name in biases])
    for x, reset in zip(x_td, reset_t, strict=True):
        if reset:
            h, c, n, past_wd = (np.zeros(a.shape) for a in (h, c, n, past_wd))
        u, past_wd = convolved(p, past_wd, x)
        of_u = (u @ dense(p["input_forget"])).reshape(heads, 2, -1)
        of_x = (x @ dense(p["cell_output"])).reshape(heads, 2, -1)
        of_h = (h @ dense(p["recurrent"])).reshape(heads, 4, -1)
        gates = np.concatenate([of_u, of_x], 1) + of_h
        i, f, z, o = (gates.swapaxes(0, 1) + bias_4hk).reshape(4, -1)
        c = sigmoid(f) * c + np.exp(i) * np.tanh(z)
        n = sigmoid(f) * n + np.exp(i)
        h = sigmoid(o) * c / n
        yield head_norm(p, h.reshape(heads, -1))


@pytest.mark.parametrize("shift", [0.0, -100.0, 100.0])
@pytest.mark.parametrize(
    ("mixer", "equations"), [(MLSTM(WIDTH), mlstm_frames), (SLSTM(WIDTH), slstm_frames)]
)
def test_equations(mixer, equations, shift):
    """From a state, with resets, for input gates beyond the range of float32, too."""
    params = drawn(mixer)
    params["ssm_input_bias"] = params["ssm_input_bias"] + np.float32(shift)
    exact = jax.tree.map(lambda x: x.astype(np.float64), params)
    apply, reset = compiled(mixer), np.zeros((BATCH, LENGTH), bool)
    reset[0, 4] = reset[1, 0] = reset[1, 7] = True
    _, state = apply({"params": params}, frames(1), None, reset)
    y_btd, _ = apply({"params": params}, frames(2), state, reset)
    state = jax.tree.map(lambda x: np.asarray(x, np.float64), state)
    for b, (x_td, y_td) in enumerate(zip(frames(2), y_btd, strict=True)):
        start = [leaf[b] for leaf in state]
        want = list(equations(exact, x_td.astype(np.float64), reset[b], start))
        np.testing.assert_allclose(y_td, np.stack(want), rtol=1e-4, atol=1e-5)


def test_memory_has_the_size_of_the_paper():
    floats = {
        mixer: sum(x.size for x in jax.tree.leaves(mixer(256).initial_state(1)))
        for mixer in (MLSTM, SLSTM)
    }
    assert floats[MLSTM] == 4 * (128 * 128 + 128 + 1) + 3 * 512
    assert floats[SLSTM] == 4 * 256 + 3 * 256


@pytest.mark.parametrize("mixer", [MLSTM(WIDTH), SLSTM(WIDTH)])
def test_an_empty_memory_is_the_state_of_none(mixer):
    variables = {"params": drawn(mixer)}
    apply, reset = compiled(mixer), np.zeros((BATCH, LENGTH), bool)
    empty = mixer.initial_state(BATCH)
    jax.tree.map(
        np.testing.assert_array_equal,
        apply(variables, frames(1), empty, reset),
        apply(variables, frames(1), None, reset),
    )
    assert all(
        np.isneginf(leaf).all() == name.startswith("m_")
        for name, leaf in empty._asdict().items()
    )


@pytest.mark.integration
def test_gates_start_as_in_the_paper():
    params = jax.jit(MLSTM(WIDTH).init)(jax.random.key(0), frames(0))["params"]
    np.testing.assert_array_equal(params["gates"], 0)
    np.testing.assert_allclose(params["ssm_forget_bias"], [3, 4, 5, 6])
    starts = {}
    for layer in range(3):
        mixer = SLSTM(WIDTH, layer=layer, layers=3)
        params = jax.jit(mixer.init)(jax.random.key(0), frames(0))["params"]
        np.testing.assert_array_equal(params["recurrent"], 0)
        starts[layer] = np.asarray(params["ssm_forget_bias"])
        np.testing.assert_allclose(starts[layer][:, 0], 5)
        np.testing.assert_allclose(starts[layer][:, -1], -7)
        assert (np.diff(starts[layer], axis=1) < 0).all()
    assert (starts[0] <= starts[1]).all() and (starts[1] <= starts[2]).all()
    ratio = np.arange(4) / 3
    np.testing.assert_allclose(starts[0][0], 5 - 12 * ratio**0.3, rtol=1e-5)
    np.testing.assert_allclose(starts[2][3], 5 - 12 * ratio**1.6, rtol=1e-5)


def test_slstm_forgets_nothing_it_should_keep():
    """With f = 1 and i = 1 the output is the mean of z so far, gated by o."""
    mixer = SLSTM(4, heads=1)
    params = jax.tree.map(np.zeros_like, draw(mixer, np.zeros((1, 1, 4)))["params"])
    params["head_norm"]["scale"] = np.ones((1, 4), np.float32)
    params["ssm_forget_bias"] = np.full((1, 4), 40, np.float32)
    # z is the first half of the kernel's columns, o the second.
    params["cell_output"][0, :, :4] = np.eye(4)
    x_btd = frames(3, 1, 50)[..., :4]
    y_btd, state = jax.jit(mixer.apply)({"params": params}, x_btd)
    mean_td = np.cumsum(np.tanh(x_btd[0]), 0) / np.arange(1, 51)[:, None] / 2
    np.testing.assert_allclose(state.h_bhk[0, 0], mean_td[-1], rtol=1e-4, atol=1e-6)
    want = [head_norm(params, h[None]) for h in mean_td]
    np.testing.assert_allclose(y_btd[0], want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (MLSTM(WIDTH, heads=5), "heads=5 does not divide the inner width 32"),
        (MLSTM(WIDTH, heads=0), "heads=0 does not divide the inner width 32"),
        (MLSTM(WIDTH, block_size=6), "block_size=6 does not divide the inner width 32"),
        (SLSTM(WIDTH, heads=3), "heads=3 does not divide width=16"),
    ],
)
def test_options_that_do_not_fit(mixer, message):
    with pytest.raises(InputError, match=message):
        mixer.initial_state(1)
    with pytest.raises(InputError, match=message):
        mixer.init(jax.random.key(0), frames(0))
