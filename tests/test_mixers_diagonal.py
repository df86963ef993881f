"""Mixers on the diagonal recurrence, against float64 loops written from the papers."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw, draw_state, float64
from oracles import gelu, sigmoid, silu, softplus
from scipy.linalg import expm

from jaxbench.errors import InputError
from jaxbench.mixers.gated_ssm import GatedSSM
from jaxbench.mixers.hawk import Hawk
from jaxbench.mixers.lru import LRU
from jaxbench.mixers.minimal import MinGRU, MinLSTM
from jaxbench.mixers.s5 import S5
from jaxbench.ops.hippo import hippo_legs_matrix, hippo_legs_nplr

WIDTH, BATCH, LENGTH = 16, 2, 9


def frames(seed: int, length: int = LENGTH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, length, WIDTH)).astype(np.float32)


def initial(mixer):
    x_btd = np.zeros((1, 1, mixer.width), np.float32)
    return jax.device_get(jax.jit(mixer.init)(jax.random.key(0), x_btd))


def drawn(mixer):
    return draw(mixer, frames(0))


def random_state(mixer):
    return draw_state(mixer, BATCH)


def run(mixer, variables, x_btd, state=None, reset_bt=None):
    return jax.device_get(jax.jit(mixer.apply)(variables, x_btd, state, reset_bt))


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def taps(p, past, x):
    """One frame of the short convolution: its value and the inputs it then holds."""
    past = np.concatenate([past, x[None]])
    return p["bias"] + sum(k * v for k, v in zip(p["kernel"], past, strict=True)), past


def hawk_frame(p, state, x):
    h, past, started = state
    z, u = np.split(dense(p["project"], x), 2)
    u, past = taps(p["conv"], past, u)

    def blocks(name):
        parts = np.split(u, len(p[f"{name}_kernel"]))
        product = [v @ k for v, k in zip(parts, p[f"{name}_kernel"], strict=True)]
        return sigmoid(np.concatenate(product) + p[f"ssm_{name}_bias"])

    a = np.exp(-softplus(p["ssm_lambda"])) ** (8 * blocks("r"))
    room = np.sqrt(1 - a**2) if started else 1.0
    h = a * h + room * blocks("i") * u
    return dense(p["out"], gelu(z) * h), (h, past[1:], True)


def gated_ssm_frame(p, state, x):
    h, past = state
    x, z = np.split(dense(p["project"], x), 2)
    x, past = taps(p["conv"], past, x)
    x = silu(x)
    rank = len(p["gate_kernel"])
    selected = dense(p["select"], x)
    b, c = np.split(selected[rank:], 2)
    step = softplus(selected[:rank] @ p["gate_kernel"] + p["ssm_gate_bias"])
    gate = sigmoid(step.mean())
    u = gate * sigmoid(b @ c) * x
    a = sigmoid(p["ssm_decay_logit"])
    h = a * h + (1 - a) * u
    return dense(p["out"], (u + (1 - gate) * h) * silu(z)), (h, past[1:])


def positive(v):
    return np.where(v >= 0, v + 0.5, sigmoid(v))


def min_gru_frame(p, state, x):
    z, v = np.split(dense(p["project"], x), 2)
    z = sigmoid(z + p["ssm_z_bias"])
    h = (1 - z) * state[0] + z * positive(v + p["bias_h"])
    return dense(p["out"], h), (h,)


def min_lstm_frame(p, state, x):
    f, i, v = np.split(dense(p["project"], x), 3)
    f, i = sigmoid(f + p["ssm_f_bias"]), sigmoid(i + p["ssm_i_bias"])
    h = f / (f + i) * state[0] + i / (f + i) * positive(v + p["bias_h"])
    return dense(p["out"], h), (h,)


def lru_frame(p, state, x):
    a = np.exp(-np.exp(p["ssm_nu"]) + 1j * np.exp(p["ssm_theta"]))
    b = (p["ssm_b_re"] + 1j * p["ssm_b_im"]) * np.exp(p["ssm_gamma"])
    h = a * state[0] + x @ b
    y = gelu((h @ (p["c_re"] + 1j * p["c_im"])).real + p["ssm_d"] * x)
    return dense(p["out"], y) * sigmoid(dense(p["gate"], y)), (h,)


def s5_frame(p, state, x, second=False):
    poles = -np.exp(p["ssm_log_decay"]) + 1j * p["ssm_frequency"]
    a = np.exp(np.exp(p["ssm_log_dt"]) * poles)
    b = (p["ssm_b_re"] + 1j * p["ssm_b_im"]) * (a - 1) / poles
    h = a * state[0] + x @ b
    y = 2 * (h @ (p["c_re"] + 1j * p["c_im"])).real + p["ssm_d"] * x
    gate = sigmoid(dense(p["gate"], gelu(y)))
    return (y if second else gelu(y)) * gate, (h,)


MIXERS = {
    "hawk": (Hawk(WIDTH), hawk_frame),
    "hawk_wide": (Hawk(WIDTH, expansion=4 / 3, heads=2), hawk_frame),
    "gated_ssm": (GatedSSM(WIDTH, rank=3), gated_ssm_frame),
    "min_gru": (MinGRU(WIDTH), min_gru_frame),
    "min_lstm": (MinLSTM(WIDTH), min_lstm_frame),
    "lru": (LRU(WIDTH, state_size=24), lru_frame),
    "s5": (S5(WIDTH, state_size=24, blocks=3), s5_frame),
    "s5_half_glu2": (
        S5(WIDTH, state_size=24, blocks=3, activation="half_glu2"),
        functools.partial(s5_frame, second=True),
    ),
}


@pytest.mark.parametrize("name", MIXERS)
def test_equations(name):
    mixer, frame = MIXERS[name]
    variables, x_btd = drawn(mixer), frames(1)
    state = random_state(mixer)
    reset_bt = np.zeros((BATCH, LENGTH), bool)
    reset_bt[0, 4] = reset_bt[1, 2] = reset_bt[1, 3] = True
    actual, last = run(mixer, variables, x_btd, state, reset_bt)
    params = float64(variables["params"])
    zero = jax.device_get(mixer.initial_state(1))
    for row in range(BATCH):
        carried = [leaf[row] for leaf in state]
        for t in range(LENGTH):
            if reset_bt[row, t]:
                carried = [leaf[0] for leaf in zero]
            y_d, carried = frame(params, carried, x_btd[row, t].astype(np.float64))
            np.testing.assert_allclose(actual[row, t], y_d, 2e-5, 2e-5)
        for leaf, expected in zip(last, carried, strict=True):
            np.testing.assert_allclose(leaf[row], expected, 2e-5, 2e-5)


def grown(variables, **values):
    """Variables with some parameters filled with a value."""
    params = {
        name: np.full_like(leaf, values[name]) if name in values else leaf
        for name, leaf in variables["params"].items()
    }
    return {"params": params}


def test_hawk_knows_that_nothing_came_before():
    mixer = Hawk(WIDTH)
    variables, x_btd = drawn(mixer), frames(2)
    first_bt = np.zeros((BATCH, LENGTH), bool)
    first_bt[:, 0] = True
    expected, last = run(mixer, variables, x_btd, random_state(mixer), first_bt)
    for state in (None, mixer.initial_state(BATCH)):
        actual, other = run(mixer, variables, x_btd, state)
        np.testing.assert_allclose(actual, expected, 1e-6, 1e-6)
        assert other.started_b.all()
        np.testing.assert_allclose(other.h_be, last.h_be, 1e-6, 1e-6)
    # Zeros that did come before are another matter: the square root is back.
    started = mixer.initial_state(BATCH)._replace(started_b=np.ones(BATCH, bool))
    assert np.abs(run(mixer, variables, x_btd, started)[0] - expected).max() > 1e-2


def test_hawk_keeps_its_state_and_finite_gradients_where_gates_are_shut():
    mixer = Hawk(WIDTH)
    variables = grown(drawn(mixer), ssm_r_bias=-200.0)
    state = random_state(mixer)._replace(started_b=np.ones(BATCH, bool))

    @jax.jit
    @jax.grad
    def gradient(variables):
        return jnp.sum(mixer.apply(variables, frames(3), state)[0])

    last = run(mixer, variables, frames(3), state)[1]
    np.testing.assert_array_equal(last.h_be, state.h_be)
    for leaf in jax.tree.leaves(gradient(variables)):
        assert np.isfinite(leaf).all()


def test_hawk_slope_is_exact_until_its_bound():
    mixer = Hawk(WIDTH)
    variables, state = drawn(mixer), random_state(mixer)
    weight = np.random.default_rng(3).normal(size=(BATCH, LENGTH, WIDTH))

    @jax.jit
    def loss(shift):
        params = dict(variables["params"])
        params["ssm_lambda"] = params["ssm_lambda"] + shift
        y_btd, _ = mixer.apply({"params": params}, frames(4), state)
        return jnp.sum(y_btd * weight.astype(np.float32))

    def exact(shift):
        params = float64(variables["params"])
        params["ssm_lambda"] += shift
        total = 0.0
        for row in range(BATCH):
            carried = [leaf[row] for leaf in state]
            for t in range(LENGTH):
                y_d, carried = hawk_frame(params, carried, float64(frames(4)[row, t]))
                total += (y_d * weight[row, t]).sum()
        return total

    expected = (exact(1e-5) - exact(-1e-5)) / 2e-5
    assert jax.grad(loss)(0.0) == pytest.approx(expected, rel=1e-4)


def test_hawk_decays_start_where_the_code_has_them():
    variables = initial(Hawk(256))
    square = np.exp(-softplus(np.float64(variables["params"]["ssm_lambda"]))) ** 2
    assert 0.81 <= square.min() < 0.82 and 0.987 < square.max() <= 0.9981
    assert square.mean() == pytest.approx((0.81 + 0.998) / 2, abs=0.02)


def test_gated_ssm_sees_past_its_convolution():
    mixer, length = GatedSSM(WIDTH), 12
    variables, x_btd = drawn(mixer), frames(6, length)
    changed = x_btd.copy()
    changed[:, 0] += 3
    before, after = (run(mixer, variables, x)[0] for x in (x_btd, changed))
    assert (np.abs(before - after).max(axis=(0, 2)) > 1e-4).all()


def test_gated_ssm_decays_start_spread():
    variables = initial(GatedSSM(128))
    decay = sigmoid(np.float64(variables["params"]["ssm_decay_logit"]))
    assert 0.8 <= decay.min() < 0.81 and 0.98 < decay.max() <= 0.9901


def test_min_gru_state_is_between_the_old_one_and_the_candidate():
    mixer = MinGRU(WIDTH)
    variables, state = drawn(mixer), random_state(mixer)
    kept = run(mixer, grown(variables, ssm_z_bias=-200.0), frames(7), state)[1]
    np.testing.assert_array_equal(kept.h_be, state.h_be)
    taken = run(mixer, grown(variables, ssm_z_bias=200.0), frames(7), state)[1]
    params = float64(variables["params"])
    v_be = np.split(frames(7)[:, -1] @ params["project"]["kernel"], 2, axis=1)[1]
    np.testing.assert_allclose(
        taken.h_be, positive(v_be + params["bias_h"]), 1e-5, 1e-5
    )


def test_min_lstm_shares_are_defined_where_both_gates_are_shut():
    """f / (f + i) would be 0 / 0."""
    mixer = MinLSTM(WIDTH)
    variables, x_btd = drawn(mixer), frames(8, 1)
    variables["params"]["project"]["kernel"][:, : 4 * WIDTH] = 0
    shut = grown(variables, ssm_f_bias=-200.0, ssm_i_bias=-200.0)
    state = random_state(mixer)
    last = run(mixer, shut, x_btd, state)[1]
    v_be = x_btd[:, 0] @ shut["params"]["project"]["kernel"][:, 4 * WIDTH :]
    half = (state.h_be + positive(v_be + shut["params"]["bias_h"])) / 2
    np.testing.assert_allclose(last.h_be, half, 1e-5, 1e-5)
    gradient_of = jax.jit(jax.grad(lambda v: mixer.apply(v, x_btd, state)[0].sum()))
    gradient = gradient_of(shut)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_lru_starts_in_its_ring_and_keeps_the_size_of_its_input():
    mixer = LRU(WIDTH, state_size=4096, radius_min=0.5, radius_max=0.9)
    variables = initial(mixer)
    params = float64(variables["params"])
    square = np.exp(-2 * np.exp(params["ssm_nu"]))
    assert 0.25 <= square.min() < 0.251 and 0.809 < square.max() < 0.8101
    assert square.mean() == pytest.approx((0.25 + 0.81) / 2, abs=0.01)
    phase = np.exp(params["ssm_theta"])
    assert 0 < phase.min() < 0.01 and 6.27 < phase.max() <= 2 * math.pi + 1e-5
    np.testing.assert_allclose(np.exp(2 * params["ssm_gamma"]), 1 - square, 1e-5)
    last = run(mixer, variables, frames(9, 60))[1]
    assert np.mean(np.abs(last.h_bn) ** 2) == pytest.approx(1, abs=0.15)


def test_s5_is_the_dense_hippo_system():
    """Real B and C through the eigenbasis give what the dense blocks give."""
    size, blocks, rng = 8, 2, np.random.default_rng(0)
    mixer = S5(WIDTH, state_size=size * blocks, blocks=blocks)
    variables = initial(mixer)
    a, _ = hippo_legs_matrix(size)
    low_rank = np.sqrt(np.arange(size) + 0.5)
    normal = np.kron(np.eye(blocks), a + np.outer(low_rank, low_rank))
    v = np.kron(np.eye(blocks), hippo_legs_nplr(size)[3])
    basis = math.sqrt(2) * np.concatenate([v.real, v.imag], axis=1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(size * blocks), atol=1e-12)
    b_pd = rng.normal(size=(size * blocks, WIDTH))
    c_dp = rng.normal(size=(WIDTH, size * blocks))
    params = variables["params"]
    b_nd, c_dn, dt = v.conj().T @ b_pd, c_dp @ v, 0.05
    params["ssm_b_re"], params["ssm_b_im"] = b_nd.real.T, b_nd.imag.T
    params["c_re"], params["c_im"] = c_dn.real.T, c_dn.imag.T
    params = jax.tree.map(np.float32, params)
    variables = grown({"params": params}, ssm_log_dt=math.log(dt))
    params = float64(variables["params"])

    step = expm(dt * normal)
    write = np.linalg.solve(normal, (step - np.eye(size * blocks)) @ b_pd)
    x_p, expected = np.zeros(size * blocks), []
    for u_d in frames(10)[0].astype(np.float64):
        x_p = step @ x_p + write @ u_d
        y_d = c_dp @ x_p + params["ssm_d"] * u_d
        expected.append(gelu(y_d) * sigmoid(dense(params["gate"], gelu(y_d))))
    actual = run(mixer, variables, frames(10))[0][0]
    np.testing.assert_allclose(actual, expected, 1e-4, 1e-4)


def test_s5_time_steps_stay_in_their_range():
    mixer = S5(WIDTH, state_size=8, blocks=1)
    variables = drawn(mixer)
    for wild, bound in ((9.0, 0.0), (-20.0, math.log(1e-4))):
        outputs = [
            run(mixer, grown(variables, ssm_log_dt=value), frames(11))[0]
            for value in (wild, bound)
        ]
        np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        (Hawk(WIDTH, heads=0), "heads=0"),
        (Hawk(WIDTH, heads=40), "heads=40"),
        (Hawk(WIDTH, expansion=-1.0), "expansion=-1.0"),
        (MinGRU(WIDTH, expansion=0), "expansion=0"),
        (MinLSTM(WIDTH, expansion=0), "expansion=0"),
        (S5(WIDTH, activation="half_glu"), "'half_glu' is unknown"),
        (LRU(WIDTH, radius_max=1.0), "radius_max=1.0"),
        (LRU(WIDTH, radius_min=0.95, radius_max=0.9), "radius_min=0.95"),
        (LRU(WIDTH, phase_max=0.0), "phase_max=0.0"),
        (S5(WIDTH, state_size=20, blocks=8), "state_size=20"),
        (S5(WIDTH, blocks=0), "blocks=0"),
    ],
)
def test_wrong_options_name_themselves(mixer, words):
    with pytest.raises(InputError, match=words) as error:
        jax.eval_shape(mixer.init, jax.random.key(0), frames(0))
    assert "\n" not in str(error.value)


def test_hawk_rounds_its_width_to_heads():
    state = Hawk(WIDTH, expansion=4 / 3, heads=4).initial_state(BATCH)
    assert state.h_be.shape == (BATCH, 20) and state.conv_bwe.shape == (BATCH, 3, 20)
