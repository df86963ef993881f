"""Elementwise, dense and dense linear recurrences against float64 loops."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracles import check_slopes, relative_error, sigmoid, tree_error

from jaxbench.mixers.elman import additive, self_keeping, self_writing, weighted
from jaxbench.ops import dense_cell as dense
from jaxbench.ops import dense_linear as linear
from jaxbench.ops import elementwise_cell as elementwise
from jaxbench.ops import frames as walk

BATCH, WIDTH, RANK, HEADS = 3, 6, 2, 3


def average(keep, h, v):
    return keep * h + (1 - keep) * v


# Cell, what comes with every frame, what does not change, and one frame in float64.
ELEMENTWISE = {
    "additive": (
        additive,
        ("keep", "x"),
        (),
        lambda h, a, x: average(a, h, np.tanh(h + x)),
    ),
    "weighted": (
        weighted,
        ("keep", "x"),
        ("w",),
        lambda h, a, x, w: average(a, h, np.tanh(w * h + x)),
    ),
    "keeping": (
        self_keeping,
        ("x", "v"),
        ("w",),
        lambda h, x, v, w: average(sigmoid(x + w * h), h, v),
    ),
    "writing": (
        self_writing,
        ("keep", "v"),
        ("w", "b"),
        lambda h, a, v, w, b: average(a, h, v * sigmoid(w * h + b)),
    ),
    "tanh diagonal": (
        elementwise._tanh_diagonal_cell,
        ("x", "v"),
        (),
        lambda h, a, b: np.tanh(a * h + b),
    ),
}
DENSE = {
    "tanh": (None, ("x",), ("matrix",), lambda h, x, m: np.tanh(x + h @ m)),
    "gated": (
        None,
        ("x", "keep"),
        ("matrix",),
        lambda h, x, a, m: average(a, h, np.tanh(x + h @ m)),
    ),
    "low rank": (
        None,
        ("x", "keep"),
        ("down", "up"),
        lambda h, x, a, d, u: average(a, h, np.tanh(x + h @ d @ u)),
    ),
    "blocks": (
        None,
        ("x",),
        ("blocks",),
        lambda h, x, m: np.tanh(x + h @ scipy.linalg.block_diag(*m)),
    ),
}
LINEAR = {"linear": (None, ("x",), ("orthogonal",), lambda h, x, w: h @ w + x)}
CASES = ELEMENTWISE | DENSE | LINEAR


def draw(rng, kind, length):
    """Matrices not much longer than 1, so that rounding errors do not grow."""
    if kind in ("x", "v", "keep"):
        x = rng.normal(size=(BATCH, length, WIDTH))
        return np.float32(sigmoid(x) if kind == "keep" else x)
    if kind == "orthogonal":
        return np.float32(0.9 * np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0])
    n = WIDTH // HEADS
    shape = {"matrix": (WIDTH, WIDTH), "down": (WIDTH, RANK), "up": (RANK, WIDTH)}
    shape = (shape | {"blocks": (HEADS, n, n)}).get(kind, (WIDTH,))
    scale = shape[-2] ** -0.5 if len(shape) > 1 else 1
    return np.float32(scale * rng.normal(size=shape))


def sample(name, length, seed=0):
    """What comes with every frame, what does not change, state and resets."""
    rng = np.random.default_rng([seed, length])
    _, over_time, fixed, _ = CASES[name]
    args = [tuple(draw(rng, x, length) for x in kinds) for kinds in (over_time, fixed)]
    h = np.float32(rng.normal(size=(BATCH, WIDTH)))
    return *args, h, rng.random((BATCH, length)) < 0.1


def forms(name):
    """`form(frames, fixed, h, reset)` for all forms of an operation."""
    if name in ELEMENTWISE:
        cell = CASES[name][0]
        names = ("reference", "scan", "newton", "step")
        made = {
            form: getattr(elementwise, f"elementwise_cell_{form}") for form in names
        }
        given = {
            form: lambda x, w, *rest, run=run: run(x, *rest, cell=cell, weights=w)
            for form, run in made.items()
        }
        chosen = functools.partial(elementwise.elementwise_cell, cell)
        return given | {"chosen": chosen}
    if name in DENSE:

        def frames(x):
            return dense.DenseFrames(x[0], x[1] if len(x) > 1 else None)

        names = ("reference", "deferred", "step")
        made = {form: getattr(dense, f"dense_cell_{form}") for form in names}
        given = {
            form: lambda x, k, *rest, run=run: run(frames(x), *rest, kernels=k)
            for form, run in made.items()
        }
        return given | {
            "chosen": lambda x, k, *rest: dense.dense_cell(x[0], k, frames(x)[1], *rest)
        }
    names = ("reference", "scan", "doubling", "step")
    made = {form: getattr(linear, f"dense_linear_{form}") for form in names}
    made["doubling by 8"] = functools.partial(made["doubling"], chunk=8)
    given = {
        form: lambda x, w, *rest, run=run: run(x[0], *rest, w_dd=w[0])
        for form, run in made.items()
    }
    return given | {
        "chosen": lambda x, w, *rest: linear.dense_linear(x[0], w[0], *rest)
    }


def loop(name, frames, fixed, h, reset):
    """The recurrence in float64, zero before a reset."""
    step, states, h = CASES[name][3], [], np.array(h, np.float64)
    for t in range(frames[0].shape[1]):
        if reset is not None:
            h = np.where(reset[:, t, None], 0, h)
        h = step(h, *(x[:, t] for x in frames), *fixed)
        states.append(h)
    return np.stack(states, 1), h


# Odd and even numbers of frames at each halving; a frame alone takes a step.
LENGTHS = {"chosen": [1], "doubling by 8": [3, 32, 65]}
PAIRS = [
    (name, form, length)
    for name in CASES
    for form in forms(name).keys() - {"step"}
    for length in LENGTHS.get(form, [2, 33])
]


@pytest.mark.parametrize(("name", "form", "length"), sorted(PAIRS))
def test_values(name, form, length):
    frames, fixed, h, reset = sample(name, length)
    doubles = jax.tree.map(np.float64, (frames, fixed))
    jitted = jax.jit(forms(name)[form])
    got = jitted(frames, fixed, h, reset)
    assert tree_error(got, loop(name, *doubles, h, reset)) < 3e-6
    if length < 3:
        fresh = loop(name, *doubles, np.zeros_like(h), None)
        assert tree_error(jitted(frames, fixed, None, None), fresh) < 3e-6


@pytest.mark.parametrize("length", [1, 33])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, length):
    """Those of the plain scan, of every argument and of the state; and those it has."""
    *args, reset = sample(name, length, seed=1)
    reset[:, 0] = [True, False, False]
    rng = np.random.default_rng(2)
    doubles = jax.tree.map(np.float64, args)
    weights = [rng.normal(size=x.shape) for x in loop(name, *doubles, reset)]

    def loss(run, *args):
        return sum((w * x).sum() for w, x in zip(weights, run(*args, reset)))  # noqa: B905

    def gradients(form):
        call = jax.grad(functools.partial(loss, forms(name)[form]), (0, 1, 2))
        return jax.tree.leaves(jax.jit(call)(*args))

    want = gradients("reference")
    others = forms(name).keys() - {"reference", "step"} if length > 1 else ["chosen"]
    for form in others:
        assert tree_error(gradients(form), want) < 1e-5, form
    leaves, tree = jax.tree.flatten(doubles)
    exact = functools.partial(loss, functools.partial(loop, name))
    check_slopes(want, leaves, lambda *x: exact(*tree.unflatten(x)), rng)


@pytest.mark.parametrize("name", ["weighted", "low rank", "linear"])
def test_whole_is_chunks_is_steps(name):
    length = 41
    frames, fixed, h, reset = sample(name, length, seed=3)
    for form in forms(name).keys() - {"chosen", "step"}:
        jitted = jax.jit(forms(name)[form])
        whole, last = jitted(frames, fixed, h, reset)
        state, parts = h, []
        for cut in (slice(0, 1), slice(1, 21), slice(21, length)):
            part = tuple(x[:, cut] for x in frames)
            y, state = jitted(part, fixed, state, reset[:, cut])
            parts.append(y)
        assert relative_error(np.concatenate(parts, 1), whole) < 3e-6
        assert relative_error(state, last) < 3e-6
    state, step = h, jax.jit(forms(name)["step"])
    for t in range(length):
        y, state = step(tuple(x[:, t] for x in frames), fixed, state, reset[:, t])
        assert relative_error(y, whole[:, t]) < 3e-6


@pytest.mark.integration
@pytest.mark.parametrize("name", DENSE | LINEAR)
def test_half_precision_kernels_keep_a_float32_state(name):
    frames, fixed, h, _ = sample(name, 33, seed=4)
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (frames, fixed))

    def gradient(form):
        def loss(low):
            leaves = forms(name)[form](*low, h, None)
            assert all(x.dtype == jnp.float32 for x in leaves)
            return (leaves[0] ** 2).mean() + leaves[1].mean()

        return jax.tree.leaves(jax.jit(jax.grad(loss))(low))

    want = gradient("reference")
    for form in forms(name).keys() - {"step"}:
        for x, y in zip(gradient(form), want, strict=True):
            assert x.dtype == jnp.bfloat16
            x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
            assert np.abs(x - y).max() < 0.05 * np.abs(y).max(), form


@pytest.mark.integration
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_newton_needs_few_sweeps(name):
    frames, fixed, h, reset = sample(name, 200, seed=5)
    reset &= np.random.default_rng(5).random(reset.shape) < 0.2
    cell = CASES[name][0]
    found, sweeps, converged = elementwise.newton_sweeps(cell, frames, fixed, h, reset)
    assert converged and 2 <= sweeps <= 10
    assert relative_error(found, loop(name, frames, fixed, h, reset)[0]) < 3e-6


def test_newton_falls_back_to_the_scan_where_it_does_not_converge():
    """Weights of 30 make tanh a switch: slopes of 10, and a long way to the root."""
    (keep, x), _, _, _ = sample("weighted", 200, seed=6)
    inputs, weights = (0.01 * keep, 0.1 * x), (np.full(WIDTH, -30, np.float32),)
    _, sweeps, converged = elementwise.newton_sweeps(weighted, inputs, weights)
    assert not converged and sweeps == elementwise.MOST_SWEEPS
    run = forms("weighted")
    args = inputs, weights, None, None
    assert tree_error(run["newton"](*args), run["reference"](*args)) < 1e-6


def test_newton_does_not_believe_what_is_not_a_number():
    inputs = tuple(np.full((1, 5, 2), x, np.float32) for x in (0.5, np.inf))
    _, _, converged = elementwise.newton_sweeps(self_keeping, inputs, (np.ones(2),))
    assert not converged


@pytest.mark.integration
@pytest.mark.parametrize("name", [*ELEMENTWISE, "gated"])
def test_less_is_kept_than_by_automatic_differentiation(name):
    frames, fixed, _, _ = sample(name, 256, seed=7)
    args = tuple(np.repeat(x, 16, 0) for x in frames), fixed

    def temporary(form):
        def loss(args):
            return (forms(name)[form](*args, None, None)[0] ** 2).sum()

        step = jax.jit(jax.grad(loss)).lower(args).compile()
        return step.memory_analysis().temp_size_in_bytes

    best = "deferred" if name in DENSE else "scan"
    assert temporary(best) < temporary("reference")


@pytest.mark.parametrize("chunk", [2, 32, 100])
def test_doubling_is_stable_next_to_the_unit_circle(chunk):
    """|W| = 0.999 in every direction, 3000 frames: what is left of the first is 5 %."""
    rng = np.random.default_rng(8)
    w = np.float32(0.999 * np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0])
    u, h = (
        np.float32(rng.normal(size=(1, 3000, WIDTH))),
        np.float32(100 * np.ones((1, WIDTH))),
    )
    got = linear.dense_linear_doubling(u, h, None, w_dd=w, chunk=chunk)
    exact = loop("linear", (u,), (w.astype(np.float64),), h, None)
    assert tree_error(got, exact) < 2e-5
    assert relative_error(got[0][:, -1], exact[0][:, -1]) < 2e-5


def test_unknown_forms_are_refused(monkeypatch):
    monkeypatch.setattr(walk, "choose", lambda *_, **__: "magic")
    for name in ("linear", "additive"):
        with pytest.raises(ValueError, match="magic"):
            forms(name)["chosen"](*sample(name, 3))
