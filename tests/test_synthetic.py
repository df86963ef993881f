"""What every synthetic task promises, of every option, level and law."""

from __future__ import annotations

import functools
from collections import Counter

import numpy as np
import pytest

from jaxbench.data.synthetic import rules
from jaxbench.data.synthetic.edit_distance import EditDistance
from jaxbench.data.synthetic.event import IGNORE, Event, Examples
from jaxbench.data.synthetic.flip_flop import FlipFlop
from jaxbench.data.synthetic.knapsack import Knapsack
from jaxbench.data.synthetic.mqar import Mqar
from jaxbench.data.synthetic.streams import fingerprint, stream
from jaxbench.data.synthetic.word_problem import WordProblem
from jaxbench.errors import InputError
from jaxbench.tasks.pentathlon.events import ORIGINALS

EVENTS: tuple[Event, ...] = (
    Mqar(),
    Mqar(filler="random"),
    Mqar(vocabulary=40, filler="random", pairs=8, tokens=37),
    FlipFlop(),
    FlipFlop(train_mix=True),
    *(Knapsack(target) for target in ("direct", "digits", "dp")),
    *(WordProblem(group) for group in ("A5", "A4xZ5", "Z60")),
    *(EditDistance(target) for target in ("direct", "dp")),
)
every_event = pytest.mark.parametrize("event", EVENTS, ids=str)
originals_too = pytest.mark.parametrize(
    "event", (*EVENTS, *(original() for original in ORIGINALS.values())), ids=str
)


def laws(event: Event) -> tuple[str, ...]:
    return (*event.levels, *event.extra_laws)


@functools.cache
def draw(event: Event, law: str, count: int = 200, split: str = "train") -> Examples:
    return event.draw(law, count, stream(0, event.name, split, law))


@every_event
def test_examples_are_as_long_as_the_law_says_and_within_the_vocabulary(event):
    for law in laws(event):
        tokens_nt, targets_nt = draw(event, law)
        for array in (tokens_nt, targets_nt):
            assert array.shape == (200, event.length(law)), law
            assert array.dtype == np.int32, law
            assert array.flags.writeable and array.base is None, law
        assert tokens_nt.min() >= 0 and tokens_nt.max() < event.vocabulary, law
        assert targets_nt.min() >= IGNORE, law
        assert targets_nt.max() < event.vocabulary, law
        asked_n = (targets_nt != IGNORE).sum(axis=1)
        assert asked_n.min() >= 1 and asked_n.max() <= event.answers(law), law
        if event.values_v is not None:
            assert event.values_v.shape == (event.vocabulary,)
            numbers = event.values_v[targets_nt[targets_nt != IGNORE]]
            assert np.isfinite(numbers).all() and numbers.min() >= 0, law


@every_event
def test_the_oracle_reaches_the_ceiling(event):
    for law in laws(event):
        tokens_nt, targets_nt = draw(event, law)
        said_nt = event.solve(tokens_nt, targets_nt != IGNORE)
        np.testing.assert_array_equal(said_nt, targets_nt, law)
        for scored in ("labels", "last", "sequence"):
            assert rules.share_right(said_nt, targets_nt, scored) == event.ceiling


@every_event
def test_the_oracle_reads_nothing_that_comes_later(event):
    """Neither garbage nor silence after a position changes what is said up to it.

    Not even where the task asks nothing, such as at a key that was not seen before.
    """
    generator = np.random.default_rng(0)
    for law in laws(event):
        tokens_nt = draw(event, law).tokens_nt[:40]
        asked_nt = np.ones(tokens_nt.shape, bool)
        wanted_nt = event.solve(tokens_nt, asked_nt)
        for end in sorted({1, *generator.integers(1, event.length(law), size=2)}):
            changed_nt = tokens_nt.copy()
            changed_nt[:, end:] = generator.integers(
                event.vocabulary, size=changed_nt[:, end:].shape
            )
            for heard_nt in (changed_nt, tokens_nt[:, :end]):
                said_nt = event.solve(heard_nt, asked_nt[:, : heard_nt.shape[1]])
                same = said_nt[:, :end] == wanted_nt[:, :end]
                assert same.all(), (law, end)


def test_shares_are_what_a_loop_counts():
    generator = np.random.default_rng(1)
    targets_nt = generator.integers(-1, 3, size=(500, 7))
    targets_nt[:, 2] = 1
    said_nt = generator.integers(0, 3, size=(500, 7))
    right = {"labels": [], "last": [], "sequence": []}
    for said_t, target_t in zip(said_nt, targets_nt, strict=True):
        hits = [s == t for s, t in zip(said_t, target_t, strict=True) if t >= 0]
        right["labels"] += hits
        right["last"] += hits[-1:]
        right["sequence"] += [all(hits)]
    for scored, counted in right.items():
        share = rules.share_right(said_nt, targets_nt, scored)
        assert share == pytest.approx(np.mean(counted)) and 0 < share < 1


@every_event
def test_a_constant_predictor_scores_the_mode(event):
    """What is constant is a label, or all answers of a sequence where those count."""

    def things(found: Examples) -> list[tuple[int, ...]]:
        answers = [row[row != IGNORE].tolist() for row in found.targets_nt]
        if event.scored == "labels":
            return [(label,) for row in answers for label in row]
        first = 0 if event.scored == "sequence" else -1
        return [tuple(row[first:]) for row in answers]

    for law in laws(event):
        examples, train = draw(event, law, split="validation"), draw(event, law)
        counts = Counter(things(train))
        most = min(counts, key=lambda thing: (-counts[thing], thing))
        right = [thing == most for thing in things(examples)]
        floors = event.floors(law, examples, train)
        assert floors["mode"] == pytest.approx(np.mean(right), abs=1e-12), law
        assert {"uniform", "mode"} < set(floors), law
        assert all(0 <= share < event.ceiling for share in floors.values()), law


@originals_too
def test_the_same_stream_draws_the_same_and_others_do_not(event):
    def drawn(law: str, count: int, split: str = "train") -> Examples:
        return event.draw(law, count, stream(0, event.name, split, law))

    for law in laws(event):
        first = fingerprint(drawn(law, 50))
        assert fingerprint(drawn(law, 50)) == first, law
        assert fingerprint(drawn(law, 50, "test")) != first, law
        assert fingerprint(drawn(law, 51)) != first, law
        for count in (0, 1):
            assert drawn(law, count).tokens_nt.shape == (count, event.length(law))


@every_event
def test_every_split_can_be_drawn_and_test_comes_first(event):
    for level in event.levels:
        tests = event.tests(level)
        assert next(iter(tests)) == "test"
        assert event.validation_examples(level) >= 1000
        for test in tests.values():
            assert test.law in (*event.levels, *event.extra_laws)
            assert test.examples >= 1000
            few = event.draw(test.law, 3, stream(0, event.name, "test", test.law))
            assert few.tokens_nt.shape == (3, event.length(test.law))
        assert event.length(tests["test"].law) == event.length(level)


@originals_too
def test_a_level_that_does_not_exist_is_named_with_its_nearest(event):
    near = event.levels[0] + "x"
    for name in ("L99", "", near):
        calls = (
            lambda name=name: event.length(name),
            lambda name=name: event.answers(name),
            lambda name=name: event.draw(name, 1, np.random.default_rng(0)),
            lambda name=name: event.tests(name),
            lambda name=name: event.validation_examples(name),
        )
        for call in calls:
            named = f"{event.name}.*{name!r}.*nearest: "
            with pytest.raises(InputError, match=named) as caught:
                call()
            assert "\n" not in str(caught.value)
            assert name != near or event.levels[0] in str(caught.value)
    for law in event.extra_laws:
        with pytest.raises(InputError, match="no level"):
            event.tests(law)


def test_the_splits_of_each_task():
    def splits(event: Event, level: str) -> dict[str, tuple[str, int]]:
        tests = event.tests(level).items()
        return {name: (test.law, test.examples) for name, test in tests}

    longer = {f"length_{t}": (f"length_{t}", 1000) for t in (512, 1024)}
    assert splits(Mqar(), "L0") == {"test": ("L0", 1000)} | longer
    for level in ("L1", "L2", "L3", "L4", "mixed"):
        assert splits(Mqar(), level) == {"test": (level, 3000)} | longer
    flip_flop = {
        "test": ("L2", 10_000),
        "test_sparse": ("L2_sparse", 10_000),
        "test_dense": ("L2_dense", 10_000),
        "length_1024": ("length_1024", 1000),
        "length_1024_sparse": ("length_1024_sparse", 1000),
        "length_2048": ("length_2048", 1000),
        "length_2048_sparse": ("length_2048_sparse", 1000),
    }
    # Training on a mix changes no test.
    for event in (FlipFlop(), FlipFlop(train_mix=True)):
        assert splits(event, "L2") == flip_flop
    assert FlipFlop().training_law("L2") == "L2"
    assert FlipFlop(train_mix=True).training_law("L2") == "L2+mix"
    assert splits(WordProblem(), "L6") == {
        "test": ("L6", 10_000),
        "length_50": ("length_50", 1000),
        "length_100": ("length_100", 1000),
    }
    assert splits(Knapsack(), "L1") == {"test": ("L1", 5000)} | {
        f"length_{n}": (f"length_{n}", 1000) for n in (16, 24, 32)
    }
    assert splits(EditDistance(), "L3") == {
        "test": ("L3", 5000),
        "length_32": ("length_32", 1000),
    }


UNMET = [
    (lambda: Mqar(filler="zeros"), "filler='zeros'.*zero"),
    (lambda: Knapsack("digit"), "target='digit'.*digits"),
    (lambda: EditDistance("digits"), "target='digits'.*direct"),
    (lambda: WordProblem("A6"), "group='A6'.*A5"),
    (lambda: Mqar(pairs=4), "pairs=4 and tokens=0"),
    (lambda: Mqar(tokens=32), "pairs=0 and tokens=32"),
    (lambda: Mqar(pairs=-1, tokens=32), "pairs=-1"),
    (lambda: Mqar(pairs=9, tokens=35), "9 are more pairs.* 35 tokens hold 8 pairs"),
    (lambda: Mqar(16, pairs=8, tokens=64), "vocabulary=16 has 7 keys"),
    (lambda: Mqar(1, pairs=1, tokens=64), "vocabulary=1 has 0 keys"),
    (lambda: Mqar(64).length("L4"), "64 are more pairs.*64 has 31 keys"),
    (lambda: Mqar(64).tests("L4"), "64 are more pairs.*64 has 31 keys"),
    (lambda: Mqar(64).draw("length_512", 1, np.random.default_rng()), "128 are"),
]


def test_options_that_cannot_be_met_are_named():
    for make, named in UNMET:
        with pytest.raises(InputError, match=named) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_small_vocabulary_has_no_split_that_it_cannot_fill():
    assert Mqar(64).extra_laws == ()
    assert Mqar(258).extra_laws == ("length_512",)
    assert set(Mqar(64).tests("L3")) == {"test"}
    # A level of its own is the only one, and longer splits come with it.
    own = Mqar(pairs=100, tokens=600)
    assert own.levels == ("custom",)
    assert set(own.tests("custom")) == {"test", "length_1024"}


# Of each law, levels first: 32 examples of one stream.
GOLDEN = {
    Mqar(): """
        cd4f8db68a6c09f9 b5db9699c15cafe8 9b6f21e4592ae1d3 de072c369f30091a
        b694c8e64b315aa6 bbbf9b1104c78a8e ba497619d276824c 69cfa75b4fe27eb0
    """,
    Mqar(filler="random"): """
        bfef8682338989b3 e8be66f51bd293d4 9a6b76076966fd03 c06abe6b4707f0e8
        e543bfb51b43b38a 4233cd1cc0195d62 d52fecdfbc2f6e7e 729958c986f3c42c
    """,
    Mqar(vocabulary=40, filler="random", pairs=8, tokens=37): """
        6cfc2cc2528b3401
    """,
    FlipFlop(): """
        98d6090f24fdbc34 80aba437489361c7 2210d992d4de5d93 332967b08257ec0e
        33a7cc91a5a5f381 519059f65a1f131e 57daf2a97cebd44f a223facb5c5c9f87
        7140450d7b106609 8de47f0bb21f258a 9fd31e3ef074540f d7404d8d2e1472d0
        052fac06631eca99 a1a245a853396058 44077dc55ce0016d 0c1111907255e1a5
    """,
    FlipFlop(train_mix=True): """
        98d6090f24fdbc34 80aba437489361c7 2210d992d4de5d93 332967b08257ec0e
        0b0c68b91508ede9 86e6152ce10627ed bd215d12b1f46ff2 2b76d22ee173cc50
        33a7cc91a5a5f381 519059f65a1f131e 57daf2a97cebd44f a223facb5c5c9f87
        7140450d7b106609 8de47f0bb21f258a 9fd31e3ef074540f d7404d8d2e1472d0
        052fac06631eca99 a1a245a853396058 44077dc55ce0016d 0c1111907255e1a5
    """,
    Knapsack(): """
        087935b214412c9e 19a02ca0e9e19d49 3ed1ca29d3619ea1 1a10d7881c777c86
        220ce38c7399a636 69f2add75db8ea64 9c2521c5fc368b52 0c867bf9978045e5
    """,
    Knapsack(target="digits"): """
        7871a8bbe7ea5f70 699696de522047ee 2d60016f924dc598 9a7069f3abc35913
        a809e32dc1c01b08 87c3d226ff5fea01 ada86fd8e4b9e9e3 97ff4655bd6f43fc
    """,
    Knapsack(target="dp"): """
        143c714a767e5cfb fc5f147e41ea1a37 1c39e26bd949c6b5 924b4006bc83fb7a
        4497d943234e9271 29330c1f491403a5 e72c5749a53ab355 b0d030480a701490
    """,
    WordProblem(): """
        da90b99916f65b1f 2cfd4c0d4b3ad069 a71ad3bec1d18585 acf048f8b63ea146
        328c7b2629b83a1e 47a7e4eeb319370c 358d2f067d8e3663 1441917801b5d0b2
        462ed00d48f3e0c0 568f9c7ed2328676 eaaca06467c3fb30 ee7fb69e71a73c7e
        0b836901f966a97c 3abc3c78b36afb18 cd7c0c2567b2f24f 8bff577561e60c2b
    """,
    WordProblem(group="A4xZ5"): """
        83178417a18f5876 97c3955813caeca6 420c80fc6bfc5d71 398c39ef834ebaba
        ef271da1565da44d 7d6e194c4ee62841 5921e9f972717e35 ff54519b0cfacaed
        01c5916df29568d9 285b4d7d5317d49d 5a6c73023b48fde9 4ff7d1cbaacc93ef
        4c4d9b4c849cbb43 9784e50063954b7c deaabcb0cdb90cb2 8a96a9197b73a709
    """,
    WordProblem(group="Z60"): """
        3ff21e4e3dff9037 fdbb45a42eea4c8c 2186ad7bb93f3bbf c778694c2bf9b01d
        6ead681b1063cd3f 9c3045c258a31a96 efc3aa9681323269 626cb9b7913f2631
        08e556fbcc2c642d 3253fae21052f372 502242fc3bd3da7f 16a863533a82e0ea
        b6c3b53eb51fab65 2b7aa13ca5117565 c9d6814a8a69092c 785564e87ffd54fa
    """,
    EditDistance(): """
        c5e4da72f9c65961 003cc8346162eab8 7d2876e5be2fbd59 4ed174bbb6892573
    """,
    EditDistance(target="dp"): """
        98af0dec3c37e892 426b78fe209f37e9 1d7ebc195e7e9143 cf16fd5ea23d32c8
    """,
}


def test_every_law_draws_what_version_1_drew():
    """Raise the `version` of a task whose law draws other examples than these."""
    for event, wanted in GOLDEN.items():
        assert event.version == 1
        found = {
            law: fingerprint(event.draw(law, 32, stream(7, event.name, "golden", law)))
            for law in (*event.levels, *event.extra_laws)
        }
        assert found == dict(zip(found, wanted.split(), strict=True)), event
