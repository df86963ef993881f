"""Elementwise, dense and dense linear recurrences against float64 loops."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from oracles import relative_error, sigmoid, tree_error
from primitive_laws import LAWS, Primitive, doubles, half

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


def drawn(name, rng, length):
    _, over_time, fixed, _ = CASES[name]
    frames, weights = (
        tuple(draw(rng, x, length) for x in kinds) for kinds in (over_time, fixed)
    )
    return frames, weights, np.float32(rng.normal(size=(BATCH, WIDTH)))


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
    states = []
    for t in range(frames[0].shape[1]):
        h = np.where(reset[:, t, None], 0, h)
        h = CASES[name][3](h, *(x[:, t] for x in frames), *fixed)
        states.append(h)
    return np.stack(states, 1), h


PRIMITIVES = {
    name: Primitive(
        forms={form: run for form, run in forms(name).items() if form != "step"},
        step=forms(name)["step"],
        loop=functools.partial(loop, name),
        draw=functools.partial(drawn, name),
    )
    for name in CASES
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", CASES)
def test_law(name, law):
    LAWS[law](PRIMITIVES[name])


@pytest.mark.integration
@pytest.mark.parametrize("name", DENSE | LINEAR)
def test_half_precision_kernels(name):
    half(PRIMITIVES[name])


@pytest.mark.parametrize("length", [2, 3, 32])
def test_doubling_halves_odd_and_even_numbers_of_frames(length):
    p = PRIMITIVES["linear"]
    *inputs, reset = p.sample(length, seed=0)
    got = jax.jit(p.forms["doubling by 8"])(*inputs, reset)
    assert tree_error(got, p.loop(*doubles(inputs), reset)) < 3e-6


@pytest.mark.integration
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_newton_needs_few_sweeps(name):
    frames, fixed, h, reset = PRIMITIVES[name].sample(200, seed=5)
    reset &= np.random.default_rng(5).random(reset.shape) < 0.2
    cell = CASES[name][0]
    found, sweeps, converged = elementwise.newton_sweeps(cell, frames, fixed, h, reset)
    assert converged and 2 <= sweeps <= 10
    assert relative_error(found, loop(name, frames, fixed, h, reset)[0]) < 3e-6


def test_newton_falls_back_to_the_scan_where_it_does_not_converge():
    """Weights of 30 make tanh a switch: slopes of 10, and a long way to the root."""
    (keep, x), _, _, _ = PRIMITIVES["weighted"].sample(200, seed=6)
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
    frames, fixed, _, _ = PRIMITIVES[name].sample(256, seed=7)
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
    exact = loop("linear", (u,), doubles((w,)), h, np.zeros((1, 3000), bool))
    assert tree_error(got, exact) < 2e-5
    assert relative_error(got[0][:, -1], exact[0][:, -1]) < 2e-5


def test_unknown_forms_are_refused(monkeypatch):
    monkeypatch.setattr(walk, "choose", lambda *_, **__: "magic")
    for name in ("linear", "additive"):
        with pytest.raises(ValueError, match="magic"):
            forms(name)["chosen"](*PRIMITIVES[name].sample(3, seed=0))
