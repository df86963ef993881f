"""Spiking neurons against float64 loops, in values and in the surrogate's gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid

from jaxbench.errors import InputError
from jaxbench.mixers.spiking import SNN, spike

BATCH, LENGTH, WIDTH = 2, 12, 16
VARIANTS = [("soft", 1), ("hard", 1), ("soft", 3), ("hard", 2)]


def frames(seed: int, length: int = LENGTH, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, width)).astype(np.float32)


@functools.cache
def made(rule: str = "soft", micro_steps: int = 1):
    """A mixer that fires much, its parameters, and its jitted call."""
    mixer = SNN(WIDTH, reset_rule=rule, micro_steps=micro_steps)
    return (
        mixer,
        draw(mixer, frames(0)),
        jax.jit(mixer.apply, static_argnames="mutable"),
    )


def loop(mixer, params, x, u, m, reset=None, dot=None):
    """Values in float64, and the derivative along `dot`, a direction for `params`.

    The derivative is forward mode by hand: a spike passes on the surrogate's slope,
    the reset term nothing.
    """
    p = jax.tree.map(np.float64, params)
    d = jax.tree.map(np.float64, dot or jax.tree.map(np.zeros_like, params))
    beta, read = sigmoid(p["ssm_decay"]), sigmoid(p["ssm_read_decay"])
    beta_dot = beta * (1 - beta) * d["ssm_decay"]
    read_dot = read * (1 - read) * d["ssm_read_decay"]
    u, m, x = np.float64(u), np.float64(m), np.float64(x)
    slope_at = lambda v: 0.3 / (1 + mixer.slope * np.abs(v)) ** 2  # noqa: E731
    u_dot, m_dot, y, y_dot, fired = 0 * u, 0 * m, 0 * x, 0 * x, []
    for t in range(x.shape[1]):
        if reset is not None:
            keep = 1.0 - reset[:, t, None]
            u, m, u_dot, m_dot = keep * u, keep * m, keep * u_dot, keep * m_dot
        current = x[:, t] @ p["project"]["kernel"] + p["project"]["bias"]
        current_dot = x[:, t] @ d["project"]["kernel"] + d["project"]["bias"]
        for _ in range(mixer.micro_steps):
            s, s_dot = 1.0 * (u > 1), slope_at(u - 1) * u_dot
            kept = u if mixer.reset_rule == "soft" else u * (1 - s)
            kept_dot = u_dot if mixer.reset_rule == "soft" else u_dot * (1 - s)
            u_dot = beta * kept_dot + beta_dot * kept + current_dot
            u_dot = u_dot + s_dot @ p["recurrent"] + s @ d["recurrent"]
            u = beta * kept + current + s @ p["recurrent"]
            u = u - s if mixer.reset_rule == "soft" else u
            s, s_dot = 1.0 * (u > 1), slope_at(u - 1) * u_dot
            m_dot = read * m_dot + read_dot * (m - s) + (1 - read) * s_dot
            m = read * m + (1 - read) * s
            fired.append(s)
        y[:, t] = m @ p["out"]["kernel"] + p["out"]["bias"]
        y_dot[:, t] = m_dot @ p["out"]["kernel"]
        y_dot[:, t] += m @ d["out"]["kernel"] + d["out"]["bias"]
    return y, (u, m), y_dot, np.mean(fired)


@pytest.mark.parametrize(("rule", "micro_steps"), VARIANTS)
def test_equals_a_float64_loop_from_a_used_state_with_resets(rule, micro_steps):
    mixer, variables, apply = made(rule, micro_steps)
    start = mixer.initial_state(BATCH)
    _, state = apply(variables, frames(1), start, np.zeros((BATCH, LENGTH), bool))
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 5], reset[1, 0] = True, True
    y, last = apply(variables, frames(2), state, reset)
    y_want, last_want, _, rate = loop(
        mixer, variables["params"], frames(2), *state, reset
    )
    assert 0.05 < rate < 0.6
    np.testing.assert_allclose(y, y_want, 1e-5, 1e-5)
    for got, want in zip(last, last_want, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-5)


@pytest.mark.integration
@pytest.mark.parametrize(("rule", "micro_steps"), VARIANTS[:3])
def test_gradient_is_the_surrogates(rule, micro_steps):
    mixer, variables, _ = made(rule, micro_steps)
    params, x = variables["params"], frames(3)
    rng = np.random.default_rng(4)
    weight = rng.normal(size=x.shape).astype(np.float32)
    dot = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.sum(weight * mixer.apply({"params": p}, x)[0]))(
            params
        )

    zero = np.zeros((BATCH, WIDTH))
    got = gradient(params)
    for name in params:
        along = jax.tree.map(np.zeros_like, dot) | {name: dot[name]}
        _, _, y_dot, _ = loop(mixer, params, x, zero, zero, dot=along)
        pairs = zip(jax.tree.leaves(got[name]), jax.tree.leaves(dot[name]), strict=True)
        total = sum(np.sum(np.float64(g) * v) for g, v in pairs)
        assert total == pytest.approx(np.sum(weight * y_dot), rel=1e-4, abs=1e-4), name


def test_a_spike_is_a_step_with_the_slope_of_a_fast_sigmoid():
    v = jnp.array([-2.0, -0.1, 0.0, 0.1, 2.0])
    assert spike(v, 10.0).tolist() == [0, 0, 0, 1, 1]
    slope = jax.grad(lambda v: spike(v, 10.0).sum())(v)
    np.testing.assert_allclose(slope, 0.3 / (1 + 10 * np.abs(v)) ** 2, rtol=1e-6)


def test_firing_rate_is_sown_and_is_that_of_the_loop():
    mixer, variables, apply = made()
    zero = np.zeros((BATCH, WIDTH))
    _, sown = apply(variables, frames(5), mutable=("metrics",))
    (rate,) = sown["metrics"]["firing_rate"]
    want = loop(mixer, variables["params"], frames(5), zero, zero)[3]
    assert rate.shape == () and float(rate) == pytest.approx(want, rel=1e-5)
    assert set(variables) == {"params"}


@pytest.mark.integration
@pytest.mark.parametrize("still", [False, True])
def test_some_neurons_fire_at_the_start_whether_frames_move_or_not(still):
    mixer, x = SNN(64), frames(6, 60, 64)
    x = np.broadcast_to(x[:, :1], x.shape) if still else x
    variables = jax.jit(mixer.init)(jax.random.key(0), x[:, :2])
    _, sown = jax.jit(functools.partial(mixer.apply, mutable=["metrics"]))(variables, x)
    assert 0.03 < float(sown["metrics"]["firing_rate"][0]) < 0.25


@pytest.mark.integration
def test_no_spike_differs_between_a_long_window_and_single_frames():
    mixer, variables, apply = made()
    x = frames(7, 3000)

    @jax.jit
    def steps(x_btd):
        def body(state, x_bd):
            y_btd, state = mixer.apply(variables, x_bd[:, None], state)
            return state, (y_btd[:, 0], state.u_bd)

        return jax.lax.scan(body, mixer.initial_state(BATCH), x_btd.swapaxes(0, 1))

    last_steps, (y_tbd, _) = steps(x)
    y_btd, last = apply(variables, x)
    # One spike more or less moves an output by about 1, for several frames.
    np.testing.assert_allclose(y_tbd.swapaxes(0, 1), y_btd, 0, 1e-5)
    np.testing.assert_allclose(last_steps.u_bd, last.u_bd, 0, 1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reset_rule": "sof"}, "'sof' is unknown; nearest: soft"),
        ({"micro_steps": 0}, "micro_steps=0"),
        ({"slope": 0.0}, r"slope=0\.0"),
    ],
)
def test_bad_options_are_input_errors(options, match):
    with pytest.raises(InputError, match=match):
        SNN(WIDTH, **options).init(jax.random.key(0), frames(0))
