"""Mixers of whole windows, and retrieval, against numpy in float64."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw, float64
from oracles import softmax

from jaxbench.errors import InputError
from jaxbench.mixers.fnet import FNet
from jaxbench.mixers.hopfield import Hopfield, StaticHopfield, retrieve
from jaxbench.mixers.perceiver import Perceiver

WIDTH, BATCH, LENGTH = 16, 2, 12
STARTS = ([0, 5], [0, 1, 8])


def sample(seed=0, width=WIDTH):
    rng = np.random.default_rng(seed)
    x_btd = rng.normal(size=(BATCH, LENGTH, width)).astype(np.float32)
    reset_bt = np.zeros((BATCH, LENGTH), bool)
    for row, starts in enumerate(STARTS):
        reset_bt[row, starts[1:]] = True
    return x_btd, reset_bt


def episodes():
    for row, starts in enumerate(STARTS):
        for start, stop in zip(starts, [*starts[1:], LENGTH], strict=True):
            yield row, start, stop


def make(mixer, x_btd):
    return draw(mixer, x_btd)["params"]


def standardize(x, p=None):
    centred = x - x.mean(-1, keepdims=True)
    z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return z if p is None else z * p["scale"] + p["bias"]


def waves(position):
    angle = position[:, None] * 1e4 ** (-np.arange(WIDTH // 2) / (WIDTH // 2))
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)


def dense(x, p):
    return x @ p["kernel"] + p.get("bias", 0)


@pytest.mark.parametrize("width", [15, 16])
def test_fnet_is_the_fft_of_each_episode(width):
    x_btd, reset_bt = sample(width=width)
    mixer = FNet(width)
    run = jax.jit(lambda x, reset: mixer.apply({}, x, None, reset))
    y_btd, state = run(x_btd, reset_bt)
    assert state == mixer.initial_state(BATCH) == ()
    for row, start, stop in episodes():
        x = x_btd[row, start:stop].astype(np.float64)
        want = np.fft.fft2(x).real / math.sqrt(x.size)
        np.testing.assert_allclose(y_btd[row, start:stop], want, atol=2e-6)
    y_btd, _ = run(x_btd, None)
    want = np.fft.fft2(x_btd.astype(np.float64)).real / math.sqrt(LENGTH * width)
    np.testing.assert_allclose(y_btd, want, atol=2e-6)
    assert not jax.tree.leaves(mixer.init(jax.random.key(0), x_btd))


def test_fnet_keeps_its_digits_in_long_windows_and_the_size_of_its_input():
    x_btd = np.random.default_rng(1).normal(size=(1, 300, 64)).astype(np.float32)
    y_btd, _ = jax.jit(lambda x: FNet(64).apply({}, x))(x_btd)
    want = np.fft.fft2(x_btd.astype(np.float64)).real / math.sqrt(300 * 64)
    np.testing.assert_allclose(y_btd, want, atol=1e-5)
    # The real part holds half the energy; the rest is in the imaginary part.
    assert 0.6 < np.square(y_btd).mean() / (np.square(x_btd).mean() / 2) < 1.4


def test_fnet_and_perceiver_see_later_frames_and_the_order_of_frames():
    x_btd, _ = sample(2)
    for mixer in (FNet(WIDTH), Perceiver(WIDTH)):
        variables = draw(mixer, x_btd)
        run = jax.jit(lambda x, m=mixer, v=variables: m.apply(v, x)[0])
        y_btd = run(x_btd)
        changed = x_btd.copy()
        changed[:, -1] += 1
        assert np.abs(run(changed) - y_btd)[:, :-1].max() > 1e-3
        shuffled = x_btd.copy()
        shuffled[:, 1:-1] = x_btd[:, -2:0:-1]
        assert np.abs(run(shuffled) - y_btd)[:, -1].max() > 1e-3


def attend(p, q, memory, heads):
    h = standardize(q, p["query_norm"])
    m = h if memory is None else standardize(memory, p["memory_norm"])
    rows = [np.split(h @ p["query"]["kernel"], heads, -1)]
    rows += [np.split(m @ p[name]["kernel"], heads, -1) for name in ("key", "value")]
    read = [
        softmax(a @ k.T / math.sqrt(a.shape[1])) @ v
        for a, k, v in zip(*rows, strict=True)
    ]
    q = q + dense(np.concatenate(read, -1), p["out"])
    hidden = dense(standardize(q, p["mlp_norm"]), p["mlp_in"])
    gelu = np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3))
    return q + dense(0.5 * hidden * (1 + gelu), p["mlp_out"])


def test_perceiver_equals_its_equations_on_the_last_episode():
    mixer = Perceiver(WIDTH, latents=5, heads=2)
    x_btd, reset_bt = sample(3)
    params = make(mixer, x_btd)
    p = float64(params)
    y_btd, state = jax.jit(mixer.apply)({"params": params}, x_btd, None, reset_bt)
    assert state == mixer.initial_state(BATCH) == ()
    for row, starts in enumerate(STARTS):
        x = x_btd[row, starts[-1] :].astype(np.float64)
        place = waves(np.arange(len(x))[::-1])
        frames = dense(np.concatenate([x, place], -1), p["embed"])
        z = attend(p["encode"], p["latents"], frames, 2)
        for index in range(mixer.blocks):
            z = attend(p[f"blocks_{index}"], z, None, 2)
        y = standardize(attend(p["decode"], frames, z, 2), p["norm"])
        want = dense(y, p["out"])
        np.testing.assert_allclose(y_btd[row, starts[-1] :], want, atol=2e-5)
        np.testing.assert_array_equal(y_btd[row, : starts[-1]], 0)


@pytest.mark.integration
@pytest.mark.parametrize("mixer", [Perceiver(WIDTH), FNet(WIDTH), Hopfield(WIDTH)])
def test_no_episode_sees_another_not_even_large_values(mixer):
    x_btd, reset_bt = sample(4)
    variables = draw(mixer, x_btd)
    changed = x_btd.copy()
    for row, starts in enumerate(STARTS):
        changed[row, : starts[-1]] *= 1e6
    run = jax.jit(mixer.apply)
    before, _ = run(variables, x_btd, None, reset_bt)
    after, _ = run(variables, changed, None, reset_bt)
    for row, starts in enumerate(STARTS):
        last = slice(starts[-1], None)
        # FNet's transform multiplies the others by zero.
        np.testing.assert_allclose(after[row, last], before[row, last], atol=1e-6)
        alone, _ = run(variables, x_btd[row : row + 1, last])
        np.testing.assert_allclose(alone[0], before[row, last], atol=2e-6)


def association(xi, k, v, beta, steps):
    for _ in range(steps):
        xi = softmax(beta * xi @ k.T) @ k
    return softmax(beta * xi @ k.T) @ v


@pytest.mark.parametrize(
    ("steps", "beta", "heads"), [(0, 0.0, 4), (1, 0.0, 2), (3, 2.0, 4)]
)
def test_hopfield_equals_its_equations(steps, beta, heads):
    mixer = Hopfield(WIDTH, heads=heads, steps=steps, beta=beta)
    x_btd, reset_bt = sample(5)
    params = make(mixer, x_btd)
    p = float64(params)
    y_btd, state = jax.jit(mixer.apply)({"params": params}, x_btd, None, reset_bt)
    assert state == mixer.initial_state(BATCH) == ()
    beta = beta or (WIDTH // heads) ** -0.5
    for row, start, stop in episodes():
        x = x_btd[row, start:stop].astype(np.float64)
        patterns = standardize(x) + waves(np.arange(len(x)))
        q, k, v = np.split(patterns @ p["qkv"]["kernel"], 3, -1)
        for t in range(len(x)):
            o = [
                association(a[t], b[: t + 1], c[: t + 1], beta, steps)
                for a, b, c in zip(
                    *(np.split(z, heads, -1) for z in (q, k, v)), strict=True
                )
            ]
            want = np.concatenate(o) @ p["out"]["kernel"]
            np.testing.assert_allclose(y_btd[row, start + t], want, atol=2e-5)


def test_static_hopfield_equals_its_equations_frame_by_frame():
    mixer = StaticHopfield(WIDTH, steps=2, patterns=7)
    x_btd, reset_bt = sample(6)
    params = make(mixer, x_btd)
    p = float64(params)
    run = jax.jit(mixer.apply)
    y_btd, _ = run({"params": params}, x_btd, (), reset_bt)
    stored = standardize(p["patterns"])
    k, v = (np.split(stored @ p[name]["kernel"], 4, -1) for name in ("key", "value"))
    for row, t in np.ndindex(BATCH, LENGTH):
        x = standardize(x_btd[row, t].astype(np.float64))
        q = np.split(x @ p["query"]["kernel"], 4, -1)
        o = [association(a, b, c, 0.5, 2) for a, b, c in zip(q, k, v, strict=True)]
        want = np.concatenate(o) @ p["out"]["kernel"]
        np.testing.assert_allclose(y_btd[row, t], want, atol=2e-5)
    # The size of the stored patterns does not matter, only their direction.
    params["patterns"] = 50 * params["patterns"]
    again, _ = run({"params": params}, x_btd)
    np.testing.assert_allclose(again, y_btd, atol=1e-4)


@pytest.mark.parametrize("beta", [0.1, 1.0, 20.0])
def test_a_retrieval_step_never_raises_the_energy(beta):
    rng = np.random.default_rng(7)
    k = rng.normal(size=(1, 9, 1, 6)).astype(np.float32)
    xi = (2 * rng.normal(size=(1, 40, 1, 6))).astype(np.float32)

    def energy(xi):
        score = beta * xi[0, :, 0].astype(np.float64) @ k[0, :, 0].T
        top = score.max(-1)
        lse = top + np.log(np.exp(score - top[:, None]).sum(-1))
        return -lse / beta + np.square(xi[0, :, 0]).sum(-1) / 2

    step = jax.jit(lambda xi: retrieve(xi, jnp.asarray(k), steps=1, beta=beta))
    energies, start = [energy(xi)], xi
    for _ in range(12):
        xi = np.asarray(step(xi))
        energies.append(energy(xi))
    assert np.max(np.diff(energies, axis=0)) < 1e-5
    assert np.min(energies[0] - energies[1]) > 1e-3
    many = retrieve(jnp.asarray(start), jnp.asarray(k), steps=12, beta=beta)
    np.testing.assert_allclose(many, xi, atol=1e-5)


def test_a_cold_network_completes_a_damaged_pattern():
    rng = np.random.default_rng(8)
    k = rng.choice([-1.0, 1.0], size=(1, 20, 1, 32)).astype(np.float32)
    damaged = k.copy()
    damaged[..., :8] = 0
    restored = retrieve(jnp.asarray(damaged), jnp.asarray(k), steps=1, beta=2.0)
    np.testing.assert_allclose(restored, k, atol=1e-4)


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (Perceiver(16, heads=3), "heads=3 does not divide width=16"),
        (Perceiver(16, latents=0), "latents=0 must be at least 1"),
        (Perceiver(16, blocks=-1), "blocks=-1 must not be negative"),
        (Hopfield(16, heads=0), "heads=0 does not divide width=16"),
        (Hopfield(16, steps=-1), "steps=-1 must not be negative"),
        (Hopfield(16, beta=-0.5), "beta=-0.5 must be above 0"),
        (StaticHopfield(16, heads=5), "heads=5 does not divide width=16"),
        (StaticHopfield(16, patterns=0), "patterns=0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_clear_line(mixer, message):
    with pytest.raises(InputError, match=message) as caught:
        mixer.init(jax.random.key(0), jnp.zeros((1, 2, 16)))
    assert "\n" not in str(caught.value)
