"""P1: every form of the diagonal recurrence against a float64 loop."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from oracles import relative_error, tree_error
from primitive_laws import LAWS, Primitive

from jaxbench.ops import diagonal as ops

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


def draw(kind, rng, length, batch=3, features=(2, 3)):
    shape = (batch, length, *features)

    def normal(*s):
        x = rng.normal(size=s)
        return x + 1j * rng.normal(size=s) if kind == "complex" else x

    a = np.exp(-rng.exponential(size=shape))
    if kind == "complex":
        a = a * np.exp(1j * rng.uniform(-np.pi, np.pi, shape))
    dtype = np.complex64 if kind == "complex" else np.float32
    a, b, h = (x.astype(dtype) for x in (a, normal(*shape), normal(batch, *features)))
    return (a, b), (), h


def taking_frames(form):
    return lambda frames, _, h, reset: form(*frames, h, reset)


PRIMITIVES = {
    kind: Primitive(
        forms={name: taking_frames(form) for name, form in FORMS.items()},
        step=taking_frames(ops.diagonal_step),
        loop=taking_frames(loop),
        draw=functools.partial(draw, kind),
        near=2e-6,
    )
    for kind in ("real", "complex")
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", PRIMITIVES)
def test_law(kind, law):
    LAWS[law](PRIMITIVES[kind])


@pytest.mark.parametrize("form", FORMS)
def test_extreme_decays(form):
    (_, b), _, h = draw("real", np.random.default_rng(6), 100)

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


@pytest.mark.integration
def test_second_derivative_through_the_custom_gradient():
    rng = np.random.default_rng(9)
    (a, b), _, h = draw("real", rng, 9, batch=1, features=(2,))

    def loss(run, a):
        return (run(a, b, h)[0] ** 2).sum()

    def curvature(run):
        slope = jax.grad(functools.partial(loss, run))
        return jax.jit(jax.grad(lambda a: (slope(a) ** 2).sum()))(a)

    want = curvature(ops.diagonal_reference)
    for form in ("scan", "associative"):
        assert relative_error(curvature(FORMS[form]), want) < 1e-5


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        ops.diagonal(np.ones((2, 3, 4)), np.ones((2, 3, 5)))
