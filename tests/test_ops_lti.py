"""P2: S4D and S4 layers against dense float64 systems, and the HiPPO constants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracles import check_slopes, relative_error, tree_error

from jaxbench.ops import lti as ops
from jaxbench.ops.hippo import hippo_legs_matrix, hippo_legs_nplr

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
BATCH, WIDTH, SIZE = 2, 3, 4


def one_by_one(form, bundle):
    """A form that takes its parameters array by array, as the dispatcher does."""

    def run(u, *args):
        count = len(bundle._fields)
        start = (*args[count:], None, None)[:2]
        return form(u, *start, ssm=bundle(*args[:count]))

    return run


FFT = one_by_one(ops.diagonal_ssm_fft, ops.DiagonalSSM)
LAYERS = {
    "diagonal": (
        one_by_one(ops.diagonal_ssm_reference, ops.DiagonalSSM),
        one_by_one(ops.diagonal_ssm_convolution, ops.DiagonalSSM),
        ops.diagonal_ssm,
        one_by_one(ops.diagonal_ssm_step, ops.DiagonalSSM),
    ),
    "dplr": (
        one_by_one(ops.dplr_ssm_reference, ops.DplrSSM),
        one_by_one(ops.dplr_ssm_convolution, ops.DplrSSM),
        ops.dplr_ssm,
        one_by_one(ops.dplr_ssm_step, ops.DplrSSM),
    ),
}


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


def dense_loop(layer, u, log_dt, *rest, state, reset=None):
    """Runs the dense systems frame by frame in complex128."""
    *params, d = rest
    y, last = np.zeros(u.shape), np.zeros(state.shape, complex)
    for channel in range(u.shape[2]):
        own = [x[channel] for x in params]
        a_bar, b_bar, c = dense_system(layer, log_dt[channel], *own)
        for i in range(u.shape[0]):
            x = both_halves(state[i, channel].astype(complex))
            for t in range(u.shape[1]):
                if reset is not None and reset[i, t]:
                    x = np.zeros_like(x)
                x = a_bar @ x + b_bar * u[i, t, channel]
                y[i, t, channel] = (c @ x).real + d[channel] * u[i, t, channel]
            last[i, channel] = x[: x.size // 2]
    return y, last


def sample(layer, length, seed=0):
    rng = np.random.default_rng([seed, length])

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
    return (u, log_dt, *params, skip), state, rng.random((BATCH, length)) < 0.05


def check_values(layer, form, args, state, reset):
    start = np.zeros((BATCH, WIDTH, SIZE)) if state is None else state
    want = dense_loop(layer, *args, state=start, reset=reset)
    got = jax.jit(form)(*args, state, reset)
    assert relative_error(got[0], want[0]) < 1e-5
    assert relative_error(got[1], want[1]) < 1e-5


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("layer", LAYERS)
def test_values(layer, length):
    args, state, reset = sample(layer, length)
    reference, convolution, _, _ = LAYERS[layer]
    check_values(layer, reference, args, state, reset)
    check_values(layer, convolution, args, state, reset)
    check_values(layer, convolution, args, None, None)


@pytest.mark.integration
@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("layer", LAYERS)
def test_values_with_only_resets_or_only_a_state(layer, length):
    args, state, reset = sample(layer, length)
    chosen = LAYERS[layer][2]
    check_values(layer, chosen, args, None, reset)
    check_values(layer, chosen, args, state, None)


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("layer", LAYERS)
def test_gradients(layer, length):
    args, state, reset = sample(layer, length, seed=1)
    rng = np.random.default_rng(2)
    weight = rng.normal(size=args[0].shape)
    tail = rng.normal(size=state.shape) + 1j * rng.normal(size=state.shape)

    def loss(result, xp):
        y, last = result
        return xp.sum(weight * y) + xp.sum(xp.real(tail * last)) + 0.1 * xp.sum(y**2)

    def gradients(form, start, flags):
        inputs = args if start is None else (*args, start)

        def run(*x):
            return loss(form(*x[: len(args)], *x[len(args) :] or (None,), flags), jnp)

        return jax.jit(jax.grad(run, tuple(range(len(inputs)))))(*inputs)

    starts = [(state, reset)] if length == 1 else [(None, None), (state, reset)]
    for start, flags in starts:
        want = gradients(LAYERS[layer][0], start, flags)
        got = gradients(LAYERS[layer][1], start, flags)
        assert tree_error(got, want) < 2e-5

    def exact(*args):
        return loss(dense_loop(layer, *args[:-1], state=args[-1], reset=reset), np)

    check_slopes(want, (*args, state), exact, rng, tolerance=3e-5, step=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_whole_is_chunks_is_steps_over_a_long_run(layer):
    args, state, reset = sample(layer, 1001, seed=3)
    reset[:, ::2] = False
    u, *params = args
    _, _, run, one = LAYERS[layer]
    whole, last = jax.jit(run)(*args, state, reset)
    want = dense_loop(layer, *args, state=state, reset=reset)
    assert relative_error(whole, want[0]) < 1e-5
    assert relative_error(last, want[1]) < 1e-5
    carried, parts = state, []
    for start, stop in ((0, 1), (1, 501), (501, 1001)):
        cut = slice(start, stop)
        y, carried = jax.jit(run)(u[:, cut], *params, carried, reset[:, cut])
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-5
    step, carried = jax.jit(one), state
    for t in range(1001):
        y, carried = step(u[:, t], *params, carried, reset[:, t])
        assert relative_error(y, whole[:, t]) < 2e-5
    assert relative_error(carried, last) < 1e-5


@pytest.mark.integration
@pytest.mark.parametrize("length", [2, 65])
def test_fft_form_of_a_fresh_sequence(length):
    args, state, _ = sample("diagonal", length, seed=6)
    want = dense_loop("diagonal", *args, state=np.zeros_like(state))
    got = jax.jit(FFT)(*args)
    for x, y in zip(got, want, strict=True):
        assert relative_error(x, y) < 1e-5

    def gradients(form):
        def loss(*x):
            return (form(*x)[0] ** 2).sum()

        return jax.jit(jax.grad(loss, tuple(range(len(args)))))(*args)

    wanted = gradients(LAYERS["diagonal"][0])
    for x, y in zip(gradients(FFT), wanted, strict=True):
        assert relative_error(x, y) < 2e-5


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
    args, _, _ = sample("diagonal", 1, seed=5)
    _, log_dt, a, b, c, _ = args
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
    zero = np.zeros((1, 1, 1), complex)
    want, _ = dense_loop("diagonal", u, *args, state=zero)
    # The phase of frame l is known to l ulp(3), so the error grows with l.
    assert relative_error(got, want) < 1e-3


def test_whole_fresh_windows_never_build_the_states():
    """Who does not read the state does not pay for it."""
    args, _, _ = sample("diagonal", 30)

    def compiled(output):
        run = jax.jit(lambda *x: output(ops.diagonal_ssm(*x)))
        return run.lower(*args).compile().cost_analysis()["flops"]

    assert compiled(lambda r: r[0]) < compiled(lambda r: r)


@pytest.mark.parametrize("layer", LAYERS)
def test_state_of_another_layer_is_an_error(layer):
    args, state, _ = sample(layer, 5)
    with pytest.raises(ValueError, match="expected"):
        LAYERS[layer][2](*args, state[:, :1])
