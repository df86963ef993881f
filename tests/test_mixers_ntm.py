"""The Neural Turing Machine against a float64 loop, and what its memory is for."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from drawn import draw
from oracles import sigmoid, softmax

from jaxbench.errors import InputError
from jaxbench.mixers.ntm import NTM

BATCH, LENGTH, WIDTH, SLOTS, SLOT_WIDTH = 2, 9, 16, 6, 5


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6)


@functools.cache
def made():
    """A mixer, its drawn parameters, and its jitted call."""
    mixer = NTM(WIDTH, slots=SLOTS, slot_width=SLOT_WIDTH)
    variables = draw(mixer, frames(0))
    for name in ("read_start", "write_start"):
        variables["params"][name] *= 4
    return mixer, variables, jax.jit(mixer.apply)


def frames(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)


def address(head, memory, w):
    """Equations 5 to 9 of the paper, one sequence, element by element."""
    key, rest = np.tanh(head[:SLOT_WIDTH]), head[SLOT_WIDTH:]
    beta, gate = np.log1p(np.exp(rest[0])), sigmoid(rest[1])
    shift, gamma = softmax(rest[2:5]), 1 + np.log1p(np.exp(rest[5]))
    content = softmax(beta * np.array([unit(row) @ unit(key) for row in memory]))
    gated = gate * content + (1 - gate) * w
    shifted = np.zeros_like(gated)
    for i in range(SLOTS):
        for j in (-1, 0, 1):
            shifted[(i + j) % SLOTS] += shift[j + 1] * gated[i]
    sharp = (shifted + 1e-8) ** gamma
    return sharp / sharp.sum()


def loop(params, x, state, reset, start):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    cut = SLOT_WIDTH + 6
    y = np.zeros(x.shape)
    last = []
    for b in range(BATCH):
        memory, h, c, r, read, write = (np.float64(part[b]) for part in state)
        for t in range(x.shape[1]):
            if reset[b, t]:
                memory, h, c, r, read, write = (np.float64(part[b]) for part in start)
            gates = x[b, t] @ p["project"]["kernel"] + p["project"]["bias"]
            gates = gates + h @ p["recurrent"] + r @ p["recall"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            heads = h @ p["heads"] + p["heads_bias"]
            write = address(heads[cut:], memory, write)
            erase = sigmoid(heads[2 * cut : 2 * cut + SLOT_WIDTH])
            add = np.tanh(heads[2 * cut + SLOT_WIDTH :])
            memory = memory * (1 - np.outer(write, erase)) + np.outer(write, add)
            read = address(heads[:cut], memory, read)
            r = read @ memory
            joined = np.concatenate([h, r])
            y[b, t] = joined @ p["out"]["kernel"] + p["out"]["bias"]
        last.append((memory, h, c, r, read, write))
    return y, [np.stack(parts) for parts in zip(*last, strict=True)]


def test_equals_a_float64_loop_from_a_used_state_with_resets():
    mixer, variables, apply = made()
    start = mixer.apply(variables, BATCH, method="initial_state")
    _, state = apply(variables, frames(1), start, np.zeros((BATCH, LENGTH), bool))
    reset = np.zeros((BATCH, LENGTH), bool)
    reset[0, 4], reset[1, 0] = True, True
    y, last = apply(variables, frames(2), state, reset)
    y_want, last_want = loop(variables["params"], frames(2), state, reset, start)
    np.testing.assert_allclose(y, y_want, 1e-5, 1e-5)
    for got, want in zip(last, last_want, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-5)


def test_the_learned_start_makes_the_slots_differ():
    mixer, variables, apply = made()
    start = mixer.apply(variables, BATCH, method="initial_state")
    assert np.ptp(start.memory_bnm) == 0
    for name in ("read", "write"):
        want = softmax(variables["params"][f"{name}_start"])
        for row in getattr(start, f"{name}_bn"):
            np.testing.assert_allclose(row, want, rtol=1e-5)
    quiet = np.zeros((BATCH, LENGTH), bool)
    _, state = apply(variables, frames(3), start, quiet)
    assert np.std(state.memory_bnm, axis=1).mean() > 1e-3
    # Equal rows under equal weights stay equal: why the start is learned.
    flat = np.full((BATCH, SLOTS), 1 / SLOTS, np.float32)
    even = start._replace(read_bn=flat, write_bn=flat)
    _, state = apply(variables, frames(3), even, quiet)
    assert np.std(state.memory_bnm, axis=1).max() < 1e-5


def test_weights_of_both_heads_are_distributions_under_huge_inputs():
    mixer, variables, apply = made()
    start = mixer.apply(variables, BATCH, method="initial_state")
    quiet = np.zeros((BATCH, LENGTH), bool)
    for scale in (0.0, 1.0, 1e4):
        _, state = apply(variables, np.float32(scale) * frames(4), start, quiet)
        for w in (state.read_bn, state.write_bn):
            assert (w >= 0).all()
            np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-5)
        # A row is erased towards 0 and filled with values inside (-1, 1).
        assert np.abs(state.memory_bnm).max() < LENGTH


@pytest.mark.parametrize(
    ("options", "match"),
    [({"slots": 1}, "slots=1"), ({"slot_width": 0}, "slot_width=0")],
)
def test_bad_options_are_input_errors(options, match):
    with pytest.raises(InputError, match=match):
        NTM(WIDTH, **options).init(jax.random.key(0), frames(0))
