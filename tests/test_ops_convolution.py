"""P2: causal and short convolutions against float64 loops."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from primitive_laws import LAWS, Primitive

from jaxbench.ops import convolution as ops


def loop(u, k, _, reset):
    """Sums tap by tap, walking back from t until the episode begins."""
    y = np.zeros(u.shape)
    for i in range(u.shape[0]):
        for t in range(u.shape[1]):
            for lag in range(min(t + 1, k.shape[0])):
                y[i, t] += k[lag] * u[i, t - lag]
                if reset[i, t - lag]:
                    break
    return y, ()


def draw(taps, rng, length):
    u, k = (rng.normal(size=s).astype(np.float32) for s in ((3, length, 2), (taps, 2)))
    return u, k, ()


def stateless(run):
    """A form of the laws for whole sequences, with or without resets."""
    return lambda u, k, _, reset: (run(u, k, reset), ())


RESETS = {
    "reference": stateless(ops.causal_convolution_reference),
    "lags": stateless(ops.causal_convolution_lags),
    "chosen": stateless(ops.causal_convolution),
}
UNBROKEN = {
    name: stateless(lambda u, k, _, run=run: run(u, k))
    for name, run in {
        "reference": ops.causal_convolution_reference,
        "toeplitz": ops.causal_convolution_toeplitz,
        "fft": ops.causal_convolution_fft,
        "chosen": ops.causal_convolution,
    }.items()
}


# Fewer taps than frames, and more.
@pytest.mark.parametrize("taps", [3, 80])
@pytest.mark.parametrize("law", ["exact", "fresh"])
@pytest.mark.parametrize(("forms", "rate"), [(RESETS, 0.08), (UNBROKEN, 0.0)])
def test_law(forms, rate, law, taps):
    drawn = functools.partial(draw, taps)
    LAWS[law](Primitive(forms, None, loop, drawn, near=2e-6, rate=rate))


def short_loop(x, kernel, bias, before, reset):
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
