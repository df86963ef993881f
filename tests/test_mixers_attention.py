"""Attention mixers against float64 loops over the frames each frame may see."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.layers.sinusoid import sinusoid
from jaxbench.mixers.attention import (
    ForgettingAttention,
    GatedAttention,
    SlidingWindowAttention,
)

WIDTH, BATCH, BEFORE, LENGTH = 16, 2, 6, 11


def sample(seed=0):
    rng = np.random.default_rng(seed)
    x_btd = rng.normal(size=(BATCH, BEFORE + LENGTH, WIDTH)).astype(np.float32)
    reset_bt = np.zeros((BATCH, BEFORE + LENGTH), bool)
    reset_bt[0, 10] = reset_bt[1, 4] = reset_bt[1, 6] = reset_bt[1, 15] = True
    return x_btd, reset_bt


def make(mixer, x_btd):
    return draw(mixer, x_btd)["params"]


def rotate(x_k, position, turned):
    """Pairs (i, i + turned / 2) of the first channels, as complex numbers."""
    half = turned // 2
    turn = np.exp(1j * position * 1e4 ** (-np.arange(half) / max(half, 1)))
    z = (x_k[:half] + 1j * x_k[half:turned]) * turn
    return np.concatenate([z.real, z.imag, x_k[turned:]])


def loop(mixer, params, x_td, reset_t):
    """One sequence from its start: every head of every frame over what it sees."""
    p = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    heads, shared = mixer.heads, getattr(mixer, "kv_heads", 0) or mixer.heads
    head = WIDTH // heads
    turned = round(head * getattr(mixer, "rotary", 1.0))
    outputs, seen = [], []
    for x_d, reset in zip(x_td.astype(np.float64), reset_t, strict=True):
        seen = [] if reset else seen
        start = seen[-1]["position"] + 1 if seen else 0
        row = x_d @ p["qkv"]["kernel"]
        rows = [row[i : i + head] for i in range(0, len(row), head)]
        q, k, v = rows[:heads], rows[heads : heads + shared], rows[heads + shared :]
        assert len(v) == shared
        if getattr(mixer, "qk_norm", False):
            q = [z / np.sqrt((z**2).mean() + 1e-6) * p["q_norm"]["scale"] for z in q]
            k = [z / np.sqrt((z**2).mean() + 1e-6) * p["k_norm"]["scale"] for z in k]
        fade = np.zeros(heads)
        if "forget_kernel" in p:
            logit = x_d @ p["forget_kernel"] + p["ssm_forget_bias"]
            fade = -np.log1p(np.exp(-logit))
        k = [rotate(z, start, turned) for z in k]
        seen.append({"k": k, "v": v, "fade": fade, "position": start})
        o_hk = np.zeros((heads, head))
        for h in range(heads):
            group, scores, values, total = h * shared // heads, [], [], 0.0
            for frame in reversed(seen[-mixer.window :]):
                near = rotate(q[h], start, turned) @ frame["k"][group]
                scores.append(near / np.sqrt(head) + total)
                values.append(frame["v"][group])
                total += frame["fade"][h]
            weight = np.exp(scores - np.max(scores))
            o_hk[h] = weight @ np.array(values) / weight.sum()
        if "gate" in p:
            gate = 1 / (1 + np.exp(-x_d @ p["gate"]["kernel"]))
            o_hk = o_hk * gate.reshape(heads, -1)
        outputs.append(o_hk.reshape(-1) @ p["out"]["kernel"])
    return np.stack(outputs)


MIXERS = {
    "plain": SlidingWindowAttention(WIDTH, window=5),
    "multi-query": SlidingWindowAttention(WIDTH, kv_heads=1, window=7, rotary=0.5),
    "grouped": SlidingWindowAttention(WIDTH, heads=8, kv_heads=2, window=4),
    "no positions": SlidingWindowAttention(WIDTH, window=6, rotary=0.0),
    "qk-norm": SlidingWindowAttention(WIDTH, kv_heads=2, window=256, qk_norm=True),
    "gated": GatedAttention(WIDTH),
    "gated by head": GatedAttention(WIDTH, heads=2, window=5, gate="headwise"),
    "forgetting": ForgettingAttention(WIDTH, window=6),
    "forgetting, rotary": ForgettingAttention(WIDTH, rotary=1.0),
}


@pytest.mark.parametrize("name", MIXERS)
def test_equals_its_equations_from_a_state_with_resets(name):
    mixer = MIXERS[name]
    x_btd, reset_bt = sample()
    params = make(mixer, x_btd)
    run = jax.jit(mixer.apply)
    variables = {"params": params}
    _, state = run(variables, x_btd[:, :BEFORE], None, reset_bt[:, :BEFORE])
    y_btd, _ = run(variables, x_btd[:, BEFORE:], state, reset_bt[:, BEFORE:])
    for i in range(BATCH):
        want_td = loop(mixer, params, x_btd[i], reset_bt[i])[BEFORE:]
        np.testing.assert_allclose(y_btd[i], want_td, rtol=2e-5, atol=1e-5)


def test_the_cache_is_bounded_and_smaller_with_shared_heads():
    def floats(mixer):
        return sum(leaf.size for leaf in jax.tree.leaves(mixer.initial_state(1)))

    slots, ends = 29, 1
    many, one = SlidingWindowAttention(256), SlidingWindowAttention(256, kv_heads=1)
    assert floats(many) == slots * (2 * 256 + 1) + ends
    assert floats(one) == slots * (2 * 64 + 1) + ends
    forgetting = ForgettingAttention(256, window=30)
    assert floats(forgetting) == slots * (2 * 256 + 1 + 4) + ends


def test_gates_of_a_half_halve_and_closed_gates_close():
    x_btd, _ = sample(2)
    plain, gated = SlidingWindowAttention(WIDTH, window=256), GatedAttention(WIDTH)
    params = make(gated, x_btd)
    want_btd, _ = jax.jit(plain.apply)(
        {"params": {"qkv": params["qkv"], "out": params["out"]}}, x_btd
    )
    params["gate"]["kernel"] = np.zeros_like(params["gate"]["kernel"])
    y_btd, _ = jax.jit(gated.apply)({"params": params}, x_btd)
    np.testing.assert_allclose(y_btd, want_btd / 2, rtol=1e-5, atol=1e-6)


def test_a_forget_gate_that_never_forgets_is_attention_without_positions():
    x_btd, reset_bt = sample(3)
    forgetting = ForgettingAttention(WIDTH, window=9)
    params = make(forgetting, x_btd)
    params["ssm_forget_bias"] = np.full(4, 40.0, np.float32)
    y_btd, _ = jax.jit(forgetting.apply)({"params": params}, x_btd, None, reset_bt)
    plain = SlidingWindowAttention(WIDTH, window=9, rotary=0.0)
    shared = {"params": {"qkv": params["qkv"], "out": params["out"]}}
    want_btd, _ = jax.jit(plain.apply)(shared, x_btd, None, reset_bt)
    np.testing.assert_allclose(y_btd, want_btd, rtol=1e-5, atol=1e-6)


def test_qk_norm_bounds_the_scores_of_large_inputs():
    """Without it, inputs a hundred times as large make attention a hard maximum."""
    x_btd, _ = sample(4)
    change = {}
    for qk_norm in (False, True):
        mixer = SlidingWindowAttention(WIDTH, qk_norm=qk_norm)
        variables = draw(mixer, x_btd)
        run = jax.jit(mixer.apply)
        small, _ = run(variables, x_btd)
        large, _ = run(variables, 100 * x_btd)
        change[qk_norm] = np.abs(large / 100 - small).max()
    assert change[True] < 1e-4 < 1e-1 < change[False]


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (SlidingWindowAttention(18), "heads=4 does not divide width=18"),
        (SlidingWindowAttention(16, heads=-1), "heads=-1 does not divide width=16"),
        (SlidingWindowAttention(12), "turns 3 channels"),
        (SlidingWindowAttention(16, rotary=0.4), "turns 1.6 channels"),
        (SlidingWindowAttention(16, rotary=1.5), "rotary=1.5 must be between 0"),
        (SlidingWindowAttention(16, kv_heads=3), "kv_heads=3 does not divide heads=4"),
        (SlidingWindowAttention(16, kv_heads=-1), "kv_heads=-1 does not divide"),
        (SlidingWindowAttention(16, window=0), "window=0 must be at least 1"),
        (GatedAttention(12), "turns 3 channels"),
        (GatedAttention(16, gate="soft"), "gate='soft' is none of elementwise"),
        (ForgettingAttention(16, heads=3), "heads=3 does not divide width=16"),
        (ForgettingAttention(12, rotary=1.0), "turns 3 channels"),
    ],
)
def test_wrong_options_are_one_clear_line(mixer, message):
    with pytest.raises(InputError, match=message) as caught:
        mixer.initial_state(2)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=message):
        mixer.init(jax.random.key(0), jnp.zeros((1, 2, mixer.width)))


def test_sinusoids_match_complex_waves():
    position = np.array([[0, 1, 2, 500], [7, 7, 0, 3]])
    wave = np.exp(1j * position[..., None] * 1e4 ** (-np.arange(3) / 3))
    for width in (5, 6):
        want = np.concatenate([wave.imag, wave.real], axis=-1)[..., :width]
        actual = sinusoid(jnp.asarray(position), width)
        np.testing.assert_allclose(actual, want, atol=5e-5)
