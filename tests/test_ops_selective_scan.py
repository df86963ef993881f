"""The selective scan of Mamba-1: every form against a float64 loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error, tree_error

from jaxbench.ops import selective_scan as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]


def one_by_one(form, **given):
    """A form that takes its arrays in the order of `selective_scan`."""

    def run(u, dt, a, b, c, d, h=None, reset=None):
        return form(ops.Frames(u, dt, b, c), h, reset, a_en=a, d_e=d, **given)

    return run


FUSED = one_by_one(ops.selective_scan_fused, chunk=10)
FORMS = {
    "reference": one_by_one(ops.selective_scan_reference),
    "fused": FUSED,
    "associative": one_by_one(ops.selective_scan_associative),
    "chosen": ops.selective_scan,
}
BATCH, WIDTH, SIZE = 2, 3, 4


def loop(u, dt, a, b, c, d, h, reset):
    """Frame by frame, channel by channel, in float64."""
    y = np.zeros(u.shape)
    state = np.array(h, np.float64)
    for t in range(u.shape[1]):
        for i in range(u.shape[0]):
            if reset is not None and reset[i, t]:
                state[i] = 0
            for e in range(u.shape[2]):
                decay = np.exp(dt[i, t, e] * a[e])
                state[i, e] = decay * state[i, e] + dt[i, t, e] * b[i, t] * u[i, t, e]
                y[i, t, e] = c[i, t] @ state[i, e] + d[e] * u[i, t, e]
    return y, state


def sample(length, seed=0):
    rng = np.random.default_rng([seed, length])
    args = (
        rng.normal(size=(BATCH, length, WIDTH)),
        np.log1p(np.exp(rng.normal(size=(BATCH, length, WIDTH)) - 1)),
        -np.exp(rng.normal(size=(WIDTH, SIZE))),
        rng.normal(size=(BATCH, length, SIZE)),
        rng.normal(size=(BATCH, length, SIZE)),
        rng.normal(size=WIDTH),
        rng.normal(size=(BATCH, WIDTH, SIZE)),
    )
    reset = rng.random((BATCH, length)) < 0.1
    return [x.astype(np.float32) for x in args], reset


@pytest.mark.parametrize("form", FORMS)
def test_no_state_is_zero_and_no_resets_are_none(form):
    args, _ = sample(30)
    want = loop(*args[:6], np.zeros_like(args[6]), None)
    assert tree_error(jax.jit(FORMS[form])(*args[:6]), want) < 2e-6


@pytest.mark.parametrize("length", LENGTHS)
def test_values_and_gradients(length):
    args, reset = sample(length, seed=1)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(BATCH, length, WIDTH)), rng.normal(size=args[6].shape)

    def loss(run, *args):
        y, h = run(*args, reset)
        total = (weights[0] * y).sum() + (weights[1] * h).sum() + 0.1 * (y**2).sum()
        return total, (y, h)

    def run(form):
        of_form = functools.partial(loss, FORMS[form])
        return jax.jit(jax.grad(of_form, tuple(range(7)), has_aux=True))(*args)

    want, exact = run("reference")[0], loop(*args, reset)
    for form in FORMS:
        grads, result = run(form)
        assert tree_error(result, exact) < 2e-6
        assert tree_error(grads, want) < 1e-5
    check_slopes(want, args, lambda *x: loss(loop, *x)[0], rng)


@pytest.mark.parametrize("form", FORMS)
def test_extreme_steps(form):
    args, _ = sample(30, seed=3)
    run = jax.jit(FORMS[form])
    for dt in (0.0, 1e-6, 50.0):
        args[1] = np.full_like(args[1], dt)
        got = run(*args)
        want = loop(*(x.astype(np.float64) for x in args), None)
        assert tree_error(got, want) < 5e-6, dt
        if dt == 0:
            np.testing.assert_array_equal(got[1], args[6])


def test_whole_is_chunks_is_steps_over_a_long_run():
    args, reset = sample(1001, seed=4)
    u, dt, a, b, c, d, h = args
    reset[:, ::3] = False
    whole, last = jax.jit(ops.selective_scan)(*args, reset)
    want = loop(*args, reset)
    assert relative_error(whole, want[0]) < 5e-6
    state, parts = h, []
    for start, stop in ((0, 1), (1, 501), (501, 1001)):
        x = slice(start, stop)
        y, state = jax.jit(ops.selective_scan)(
            u[:, x], dt[:, x], a, b[:, x], c[:, x], d, state, reset[:, x]
        )
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 2e-6
    assert relative_error(state, last) < 2e-6
    step, state = jax.jit(one_by_one(ops.selective_scan_step)), h
    for t in range(1001):
        y, state = step(u[:, t], dt[:, t], a, b[:, t], c[:, t], d, state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 2e-6


def test_no_array_of_time_and_state_in_the_fused_form():
    args, _ = sample(100)

    def loss(*args):
        return FUSED(*args)[0].sum()

    text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*args).as_text()
    states = (f"{WIDTH}x{SIZE}", f"{SIZE}x{WIDTH}")
    sizes = {
        f"{t}x{state}" for t in (f"{BATCH}x100", f"100x{BATCH}") for state in states
    }
    assert not any(size in text for size in sizes)
    assert f"10x{BATCH}x{SIZE}x{WIDTH}" in text


def test_low_precision_input_keeps_a_float32_state():
    args, _ = sample(5)
    args = [jnp.asarray(x, jnp.bfloat16) for x in args[:6]]
    for form in FORMS.values():
        y, h = jax.eval_shape(form, *args)
        assert y.dtype == h.dtype == jnp.float32
