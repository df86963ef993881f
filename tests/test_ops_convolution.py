"""P2: causal and short convolutions against float64 loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import relative_error
from primitive_laws import LAWS, Primitive

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
        seen = list(before[i])
        for t in range(x.shape[1]):
            if reset[i, t]:
                seen = [np.zeros(x.shape[2])] * (taps - 1)
            seen.append(x[i, t])
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


def short(form):
    """A form of the laws: frames are inputs, fixed are taps and bias."""
    return lambda x, fixed, state, reset: form(x, *fixed, state, reset)


def short_step(x, fixed, state, reset):
    kernel, bias = fixed
    given = {"kernel_wd": kernel, "bias_d": bias}
    return ops.short_convolution_step(x, state, reset, **given)


def draw_short(taps, rng, length):
    shapes = (3, length, 2), (taps, 2), (2,), (3, taps - 1, 2)
    x, *fixed, state = (rng.normal(size=s).astype(np.float32) for s in shapes)
    return x, fixed, state


SHORT = {
    taps: Primitive(
        forms={
            "reference": short(ops.short_convolution_reference),
            "chosen": short(ops.short_convolution),
        },
        step=short_step,
        loop=lambda x, fixed, state, reset: short_loop(x, *fixed, state, reset),
        draw=functools.partial(draw_short, taps),
        near=2e-6,
    )
    for taps in (1, 4, 12)
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("taps", SHORT)
def test_short_law(taps, law):
    LAWS[law](SHORT[taps])


def test_short_state_of_another_filter_is_an_error():
    x = jnp.ones((1, 5, 2))
    with pytest.raises(ValueError, match="expected"):
        ops.short_convolution(x, jnp.ones((4, 2)), None, jnp.ones((1, 5, 2)))
