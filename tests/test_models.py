"""Blocks, stacks, whole models, and what the shared layers promise."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw, float64
from oracles import sigmoid
from scipy.special import ndtr

from jaxbench.errors import InputError
from jaxbench.layers.norms import l2_normalize, norm
from jaxbench.layers.rotary import rotary
from jaxbench.mixers.attention import SlidingWindowAttention
from jaxbench.mixers.channel import GLU, MLP
from jaxbench.mixers.mamba import Mamba
from jaxbench.mixers.recurrent import GRU, LSTM
from jaxbench.mixers.s4 import S4, S4D
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.model import Model

WIDTH = 16


def init(module: nn.Module, inputs, seed: int = 0):
    return jax.jit(module.init)(jax.random.key(seed), inputs)


def apply(module: nn.Module, *args):
    return jax.jit(module.apply)(*args)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, batch):
        return nn.Dense(WIDTH)(batch["x_bti"])


class Head(nn.Module):
    @nn.compact
    def __call__(self, h_btd, batch):
        return nn.Dense(3)(h_btd)


def model_of(backbone: str, readout: str = "last", **kwargs) -> Model:
    return Model(
        Encoder(), build_stack(backbone, width=WIDTH, **kwargs), Head(), readout
    )


def batch_of(length: int = 7, batch: int = 2):
    rng = np.random.default_rng(0)
    return {
        "x_bti": jnp.asarray(rng.normal(size=(batch, length, 5)), jnp.float32),
        "reset_bt": jnp.asarray(rng.random((batch, length)) < 0.3),
    }


@pytest.mark.parametrize("backbone", ["gru*2", "swa+mlp", "mlp", "last_frame_mlp"])
def test_last_readout_is_the_last_frame_of_all(backbone):
    batch = batch_of()
    last, every = model_of(backbone), model_of(backbone, "all")
    variables = draw(last, batch)
    expected, state = apply(every, variables, batch)
    actual, state_last = apply(last, variables, batch)
    assert actual.shape == (2, 1, 3) and expected.shape == (2, 7, 3)
    np.testing.assert_allclose(actual, expected[:, -1:], rtol=1e-6, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, state, state_last)


def test_last_readout_computes_what_follows_the_last_mixer_once():
    model, length = model_of("gru+mlp*3"), 40
    batch = batch_of(length)
    variables = draw(model, batch)

    def operations(readout):
        module = model.clone(readout=readout)
        compiled = jax.jit(module.apply).lower(variables, batch).compile()
        return compiled.cost_analysis()["flops"]

    frame_mlps = 2 * 3 * WIDTH * WIDTH * 2 * (length - 1)
    assert operations("all") - operations("last") > frame_mlps


@pytest.mark.parametrize("backbone", ["gru", "swa+last_frame_mlp", "mamba"])
def test_initial_state_needs_no_parameters_and_starts_an_episode(backbone):
    model, batch = model_of(backbone, depth=1), batch_of(3)
    variables = draw(model, batch)
    state = model.apply({}, 2, method="initial_state")
    with_parameters = model.apply(variables, 2, method="initial_state")
    jax.tree.map(np.testing.assert_array_equal, state, with_parameters)
    fresh, given = apply(model, variables, batch), apply(model, variables, batch, state)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        fresh,
        given,
    )


def test_resets_are_optional():
    model, batch = model_of("gru"), batch_of()
    variables = draw(model, batch)
    without = {"x_bti": batch["x_bti"]}
    never = {**without, "reset_bt": jnp.zeros((2, 7), bool)}
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6),
        apply(model, variables, without),
        apply(model, variables, never),
    )


def test_unknown_readout_is_refused():
    with pytest.raises(ValueError, match="'first'"):
        draw(model_of("gru", "first"), batch_of())


@pytest.mark.integration
def test_remat_changes_neither_paths_nor_values_nor_gradients():
    batch, key = batch_of(), jax.random.key(1)
    plain = model_of("gru+@mlp+@mlp", dropout=0.2)
    remat = model_of("gru+@mlp+@mlp", dropout=0.2, remat=True)
    variables = draw(plain, batch)
    again = draw(remat, batch)
    assert jax.tree.structure(variables) == jax.tree.structure(again)

    def gradient(model):
        def loss(variables):
            return model.apply(variables, batch, rngs={"dropout": key})[0].sum()

        return jax.jit(jax.value_and_grad(loss))(variables)

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
        gradient(plain),
        gradient(remat),
    )
    program = str(jax.make_jaxpr(lambda v: remat.apply(v, batch)[0])(variables))
    assert program.count("prevent_cse") == 3


def test_dropout_is_on_exactly_when_its_stream_is_given():
    model, batch = model_of("gru", dropout=0.5), batch_of()
    variables = draw(model, batch)

    @jax.jit
    def run(seed=None):
        rngs = {} if seed is None else {"dropout": jax.random.key(seed)}
        return model.apply(variables, batch, rngs=rngs)

    (off, state_off), (off_again, _) = run(), run()
    (one, state_one), (one_again, _), (two, _) = run(1), run(1), run(2)
    assert (off == off_again).all() and (one == one_again).all()
    assert (one != off).any() and (one != two).any()
    # The first layer's recurrence is upstream of all dropout.
    np.testing.assert_array_equal(state_off[0].mixer.h_bd, state_one[0].mixer.h_bd)


def test_shared_layers_have_one_set_of_weights_and_their_own_states():
    stack = build_stack("mlp+@gru+mlp+@gru", width=WIDTH)
    x_btd = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    variables = draw(stack, x_btd)
    assert sorted(variables["params"]) == ["blocks_0", "blocks_1", "blocks_2", "norm"]
    _, state = apply(stack, variables, x_btd)
    assert len(state) == 4
    assert (state[1].mixer.h_bd != state[3].mixer.h_bd).any()
    unshared = build_stack("mlp+gru+mlp+gru", width=WIDTH)
    copied = dict(variables["params"])
    copied["blocks_3"] = copied["blocks_1"]
    np.testing.assert_allclose(
        apply(unshared, {"params": copied}, x_btd)[0],
        apply(stack, variables, x_btd)[0],
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_layer_that_joins_the_next_leaves_the_stream_as_it_is():
    """Zamba: one block at two call sites, each with a projection of its own."""
    stack = build_stack("(mlp+@zamba_attention+gru)*2", width=WIDTH)
    x_btd = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    variables = draw(stack, x_btd)
    params = variables["params"]
    shared = [name for name in params if "qkv" in params[name].get("mixer", {})]
    assert shared == ["blocks_1"]
    assert [name for name in params if "side" in params[name]] == [
        "blocks_2",
        "blocks_5",
    ]
    silent = jax.tree.map(jnp.zeros_like, params["blocks_2"]["side"])
    without = build_stack("mlp+gru+mlp+gru", width=WIDTH)
    places = {"blocks_0": 0, "blocks_1": 2, "blocks_2": 3, "blocks_3": 5}
    bare = {
        name: {k: v for k, v in params[f"blocks_{i}"].items() if k != "side"}
        for name, i in places.items()
    }
    muted = {
        **params,
        "blocks_2": {**params["blocks_2"], "side": silent},
        "blocks_5": {**params["blocks_5"], "side": silent},
    }
    expected, _ = apply(without, {"params": {**bare, "norm": params["norm"]}}, x_btd)
    actual, _ = apply(stack, {"params": muted}, x_btd)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert jnp.abs(apply(stack, variables, x_btd)[0] - expected).max() > 1e-2


@pytest.mark.integration
def test_shared_weights_get_the_sum_of_the_gradients_of_their_call_sites():
    x_btd = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    text = "({}zamba_attention+gru)*2"
    shared, unshared = (
        build_stack(text.format(mark), width=WIDTH) for mark in ("@", "")
    )
    params = draw(shared, x_btd)["params"]
    copied = {**params, "blocks_2": params["blocks_0"]}

    def gradient(stack, params):
        return jax.jit(
            jax.grad(lambda p: jnp.sum(stack.apply({"params": p}, x_btd)[0] ** 3))
        )(params)

    one, two = gradient(shared, params), gradient(unshared, copied)
    summed = jax.tree.map(jnp.add, two["blocks_0"], two["blocks_2"])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        one["blocks_0"],
        summed,
    )


def test_the_place_among_equal_layers_reaches_the_mixers_that_ask():
    stack = build_stack("rwkv+gru+rwkv+hgrn*3", width=WIDTH)
    params = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 2, WIDTH)))
    params = params["params"]
    assert "share_up" not in params["blocks_0"]["mixer"]
    assert "share_up" in params["blocks_2"]["mixer"]
    assert params["blocks_3"]["mixer"]["ssm_gamma"].shape == (3, WIDTH)
    assert "ssm_gamma" not in params["blocks_4"]["mixer"]


@pytest.mark.parametrize("backbone", ["fnet", "gru+fnet"])
def test_a_window_backbone_sees_its_window_and_nothing_else(backbone):
    stack = build_stack(backbone, width=WIDTH, options={"window": 4})
    x_btd = jax.random.normal(jax.random.key(0), (1, 9, WIDTH))
    variables = draw(stack, x_btd[:, :1])
    every, ring = apply(stack, variables, x_btd)
    run = jax.jit(functools.partial(stack.apply, last_only=True))
    for t in (1, 3, 8):
        window = x_btd[:, max(0, t - 3) : t + 1]
        last, _ = run(variables, window)
        np.testing.assert_allclose(every[:, t], last[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ring.x_bwd, x_btd[:, -3:])


def test_a_window_of_a_window_backbone_is_mapped_whole():
    """Inside a window FNet is not causal: an early frame knows a late one."""
    stack = build_stack("fnet*1", width=WIDTH)
    x_btd = jax.random.normal(jax.random.key(0), (1, 6, WIDTH))
    variables = draw(stack, x_btd)
    run = jax.jit(functools.partial(stack.apply, method="_run"), static_argnums=4)
    before, _ = run(variables, x_btd, None, None, False)
    after, _ = run(variables, x_btd.at[:, -1].multiply(-2), None, None, False)
    assert (jnp.abs(before - after).max(-1) > 1e-4).all()


@pytest.mark.parametrize(
    ("backbone", "state", "message"),
    [
        ("fnet", (), "streams over its last 30 frames, and this state does not hold"),
        ("gru", (), "the state belongs to another backbone than gru[+]gru"),
        ("gru", "swa", "the state belongs to another backbone"),
        ("gru", 5, r"h_bd is float32\[5, 16\], not float32\[2, 16\]"),
        ("fnet", 5, r"x_bwd is float32\[5, 29, 16\], not float32\[2, 29, 16\]"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(backbone, state, message):
    stack = build_stack(backbone, width=WIDTH)
    x_btd = jnp.zeros((2, 1, WIDTH))
    if state == "swa":
        other = build_stack("swa", width=WIDTH)
        state = other.apply({}, 2, method="initial_state")
    if isinstance(state, int):
        state = stack.apply({}, state, method="initial_state")
    with pytest.raises(InputError, match=message) as error:
        jax.eval_shape(stack.init, jax.random.key(0), x_btd, state)
    assert "make it with initial_state(batch_size=2)" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stack_does_not_end_in_a_layer_that_joins_the_next():
    with pytest.raises(InputError, match="ends in 'zamba_attention'"):
        build_stack("zamba", width=WIDTH, depth=5)


@pytest.mark.parametrize("channel", ["mlp", "glu", "kan", "moe", "none"])
def test_any_row_takes_any_channel_mixer(channel):
    stack = build_stack(f"gru/{channel}*1", width=WIDTH)
    params = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 2, WIDTH)))
    block = params["params"]["blocks_0"]
    assert ("channel" in block) == (channel != "none")


def test_stand_in_is_three_bare_layers():
    stack = build_stack("last_frame_mlp", width=WIDTH)
    x_btd = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    params = draw(stack, x_btd)["params"]
    assert list(params) == ["blocks_0"]
    y = np.asarray(x_btd, np.float64)
    for index in range(3):
        dense = params["blocks_0"]["mixer"][f"Dense_{index}"]
        y = y @ np.asarray(dense["kernel"], np.float64) + np.asarray(dense["bias"])
        y = np.maximum(y, 0) if index < 2 else y
    actual, _ = apply(stack, {"params": params}, x_btd)
    np.testing.assert_allclose(actual, y, rtol=1e-5, atol=1e-6)


def test_sizes_are_counted():
    stack = build_stack("gru", width=WIDTH, depth=3)
    params = draw(stack, jnp.zeros((1, 2, WIDTH)))["params"]
    d = WIDTH
    layer = d * 3 * d + 3 * d + d * 3 * d + d + 2 * d
    assert count_parameters(params) == 3 * layer + 2 * d
    state = stack.apply({}, 4, method="initial_state")
    assert state_bytes(state) == 4 * 3 * 4 * d
    shapes = jax.eval_shape(lambda: stack.apply({}, 4, method="initial_state"))
    assert state_bytes(shapes) == state_bytes(state)


def test_options_reach_the_mixers_that_have_them():
    stack = build_stack("mamba+swa+gru", width=8, options={"window": 4, "taps": 2})
    state = stack.apply({}, 1, method="initial_state")
    assert state[0].mixer.conv_bwe.shape == (1, 1, 16)
    assert state[1].mixer.k_bwhk.shape[1] == 3
    stack = build_stack("gru/moe*1", width=8, options={"channel.experts": 3})
    params = jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 2, 8)))
    assert params["params"]["blocks_0"]["channel"]["router"]["kernel"].shape == (8, 3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"depth": 0}, "depth=0"),
        ({"options": {"windw": 4}}, "no option 'windw'; nearest: window"),
        ({"options": {"width": 4}}, "no option 'width'"),
        ({"options": {"window": "4"}}, "window='4'.* must be int, not str"),
        ({"options": {"window": True}}, "must be int, not bool"),
        ({"options": {"dt_min": "x"}}, "must be float, not str"),
        ({"options": {"channel.experts": 2}}, "no option 'channel.experts'"),
        ({"backbone": "fnet", "options": {"window": 0}}, "window=0 must be"),
        (
            {"backbone": "last_frame_mlp", "options": {"heads": 4}},
            "no option 'heads'; it has none",
        ),
    ],
)
def test_what_cannot_be_built_says_why(kwargs, message):
    arguments = {"backbone": "s4+swa", "width": WIDTH, **kwargs}
    with pytest.raises(InputError, match=message) as error:
        build_stack(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("backbone", "width", "options", "message"),
    [
        ("swa", 18, {}, "heads=4 does not divide width=18"),
        ("swa", 12, {}, "heads of 3 .width=12 over heads=4"),
        ("swa", 16, {"window": 0}, "window=0"),
        ("s4", 16, {"state_size": 7}, "state_size=7"),
        ("s4d", 16, {"spectrum": "lina"}, "spectrum='lina' is unknown; nearest"),
    ],
)
def test_mixers_refuse_what_they_cannot_do(backbone, width, options, message):
    stack = build_stack(backbone, width=width, options=options)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(stack.init, jax.random.key(0), jnp.zeros((1, 2, width)))


@pytest.mark.integration
@pytest.mark.parametrize("spectrum", ["lin", "inv", "legs"])
def test_s4d_spectra_are_those_of_the_paper(spectrum):
    options = {"spectrum": spectrum, "state_size": 8}
    stack = build_stack("s4d*1", width=2, options=options)
    params = init(stack, jnp.zeros((1, 1, 2)))["params"]
    mixer = params["blocks_0"]["mixer"]
    n = np.arange(4)
    root = np.sqrt(2 * np.arange(8) + 1)
    legs = -np.tril(np.outer(root, root), -1) - np.diag(np.arange(8) + 1)
    normal = np.linalg.eigvals(legs + np.outer(root, root) / 2)
    expected = {
        "lin": np.pi * n,
        "inv": 8 / np.pi * (8 / (2 * n + 1) - 1),
        "legs": np.sort(normal.imag)[4:],
    }[spectrum]
    np.testing.assert_allclose(
        np.sort(mixer["ssm_frequency"][0]), np.sort(expected), rtol=1e-5
    )
    np.testing.assert_allclose(np.exp(mixer["ssm_log_decay"]), 0.5, rtol=1e-6)


@pytest.mark.integration
def test_mamba_starts_as_the_paper_says():
    stack = build_stack("mamba*1", width=64)
    params = init(stack, jnp.zeros((1, 1, 64)))["params"]
    mixer = params["blocks_0"]["mixer"]
    dt = np.logaddexp(np.asarray(mixer["ssm_dt_bias"], np.float64), 0)
    assert 1e-3 * 0.99 <= dt.min() < 2e-3 and 5e-2 < dt.max() <= 1e-1 * 1.01
    np.testing.assert_allclose(
        np.exp(mixer["ssm_a_log"]), np.tile(np.arange(1, 17), (128, 1)), rtol=1e-6
    )
    assert (mixer["ssm_d"] == 1).all()
    assert mixer["ssm_dt_kernel"].shape == (4, 128)
    assert np.abs(mixer["ssm_dt_kernel"]).max() <= 0.5
    assert (
        set(mixer["project"]) == set(mixer["select"]) == set(mixer["out"]) == {"kernel"}
    )


@pytest.mark.integration
@pytest.mark.parametrize(("backbone", "gates"), [("lstm", 4), ("gru", 3)])
def test_recurrent_kernels_start_orthogonal_gate_by_gate(backbone, gates):
    stack = build_stack(f"{backbone}*1", width=8)
    mixer = init(stack, jnp.zeros((1, 1, 8)))["params"]["blocks_0"]
    kernels = np.split(np.asarray(mixer["mixer"]["recurrent"]), gates, axis=1)
    for kernel in kernels:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    if backbone == "lstm":
        bias = mixer["mixer"]["project"]["bias"]
        np.testing.assert_array_equal(bias, [0] * 8 + [1] * 8 + [0] * 16)


def mamba_frames(p, x_td):
    """Algorithm 2 of the paper for one sequence, state size 4, 2 taps, rank 1."""
    a_en = -np.exp(p["ssm_a_log"])
    h_en, before = np.zeros(a_en.shape), np.zeros(a_en.shape[0])
    for x in x_td:
        u, z = np.split(x @ p["project"]["kernel"], 2)
        taps = p["conv"]["kernel"]
        before, u = u, taps[0] * before + taps[1] * u + p["conv"]["bias"]
        u = u * sigmoid(u)
        delta, b, c = np.split(u @ p["select"]["kernel"], [1, 5])
        dt = np.logaddexp(delta @ p["ssm_dt_kernel"] + p["ssm_dt_bias"], 0)
        h_en = np.exp(dt[:, None] * a_en) * h_en + np.outer(dt * u, b)
        y = h_en @ c + p["ssm_d"] * u
        yield (y * z * sigmoid(z)) @ p["out"]["kernel"]


def lstm_frames(p, x_td):
    h = c = np.zeros(x_td.shape[1])
    for x in x_td:
        gates = x @ p["project"]["kernel"] + p["project"]["bias"] + h @ p["recurrent"]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        yield h


def gru_frames(p, x_td):
    h = np.zeros(x_td.shape[1])
    for x in x_td:
        of_x = x @ p["project"]["kernel"] + p["project"]["bias"]
        (r, z, n), (u_r, u_z, u_n) = np.split(of_x, 3), np.split(h @ p["recurrent"], 3)
        z = sigmoid(z + u_z)
        n = np.tanh(n + sigmoid(r + u_r) * (u_n + p["bias_n"]))
        h = (1 - z) * n + z * h
        yield h


def swa_frames(p, x_td):
    """Heads of 4, window 3; pairs of channels are complex numbers to turn."""
    rate = 10_000.0 ** (-np.arange(2) / 2)
    q, k, v = np.moveaxis((x_td @ p["qkv"]["kernel"]).reshape(-1, 3, 2, 4), 1, 0)
    turn = np.exp(1j * np.arange(len(x_td))[:, None, None] * rate)
    q, k = ((x[..., :2] + 1j * x[..., 2:]) * turn for x in (q, k))
    for t in range(len(x_td)):
        seen = slice(max(0, t - 2), t + 1)
        score_sh = np.real(q[t].conj() * k[seen]).sum(-1) / 2
        weight_sh = np.exp(score_sh) / np.exp(score_sh).sum(0)
        yield (weight_sh[..., None] * v[seen]).sum(0).reshape(-1) @ p["out"]["kernel"]


def ssm_frames(p, x_td, transition_of):
    """Dense matrices on both conjugate halves, one channel after the other."""
    y_td = np.zeros_like(x_td)
    for d in range(x_td.shape[1]):
        dt = np.exp(p["ssm_log_dt"][d])
        half = -np.exp(p["ssm_log_decay"][d]) + 1j * p["ssm_frequency"][d]
        eigenvalues = np.concatenate([half, half.conj()])
        a_bar, b_bar = transition_of(p, d, np.diag(eigenvalues), dt)
        c = p["c_re"][d] + 1j * p["c_im"][d]
        state = np.zeros(len(eigenvalues), complex)
        for t, u in enumerate(x_td[:, d]):
            state = a_bar @ state + b_bar * u
            y = np.concatenate([c, c.conj()]) @ state
            y_td[t, d] = y.real + p["ssm_d"][d] * u
    y_td = y_td * ndtr(y_td)
    gate = sigmoid(y_td @ p["gate"]["kernel"] + p["gate"]["bias"])
    return (y_td @ p["out"]["kernel"] + p["out"]["bias"]) * gate


def zero_order_hold(p, d, a, dt):
    a_bar = np.exp(dt * np.diag(a))
    return np.diag(a_bar), (a_bar - 1) / np.diag(a)


def bilinear(p, d, a, dt):
    low, b = (p[f"ssm_{x}_re"][d] + 1j * p[f"ssm_{x}_im"][d] for x in "pb")
    low, b = (np.concatenate([x, x.conj()]) for x in (low, b))
    a = a - np.outer(low, low.conj())
    inverse = np.linalg.inv(np.eye(len(a)) - dt / 2 * a)
    return inverse @ (np.eye(len(a)) + dt / 2 * a), inverse @ (dt * b)


@pytest.mark.parametrize(
    ("mixer", "frames"),
    [
        (Mamba(8, state_size=4, taps=2), mamba_frames),
        (LSTM(8), lstm_frames),
        (GRU(8), gru_frames),
        (SlidingWindowAttention(8, heads=2, window=3), swa_frames),
        (S4D(4, state_size=6), lambda p, x: ssm_frames(p, x, zero_order_hold)),
        (S4(4, state_size=6), lambda p, x: ssm_frames(p, x, bilinear)),
    ],
    ids=["Mamba", "LSTM", "GRU", "SlidingWindowAttention", "S4D", "S4"],
)
def test_mixers_equal_their_equations_in_float64(mixer, frames):
    rng = np.random.default_rng(0)
    x_btd = rng.normal(size=(2, 9, mixer.width)).astype(np.float32)
    params = draw(mixer, x_btd)["params"]
    exact = float64(params)
    y_btd, _ = apply(mixer, {"params": params}, x_btd)
    for x_td, y_td in zip(x_btd.astype(np.float64), y_btd, strict=True):
        np.testing.assert_allclose(
            y_td, np.stack(list(frames(exact, x_td))), rtol=2e-4, atol=2e-5
        )


def test_rotary_scores_depend_on_distance_only():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 2, 6))

    def score(i, j):
        rotated_q = rotary(q, jnp.full((1, 1), i))
        rotated_k = rotary(k, jnp.full((1, 1), j))
        return jnp.einsum("bthk,bthk->h", rotated_q, rotated_k)

    np.testing.assert_allclose(score(9, 4), score(105, 100), rtol=1e-4, atol=1e-4)
    assert jnp.abs(score(9, 4) - score(4, 9)).max() > 1e-2
    np.testing.assert_allclose(rotary(q, jnp.zeros((1, 1), jnp.int32)), q)


def test_rotary_matches_complex_rotation():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 8))
    position = np.random.default_rng(1).integers(0, 1000, size=(2, 5))
    rate = 10_000.0 ** (-np.arange(4) / 4)
    z = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * position[..., None, None] * rate)
    expected = np.concatenate([z.real, z.imag], axis=-1)
    actual = rotary(jnp.asarray(x, jnp.float32), jnp.asarray(position))
    np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_rotary_refuses_odd_widths():
    with pytest.raises(ValueError, match="even head width, got 7"):
        rotary(jnp.zeros((1, 1, 1, 7)), jnp.zeros((1, 1), jnp.int32))


def test_norms_match_their_formulas_far_from_zero():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)) + 1000
    x_btd = jnp.asarray(x, jnp.float32)
    layer = norm("layer", jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    actual = layer.apply(init(layer, x_btd), x_btd)
    np.testing.assert_allclose(actual, expected, atol=2e-3)
    rms = norm("rms", jnp.bfloat16)
    actual = rms.apply(init(rms, x_btd), x_btd)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        actual.astype(jnp.float32),
        x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6),
        rtol=1e-2,
    )
    assert norm("none", jnp.float32) is None
    with pytest.raises(ValueError, match="'batch'"):
        norm("batch", jnp.float32)


def test_l2_normalize_is_safe_at_zero():
    x = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(l2_normalize(x), [[0.6, 0.8], [0, 0]], rtol=1e-5)
    assert jnp.isfinite(jax.grad(lambda x: l2_normalize(x).sum())(x)).all()


def test_gated_mlp_has_the_parameters_of_the_plain_one():
    x_btd = jnp.zeros((1, 1, 384))
    counts = [
        count_parameters(jax.eval_shape(module(384).init, jax.random.key(0), x_btd))
        for module in (MLP, GLU)
    ]
    assert counts[1] == 3 * 384 * 1024
    assert abs(counts[0] - counts[1]) < 0.01 * counts[0]
