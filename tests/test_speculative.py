"""Decoding behind a draft: the text is the target's, the states those of stepping."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.acceptance import probabilities
from jaxbench.serving.speculative import (
    Decoder,
    Settings,
    Side,
    alone,
    speculating,
    state_after,
)
from jaxbench.serving.writing import SEPARATOR, Writer
from jaxbench.tasks.pile.modules import ByteEncoder, ByteHead, ByteTable

PROMPT = b"to be"


@functools.cache
def language(backbone: str, seed: int = 0, width: int = 16) -> Side:
    """An untrained language model of loud opinions.

    Its output has a table of its own, else it would repeat one byte for ever.
    """
    model = Model(
        encoder=ByteEncoder(ByteTable(width)),
        stack=build_stack(backbone, width=width, depth=1),
        head=ByteHead(ByteTable(width)),
        readout="all",
    )
    batch = {"bytes_bt": jnp.zeros((1, 4), jnp.int32)}
    variables = jax.jit(model.init)(jax.random.key(seed), batch)
    louder = jax.tree_util.tree_map_with_path(
        lambda path, x: 40 * x if "byte_embedding" in str(path) else x, variables
    )
    return Side(model, louder)


def erring(target: Side, other: Side) -> Side:
    """A draft that errs: the target, mixed with another of its kind."""
    mixed = jax.tree.map(
        lambda a, b: 0.8 * a + 0.2 * b, target.variables, other.variables
    )
    return Side(target.model, mixed)


def behind(target: Side, draft: Side, seed: int = 0, **settings) -> Decoder:
    """The target behind a draft."""
    step = speculating(target.model, draft.model, Settings(**settings))
    return Decoder((target, draft), step, seed=seed)


def stepped(side: Side, text: bytes):
    """The state after a text, byte by byte."""
    step = jax.jit(lambda state, byte: side.model.apply(side.variables, byte, state)[1])
    state = side.model.apply(side.variables, 1, method="initial_state")
    for byte in text:
        state = step(state, {"bytes_bt": jnp.full((1, 1), byte, jnp.int32)})
    return state


def assert_states_match(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=2e-4)


OTHERS = [
    "mamba",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("deltanet", "swa")),
]


@pytest.mark.integration
@pytest.mark.parametrize("backbone", ["gru", *OTHERS])
def test_cold_text_is_the_targets_greedy_text(backbone):
    target = language(backbone)
    draft = erring(target, language(backbone, seed=1))
    writer = Writer(target.model, target.variables, temperature=0)
    expected = bytes(writer.go_on(PROMPT, 60))
    # The draft that agrees, the one that does not, and no draft.
    for side in (target, draft):
        decode = behind(target, side, lookahead=2, temperature=0.0)
        assert bytes(decode.go_on(PROMPT, 60)) == expected
        if side is target:
            assert decode.kept == [2] * 20
        else:
            assert 0 < sum(decode.kept) < 2 * len(decode.kept)
    one = Decoder((target,), alone(target.model, 3, 0.0))
    assert bytes(one.go_on(PROMPT, 60)) == expected
    assert len(set(expected)) > 3


@pytest.mark.integration
@pytest.mark.parametrize("backbone", ["gru", *OTHERS])
def test_states_after_part_of_a_chunk_are_those_of_stepping(backbone):
    target, draft = language(backbone), language("gru", seed=1)
    decode = behind(target, draft, lookahead=3, temperature=3.0)
    text = SEPARATOR + PROMPT
    decode.restart(text)
    for _ in range(12):
        text += bytes(decode())
        # All but the last byte are read.
        last = decode.progress
        assert int(last.byte) == text[-1]
        for side, state in zip((target, draft), last.states, strict=True):
            assert_states_match(state, stepped(side, text[:-1]))
    assert len(set(decode.kept)) > 1, "no round ended early: nothing was tested"
    assert sum(decode.kept) + 12 == len(text) - len(SEPARATOR + PROMPT)


def z_score(drawn_t, p_tv) -> float:
    """How far the drawn bytes' log-probabilities lie from what they are worth.

    Given the bytes before, log p of the next has the mean and variance that p itself
    says, if p is what it was drawn from; the sum of the differences is a martingale.
    """
    p_tv = np.maximum(np.asarray(p_tv, np.float64), 1e-30)
    log_tv = np.log(p_tv)
    mean_t = (p_tv * log_tv).sum(-1)
    variance = ((p_tv * log_tv**2).sum(-1) - mean_t**2).sum()
    found_t = log_tv[np.arange(len(p_tv)), np.asarray(drawn_t)]
    return float((found_t - mean_t).sum() / np.sqrt(variance))


@pytest.mark.integration
def test_warm_text_is_drawn_from_the_target_and_a_thresholds_is_not():
    target = language("gru")
    draft = erring(target, language("gru", seed=1))
    start = SEPARATOR + PROMPT

    def score(decode, count=1500):
        text = list(decode.go_on(PROMPT, count))
        read = jnp.array([[*start, *text[:-1]]], jnp.int32)
        logits, _ = target.model.apply(target.variables, {"bytes_bt": read})
        return z_score(text, probabilities(logits[0], 0.8)[len(start) - 1 :])

    given = {"lookahead": 2, "temperature": 0.8}
    decode = behind(target, draft, **given)
    assert abs(score(decode)) < 4
    assert 0.02 < np.mean(decode.kept) / 2 < 0.98
    assert abs(score(Decoder((target,), alone(target.model, 5, 0.8)))) < 4
    loose = behind(target, draft, **given, mode="threshold", threshold=0.01)
    assert abs(score(loose)) > 6


@pytest.mark.integration
def test_draws_repeat_with_their_seed():
    target, draft = language("gru"), language("gru", seed=1)
    one = behind(target, draft, lookahead=1)
    text, kept = bytes(one.go_on(PROMPT, 30)), one.kept
    assert bytes(one.go_on(PROMPT, 30)) == text and one.kept == kept
    assert bytes(behind(target, draft, 1, lookahead=1).go_on(PROMPT, 30)) != text


@pytest.mark.integration
def test_a_prompt_is_read_as_a_chunk_like_byte_by_byte():
    side, text = language("gru"), b"whether tis nobler"
    read = np.frombuffer(text, np.uint8)
    assert_states_match(state_after(side, read), stepped(side, text))
    with pytest.raises(InputError, match="must be bytes, not str"):
        next(Decoder((side,), alone(side.model, 3, 1.0)).go_on("text", 1))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lookahead": 0}, "lookahead=0 must be from 1 to 32"),
        ({"lookahead": 33}, "lookahead=33 must be from 1 to 32"),
        ({"temperature": -1.0}, "temperature=-1.0 must be 0 or more"),
        ({"temperature": float("nan")}, "temperature=nan must be 0 or more"),
        ({"mode": "greedy"}, "mode='greedy' is none of lossless, threshold"),
        ({"threshold": -0.1}, "threshold=-0.1 must be 0 or more"),
    ],
)
def test_settings_out_of_range_are_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        dataclasses.replace(Settings(), **values)
    assert "\n" not in str(caught.value)
