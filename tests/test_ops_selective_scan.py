"""The selective scan of Mamba-1: every form against a float64 loop."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from oracles import tree_error
from primitive_laws import LAWS, Primitive, doubles

from jaxbench.ops import selective_scan as ops


def bundled(form, **given):
    """A form of the laws: frames u, dt, b and c; fixed a and d."""

    def run(frames, fixed, h, reset):
        a, d = fixed
        return form(ops.Frames(*frames), h, reset, a_en=a, d_e=d, **given)

    return run


def chosen(frames, fixed, h, reset):
    (u, dt, b, c), (a, d) = frames, fixed
    return ops.selective_scan(u, dt, a, b, c, d, h, reset)


FUSED = bundled(ops.selective_scan_fused, chunk=10)
FORMS = {
    "reference": bundled(ops.selective_scan_reference),
    "fused": FUSED,
    "associative": bundled(ops.selective_scan_associative),
    "chosen": chosen,
}
BATCH, WIDTH, SIZE = 2, 3, 4


def loop(frames, fixed, h, reset):
    """Frame by frame, channel by channel, in float64."""
    (u, dt, b, c), (a, d) = frames, fixed
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


def draw(rng, length):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    rows = (BATCH, length)
    dt = np.log1p(np.exp(normal(*rows, WIDTH) - 1))
    frames = normal(*rows, WIDTH), dt, normal(*rows, SIZE), normal(*rows, SIZE)
    return (
        frames,
        (-np.exp(normal(WIDTH, SIZE)), normal(WIDTH)),
        normal(BATCH, WIDTH, SIZE),
    )


@pytest.mark.parametrize("law", LAWS)
def test_law(law):
    step = bundled(ops.selective_scan_step)
    LAWS[law](Primitive(FORMS, step, loop, draw, near=5e-6))


@pytest.mark.parametrize("form", FORMS)
def test_extreme_steps(form):
    (u, drawn, b, c), fixed, h = draw(np.random.default_rng(3), 30)
    run = jax.jit(FORMS[form])
    for dt in (0.0, 1e-6, 50.0):
        frames = (u, np.full_like(drawn, dt), b, c)
        got = run(frames, fixed, h, None)
        want = loop(*doubles((frames, fixed, h)), None)
        assert tree_error(got, want) < 5e-6, dt
        if dt == 0:
            np.testing.assert_array_equal(got[1], h)


def test_no_array_of_time_and_state_in_the_fused_form():
    args = draw(np.random.default_rng(0), 100)

    def loss(*args):
        return FUSED(*args, None)[0].sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(*args).as_text()
    states = (f"{WIDTH}x{SIZE}", f"{SIZE}x{WIDTH}")
    sizes = {
        f"{t}x{state}" for t in (f"{BATCH}x100", f"100x{BATCH}") for state in states
    }
    assert not any(size in text for size in sizes)
    assert f"10x{BATCH}x{SIZE}x{WIDTH}" in text
