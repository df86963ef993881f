"""Hyena against a float64 loop over frames, the filter written from the features up."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.mixers.hyena import Hyena, HyenaState, _long_convolution
from jaxbench.ops.convolution import short_convolution_reference

WIDTH, BATCH, LENGTH = 16, 2, 12


def frames(seed, length=LENGTH):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


def variables_of(mixer):
    return draw(mixer, frames(0))


def taps_of(p, mixer):
    """h_l for every lag, s not added."""
    length, taps = mixer.filter_length, []
    rates = np.log(100) * (1 / 1.5 + (1 / 0.3 - 1 / 1.5) * np.linspace(0, 1, WIDTH))
    for lag in range(length):
        age = lag / (length - 1)
        waves = [np.exp(-2j * np.pi * f * lag / length) for f in range(mixer.bands)]
        h = np.array([age, *(w.real for w in waves), *(w.imag for w in waves)])
        for index in range(mixer.filter_layers):
            layer = p[f"filter_{index}"]
            h = np.sin(p["frequency"] * (h @ layer["kernel"] + layer["bias"]))
        taps.append(h @ p["filter_out"]["kernel"] * np.exp(-rates * age))
    return taps


def loop(variables, mixer, x_btd, state, reset_bt):
    p = jax.tree.map(np.float64, variables["params"])
    taps, outputs = taps_of(p, mixer), np.zeros(x_btd.shape)
    short_after, long_after = np.array(state.short_bwe), np.array(state.long_bwd)
    for b in range(BATCH):
        inputs = list(np.float64(state.short_bwe[b]))
        gated = list(np.float64(state.long_bwd[b]))
        for t, x in enumerate(np.float64(x_btd[b])):
            if reset_bt[b, t]:
                inputs = [0 * frame for frame in inputs]
                gated = [0 * frame for frame in gated]
            inputs.append(x @ p["project"]["kernel"])
            conv = p["conv"]
            mixed = conv["bias"] + sum(
                conv["kernel"][j] * inputs[j - 3] for j in range(3)
            )
            g, k, v = np.split(mixed, 3)
            gated.append(k * v)
            z = p["skip"] * k * v + sum(
                h * gated[-1 - lag] for lag, h in enumerate(taps)
            )
            outputs[b, t] = (g * z) @ p["out"]["kernel"]
        short_after[b], long_after[b] = inputs[-2:], gated[len(gated) - len(taps) + 1 :]
    return outputs, HyenaState(long_after, short_after)


@pytest.mark.parametrize(
    "options", [{}, {"filter_length": 5, "bands": 2, "filter_layers": 1}]
)
def test_equals_a_float64_loop(options):
    """With a filter longer than the call, and with one that forgets within it."""
    mixer = Hyena(WIDTH, **options)
    variables = variables_of(mixer)
    apply = jax.jit(mixer.apply)
    reset = np.zeros((BATCH, LENGTH), bool)
    _, state = apply(variables, frames(1), None, reset)
    reset[0, [3, 8]] = True
    got = apply(variables, frames(2), state, reset)
    want = loop(variables, mixer, frames(2), jax.device_get(state), reset)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, 2e-5, 2e-5)


@pytest.mark.integration
@pytest.mark.parametrize(("length", "taps"), [(2, 6), (7, 7), (9, 4), (4, 1)])
def test_long_convolution_is_a_short_one_of_many_taps(length, taps):
    """Values and gradients, with and without a ring and resets."""
    rng = np.random.default_rng([length, taps])
    u_btd = rng.normal(size=(BATCH, length, 3)).astype(np.float32)
    k_ld = rng.normal(size=(taps, 3)).astype(np.float32)
    ring_bwd = rng.normal(size=(BATCH, taps - 1, 3)).astype(np.float32)
    reset_bt = rng.random((BATCH, length)) < 0.2
    reset_bt[0, length // 2] = True
    weight = rng.normal(size=u_btd.shape)

    def run(form, ring, reset):
        def loss(u_btd, k_ld, ring):
            y_btd, after = form(u_btd, k_ld, ring, reset)
            return (weight * y_btd).sum() + (after**2).sum(), (y_btd, after)

        grad = jax.grad(loss, (0, 1) if ring is None else (0, 1, 2), has_aux=True)
        return jax.jit(grad)(u_btd, k_ld, ring)

    def reference(u_btd, k_ld, ring, reset):
        return short_convolution_reference(u_btd, k_ld[::-1], None, ring, reset)

    for ring, reset in ((None, None), (ring_bwd, reset_bt)):
        got, want = (run(form, ring, reset) for form in (_long_convolution, reference))
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(x, y, 1e-5, 1e-5)


def test_a_frame_reaches_as_far_as_the_filters():
    """Short and long filter together: 2 + filter_length frames, never one more."""
    mixer = Hyena(WIDTH, filter_length=5)
    variables, x_btd = variables_of(mixer), frames(3)
    moved = np.array(x_btd)
    moved[:, 1] *= -2
    apply = jax.jit(mixer.apply)
    change = np.abs(apply(variables, moved)[0] - apply(variables, x_btd)[0])
    seen = np.flatnonzero(change.max((0, 2)) > 1e-6)
    np.testing.assert_array_equal(seen, np.arange(1, 1 + 5 + 2))


@pytest.mark.parametrize(
    "name", ["filter_length", "filter_width", "filter_layers", "bands"]
)
def test_bad_options(name):
    with pytest.raises(InputError, match=f"{name}=0 must be at least 1"):
        Hyena(WIDTH, **{name: 0}).init(jax.random.key(0), frames(0))
