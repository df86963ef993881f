"""Liquid networks against float64 loops, and LTC against its differential equation."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid
from scipy import integrate

from jaxbench.errors import InputError
from jaxbench.mixers.liquid import LTC, TABLEAUX, CfC

BATCH, LENGTH, WIDTH = 2, 10, 16


def frames(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)


@functools.cache
def made(mixer):
    return draw(mixer, frames(0)), jax.jit(mixer.apply)


def cfc_frame(p, h, x):
    drive = x @ p["project"]["kernel"] + p["project"]["bias"] + h @ p["recurrent"]
    heads = np.tanh(drive) @ p["heads"] + p["heads_bias"]
    g, k, s = (heads[..., i * WIDTH : (i + 1) * WIDTH] for i in range(3))
    return sigmoid(-s) * np.tanh(g) + sigmoid(s) * np.tanh(k)


def ltc_rates(p, h, x):
    """f and 1 / tau."""
    drive = x @ p["project"]["kernel"] + p["project"]["bias"] + h @ p["recurrent"]
    return sigmoid(drive), 1 / np.log1p(np.exp(p["ssm_tau"]))


def ltc_frame(p, h, x, unfolds=6):
    for _ in range(unfolds):
        f, leak = ltc_rates(p, h, x)
        h = (unfolds * h + f * p["target"]) / (unfolds + leak + f)
    return h


@pytest.mark.parametrize(
    ("mixer", "frame"),
    [(CfC(WIDTH, backbone_width=24), cfc_frame), (LTC(WIDTH), ltc_frame)],
    ids=["cfc", "ltc"],
)
def test_equals_a_float64_loop_from_a_used_state_with_resets(mixer, frame):
    variables, apply = made(mixer)
    params = jax.tree.map(np.float64, variables["params"])
    _, state = apply(variables, frames(1))
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 5], reset[1, 0] = True, True
    y, last = apply(variables, frames(2), state, reset)
    h, x = np.float64(state.h_bd), np.float64(frames(2))
    for t in range(LENGTH):
        h = frame(params, np.where(reset[:, t, None], 0, h), x[:, t])
        np.testing.assert_allclose(y[:, t], h, 1e-5, 1e-5)
    np.testing.assert_allclose(last.h_bd, h, 1e-5, 1e-5)


@pytest.mark.integration
def test_ltc_follows_its_differential_equation_at_first_order():
    x = frames(3)[:, :3]
    variables, _ = made(LTC(WIDTH))
    p = jax.tree.map(np.float64, variables["params"])

    def slope(h, x):
        f, leak = ltc_rates(p, h, x)
        return -(leak + f) * h + f * p["target"]

    h, n = np.zeros((BATCH, WIDTH)), 100
    for t in range(3):
        for _ in range(n):
            a = slope(h, x[:, t])
            b = slope(h + a / (2 * n), x[:, t])
            c = slope(h + b / (2 * n), x[:, t])
            d = slope(h + c / n, x[:, t])
            h = h + (a + 2 * b + 2 * c + d) / (6 * n)
    errors = {}
    for unfolds in (6, 12, 96):
        mixer = LTC(WIDTH, unfolds=unfolds)
        _, state = jax.jit(mixer.apply)(variables, x)
        errors[unfolds] = np.abs(state.h_bd - h).max()
    assert errors[6] < 0.05
    assert errors[6] / errors[12] == pytest.approx(2, rel=0.15)
    assert errors[6] / errors[96] == pytest.approx(16, rel=0.2)


@pytest.mark.parametrize(
    ("solver", "unfolds", "error"),
    [
        ("euler", 24, 0.02),
        ("midpoint", 12, 2e-3),
        ("rk4", 4, 2e-4),
        ("dopri5", 4, 3e-5),
    ],
)
def test_explicit_solvers_follow_scipy(solver, unfolds, error):
    x = frames(3)[:, :2]
    mixer = LTC(WIDTH, unfolds=unfolds, solver=solver)
    variables, _ = made(LTC(WIDTH))
    p = jax.tree.map(np.float64, variables["params"])
    h = np.zeros((BATCH, WIDTH))

    def slope(_, flat, x):
        state = flat.reshape(BATCH, WIDTH)
        f, leak = ltc_rates(p, state, x)
        return (f * p["target"] - (leak + f) * state).ravel()

    y, _ = jax.jit(mixer.apply)(variables, x)
    for t in range(2):
        solved = integrate.solve_ivp(
            slope, (0, 1), h.ravel(), "DOP853", rtol=1e-11, atol=1e-11, args=(x[:, t],)
        )
        h = solved.y[:, -1].reshape(BATCH, WIDTH)
        assert np.abs(y[:, t] - h).max() < error


def test_tableaux_have_the_order_they_are_known_for():
    """b sums to one, and steps of half the size err 2^order times less on h' = -h."""
    for solver, order in {"euler": 1, "midpoint": 2, "rk4": 4, "dopri5": 5}.items():
        rows, weights = TABLEAUX[solver]
        assert sum(weights) == pytest.approx(1, abs=1e-14)

        def error(steps, rows=rows, weights=weights):
            h = 1.0
            for _ in range(steps):
                slopes = []
                for row in rows:
                    moved = sum(a * k for a, k in zip(row, slopes, strict=True))
                    slopes.append(-(h + moved / steps))
                h += sum(b * k for b, k in zip(weights, slopes, strict=True)) / steps
            return abs(h - np.exp(-1))

        assert np.log2(error(8) / error(16)) == pytest.approx(order, abs=0.3)


def test_ltc_stays_between_its_start_and_its_targets_whatever_comes():
    variables, apply = made(LTC(WIDTH))
    target = np.abs(variables["params"]["target"])
    state = LTC(WIDTH).initial_state(BATCH)
    for scale in (1.0, 1e2, 1e6):
        y, state = apply(variables, np.float32(scale) * frames(4), state)
        assert (np.abs(y) <= target + 1e-6).all()


def test_ltc_time_constants_start_between_1_and_30_frames():
    variables = jax.jit(LTC(256).init)(jax.random.key(0), np.zeros((1, 1, 256)))
    tau = np.log1p(np.exp(variables["params"]["ssm_tau"]))
    assert 0.999 < tau.min() < 1.2 and 25 < tau.max() < 30.001


@pytest.mark.parametrize(
    ("mixer", "match"),
    [
        (LTC(WIDTH, unfolds=0), "unfolds=0 must be at least 1"),
        (LTC(WIDTH, solver="rk5"), "solver='rk5' is unknown; nearest: rk4"),
        (CfC(WIDTH, backbone_width=0), "backbone_width=0 must be at least 1"),
    ],
)
def test_bad_options_are_input_errors(mixer, match):
    with pytest.raises(InputError, match=match):
        mixer.init(jax.random.key(0), frames(0))
