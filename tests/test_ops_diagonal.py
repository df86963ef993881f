"""P1: every form of the diagonal recurrence against a float64 loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error, tree_error

from jaxbench.ops import diagonal as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
FORMS = {
    "reference": ops.diagonal_reference,
    "scan": ops.diagonal_scan,
    "associative": ops.diagonal_associative,
    "chosen": ops.diagonal,
}


def loop(a, b, h, reset):
    """The recurrence in float64 or complex128, one sequence and frame at a time."""
    out = np.empty(b.shape, np.result_type(a, b, np.float64))
    last = np.empty(h.shape, out.dtype)
    for i in range(b.shape[0]):
        state = h[i].astype(out.dtype)
        for t in range(b.shape[1]):
            if reset is not None and reset[i, t]:
                state = np.zeros_like(state)
            state = a[i, t] * state + b[i, t]
            out[i, t] = state
        last[i] = state
    return out, last


def sample(length, kind="real", seed=0, batch=3, features=(2, 3)):
    rng = np.random.default_rng([seed, length])
    shape = (batch, length, *features)

    def normal(*s):
        x = rng.normal(size=s)
        return x + 1j * rng.normal(size=s) if kind == "complex" else x

    a = np.exp(-rng.exponential(size=shape))
    if kind == "complex":
        a = a * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    reset = rng.random((batch, length)) < 0.1
    dtype = np.complex64 if kind == "complex" else np.float32
    values = [x.astype(dtype) for x in (a, normal(*shape), normal(batch, *features))]
    return (*values, reset)


@pytest.mark.parametrize("form", FORMS)
def test_no_state_is_zero_and_no_resets_are_none(form):
    a, b, h, _ = sample(65, "complex")
    got, want = jax.jit(FORMS[form])(a, b), loop(a, b, np.zeros_like(h), None)
    assert tree_error(got, want) < 2e-6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_are_those_of_the_loop(form, kind, length):
    a, b, h, reset = sample(length, kind, seed=1)
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=b.shape), rng.normal(size=h.shape)]
    if kind == "complex":
        weights = [w + 1j * rng.normal(size=w.shape) for w in weights]

    def loss(run, a, b, h, xp):
        y, last = run(a, b, h, reset)
        total = xp.sum(xp.real(weights[0] * y)) + xp.sum(xp.real(weights[1] * last))
        return total + 0.1 * xp.sum(xp.abs(y) ** 2), (y, last)

    run = functools.partial(loss, FORMS[form], xp=jnp)
    grads, result = jax.jit(jax.grad(run, (0, 1, 2), has_aux=True))(a, b, h)
    assert tree_error(result, loop(a, b, h, reset)) < 2e-6
    check_slopes(grads, (a, b, h), lambda *x: loss(loop, *x, np)[0], rng)


@pytest.mark.integration
def test_complex_is_the_real_pair():
    a, b, h, reset = sample(30, "complex", seed=5)

    def pairs(ar, ai, br, bi):
        """The same recurrence on (re, im), written without complex numbers."""

        def body(carry, xs):
            (hr, hi), (ar, ai, br, bi, reset) = carry, xs
            keep = 1.0 - reset[:, None, None]
            hr, hi = hr * keep, hi * keep
            hr, hi = ar * hr - ai * hi + br, ar * hi + ai * hr + bi
            return (hr, hi), (hr, hi)

        xs = [jnp.moveaxis(x, 1, 0) for x in (ar, ai, br, bi)]
        flags = jnp.asarray(reset.T, jnp.float32)
        _, (hr, hi) = jax.lax.scan(body, (h.real, h.imag), (*xs, flags))
        return jnp.sum(jnp.sin(hr) * jnp.cos(hi))

    def ours(ar, ai, br, bi):
        y, _ = ops.diagonal_scan(ar + 1j * ai, br + 1j * bi, h, reset)
        return jnp.sum(jnp.sin(y.real) * jnp.cos(y.imag))

    args = (a.real, a.imag, b.real, b.imag)
    got, want = (jax.jit(jax.grad(f, (0, 1, 2, 3)))(*args) for f in (ours, pairs))
    for x, y in zip(got, want, strict=True):
        assert relative_error(x, y) < 5e-6


@pytest.mark.parametrize("form", FORMS)
def test_extreme_decays(form):
    _, b, h, _ = sample(100, seed=6)

    def loss(*args):
        y, last = FORMS[form](*args)
        return y.sum(), (y, last)

    gradient = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    for decay in (0.0, 1.0, -1.0, 1e-30, 1 - 2**-24, 1.05):
        a = np.full_like(b, decay)
        grads, got = gradient(a, b, h)
        want = loop(a.astype(np.float64), b.astype(np.float64), h, None)
        assert tree_error(got, want) < 5e-6, decay
        assert all(np.isfinite(g).all() for g in grads), decay
        # The gradient of the sum in b_t is 1 + a + a^2 + ... up to the end.
        powers = np.cumsum(np.float64(np.float32(decay)) ** np.arange(100))[::-1]
        assert relative_error(grads[1][0, :, 0, 0], powers) < 5e-6, decay


def test_reset_forgets_everything():
    a, b, h, _ = sample(30, seed=7)
    reset = np.zeros((3, 30), bool)
    reset[:, 11] = True
    for form in FORMS.values():
        y, last = jax.jit(form)(a, b, h, reset)
        fresh, fresh_last = jax.jit(form)(a[:, 11:], b[:, 11:])
        assert relative_error(y[:, 11:], fresh) < 1e-6
        assert relative_error(last, fresh_last) < 1e-6
    grad = jax.grad(lambda h: ops.diagonal(a, b, h, reset)[0][:, 11:].sum())
    grad = jax.jit(grad)(h)
    np.testing.assert_array_equal(grad, np.zeros_like(h))


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_whole_is_chunks_is_steps_over_a_long_run(kind):
    a, b, h, reset = sample(1000, kind, seed=8, batch=2, features=(3,))
    whole, last = jax.jit(ops.diagonal)(a, b, h, reset)
    want = loop(a.astype(np.complex128), b.astype(np.complex128), h, reset)
    assert relative_error(whole, want[0]) < 2e-6
    state, parts = h, []
    for start, stop in ((0, 1), (1, 500), (500, 999), (999, 1000)):
        cut = slice(start, stop)
        y, state = jax.jit(ops.diagonal)(a[:, cut], b[:, cut], state, reset[:, cut])
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-6
    assert relative_error(state, last) < 1e-6
    step, state = jax.jit(ops.diagonal_step), h
    for t in range(1000):
        y, state = step(a[:, t], b[:, t], state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 1e-6


@pytest.mark.integration
def test_second_derivative_through_the_custom_gradient():
    a, b, h, _ = sample(9, seed=9, batch=1, features=(2,))

    def loss(run, a):
        return (run(a, b, h)[0] ** 2).sum()

    def curvature(run):
        slope = jax.grad(functools.partial(loss, run))
        return jax.jit(jax.grad(lambda a: (slope(a) ** 2).sum()))(a)

    want = curvature(ops.diagonal_reference)
    for form in ("scan", "associative"):
        assert relative_error(curvature(FORMS[form]), want) < 1e-5


def test_low_precision_input_keeps_a_float32_state():
    a, b, _, _ = sample(5)
    y, h = ops.diagonal(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))
    assert y.dtype == h.dtype == jnp.float32


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        ops.diagonal(np.ones((2, 3, 4)), np.ones((2, 3, 5)))
