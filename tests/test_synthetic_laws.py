"""Recall, flip-flop and word problem against what is counted in other ways."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from jaxbench.data.synthetic import flip_flop, mqar
from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.groups import GENERATORS, group
from jaxbench.data.synthetic.streams import stream
from jaxbench.data.synthetic.word_problem import WordProblem


def draw(event: Event, law: str, count: int, split: str = "train") -> Examples:
    return event.draw(law, count, stream(3, event.name, split, law))


# Recall.


@pytest.mark.parametrize(
    ("event", "law", "pairs"),
    [
        (mqar.Mqar(), "L2", {128: 8}),
        (mqar.Mqar(filler="random"), "L4", {512: 64}),
        (mqar.Mqar(), "length_1024", {1024: 256}),
        (mqar.Mqar(20, "random", pairs=9, tokens=36), "custom", {36: 9}),
    ],
)
def test_mqar_asks_every_key_once_for_its_value(event, law, pairs):
    ((tokens, count),) = pairs.items()
    half = event.vocabulary // 2
    for token_t, target_t in zip(*draw(event, law, 50), strict=True):
        context = token_t[: 2 * count].tolist()
        value_of = dict(zip(context[::2], context[1::2], strict=True))
        assert len(value_of) == len(set(value_of.values())) == count
        assert 1 <= min(value_of) and max(value_of) < half
        assert half <= min(value_of.values())
        assert max(value_of.values()) < event.vocabulary
        asked = np.flatnonzero(target_t != IGNORE)
        assert asked.min() >= 2 * count and (asked % 2 == 0).all()
        assert sorted(token_t[asked]) == sorted(value_of)
        assert [value_of[k] for k in token_t[asked]] == target_t[asked].tolist()
        rest = np.setdiff1d(np.arange(2 * count, tokens), asked)
        if event.filler == "zero":
            assert not token_t[rest].any()


def test_mqar_fills_with_any_token_where_it_is_asked_to():
    tokens_nt, targets_nt = draw(
        mqar.Mqar(8, "random", pairs=1, tokens=16), "custom", 8000
    )
    filled = tokens_nt[:, 2:][targets_nt[:, 2:] == IGNORE]
    assert stats.chisquare(np.bincount(filled, minlength=8)).pvalue > 1e-3


def test_mqar_queries_follow_the_power_law():
    """Where the first pair is asked is the first draw: p(g) ~ (g + 1)^-0.99."""
    tokens_nt, targets_nt = draw(mqar.Mqar(), "L3", 20_000)
    asked_nt = (tokens_nt == tokens_nt[:, :1]) & (targets_nt != IGNORE)
    slot_n = (np.argmax(asked_nt, axis=1) - 32) // 2
    wanted_g = np.arange(1, 113) ** -0.99
    wanted_g *= len(slot_n) / wanted_g.sum()
    found_g = np.bincount(slot_n, minlength=112)
    assert stats.chisquare(found_g, wanted_g).pvalue > 1e-3


def test_mqar_slots_are_draws_without_replacement():
    """Two pairs in three slots: the chance of every ordered pair of slots."""
    event = mqar.Mqar(16, pairs=2, tokens=10)
    tokens_nt, targets_nt = draw(event, "custom", 30_000)
    place_nt = np.where(targets_nt != IGNORE, tokens_nt, IGNORE)
    slots = [
        ((place_nt == tokens_nt[:, [key]]).argmax(axis=1) - 4) // 2 for key in (0, 2)
    ]
    weights = [(g + 1) ** -0.99 for g in range(3)]
    ordered = list(itertools.permutations(range(3), 2))
    chances = [
        weights[a] / sum(weights) * weights[b] / (sum(weights) - weights[a])
        for a, b in ordered
    ]
    found = Counter(zip(*(slot_n.tolist() for slot_n in slots), strict=True))
    result = stats.chisquare([found[s] for s in ordered], np.multiply(chances, 30_000))
    assert result.pvalue > 1e-3


def test_distinct_numbers_come_in_every_order_equally_often():
    drawn = mqar.distinct(np.random.default_rng(0), 60_000, 3, 5)
    found = Counter(map(tuple, drawn.tolist()))
    assert set(found) == set(itertools.permutations(range(5), 3))
    assert stats.chisquare(list(found.values())).pvalue > 1e-3


def test_mqar_mixes_shapes_five_to_one_and_pads_the_shorter_ones():
    tokens_nt, targets_nt = draw(mqar.Mqar(filler="random"), "mixed", 9000)
    pairs_n = (targets_nt != IGNORE).sum(axis=1)
    found = [int((pairs_n == pairs).sum()) for pairs in (4, 8, 16, 32, 64)]
    assert sum(found) == 9000
    wanted = [5000, 1000, 1000, 1000, 1000]
    assert stats.chisquare(found, wanted).pvalue > 1e-3
    for pairs, tokens in ((4, 64), (8, 128)):
        assert not tokens_nt[pairs_n == pairs, tokens:].any()
        assert (targets_nt[pairs_n == pairs, tokens:] == IGNORE).all()


def test_mqar_large_sets_take_little_more_memory_than_they_are():
    tracemalloc.start()
    examples = draw(mqar.Mqar(), "L4", 30_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < sum(array.nbytes for array in examples) + 100e6


def test_mqar_floor_in_context_is_one_of_each_sequence():
    event = mqar.Mqar()
    for law, share in (("L1", 1 / 4), ("L4", 1 / 64)):
        examples = draw(event, law, 20)
        assert event.floors(law, examples, examples)["in_context_value"] == share
    mixed = draw(event, "mixed", 2000)
    pairs_n = (mixed.targets_nt != IGNORE).sum(axis=1)
    wanted = sum(k * (1 / k) for k in pairs_n) / sum(pairs_n)
    found = event.floors("mixed", mixed, mixed)
    assert found["in_context_value"] == pytest.approx(wanted)
    assert found["uniform"] == 1 / 4096


# Flip-flop.


@pytest.mark.parametrize(
    ("law", "skipped"),
    [("L1", 0.8), ("L2_sparse", 0.98), ("L2_dense", 0.1), ("length_1024", 0.8)],
)
def test_flip_flop_reads_what_was_written_in_the_right_proportions(law, skipped):
    tokens_nt, targets_nt = draw(flip_flop.FlipFlop(), law, 600)
    for token_t, target_t in zip(tokens_nt.tolist(), targets_nt.tolist(), strict=True):
        held, wanted = None, [IGNORE] * len(token_t)
        for place in range(0, len(token_t), 2):
            instruction, bit = token_t[place : place + 2]
            if instruction == 0:
                held = bit
            elif instruction == 1:
                assert bit == held
                wanted[place] = held
        assert target_t == wanted
    told_np, bits_np = tokens_nt[:, 0::2], tokens_nt[:, 1::2]
    assert (told_np[:, 0] == 0).all() and (told_np[:, -1] == 1).all()
    assert set(np.unique(bits_np)) == {3, 4}
    inner = told_np[:, 1:-1]
    rest = (1 - skipped) / 2
    wanted = np.multiply([rest, rest, skipped], inner.size)
    assert stats.chisquare(np.bincount(inner.ravel()), wanted).pvalue > 1e-3
    fair = bits_np[told_np != 1]
    assert stats.binomtest(int((fair == 4).sum()), fair.size).pvalue > 1e-3


def test_flip_flop_mix_has_four_densities_equally_often():
    tokens_nt, _ = draw(flip_flop.FlipFlop(train_mix=True), "L4+mix", 2000)
    share_n = (tokens_nt[:, 2:-2:2] == 2).mean(axis=1)
    near_n = np.argmin(np.abs(share_n[:, None] - [0.1, 0.8, 0.9, 0.98]), axis=1)
    # 254 draws tell 0.8, 0.9 and 0.98 apart but for a few sequences.
    assert np.bincount(near_n) == pytest.approx([500] * 4, abs=80)


def test_flip_flop_previous_bit_is_right_unless_it_was_to_ignore():
    """A bit before a read is the held one, or a fair one after an ignored turn."""
    event = flip_flop.FlipFlop()
    for law, skipped in (("L4", 0.8), ("L4_dense", 0.1)):
        found = event.floors(law, *[draw(event, law, 1000)] * 2)["previous_bit"]
        assert found == pytest.approx(1 - skipped / 2, abs=0.01)


# Word problem.


@pytest.mark.parametrize("name", GENERATORS)
def test_groups_are_groups_of_order_60(name):
    elements_gp, table_gg = group(name)
    assert table_gg.shape == (60, 60) and table_gg.dtype == np.int16
    assert len(set(map(tuple, elements_gp.tolist()))) == 60
    everything = np.arange(60)
    # Closed; 0 is the identity; every element has an inverse; associative.
    assert all((np.sort(row) == everything).all() for row in table_gg)
    assert (table_gg[0] == everything).all() and (table_gg[:, 0] == everything).all()
    assert ((table_gg == 0).sum(axis=1) == 1).all()
    assert (table_gg[table_gg, :] == table_gg[:, table_gg]).all()
    # The table is what the permutations do: first a, then b.
    for a, b in itertools.product(range(0, 60, 7), range(60)):
        product = [int(elements_gp[b][p]) for p in elements_gp[a]]
        assert product == elements_gp[table_gg[a, b]].tolist()
    with pytest.raises(ValueError, match="read-only"):
        table_gg[0, 0] = 1


def conjugacy_classes(table_gg: np.ndarray) -> set[frozenset[int]]:
    inverse = np.argmax(table_gg == 0, axis=1)
    return {
        frozenset(int(table_gg[table_gg[inverse[g], a], g]) for g in range(60))
        for a in range(60)
    }


def test_a5_is_simple():
    """No union of conjugacy classes is a subgroup but the smallest and the whole."""
    elements_gp, table_gg = group("A5")
    assert elements_gp.shape == (60, 5)
    classes = sorted(conjugacy_classes(table_gg), key=len)
    assert [len(found) for found in classes] == [1, 12, 12, 15, 20]
    for count in range(1, 4):
        for union in itertools.combinations(classes[1:], count):
            assert 60 % (1 + sum(map(len, union))) != 0
    assert (table_gg != table_gg.T).any()


def test_a4xz5_is_solvable_but_does_not_commute():
    table_gg = group("A4xZ5").table_gg
    assert (table_gg != table_gg.T).any()
    inverse = np.argmax(table_gg == 0, axis=1)
    commutators = {
        int(table_gg[table_gg[inverse[a], inverse[b]], table_gg[a, b]])
        for a in range(60)
        for b in range(60)
    }
    # The derived subgroup of A4 is the Klein four-group, which commutes.
    assert len(commutators) == 4
    assert all(table_gg[a, a] == 0 for a in commutators)
    # Four elements commute with all others of A4 x Z5 only if Z5 is a factor.
    centre = [a for a in range(60) if (table_gg[a] == table_gg[:, a]).all()]
    assert len(centre) == 5


def test_z60_is_addition_modulo_60():
    everything = np.arange(60)
    sums = (everything[:, None] + everything[None]) % 60
    assert (group("Z60").table_gg == sums).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_word_problem_moves_points_element_after_element(name):
    elements_gp = group(name).elements_gp.tolist()
    examples = draw(WordProblem(name), "length_40", 20)
    for token_t, target_t in zip(*examples, strict=True):
        points = list(range(len(elements_gp[0])))
        for token, target in zip(token_t, target_t, strict=True):
            points = [elements_gp[token][point] for point in points]
            assert points == elements_gp[target]


def test_word_problem_elements_and_products_are_uniform():
    for array in draw(WordProblem(), "L2", 8000):
        assert stats.chisquare(np.bincount(array.ravel())).pvalue > 1e-3


def test_word_problem_last_element_is_right_at_the_first_position():
    event = WordProblem()
    for law, length in (("L1", 4), ("L6", 25)):
        found = event.floors(law, *[draw(event, law, 4000)] * 2)["last_element"]
        assert found == pytest.approx((1 + (length - 1) / 60) / length, abs=0.01)
