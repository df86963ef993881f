"""Elementwise, dense and dense linear recurrences against float64 loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import check_slopes, relative_error, sigmoid, tree_error

from jaxbench.mixers.elman import additive, self_keeping, self_writing, weighted
from jaxbench.ops import dense_cell as dense
from jaxbench.ops import dense_linear as linear
from jaxbench.ops import elementwise_cell as elementwise

BATCH, WIDTH, RANK = 3, 6, 2


def loop(step, length, h, reset):
    """h_t = step(t, h_{t-1}) in float64, zero before a reset."""
    states, h = [], np.array(h, np.float64)
    for t in range(length):
        if reset is not None:
            h = np.where(reset[:, t, None], 0, h)
        h = step(t, h)
        states.append(h)
    return np.stack(states, 1), h


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def matrix(rng, *shape):
    """Not much longer than 1, so that rounding errors do not grow."""
    return normal(rng, *shape) / np.float32(shape[-2]) ** np.float32(0.5)


# Cases: arguments before the state, function of them in JAX by form, float64 loop)
def additive_case(rng, length):
    keep = sigmoid(normal(rng, BATCH, length, WIDTH))
    x = normal(rng, BATCH, length, WIDTH)

    def step(args, t, h):
        return args[0][:, t] * h + (1 - args[0][:, t]) * np.tanh(h + args[1][:, t])

    return (keep, x), lambda args: (additive, args, ()), step


def weighted_case(rng, length):
    (keep, x), _, _ = additive_case(rng, length)

    def step(args, t, h):
        candidate = np.tanh(args[2] * h + args[1][:, t])
        return args[0][:, t] * h + (1 - args[0][:, t]) * candidate

    return (keep, x, normal(rng, WIDTH)), lambda a: (weighted, a[:2], a[2]), step


def keeping_case(rng, length):
    gate, v = (normal(rng, BATCH, length, WIDTH) for _ in range(2))

    def step(args, t, h):
        keep = sigmoid(args[0][:, t] + args[2] * h)
        return keep * h + (1 - keep) * args[1][:, t]

    return (gate, v, normal(rng, WIDTH)), lambda a: (self_keeping, a[:2], a[2]), step


def writing_case(rng, length):
    (keep, v), _, _ = additive_case(rng, length)

    def step(args, t, h):
        gate = sigmoid(args[2] * h + args[3])
        return args[0][:, t] * h + (1 - args[0][:, t]) * args[1][:, t] * gate

    weights = normal(rng, WIDTH), normal(rng, WIDTH)
    return (keep, v, *weights), lambda a: (self_writing, a[:2], a[2:]), step


def tanh_case(rng, length):
    def step(args, t, h):
        return np.tanh(args[0][:, t] + h @ args[1])

    args = normal(rng, BATCH, length, WIDTH), matrix(rng, WIDTH, WIDTH)
    return args, lambda a: (a[0], (a[1],), None), step


def gated_case(rng, length):
    (x, kernel), _, _ = tanh_case(rng, length)

    def step(args, t, h):
        keep = args[2][:, t]
        return keep * h + (1 - keep) * np.tanh(args[0][:, t] + h @ args[1])

    keep = sigmoid(normal(rng, BATCH, length, WIDTH))
    return (x, kernel, keep), lambda a: (a[0], (a[1],), a[2]), step


def low_rank_case(rng, length):
    (x, _, keep), _, _ = gated_case(rng, length)

    def step(args, t, h):
        keep = args[3][:, t]
        candidate = np.tanh(args[0][:, t] + h @ args[1] @ args[2])
        return keep * h + (1 - keep) * candidate

    factors = matrix(rng, WIDTH, RANK), matrix(rng, RANK, WIDTH)
    return (x, *factors, keep), lambda a: (a[0], a[1:3], a[3]), step


def blocks_case(rng, length):
    heads = 3
    n = WIDTH // heads

    def step(args, t, h):
        rows = np.empty_like(h)
        for i in range(heads):
            part = slice(i * n, i * n + n)
            rows[:, part] = h[:, part] @ args[1][i]
        return np.tanh(args[0][:, t] + rows)

    args = normal(rng, BATCH, length, WIDTH), matrix(rng, heads, n, n)
    return args, lambda a: (a[0], (a[1],), None), step


def linear_case(rng, length):
    def step(args, t, h):
        return h @ args[1] + args[0][:, t]

    w = 0.9 * np.linalg.qr(normal(rng, WIDTH, WIDTH))[0]
    args = normal(rng, BATCH, length, WIDTH), w.astype(np.float32)
    return args, lambda a: a, step


ELEMENTWISE = {
    "additive": additive_case,
    "weighted": weighted_case,
    "keeping": keeping_case,
    "writing": writing_case,
}
DENSE = {
    "tanh": tanh_case,
    "gated": gated_case,
    "low rank": low_rank_case,
    "blocks": blocks_case,
}
CASES = ELEMENTWISE | DENSE | {"linear": linear_case}


def forms(name):
    """The forms of the operation a case is for, the plain one first."""
    if name in ELEMENTWISE:
        return {
            "reference": elementwise.elementwise_cell_reference,
            "scan": elementwise.elementwise_cell_scan,
            "newton": elementwise.elementwise_cell_newton,
            "chosen": elementwise.elementwise_cell,
        }
    if name in DENSE:
        return {
            "reference": dense.dense_cell_reference,
            "deferred": dense.dense_cell_deferred,
            "chosen": dense.dense_cell,
        }
    doubling = linear.dense_linear_doubling
    return {
        "reference": linear.dense_linear_reference,
        "scan": linear.dense_linear_scan,
        "doubling": doubling,
        "doubling by 8": functools.partial(doubling, chunk=8),
        "chosen": linear.dense_linear,
    }


STEPS = {
    **dict.fromkeys(ELEMENTWISE, elementwise.elementwise_cell_step),
    **dict.fromkeys(DENSE, dense.dense_cell_step),
    "linear": linear.dense_linear_step,
}
# Odd and even numbers of frames at each halving; a frame alone takes a step.
LENGTHS = {"chosen": [1], "doubling by 8": [3, 32, 65]}
PAIRS = [
    (name, form, length)
    for name in CASES
    for form in forms(name)
    for length in LENGTHS.get(form, [2, 33])
]


def sample(name, length, seed=0):
    """Arguments, state, resets, how to call the operation, and the loop."""
    rng = np.random.default_rng([seed, length])
    args, given, step = CASES[name](rng, length)
    state, reset = normal(rng, BATCH, WIDTH), rng.random((BATCH, length)) < 0.1

    def run(form, args, h, reset=None):
        return forms(name)[form](*given(args), h, reset)

    def exact(args, h, reset=None):
        return loop(functools.partial(step, args), length, h, reset)

    return args, state, reset, run, exact


@pytest.mark.parametrize(("name", "form", "length"), PAIRS)
def test_values(name, form, length):
    args, h, reset, run, exact = sample(name, length)
    doubles = [x.astype(np.float64) for x in args]
    jitted = jax.jit(functools.partial(run, form))
    assert tree_error(jitted(args, h, reset), exact(doubles, h, reset)) < 3e-6
    if length < 3:
        fresh = exact(doubles, np.zeros_like(h))
        assert tree_error(jitted(args, None), fresh) < 3e-6


@pytest.mark.parametrize("length", [1, 33])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, length):
    """Those of the plain scan, of every argument and of the state; and those it has."""
    args, h, reset, run, exact = sample(name, length, seed=1)
    reset[:, 0] = [True, False, False]
    rng = np.random.default_rng(2)
    doubles = [x.astype(np.float64) for x in (*args, h)]
    weights = [rng.normal(size=x.shape) for x in exact(doubles[:-1], h, reset)]

    def loss(run, args, h):
        return sum((w * x).sum() for w, x in zip(weights, run(args, h, reset)))  # noqa: B905

    def gradients(form):
        call = functools.partial(loss, functools.partial(run, form))
        return jax.tree.leaves(jax.jit(jax.grad(call, (0, 1)))(args, h))

    want = gradients("reference")
    for form in forms(name).keys() - {"reference"} if length > 1 else ["chosen"]:
        assert tree_error(gradients(form), want) < 1e-5, form
    check_slopes(want, doubles, lambda *x: loss(exact, x[:-1], x[-1]), rng)


@pytest.mark.parametrize("name", ["weighted", "low rank", "linear"])
def test_whole_is_chunks_is_steps(name):
    length = 41
    args, h, reset, run, _ = sample(name, length, seed=3)
    _, given, _ = CASES[name](np.random.default_rng([3, length]), length)
    over_time = [x.ndim == 3 and x.shape[1] == length for x in args]
    one = jax.jit(lambda args, h, reset: STEPS[name](*given(args), h, reset))
    for form in forms(name).keys() - {"chosen"}:
        jitted = jax.jit(functools.partial(run, form))
        whole, last = jitted(args, h, reset)
        state, parts = h, []
        for begin, stop in ((0, 1), (1, 21), (21, length)):
            cut = slice(begin, stop)
            part = [x[:, cut] if t else x for x, t in zip(args, over_time, strict=True)]
            y, state = jitted(part, state, reset[:, cut])
            parts.append(y)
        assert relative_error(np.concatenate(parts, 1), whole) < 3e-6
        assert relative_error(state, last) < 3e-6
    state = h
    for t in range(length):
        part = [x[:, t] if o else x for x, o in zip(args, over_time, strict=True)]
        y, state = one(part, state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 3e-6


@pytest.mark.integration
@pytest.mark.parametrize("name", [*DENSE, "linear"])
def test_half_precision_kernels_keep_a_float32_state(name):
    args, h, _, run, _ = sample(name, 33, seed=4)
    low = tuple(jnp.asarray(x, jnp.bfloat16) for x in args)

    def gradient(form):
        def loss(low):
            leaves = run(form, low, h)
            assert all(x.dtype == jnp.float32 for x in leaves)
            return (leaves[0] ** 2).mean() + leaves[1].mean()

        return jax.jit(jax.grad(loss))(low)

    want = gradient("reference")
    for form in forms(name):
        for x, y in zip(gradient(form), want, strict=True):
            assert x.dtype == jnp.bfloat16
            x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
            assert np.abs(x - y).max() < 0.05 * np.abs(y).max(), form


@pytest.mark.integration
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_newton_needs_few_sweeps(name):
    rng = np.random.default_rng(5)
    args, given, step = CASES[name](rng, 200)
    h, reset = normal(rng, BATCH, WIDTH), rng.random((BATCH, 200)) < 0.02
    found, sweeps, converged = elementwise.newton_sweeps(*given(args), h, reset)
    assert converged and 2 <= sweeps <= 10
    exact = loop(functools.partial(step, args), 200, h, reset)[0]
    assert relative_error(found, exact) < 3e-6


def test_newton_falls_back_to_the_scan_where_it_does_not_converge():
    """Weights of 30 make tanh a switch: slopes of 10, and a long way to the root."""
    (keep, x, _), _, _ = weighted_case(np.random.default_rng(6), 200)
    inputs, weight = (0.01 * keep, 0.1 * x), np.full(WIDTH, -30, np.float32)
    _, sweeps, converged = elementwise.newton_sweeps(weighted, inputs, weight)
    assert not converged and sweeps == elementwise.MOST_SWEEPS
    want = elementwise.elementwise_cell_reference(weighted, inputs, weight)
    got = elementwise.elementwise_cell_newton(weighted, inputs, weight)
    assert tree_error(got, want) < 1e-6


def test_newton_does_not_believe_what_is_not_a_number():
    inputs = tuple(np.full((1, 5, 2), x, np.float32) for x in (0.5, np.inf))
    _, _, converged = elementwise.newton_sweeps(self_keeping, inputs, np.ones(2))
    assert not converged


@pytest.mark.integration
@pytest.mark.parametrize("name", [*ELEMENTWISE, "gated"])
def test_less_is_kept_than_by_automatic_differentiation(name):
    rng, length = np.random.default_rng(7), 256
    args, given, _ = CASES[name](rng, length)
    args = [np.repeat(x, 16, 0) if x.ndim == 3 else x for x in args]

    def temporary(form):
        def loss(args):
            return (forms(name)[form](*given(tuple(args)))[0] ** 2).sum()

        step = jax.jit(jax.grad(loss)).lower(args).compile()
        return step.memory_analysis().temp_size_in_bytes

    best = "deferred" if name in DENSE else "scan"
    assert temporary(best) < temporary("reference")


@pytest.mark.parametrize("chunk", [2, 32, 100])
def test_doubling_is_stable_next_to_the_unit_circle(chunk):
    """|W| = 0.999 in every direction, 3000 frames: what is left of the first is 5 %."""
    rng, length = np.random.default_rng(8), 3000
    w = (0.999 * np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]).astype(np.float32)
    u, h = normal(rng, 1, length, WIDTH), 100 * normal(rng, 1, WIDTH)
    got = linear.dense_linear_doubling(u, w, h, chunk=chunk)
    exact = loop(lambda t, s: s @ w.astype(np.float64) + u[:, t], length, h, None)
    assert tree_error(got, exact) < 2e-5
    assert relative_error(got[0][:, -1], exact[0][:, -1]) < 2e-5


def test_unknown_forms_are_refused(monkeypatch):
    args, h, _, _, _ = sample("linear", 3)
    monkeypatch.setattr(linear, "choose", lambda *_, **__: "magic")
    monkeypatch.setattr(elementwise, "choose", lambda *_, **__: "magic")
    with pytest.raises(ValueError, match="magic"):
        linear.dense_linear(*args, h)
    with pytest.raises(ValueError, match="magic"):
        elementwise.elementwise_cell(additive, (args[0], args[0]), (), h)
