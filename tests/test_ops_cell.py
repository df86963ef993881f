"""P5: cell scans, LSTM and GRU against float64 loops and PyTorch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error, sigmoid, tree_error

from jaxbench.ops import cell as ops

LENGTHS = [1, 65, pytest.param(100, marks=pytest.mark.integration)]
BATCH, WIDTH = 3, 4


def lstm(form):
    """A form that takes its arrays in the order of `lstm_scan`."""

    def run(gates, r, h, c, reset=None):
        state = None if h is None else (h, c)
        return form(gates, state, reset, r_d4d=r)

    return run


def gru(form):
    return lambda gates, r, bias, h, reset=None: form(
        gates, h, reset, r_d3d=r, bias_n_d=bias
    )


CELLS = {
    "lstm": {
        "reference": lstm(ops.lstm_reference),
        "deferred": lstm(ops.lstm_deferred),
        "chosen": ops.lstm_scan,
    },
    "gru": {
        "reference": gru(ops.gru_reference),
        "deferred": gru(ops.gru_deferred),
        "chosen": ops.gru_scan,
    },
}
STEPS = {"lstm": lstm(ops.lstm_step), "gru": gru(ops.gru_step)}


def lstm_loop(gates, r, h, c, reset=None):
    y = np.zeros((*gates.shape[:2], h.shape[1]))
    h, c = np.array(h, np.float64), np.array(c, np.float64)
    for i in range(gates.shape[0]):
        for t in range(gates.shape[1]):
            if reset is not None and reset[i, t]:
                h[i], c[i] = 0, 0
            gi, gf, gg, go = np.split(gates[i, t] + h[i] @ r, 4)
            c[i] = sigmoid(gf) * c[i] + sigmoid(gi) * np.tanh(gg)
            h[i] = sigmoid(go) * np.tanh(c[i])
            y[i, t] = h[i]
    return y, (h, c)


def gru_loop(gates, r, bias, h, reset=None):
    y = np.zeros((*gates.shape[:2], h.shape[1]))
    h = np.array(h, np.float64)
    for i in range(gates.shape[0]):
        for t in range(gates.shape[1]):
            if reset is not None and reset[i, t]:
                h[i] = 0
            xr, xz, xn = np.split(gates[i, t], 3)
            ur, uz, un = np.split(h[i] @ r, 3)
            n = np.tanh(xn + sigmoid(xr + ur) * (un + bias))
            z = sigmoid(xz + uz)
            h[i] = n + z * (h[i] - n)
            y[i, t] = h[i]
    return y, h


LOOPS = {"lstm": lstm_loop, "gru": gru_loop}


def sample(name, length, seed=0):
    """The arguments before the resets, and the number of those that are state."""
    rng = np.random.default_rng([seed, length])
    count = {"lstm": 4, "gru": 3}[name]
    shapes = [(BATCH, length, count * WIDTH), (WIDTH, count * WIDTH)]
    shapes += {"lstm": [], "gru": [(WIDTH,)]}[name]
    shapes += [(BATCH, WIDTH)] * {"lstm": 2, "gru": 1}[name]
    reset = rng.random((BATCH, length)) < 0.08
    return [rng.normal(size=s).astype(np.float32) for s in shapes], reset


def fresh(name, args):
    """The same arguments from the initial state: as zeros, and as None."""
    states = {"lstm": 2, "gru": 1}[name]
    zeros = [*args[:-states], *map(np.zeros_like, args[-states:])]
    return zeros, [*args[:-states], *[None] * states]


@pytest.mark.parametrize("name", CELLS)
def test_no_state_is_the_initial_one(name):
    zeros, nones = fresh(name, sample(name, 9)[0])
    for form in ("reference", "deferred"):
        got = jax.jit(CELLS[name][form])(*nones)
        assert tree_error(got, LOOPS[name](*zeros)) < 2e-6


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients(name, length):
    args, reset = sample(name, length, seed=1)
    rng = np.random.default_rng(2)
    exact = LOOPS[name](*args, reset)
    weights = [rng.normal(size=x.shape) for x in jax.tree.leaves(exact)]

    def loss(run, *args):
        result = run(*args, reset)
        pairs = zip(weights, jax.tree.leaves(result), strict=True)
        return sum((w * x).sum() for w, x in pairs), result

    @jax.jit
    def both(*args):
        every = tuple(range(len(args)))
        return [
            jax.grad(functools.partial(loss, CELLS[name][form]), every, has_aux=True)(
                *args
            )
            for form in ("reference", "deferred")
        ]

    (want, plain), (got, deferred) = both(*args)
    assert tree_error(plain, exact) < 4e-6 and tree_error(deferred, exact) < 4e-6
    # Rounding grows along the frames of an untrained cell.
    assert tree_error(got, want) < (5e-6 if length <= 65 else 1e-4)
    if length <= 65:
        check_slopes(want, args, lambda *x: loss(LOOPS[name], *x)[0], rng)


@pytest.mark.parametrize("name", CELLS)
def test_whole_is_chunks_is_steps_over_a_long_run(name):
    args, reset = sample(name, 1001, seed=3)
    gates, *fixed = args[: {"lstm": 2, "gru": 3}[name]]
    start = tuple(args[len(fixed) + 1 :])
    run, one = jax.jit(CELLS[name]["chosen"]), jax.jit(STEPS[name])
    whole, last = run(*args, reset)
    state, parts = start, []
    for begin, stop in ((0, 1), (1, 501), (501, 1001)):
        cut = slice(begin, stop)
        y, state = run(gates[:, cut], *fixed, *state, reset[:, cut])
        state = state if name == "lstm" else (state,)
        parts.append(y)
    assert relative_error(np.concatenate(parts, 1), whole) < 2e-6
    assert tree_error(state, last) < 2e-6
    state = start
    for t in range(1001):
        y, state = one(gates[:, t], *fixed, *state, reset[:, t])
        state = state if name == "lstm" else (state,)
        assert relative_error(y, whole[:, t]) < 2e-6


def copy_to_torch(module, args, inputs):
    """Gives a one-layer torch module our recurrent kernel; returns x, x W + b."""
    import torch

    rng = np.random.default_rng(4)
    gates, r = args[0], args[1]
    x = rng.normal(size=(*gates.shape[:2], inputs)).astype(np.float32)
    w = rng.normal(size=(inputs, r.shape[1])).astype(np.float32)
    b = rng.normal(size=r.shape[1]).astype(np.float32)
    recurrent_bias = np.zeros_like(b)
    if len(args) == 4 and args[2].ndim == 1:
        recurrent_bias[-args[2].size :] = args[2]
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.from_numpy(w.T))
        module.weight_hh_l0.copy_(torch.from_numpy(r.T))
        module.bias_ih_l0.copy_(torch.from_numpy(b))
        module.bias_hh_l0.copy_(torch.from_numpy(recurrent_bias))
    return x, x @ w + b


@pytest.mark.parametrize("form", ["reference", "deferred"])
@pytest.mark.parametrize("name", CELLS)
def test_torch_agrees(name, form):
    torch = pytest.importorskip("torch")
    args, _ = sample(name, 30, seed=5)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[name]
    module = kind(5, WIDTH, batch_first=True)
    x, gates = copy_to_torch(module, args, 5)
    states = args[2:] if name == "lstm" else args[3:]
    theirs = tuple(torch.from_numpy(s)[None] for s in states)
    want, last = module(torch.from_numpy(x), theirs if name == "lstm" else theirs[0])
    want.square().sum().backward()

    def loss(r):
        y, state = CELLS[name][form](gates, r, *args[2:])
        return (y**2).sum(), (y, state)

    grad, (y, state) = jax.jit(jax.grad(loss, has_aux=True))(args[1])
    assert relative_error(y, want.detach().numpy()) < 2e-6
    for ours, other in zip(
        jax.tree.leaves(state), last if name == "lstm" else (last,), strict=True
    ):
        assert relative_error(ours, other[0].detach().numpy()) < 2e-6
    assert relative_error(grad, module.weight_hh_l0.grad.numpy().T) < 1e-5


@pytest.mark.integration
@pytest.mark.parametrize("name", CELLS)
def test_half_precision_kernels_keep_a_float32_state(name):
    args, _ = sample(name, 30, seed=6)
    _, nones = fresh(name, args)
    low = [jnp.asarray(x, jnp.bfloat16) if x is not None else None for x in nones]

    def gradient(form):
        def loss(gates, r):
            y, state = CELLS[name][form](gates, r, *low[2:])
            leaves = jax.tree.leaves((y, state))
            assert all(x.dtype == jnp.float32 for x in leaves)
            return (y**2).sum()

        return jax.jit(jax.grad(loss, (0, 1)))(*low[:2])

    want, got = gradient("reference"), gradient("deferred")
    for x, y in zip(got, want, strict=True):
        assert x.dtype == jnp.bfloat16
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        assert np.abs(x - y).max() < 0.03 * np.abs(y).max()


def counter(state, x):
    """A cell on a tree: a running sum and the number of frames since the start."""
    state = {"sum": state["sum"] + x["value"], "count": state["count"] + 1}
    return state, (state["sum"] * x["gain"], state["count"])


def counter_inputs(length, seed=7):
    rng = np.random.default_rng([seed, length])
    value = rng.normal(size=(BATCH, length, 2)).astype(np.float32)
    gain = rng.normal(size=(BATCH, length, 2)).astype(np.float32)
    reset = rng.random((BATCH, length)) < 0.1
    first = {"sum": np.full((BATCH, 2), 3.0, np.float32), "count": np.zeros(BATCH, int)}
    return {"value": value, "gain": gain}, reset, first


@pytest.mark.parametrize("length", [1, 65])
@pytest.mark.parametrize("options", [{}, {"block": 7}, {"block": 200}])
def test_cell_scan_restarts_from_the_initial_state(options, length):
    inputs, reset, first = counter_inputs(length)
    run = jax.jit(functools.partial(ops.cell_scan, counter, **options))
    (y, age), state = run(inputs, None, first, reset)
    total = np.full((BATCH, 2), 3.0)
    count = np.zeros(BATCH, int)
    for t in range(length):
        total[reset[:, t]], count[reset[:, t]] = 3, 0
        total, count = total + inputs["value"][:, t], count + 1
        assert relative_error(y[:, t], total * inputs["gain"][:, t]) < 2e-6
        np.testing.assert_array_equal(age[:, t], count)
    np.testing.assert_array_equal(state["count"], count)


@pytest.mark.integration
def test_cell_scan_in_blocks_has_the_same_gradient():
    inputs, reset, first = counter_inputs(65)

    def cell(state, x):
        state = {"sum": jnp.tanh(state["sum"] * x["gain"]) + x["value"]}
        return state, state["sum"]

    def gradient(**options):
        def loss(value, total):
            x = {"value": value, "gain": inputs["gain"]}
            start = {"sum": first["sum"]}
            y, s = ops.cell_scan(cell, x, {"sum": total}, start, reset, **options)
            return (y**2).sum() + s["sum"].sum()

        return jax.jit(jax.grad(loss, (0, 1)))(inputs["value"], 2 * first["sum"])

    want = gradient()
    assert tree_error(gradient(block=10), want) < 2e-6


def test_cell_scan_without_resets_continues_from_the_state():
    inputs, _, first = counter_inputs(12)
    early, late = (
        jax.tree.map(lambda x: x[:, cut], inputs)  # noqa: B023
        for cut in (slice(0, 5), slice(5, 12))
    )
    (y, _), last = ops.cell_scan(counter, inputs, None, first)
    _, state = ops.cell_scan(counter, early, None, first)
    (tail, _), end = ops.cell_scan(counter, late, state, first)
    assert relative_error(tail, y[:, 5:]) < 1e-6
    assert relative_error(end["sum"], last["sum"]) < 1e-6
