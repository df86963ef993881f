"""P2: S4D and S4 layers against dense float64 systems, and the HiPPO constants."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from oracles import relative_error
from primitive_laws import LAWS, Primitive, known

from jaxbench.ops import lti as ops
from jaxbench.ops.hippo import hippo_legs_matrix, hippo_legs_nplr

BATCH, WIDTH, SIZE = 2, 3, 4


def bundled(form, bundle):
    """A form of the laws: frames are inputs, fixed are the arrays of a system."""
    return lambda u, fixed, state, reset: form(u, state, reset, ssm=bundle(*fixed))


def both_halves(x):
    return np.concatenate([x, np.conj(x)], -1)


def dense_system(layer, log_dt, *params):
    """The discrete dense matrices of one channel, both conjugate halves."""
    dt = np.exp(np.float64(log_dt))
    params = [np.asarray(x, np.complex128) for x in params]
    if layer == "diagonal":
        a, b, c = (both_halves(x) for x in params)
        # exp of [[A, B], [0, 0]] dt holds the zero-order hold of both.
        block = np.zeros((a.size + 1, a.size + 1), complex)
        block[:-1, :-1], block[:-1, -1] = np.diag(a), b
        held = scipy.linalg.expm(block * dt)
        return held[:-1, :-1], held[:-1, -1], c
    poles, p, b, c = (both_halves(x) for x in params)
    a = np.diag(poles) - np.outer(p, p.conj())
    eye = np.eye(a.shape[0])
    left = eye - dt / 2 * a
    return np.linalg.solve(left, eye + dt / 2 * a), np.linalg.solve(left, dt * b), c


def dense_loop(layer, u, fixed, state, reset):
    """Runs the dense systems frame by frame in complex128."""
    log_dt, *params, d = fixed
    y, last = np.zeros(u.shape), np.zeros(state.shape, complex)
    for channel in range(u.shape[2]):
        own = [x[channel] for x in params]
        a_bar, b_bar, c = dense_system(layer, log_dt[channel], *own)
        for i in range(u.shape[0]):
            x = both_halves(state[i, channel].astype(complex))
            for t in range(u.shape[1]):
                if reset[i, t]:
                    x = np.zeros_like(x)
                x = a_bar @ x + b_bar * u[i, t, channel]
                y[i, t, channel] = (c @ x).real + d[channel] * u[i, t, channel]
            last[i, channel] = x[: x.size // 2]
    return y, last


def draw(layer, rng, length):
    def normal(*shape):
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    poles, p, b, _ = hippo_legs_nplr(2 * SIZE)
    jitter = 1 + 0.1 * rng.random((WIDTH, SIZE))
    params = [poles[None] * jitter]
    if layer == "dplr":
        params.append(p[None] * jitter)
    params += [b[None] * jitter, normal(WIDTH, SIZE) * 0.7]
    params = [x.astype(np.complex64) for x in params]
    log_dt = np.log(np.array([1e-3, 2e-2, 1e-1], np.float32))
    skip = rng.normal(size=WIDTH).astype(np.float32)
    u = rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)
    state = normal(BATCH, WIDTH, SIZE).astype(np.complex64)
    return u, (log_dt, *params, skip), state


def primitive(layer, bundle, forms):
    names = {form: getattr(ops, f"{layer}_ssm_{form}") for form in forms}
    made = {form: bundled(run, bundle) for form, run in names.items()}
    run = getattr(ops, f"{layer}_ssm")
    chosen = {"chosen": lambda u, fixed, state, reset: run(u, *fixed, state, reset)}
    return Primitive(
        forms=made | chosen,
        step=bundled(getattr(ops, f"{layer}_ssm_step"), bundle),
        loop=functools.partial(dense_loop, layer),
        draw=functools.partial(draw, layer),
        near=1e-5,
        close=2e-5,
        slope=3e-5,
        nudge=1e-5,
    )


LAYERS = {
    "diagonal": primitive(
        "diagonal", ops.DiagonalSSM, ("reference", "convolution", "fft")
    ),
    "dplr": primitive("dplr", ops.DplrSSM, ("reference", "convolution")),
}


@pytest.mark.parametrize("law", [*LAWS, "known"])
@pytest.mark.parametrize("layer", LAYERS)
def test_law(layer, law):
    (LAWS | {"known": known})[law](LAYERS[layer])


@pytest.mark.parametrize("size", [2, 8, 64])
def test_hippo_is_normal_plus_low_rank(size):
    a, b = hippo_legs_matrix(size)
    poles, p, b_rotated, v = hippo_legs_nplr(size)
    np.testing.assert_allclose(poles.real, -0.5, atol=1e-12)
    assert (poles.imag > 0).all()
    full = np.concatenate([v, v.conj()], 1)
    np.testing.assert_allclose(full.conj().T @ full, np.eye(size), atol=1e-10)
    low_rank = both_halves(p)
    rebuilt = np.diag(both_halves(poles)) - np.outer(low_rank, low_rank.conj())
    np.testing.assert_allclose(full @ rebuilt @ full.conj().T, a, atol=1e-9 * size**2)
    np.testing.assert_allclose((full @ both_halves(b_rotated)).imag, 0, atol=1e-10)
    np.testing.assert_allclose((full @ both_halves(b_rotated)).real, b, atol=1e-9)


def test_hippo_matrix_by_hand():
    a, b = hippo_legs_matrix(3)
    root = np.sqrt([1, 3, 5])
    want = [
        [-1, 0, 0],
        [-root[1] * root[0], -2, 0],
        [-root[2] * root[0], -root[2] * root[1], -3],
    ]
    np.testing.assert_allclose(a, want)
    np.testing.assert_allclose(b, root)
    np.testing.assert_allclose(np.linalg.eigvals(a).real.max(), -1)
    with pytest.raises(ValueError, match="even"):
        hippo_legs_nplr(3)


@pytest.mark.parametrize("dt", [1e-3, 1e-2, 1e-1])
def test_s4_kernel_is_that_of_the_dense_hippo_matrix(dt):
    size, length = 64, 100
    a, b = hippo_legs_matrix(size)
    left = np.eye(size) - dt / 2 * a
    a_bar = np.linalg.solve(left, np.eye(size) + dt / 2 * a)
    x = np.linalg.solve(left, dt * b)
    c = np.random.default_rng(0).normal(size=size)
    want = np.empty(length)
    for t in range(length):
        want[t] = c @ x
        x = a_bar @ x
    poles, p, b_half, v = hippo_legs_nplr(size)
    halves = [x.astype(np.complex64)[None] for x in (poles, p, b_half, c @ v)]
    log_dt = np.log(np.array([dt], np.float32))
    impulse = (np.arange(length) == 0).astype(np.float32)[None, :, None]
    skip = np.zeros(1, np.float32)
    got = ops.dplr_ssm(impulse, log_dt, *halves, skip)[0][0, :, 0]
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("length", [1, 64, 100, 300])
def test_s4d_kernel_is_that_of_the_matrix_exponential(length):
    _, (log_dt, a, b, c, _), _ = draw("diagonal", np.random.default_rng(5), 1)
    got = ops.diagonal_ssm_kernel(log_dt, a, b, c, length)
    for channel in range(WIDTH):
        own = (a[channel], b[channel], c[channel])
        a_bar, x, row = dense_system("diagonal", log_dt[channel], *own)
        want = np.empty(length)
        for t in range(length):
            want[t] = (row @ x).real
            x = a_bar @ x
        assert relative_error(got[:, channel], want) < 1e-5


def test_discretisation_is_stable_for_tiny_steps():
    a = np.array([[-0.5 + 1j]], np.complex64)
    log_dt = np.array([-18.0], np.float32)
    one = np.ones_like(a)
    a_bar, b_bar = ops.diagonal_ssm_discretize(log_dt, a, one)
    assert relative_error(b_bar * 1e8, [[np.exp(-18.0) * 1e8]]) < 1e-6
    assert abs(complex(a_bar[0, 0])) < 1 + 1e-7


def test_poles_at_the_edge_stay_bounded():
    """Re(A) = -1e-4 and dt = 1: 1000 frames of a unit input stay finite."""
    a = np.array([[-1e-4 + 3j]], np.complex64)
    one = np.ones_like(a)
    args = (np.zeros(1, np.float32), a, one, one, np.zeros(1, np.float32))
    u = np.ones((1, 1000, 1), np.float32)
    got, _ = ops.diagonal_ssm(u, *args)
    zero, never = np.zeros((1, 1, 1), complex), np.zeros((1, 1000), bool)
    want, _ = dense_loop("diagonal", u, args, zero, never)
    # The phase of frame l is known to l ulp(3), so the error grows with l.
    assert relative_error(got, want) < 1e-3


def test_whole_fresh_windows_never_build_the_states():
    """Who does not read the state does not pay for it."""
    u, fixed, _ = draw("diagonal", np.random.default_rng(0), 30)

    def compiled(output):
        run = jax.jit(lambda u, fixed: output(ops.diagonal_ssm(u, *fixed)))
        return run.lower(u, fixed).compile().cost_analysis()["flops"]

    assert compiled(lambda r: r[0]) < compiled(lambda r: r)


@pytest.mark.parametrize("layer", LAYERS)
def test_state_of_another_layer_is_an_error(layer):
    u, fixed, state = draw(layer, np.random.default_rng(0), 5)
    with pytest.raises(ValueError, match="expected"):
        LAYERS[layer].forms["chosen"](u, fixed, state[:, :1], None)
