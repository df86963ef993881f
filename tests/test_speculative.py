"""Decoding with a draft: the tokens are the target's, the states those of stepping."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw

from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.chains import (
    byte_chain,
    controller_chain,
    group_distribution,
    hidden,
    outputs,
)
from jaxbench.serving.speculative import (
    Alone,
    Settings,
    Side,
    Speculator,
    Statistics,
    play,
    prompt_tokens,
    read_tokens,
    write,
)
from jaxbench.tasks.pile.modules import ByteEncoder, ByteHead, ByteTable
from jaxbench.tasks.pile.text import SEPARATOR, Writer
from jaxbench.tasks.zelda.encoder import CleanEncoder
from jaxbench.tasks.zelda.heads import HEADS
from jaxbench.tasks.zelda.stream import INPUTS, Stream

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


def stepped(side: Side, chain, tokens_tg):
    """The state after tokens, one after the other through the step form."""

    @jax.jit
    def step(state, position, token_g):
        batch = chain.batch(chain.arrays, position, token_g[None])
        return side.model.apply(side.variables, batch, state, method=hidden)[1]

    state = side.model.apply(side.variables, 1, method="initial_state")
    for t, token_g in enumerate(np.asarray(tokens_tg, np.int32)):
        state = step(state, jnp.int32(t), token_g)
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
    settings = Settings(lookahead=2, temperature=0.0)
    # The draft that agrees, the one that does not, and no draft.
    for side in (target, draft):
        decode = Speculator(target, side, byte_chain(), settings)
        assert bytes(write(decode, PROMPT, 60)) == expected
        if side is target:
            assert decode.statistics.acceptance_rate == 1
            assert decode.statistics.tokens_per_call == 3
        else:
            assert 0 < decode.statistics.acceptance_rate < 1
    alone = Alone(target, byte_chain(), length=3, temperature=0.0)
    assert bytes(write(alone, PROMPT, 60)) == expected
    assert len(set(expected)) > 3


@pytest.mark.integration
@pytest.mark.parametrize("backbone", ["gru", *OTHERS])
def test_states_after_part_of_a_chunk_are_those_of_stepping(backbone):
    target, draft = language(backbone), language("gru", seed=1)
    chain = byte_chain()
    decode = Speculator(target, draft, chain, Settings(lookahead=3, temperature=3.0))
    decode.restart(prompt_tokens(PROMPT))
    read = [prompt_tokens(PROMPT)]
    for _ in range(12):
        read.append(decode())
        # All but the last token are read.
        tokens_tg = np.concatenate(read)
        last = decode.progress
        assert last.token_g.tolist() == tokens_tg[-1].tolist()
        assert int(last.position) == len(tokens_tg) - 1
        assert_states_match(last.target, stepped(target, chain, tokens_tg[:-1]))
        assert_states_match(last.draft, stepped(draft, chain, tokens_tg[:-1]))
    lengths = {len(tokens) for tokens in read[1:]}
    assert len(lengths) > 1, "no round ended early: nothing was tested"
    assert decode.statistics.tokens == len(tokens_tg) - len(SEPARATOR + PROMPT)


@pytest.mark.integration
def test_a_draft_that_is_the_target_is_never_refused():
    side = language("gru")
    settings = Settings(lookahead=3, temperature=0.7)
    decode = Speculator(side, side, byte_chain(), settings)
    text = bytes(write(decode, PROMPT, 80))
    assert decode.statistics.lengths == (0, 0, 0, 20) and len(text) == 80


def z_score(drawn_t, p_tv) -> float:
    """How far the drawn tokens' log-probabilities lie from what they are worth.

    Given the tokens before, log p of the next has the mean and variance that p itself
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
    chain, start = byte_chain(), prompt_tokens(PROMPT)

    def score(decode, count=1500):
        text = list(write(decode, PROMPT, count))
        read_tg = np.concatenate([start, np.array(text[:-1])[:, None]])
        batch = chain.batch({}, jnp.int32(0), jnp.asarray(read_tg))
        logits, _ = target.model.apply(target.variables, batch)
        p_tv = chain.distributions(logits[0], 0.8)[0][len(start) - 1 :]
        return z_score(text, p_tv)

    settings = Settings(lookahead=2, temperature=0.8)
    decode = Speculator(target, draft, chain, settings)
    assert abs(score(decode)) < 4
    assert 0.02 < decode.statistics.acceptance_rate < 0.98
    alone = Alone(target, chain, length=5, temperature=0.8)
    assert abs(score(alone)) < 4
    loose = dataclasses.replace(settings, mode="threshold", threshold=0.01)
    assert abs(score(Speculator(target, draft, chain, loose))) > 6


@pytest.mark.integration
def test_draws_repeat_with_their_seed_and_statistics_begin_anew():
    target, draft = language("gru"), language("gru", seed=1)

    def made(seed):
        return Speculator(target, draft, byte_chain(), Settings(lookahead=1), seed=seed)

    one = made(0)
    text = bytes(write(one, PROMPT, 30))
    counted = one.statistics
    assert counted.rounds > 0
    one.reset_statistics()
    assert one.statistics == Statistics.none(1) and one.statistics.tokens_per_call == 0
    assert bytes(write(one, PROMPT, 30)) == text and one.statistics == counted
    assert bytes(write(made(1), PROMPT, 30)) != text


def test_statistics_count_proposals_not_the_token_after_them():
    found = Statistics.none(4)
    for count in (0, 4, 2, 2):
        found = found.add(count)
    assert found.lengths == (1, 0, 2, 0, 1)
    assert (found.rounds, found.proposed, found.accepted) == (4, 16, 8)
    assert found.tokens == 12 and found.tokens_per_call == 3
    assert found.acceptance_rate == 0.5
    assert Statistics.none(4).acceptance_rate == 0


@pytest.mark.integration
def test_a_prompt_is_read_as_a_chunk_like_byte_by_byte():
    side = language("gru")
    tokens_tg = prompt_tokens(b"whether tis nobler")
    assert bytes(tokens_tg[:, 0].tolist()) == SEPARATOR + b"whether tis nobler"
    found = read_tokens(side, byte_chain(), tokens_tg)
    assert_states_match(found, stepped(side, byte_chain(), tokens_tg))
    with pytest.raises(InputError, match="must be bytes, not str"):
        prompt_tokens("text")


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
        Settings(**values)
    assert "\n" not in str(caught.value)


# --- policies -------------------------------------------------------------------


FRAMES, SECOND_GAME = 150, 67


@functools.cache
def stream() -> Stream:
    """Frames of two games, made up; the clean encoder reads nothing else."""
    generator = np.random.default_rng(0)
    start_n = np.zeros(FRAMES, bool)
    start_n[[0, SECOND_GAME]] = True
    ids = {
        "action_state_btn": (4, 399),
        "character_btp": (2, 33),
        "item_type_bti": (3, 10),
    }
    frames = {
        name: generator.integers(-1, most, (FRAMES, count), np.int32)
        for name, (count, most) in ids.items()
    }
    frames["numeric_btf"] = generator.normal(size=(FRAMES, 30)).astype(np.float32)
    frames["stage_bt"] = generator.integers(0, 5, FRAMES, np.int32)
    top = [256, 17, 17, 17, 17, 5]
    frames["previous_bta"] = generator.integers(0, top, (FRAMES, 6), np.int32)
    assert set(frames) == set(INPUTS["clean"])
    first_n = np.where(np.arange(FRAMES) < SECOND_GAME, 0, SECOND_GAME)
    return Stream(np.arange(FRAMES), start_n, first_n, frames)


@functools.cache
def policy(head: str, seed: int) -> Side:
    """An untrained policy, made louder, so that its heads have preferences."""
    model = Model(
        encoder=CleanEncoder(width=16),
        stack=build_stack("gru", width=16, depth=1),
        head=HEADS[head](),
        readout="last",
    )
    batch = stream().window(7, 4) | {"target_bta": np.zeros((1, 1, 6), np.int32)}
    variables = jax.device_put(draw(model, batch, seed=seed))
    return Side(model, jax.tree.map(lambda x: 1.3 * x, variables))


def pair(head: str) -> tuple[Side, Side]:
    target = policy(head, 0)
    return target, erring(target, policy(head, 1))


@pytest.mark.integration
@pytest.mark.parametrize(
    "head",
    [
        "independent",
        pytest.param("autoregressive", marks=pytest.mark.slow),
    ],
)
def test_controllers_are_drawn_from_the_target_group_by_group(head):
    target, draft = pair(head)
    chain = controller_chain(stream())
    decode = Speculator(target, draft, chain, Settings(lookahead=2))
    labels_ta = play(decode, 700)
    assert 0.02 < decode.statistics.acceptance_rate < 0.98
    # Anew, as one chunk, with what was drawn: the target's own conditionals.
    read_ta = np.concatenate([np.zeros((1, 6), np.int32), labels_ta[:-1]])

    @jax.jit
    def anew(read_ta, labels_ta):
        batch = chain.batch(chain.arrays, jnp.int32(0), read_ta)
        h_btd, _ = target.model.apply(target.variables, batch, None, method=hidden)
        given = (target.variables, h_btd, labels_ta[None])
        logits = target.model.apply(*given, method=outputs)
        one = [
            group_distribution(
                *target, chain, h_btd[0, 40], labels_ta[40], g, temperature=1.0
            )
            for g in range(6)
        ]
        return chain.distributions(logits, 1.0), one

    p, one = anew(read_ta, labels_ta)
    for g, p_btv in enumerate(p):
        assert abs(z_score(labels_ta[:, g], p_btv[0])) < 4, g
        # What teacher forcing says is what is drawn from, group after group.
        np.testing.assert_allclose(one[g], p_btv[0, 40], rtol=1e-4, atol=1e-7)


@pytest.mark.integration
def test_policies_carry_on_over_the_start_of_a_game():
    target, draft = pair("independent")
    chain = controller_chain(stream())
    decode = Speculator(target, draft, chain, Settings(lookahead=2))
    read = [np.zeros((1, 6), np.int32)]
    while sum(map(len, read)) < 160:  # past the second game, round to the first
        read.append(decode())
    tokens_tg = np.concatenate(read)
    for side, state in zip(
        (target, draft), (decode.progress.target, decode.progress.draft), strict=True
    ):
        assert_states_match(state, stepped(side, chain, tokens_tg[:-1]))


def test_a_chain_reads_what_was_drawn_except_where_a_game_begins():
    chain, frames = controller_chain(stream()), stream().frames
    drawn_ta = jnp.arange(6)[:, None] + jnp.zeros((1, 6), jnp.int32)
    batch = chain.batch(chain.arrays, jnp.int32(64), drawn_ta)
    previous = np.array(batch["previous_bta"][0])
    np.testing.assert_array_equal(previous[3], frames["previous_bta"][67])
    np.testing.assert_array_equal(np.delete(previous[:, 0], 3), [0, 1, 2, 4, 5])
    assert batch["reset_bt"].tolist() == [[False] * 3 + [True] + [False] * 2]
    for name in ("numeric_btf", "action_state_btn", "stage_bt"):
        np.testing.assert_array_equal(batch[name][0], frames[name][64:70])
    # After the last frame comes the first.
    batch = chain.batch(chain.arrays, jnp.int32(149), drawn_ta[:2])
    np.testing.assert_array_equal(
        batch["numeric_btf"][0], frames["numeric_btf"][[149, 0]]
    )
    assert batch["reset_bt"].tolist() == [[False, True]]


@pytest.mark.integration
def test_cold_policies_choose_what_the_target_alone_does():
    target, draft = pair("independent")
    chain = controller_chain(stream())
    alone = Alone(target, chain, length=10, temperature=0.0)
    decode = Speculator(target, draft, chain, Settings(lookahead=2, temperature=0.0))
    np.testing.assert_array_equal(play(decode, 200), play(alone, 200))
