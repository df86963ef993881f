"""The Decision Transformer against a float64 GPT over a list of tokens."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from oracles import gelu

from jaxbench.errors import InputError
from jaxbench.mixers.decision_transformer import DecisionTransformer

WIDTH, BATCH, BEFORE, LENGTH = 16, 2, 5, 11


def sample(seed=0):
    rng = np.random.default_rng(seed)
    x_btd = rng.normal(size=(BATCH, BEFORE + LENGTH, WIDTH)).astype(np.float32)
    reset_bt = np.zeros((BATCH, BEFORE + LENGTH), bool)
    reset_bt[0, 9] = reset_bt[1, 3] = reset_bt[1, 5] = reset_bt[1, 14] = True
    return x_btd, reset_bt


def make(mixer, x_btd):
    return draw(mixer, x_btd)["params"]


def standardize(z, p):
    centred = z - z.mean()
    return centred / np.sqrt((centred**2).mean() + 1e-6) * p["scale"] + p["bias"]


def dense(z, p):
    return z @ p["kernel"] + p["bias"]


def turn(z, position):
    half = len(z) // 2
    angle = np.exp(1j * position * 1e4 ** (-np.arange(half) / half))
    turned = (z[:half] + 1j * z[half:]) * angle
    return np.concatenate([turned.real, turned.imag])


def block(p, z_nd, frame_n, heads, window):
    """One GPT block over the tokens of one episode."""
    rows = [dense(standardize(z, p["attention_norm"]), p["qkv"]) for z in z_nd]
    out = []
    for n, z in enumerate(z_nd):
        o_hk = []
        for h in range(heads):
            q = np.split(np.split(rows[n], 3)[0], heads)[h]
            q = turn(q, frame_n[n])
            scores, values = [], []
            for m in range(max(0, n - window + 1), n + 1):
                _, k, v = (np.split(x, heads)[h] for x in np.split(rows[m], 3))
                scores.append(q @ turn(k, frame_n[m]) / math.sqrt(len(q)))
                values.append(v)
            weight = np.exp(np.array(scores) - max(scores))
            o_hk.append(weight @ np.array(values) / weight.sum())
        z = z + dense(np.concatenate(o_hk), p["out"])
        hidden = gelu(dense(standardize(z, p["mlp_norm"]), p["mlp_in"]))
        out.append(z + dense(hidden, p["mlp_out"]))
    return out


def loop(mixer, params, x_td, reset_t):
    p = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    kinds = 3 if mixer.returns else 2
    starts = [0, *np.flatnonzero(reset_t[1:]) + 1, len(x_td)]
    outputs = []
    for start, stop in itertools.pairwise(starts):
        z_nd, frame_n = [], []
        for position, x in enumerate(x_td[start:stop].astype(np.float64)):
            tokens = [np.zeros(WIDTH)] if mixer.returns else []
            for name in ("action", "state"):
                tokens.append(standardize(dense(x, p[name]), p[f"{name}_norm"]))
            z_nd += [z + p["types"][i] for i, z in enumerate(tokens)]
            frame_n += [position] * kinds
        for index in range(mixer.blocks):
            z_nd = block(
                p[f"blocks_{index}"], z_nd, frame_n, mixer.heads, kinds * mixer.window
            )
        outputs += [standardize(z, p["norm"]) for z in z_nd[kinds - 1 :: kinds]]
    return np.stack(outputs)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": 3, "blocks": 1},
        {"window": 4, "returns": False, "heads": 2},
    ],
    ids=["whole episodes", "band", "no return"],
)
def test_equals_its_equations_from_a_state_with_resets(options):
    mixer = DecisionTransformer(WIDTH, **options)
    x_btd, reset_bt = sample()
    params = make(mixer, x_btd)
    run = jax.jit(mixer.apply)
    variables = {"params": params}
    _, state = run(variables, x_btd[:, :BEFORE], None, reset_bt[:, :BEFORE])
    y_btd, _ = run(variables, x_btd[:, BEFORE:], state, reset_bt[:, BEFORE:])
    for i in range(BATCH):
        want_td = loop(mixer, params, x_btd[i], reset_bt[i])[BEFORE:]
        np.testing.assert_allclose(y_btd[i], want_td, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("returns", [True, False])
def test_a_frame_sees_all_tokens_of_window_frames_and_no_more(returns):
    mixer = DecisionTransformer(WIDTH, blocks=1, window=3, returns=returns)
    x_btd, _ = sample(2)
    variables = draw(mixer, x_btd)

    def last(x_btd):
        return mixer.apply(variables, x_btd)[0][0, 9, 0]

    gradient_btd = np.asarray(jax.jit(jax.grad(last))(jnp.asarray(x_btd)))
    seen = np.abs(gradient_btd[0]).max(-1) > 0
    np.testing.assert_array_equal(np.flatnonzero(seen), [7, 8, 9])


def test_the_action_token_is_of_use_and_the_return_token_is_one_vector():
    """The state token reads both; leaving the return out takes one type vector less."""
    x_btd, _ = sample(3)
    full, bare = (DecisionTransformer(WIDTH, returns=r) for r in (True, False))
    params, fewer = make(full, x_btd), make(bare, x_btd)
    count = [sum(x.size for x in jax.tree.leaves(p)) for p in (params, fewer)]
    assert count[0] - count[1] == WIDTH
    run = jax.jit(full.apply)
    before, _ = run({"params": params}, x_btd)
    params["action"]["kernel"] = params["action"]["kernel"][::-1]
    after, _ = run({"params": params}, x_btd)
    assert np.abs(after - before).max() > 1e-2


@pytest.mark.integration
def test_positions_are_counted_in_frames_however_long_the_stream():
    mixer = DecisionTransformer(WIDTH, window=4)
    x_btd, _ = sample(4)
    variables = draw(mixer, x_btd)
    run = jax.jit(mixer.apply)
    state = mixer.initial_state(BATCH)
    for _ in range(3):
        _, state = run(variables, x_btd, state)
    frames = 3 * x_btd.shape[1]
    for cache in state.caches:
        np.testing.assert_array_equal(cache.position_b, [3 * frames] * BATCH)
        assert cache.k_bwhk.shape == (BATCH, 3 * 4 - 1, 4, 4)
    # Rotary angles enter as differences: the far stream answers like a near one.
    near = state._replace(
        caches=tuple(c._replace(position_b=c.position_b * 0) for c in state.caches)
    )
    far, _ = run(variables, x_btd[:, 3:], state)
    again, _ = run(variables, x_btd[:, 3:], near)
    # Once the cached keys, rotated at the old positions, have left the band.
    np.testing.assert_allclose(far[:, 8:], again[:, 8:], atol=2e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide width=16"),
        ({"heads": 16}, "width=16 over heads=16 gives heads of 1"),
        ({"heads": 0}, "heads=0 does not divide width=16"),
        ({"blocks": 0}, "blocks=0 must be at least 1"),
        ({"window": 0}, "window=0 must be at least 1"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    mixer = DecisionTransformer(16, **options)
    with pytest.raises(InputError, match=message):
        mixer.initial_state(1)
    with pytest.raises(InputError, match=message):
        mixer.init(jax.random.key(0), jnp.zeros((1, 2, 16)))
