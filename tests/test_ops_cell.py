"""P5: cell scans, LSTM and GRU against float64 loops and PyTorch."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import relative_error, sigmoid, tree_error
from primitive_laws import LAWS, Primitive, half

from jaxbench.ops import cell as ops

BATCH, WIDTH = 3, 4


def lstm(form):
    """A form of the laws: frames are gates, fixed is the recurrent kernel."""
    return lambda gates, r, state, reset: form(gates, state, reset, r_d4d=r)


def gru(form):
    """The same; fixed are the kernel and the bias inside r."""
    return lambda gates, fixed, h, reset: form(
        gates, h, reset, r_d3d=fixed[0], bias_n_d=fixed[1]
    )


def lstm_loop(gates, r, state, reset):
    h, c = state
    y = np.zeros((*gates.shape[:2], h.shape[1]))
    h, c = np.array(h, np.float64), np.array(c, np.float64)
    for i in range(gates.shape[0]):
        for t in range(gates.shape[1]):
            if reset[i, t]:
                h[i], c[i] = 0, 0
            gi, gf, gg, go = np.split(gates[i, t] + h[i] @ r, 4)
            c[i] = sigmoid(gf) * c[i] + sigmoid(gi) * np.tanh(gg)
            h[i] = sigmoid(go) * np.tanh(c[i])
            y[i, t] = h[i]
    return y, (h, c)


def gru_loop(gates, fixed, h, reset):
    r, bias = fixed
    y = np.zeros((*gates.shape[:2], h.shape[1]))
    h = np.array(h, np.float64)
    for i in range(gates.shape[0]):
        for t in range(gates.shape[1]):
            if reset[i, t]:
                h[i] = 0
            xr, xz, xn = np.split(gates[i, t], 3)
            ur, uz, un = np.split(h[i] @ r, 3)
            n = np.tanh(xn + sigmoid(xr + ur) * (un + bias))
            z = sigmoid(xz + uz)
            h[i] = n + z * (h[i] - n)
            y[i, t] = h[i]
    return y, h


def draw(name, rng, length):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    gates = {"lstm": 4, "gru": 3}[name] * WIDTH
    frames, r = normal(BATCH, length, gates), normal(WIDTH, gates)
    h = normal(BATCH, WIDTH)
    if name == "gru":
        return frames, (r, normal(WIDTH)), h
    return frames, r, (h, normal(BATCH, WIDTH))


CELLS = {
    "lstm": Primitive(
        forms={
            "reference": lstm(ops.lstm_reference),
            "deferred": lstm(ops.lstm_deferred),
            "chosen": lambda gates, r, state, reset: ops.lstm_scan(
                gates, r, *(state or (None, None)), reset
            ),
        },
        step=lstm(ops.lstm_step),
        loop=lstm_loop,
        draw=functools.partial(draw, "lstm"),
    ),
    "gru": Primitive(
        forms={
            "reference": gru(ops.gru_reference),
            "deferred": gru(ops.gru_deferred),
            "chosen": lambda gates, fixed, h, reset: ops.gru_scan(
                gates, *fixed, h, reset
            ),
        },
        step=gru(ops.gru_step),
        loop=gru_loop,
        draw=functools.partial(draw, "gru"),
    ),
}


@pytest.mark.parametrize("law", [*LAWS, "half"])
@pytest.mark.parametrize("name", CELLS)
def test_law(name, law):
    (LAWS | {"half": half})[law](CELLS[name])


@pytest.mark.parametrize("form", ["reference", "deferred"])
@pytest.mark.parametrize("name", CELLS)
def test_torch_agrees(name, form):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    _, fixed, start = draw(name, rng, 30)
    r, *inner = fixed if name == "gru" else (fixed,)
    gates = r.shape[1]
    w, b = rng.normal(size=(5, gates)), rng.normal(size=gates)
    x = rng.normal(size=(BATCH, 30, 5))
    # torch has a bias for each recurrent gate; here only the GRU's n has one.
    of_h = np.concatenate([np.zeros(gates - WIDTH * len(inner)), *inner])
    module = getattr(torch.nn, name.upper())(5, WIDTH, batch_first=True)
    given = {"weight_ih": w.T, "weight_hh": r.T, "bias_ih": b, "bias_hh": of_h}
    with torch.no_grad():
        for key, value in given.items():
            getattr(module, f"{key}_l0").copy_(torch.from_numpy(value))
    theirs = jax.tree.map(lambda s: torch.from_numpy(s)[None], start)
    want, last = module(torch.from_numpy(np.float32(x)), theirs)
    want.square().sum().backward()

    def loss(fixed):
        y, state = CELLS[name].forms[form](np.float32(x @ w + b), fixed, start, None)
        return (y**2).sum(), (y, state)

    grad, (y, state) = jax.jit(jax.grad(loss, has_aux=True))(fixed)
    last = jax.tree.map(lambda s: s[0].detach().numpy(), last)
    assert tree_error((y, state), (want.detach().numpy(), last)) < 2e-6
    of_kernel = grad[0] if name == "gru" else grad
    assert relative_error(of_kernel, module.weight_hh_l0.grad.numpy().T) < 1e-5


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
