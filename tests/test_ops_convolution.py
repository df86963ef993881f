"""P2: causal and short convolutions against float64 loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error

from jaxbench.ops import convolution as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
WITH_RESETS = {
    "reference": ops.causal_convolution_reference,
    "lags": ops.causal_convolution_lags,
    "chosen": ops.causal_convolution,
}
FORMS = {
    **WITH_RESETS,
    "toeplitz": ops.causal_convolution_toeplitz,
    "fft": ops.causal_convolution_fft,
}
SHORT = {
    "reference": ops.short_convolution_reference,
    "chosen": ops.short_convolution,
}


def loop(u, k, reset=None):
    """Sums tap by tap, walking back from t until the episode begins."""
    y = np.zeros(u.shape)
    for i in range(u.shape[0]):
        for t in range(u.shape[1]):
            for lag in range(min(t + 1, k.shape[0])):
                y[i, t] += k[lag] * u[i, t - lag]
                if reset is not None and reset[i, t - lag]:
                    break
    return y


def short_loop(x, kernel, bias, before, reset=None):
    """The short filter over a list of the episode's frames."""
    taps, y, tail = kernel.shape[0], np.zeros(x.shape), np.zeros(before.shape)
    for i in range(x.shape[0]):
        seen = [f.astype(np.float64) for f in before[i]]
        for t in range(x.shape[1]):
            if reset is not None and reset[i, t]:
                seen = [np.zeros(x.shape[2])] * (taps - 1)
            seen.append(x[i, t].astype(np.float64))
            y[i, t] = bias + sum(kernel[j] * seen[j - taps] for j in range(taps))
        tail[i] = seen[len(seen) - taps + 1 :] if taps > 1 else before[i]
    return y, tail


def sample(length, taps=None, seed=0):
    rng = np.random.default_rng([seed, length])
    taps = length if taps is None else taps
    u = rng.normal(size=(3, length, 2)).astype(np.float32)
    k = rng.normal(size=(taps, 2)).astype(np.float32)
    return u, k, rng.random((3, length)) < 0.08


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_values(form, length):
    u, k, reset = sample(length)
    run = jax.jit(FORMS[form])
    assert relative_error(run(u, k), loop(u, k)) < 2e-6
    if form in WITH_RESETS:
        assert relative_error(run(u, k, reset), loop(u, k, reset)) < 2e-6


@pytest.mark.integration
@pytest.mark.parametrize("form", FORMS)
def test_taps_fewer_and_more_than_frames(form):
    for taps in (3, 40):
        u, k, _ = sample(12, taps)
        assert relative_error(FORMS[form](u, k), loop(u, k)) < 2e-6


@pytest.mark.parametrize("length", [1, 65])
def test_gradients(length):
    u, k, reset = sample(length, seed=1)
    weight = sample(length, seed=2)[0].astype(np.float64)

    def gradient(run, *flags):
        grad = jax.grad(lambda u, k: (weight * run(u, k, *flags)).sum(), (0, 1))
        return jax.jit(grad)(u, k)

    for flags in ((), (reset,)):
        # The output is linear in each argument: exact derivatives from unit vectors.
        want_u, want_k = np.zeros(u.shape), np.zeros(k.shape)
        for lag in range(length):
            unit = np.zeros(k.shape)
            unit[lag] = 1
            shifted = loop(u, unit, *flags)
            want_k[lag] = (weight * shifted).sum((0, 1))
        for s in range(length):
            unit = np.zeros(u.shape)
            unit[:, s] = 1
            want_u[:, s] = (weight * loop(unit, k, *flags)).sum(1)
        for run in (WITH_RESETS if flags else FORMS).values():
            d_u, d_k = gradient(run, *flags)
            assert relative_error(d_u, want_u) < 5e-6
            assert relative_error(d_k, want_k) < 5e-6


def test_fft_does_not_wrap():
    u = np.zeros((1, 64, 1), np.float32)
    u[0, -1] = 1e6
    k = np.ones((64, 1), np.float32)
    y = np.asarray(ops.causal_convolution_fft(u, k))
    assert np.abs(y[0, :-1]).max() < 1
    assert y[0, -1] == pytest.approx(1e6, rel=1e-6)


def test_toeplitz_matrix():
    k = np.arange(1.0, 5.0, dtype=np.float32)[None]
    want = [[1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1]]
    np.testing.assert_array_equal(ops.toeplitz(jnp.asarray(k))[0], want)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("taps", [1, 4])
def test_short_values(taps, length):
    x, kernel, reset = sample(length, taps, seed=3)
    bias = np.array([0.5, -1.0], np.float32)
    before = np.random.default_rng(4).normal(size=(3, taps - 1, 2)).astype(np.float32)
    for state, flags in ((None, None), (before, reset)):
        start = np.zeros_like(before) if state is None else state
        want = short_loop(x, kernel, bias, start, flags)
        for form in SHORT.values():
            got = jax.jit(form)(x, kernel, bias, state, flags)
            assert relative_error(got[0], want[0]) < 1e-6
            assert relative_error(got[1], want[1]) < 1e-7


@pytest.mark.parametrize(("taps", "length"), [(4, 1), (12, 65)])
def test_short_gradients(taps, length):
    x, kernel, reset = sample(length, taps, seed=5)
    rng = np.random.default_rng(6)
    args = (
        x,
        kernel,
        rng.normal(size=2).astype(np.float32),
        rng.normal(size=(3, taps - 1, 2)).astype(np.float32),
    )
    weights = rng.normal(size=x.shape), rng.normal(size=args[3].shape)

    def loss(run, *args):
        y, state = run(*args, reset)
        return (weights[0] * y).sum() + (weights[1] * state).sum() + 0.1 * (y**2).sum()

    for run in SHORT.values():
        gradient = jax.grad(functools.partial(loss, run), (0, 1, 2, 3))
        exact = functools.partial(loss, short_loop)
        check_slopes(jax.jit(gradient)(*args), args, exact, rng)


def test_short_whole_is_chunks_is_steps_over_a_long_run():
    taps = 4
    x, kernel, reset = sample(1000, taps, seed=7)
    bias = np.ones(2, np.float32)
    run = jax.jit(ops.short_convolution)
    whole, last = run(x, kernel, bias, None, reset)
    state, parts = None, []
    for start, stop in ((0, 1), (1, 3), (3, 401), (401, 1000)):
        cut = slice(start, stop)
        y, state = run(x[:, cut], kernel, bias, state, reset[:, cut])
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-6
    np.testing.assert_array_equal(state, last)
    one = functools.partial(ops.short_convolution_step, kernel_wd=kernel, bias_d=bias)
    step, state = jax.jit(one), np.zeros((3, taps - 1, 2))
    for t in range(1000):
        y, state = step(x[:, t], state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 1e-6
    np.testing.assert_array_equal(state, last)


def test_short_keeps_the_dtype_and_a_float32_state():
    x = jnp.ones((1, 5, 2), jnp.bfloat16)
    y, state = ops.short_convolution(x, jnp.ones((4, 2)), jnp.ones(2))
    assert y.dtype == jnp.bfloat16
    assert state.dtype == jnp.float32


def test_short_state_of_another_filter_is_an_error():
    x = jnp.ones((1, 5, 2))
    with pytest.raises(ValueError, match="expected"):
        ops.short_convolution(x, jnp.ones((4, 2)), None, jnp.ones((1, 5, 2)))
