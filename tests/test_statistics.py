"""What a board claims: exact tests, intervals, ranks, and the lie detector."""

from __future__ import annotations

import json
import math
import runpy
import sys
import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import ROOT
from scipy import stats

from jaxbench.bench.statistics import (
    compare,
    interval,
    iqm,
    needed_seeds,
    rank,
    smallest_p,
    success_rate,
)
from jaxbench.bench.statistics.claims import decide, holm
from jaxbench.bench.statistics.simulated import SHAPES, false_claims, power, simulate

# Standard deviation over seeds as a share of the loss: 0.7 to 1.0 % of mlp, s5 and
# gru in results/zelda_clean.
NOISE = 0.008


# Boards of a simulation: 13 %, as without Holm, are told from 5 % 99 times in 100.
BOARDS = 400


def chance_bound(boards: int) -> float:
    """The 99 % upper bound of a share whose expectation is 5 %."""
    return stats.binom.ppf(0.99, boards, 0.05) / boards


# One backbone's scores


def test_interval_is_the_same_for_the_same_scores_in_any_order():
    scores = np.random.default_rng(0).normal(3, 1, 12).tolist()
    low, high = interval(scores)
    assert interval(scores[::-1]) == (low, high)
    assert min(scores) <= low <= np.median(scores) <= high <= max(scores)


def test_interval_of_few_constant_and_tied_scores():
    assert interval([1.0, 2.0]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert interval([1.1] * 5) == (1.1, 1.1)
        assert interval([1.1] * 12) == (1.1, 1.1)
        low, high = interval([1.0] * 11 + [2.0])
    assert low == 1.0 and math.isfinite(high)


def test_scores_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match=r"nan, inf"):
        interval([1.0, math.nan, 2.0, math.inf])
    with pytest.raises(ValueError, match=r"^gru: .*nan"):
        rank({"gru": [1.0, math.nan], "s4": [1.0]})


@pytest.mark.parametrize("n", [5, 9, 10])
def test_interval_covers_the_median(n):
    # By exact binomials the range covers the median with 1 - 2^(1 - n): 94 % at n = 5.
    rng = np.random.default_rng(n)
    covered = 0
    for scores in rng.standard_t(3, (150, n)):
        low, high = interval(scores.tolist(), resamples=499)
        covered += low <= 0.0 <= high
    assert covered / 150 >= 0.9


def test_iqm_drops_a_quarter_on_each_side():
    assert iqm([5.0]) == 5.0
    assert iqm([100.0, 1.0, 3.0, -50.0]) == 2.0
    assert iqm([1.0, 2.0, 3.0, math.inf]) == 2.5
    assert iqm([1.0, 2.0, math.inf, math.inf]) == math.inf
    with pytest.raises(ValueError, match="no score"):
        iqm([])


def test_success_rate_is_wilsons():
    found = success_rate(7, 10)
    z, p, n = stats.norm.ppf(0.975), 0.7, 10
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert found.rate == 0.7
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert success_rate(0, 5).low == 0.0 and success_rate(0, 0) is None
    with pytest.raises(ValueError, match="6 solved of 5"):
        success_rate(6, 5)


# Two backbones


def exhaustive_p(a: list[float], b: list[float]) -> float:
    """Twice the smaller tail over all relabellings, each counted."""
    pooled = np.array([*a, *b])

    def wins(chosen: tuple[int, ...]) -> float:
        left = pooled[list(chosen)]
        right = np.delete(pooled, chosen)
        return sum((x < y) + 0.5 * (x == y) for x in left for y in right)

    null = [wins(c) for c in combinations(range(len(pooled)), len(a))]
    seen = wins(tuple(range(len(a))))
    tails = np.mean([w <= seen for w in null]), np.mean([w >= seen for w in null])
    return min(1.0, 2 * min(tails))


few = st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, math.inf]), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(few, few)
def test_compare_with_ties_counts_every_relabelling(a, b):
    found = compare(a, b)
    assert found.p == pytest.approx(exhaustive_p(a, b), rel=1e-12)
    assert compare(b, a).p == pytest.approx(found.p, rel=1e-12)
    assert compare(b, a).probability_better == pytest.approx(
        1 - found.probability_better
    )


@pytest.mark.parametrize(("n", "m"), [(1, 3), (4, 4), (3, 9), (10, 10), (20, 17)])
def test_compare_without_ties_is_scipys_exact_test(n, m):
    rng = np.random.default_rng(n)
    for shift in (0.0, 1.0, 3.0):
        a, b = rng.normal(size=n), rng.normal(shift, 1, m)
        exact = stats.mannwhitneyu(a, b, method="exact")
        found = compare(a, b)
        assert found.p == pytest.approx(exact.pvalue, rel=1e-9)
        assert found.probability_better == pytest.approx(1 - exact.statistic / (n * m))
        assert compare(-a, -b, maximize=True) == found


def test_many_runs_and_equal_runs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=60), rng.normal(0.3, 1, 60)
    exact = stats.mannwhitneyu(a, b, method="exact").pvalue
    assert compare(a, b).p == pytest.approx(exact, rel=0.05)
    assert compare([1.0] * 60, [1.0] * 60).p == 1.0
    assert compare([1.0] * 4, [1.0] * 4).p == 1.0
    with pytest.raises(ValueError, match="empty"):
        compare([], [1.0])


def test_what_n_allows():
    assert smallest_p(5, 5) == 2 / 252 and smallest_p(1, 1) == 1.0
    assert compare(range(6), range(6, 12)).p == smallest_p(6, 6)
    # Ten pairs of five models: 5 seeds cannot pass, 6 can.
    assert needed_seeds(10) == 6 and needed_seeds(3) == 5 and needed_seeds(561) == 9
    for pairs in (1, 3, 45, 561):
        n = needed_seeds(pairs)
        assert smallest_p(n, n) <= 0.05 / pairs < smallest_p(n - 1, n - 1)


def test_holm_rejects_step_by_step():
    """p of 0.01, 0.02, 0.04: 3 x 0.01, 2 x 0.02 and 0.04 itself."""
    assert holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    rng = np.random.default_rng(0)
    for p in (rng.random(45) ** 4, np.ones(3), np.array([0.01, 0.01, 0.04, 0.02])):
        corrected = np.array(holm(p))
        for alpha in (0.001, 0.01, 0.03, 0.05, 0.2, 0.5):
            left, rejected = sorted(p), 0
            while left and left[0] * len(left) <= alpha:
                rejected += 1
                left.pop(0)
            assert (corrected <= alpha).sum() == rejected
        assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


# A board


def around(mean: float, n: int, seed: int, noise: float = NOISE) -> list[float]:
    return (mean + noise * np.random.default_rng(seed).normal(size=n)).tolist()


def test_clear_differences_are_ranks_and_the_rest_are_ties():
    board = rank(
        {"c": around(1.2, 10, 0), "a": around(1.0, 10, 1), "b": around(1.0, 10, 2)}
    )
    assert [row.rank for row in board.rows] == [1, 1, 3]
    assert board.rows[2].name == "c" and board.rows[2].tied_with == []
    assert board.rows[0].tied_with == [board.rows[1].name]
    assert {row.method for row in board.rows} == {"mann-whitney"}
    for row in board.rows:
        assert row.low <= row.median <= row.high
        assert (row.low, row.high) == interval(row.scores)
    assert [pair.better is None for pair in board.pairs] == [True, False, False]
    assert all(pair.p_holm >= pair.p for pair in board.pairs)
    assert board.noise_sd == pytest.approx(NOISE, rel=0.3)


def test_maximize_mirrors_the_board():
    losses = {"a": around(1.0, 6, 0), "b": around(1.1, 6, 1), "c": around(1.3, 6, 2)}
    gains = {name: [-x for x in scores] for name, scores in losses.items()}
    down = rank(losses, failed={"a": 1})
    up = rank(gains, maximize=True, failed={"a": 1})
    for low, high in zip(down.rows, up.rows, strict=True):
        assert (low.name, low.rank, low.tied_with) == (
            high.name,
            high.rank,
            high.tied_with,
        )
        assert high.median == -low.median and high.scores == tuple(gains[high.name])


def test_one_seed_each_claims_nothing():
    board = rank({"a": [1.0], "b": [2.0], "c": [30.0]})
    assert [row.rank for row in board.rows] == [1, 1, 1]
    assert {row.method for row in board.rows} == {"none"}
    assert (
        board.noise_sd is None and "one seed each: nothing is claimed." in board.notes
    )
    assert any("needs 5 seeds" in note for note in board.notes)
    assert [row.name for row in rank({"a": [1.0]}).rows] == ["a"]


def test_measured_noise_is_lent_to_single_seeds():
    board = rank({"noise": around(1.0, 8, 0), "far": [1.5], "near": [1.002]})
    rows = {row.name: row for row in board.rows}
    assert rows["far"].rank == 3 and rows["near"].rank == rows["noise"].rank == 1
    assert {pair.method for pair in board.pairs} == {"assumed noise"}
    assert board.noise_from == ["noise"] and rows["far"].low is None
    # An independent computation: Student's t with the noise of eight seeds.
    scores = np.array(rows["noise"].scores)
    pair = next(p for p in board.pairs if {p.a, p.b} == {"noise", "near"})
    scale = scores.std(ddof=1) * math.sqrt(1 + 1 / 8)
    expected = 2 * stats.t.sf(abs(1.002 - scores.mean()) / scale, 7)
    assert pair.p == pytest.approx(expected, rel=1e-9)
    assert any(note.startswith("assumed noise") for note in board.notes)


def test_noise_of_equal_seeds_is_not_believed():
    board = rank({"a": [1.1] * 3, "b": [1.3] * 3, "c": [1.2]})
    assert {row.rank for row in board.rows} == {1} and board.noise_sd is None
    assert any("no noise is measured" in note for note in board.notes)


def test_unlike_noise_is_said():
    groups = {"a": around(1, 3, 0), "b": around(1, 3, 1), "c": around(1, 3, 2, 1.0)}
    assert any(
        "not alike: sd" in note and "for c" in note for note in rank(groups).notes
    )


boards = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.lists(st.integers(0, 40).map(lambda x: x / 4), min_size=1, max_size=9),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(boards, st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 6)))
def test_no_rank_contradicts_a_claim(groups, failed):
    claims = decide(groups, False, 0.5, failed)
    for pair in claims.pairs:
        if pair.better:
            other = pair.b if pair.better == pair.a else pair.a
            assert claims.ranks[pair.better] < claims.ranks[other]
    assert min(claims.ranks.values()) == 1
    assert set(claims.ranks) == set(groups) | set(failed)
    shuffled = dict(sorted(groups.items(), reverse=True))
    assert decide(shuffled, False, 0.5, failed).ranks == claims.ranks


def test_ranks_follow_chains_of_claims_where_counts_would_not():
    # c beats a in spite of its failed run, a beats b's one seed by assumed noise, but
    # with a failed run c may not: by counts a and b would share a rank.
    groups = {"a": around(1.0, 10, 0), "b": [1.2], "c": around(0.9, 9, 1)}
    found = decide(groups, False, 0.05, {"c": 1})
    better = {(pair.a, pair.b): pair.better for pair in found.pairs}
    assert better == {("c", "a"): "c", ("a", "b"): "a", ("c", "b"): None}
    assert found.ranks == {"c": 1, "a": 2, "b": 3}


def test_claims_in_a_circle_are_withdrawn():
    # Nontransitive dice: each beats the next in 5 of 9 pairs, and 200 throws prove it.
    dice = {"a": [2, 4, 9], "b": [1, 6, 8], "c": [3, 5, 7]}
    groups = {name: [float(x) for x in faces] * 200 for name, faces in dice.items()}
    board = rank(groups)
    assert all(pair.p_holm < 0.05 and pair.better is None for pair in board.pairs)
    assert {row.rank for row in board.rows} == {1}
    assert any("circle" in note for note in board.notes)


# Failed runs


def test_failed_runs_count_as_the_worst():
    good, other = around(1.0, 10, 0), around(1.1, 10, 1)
    whole = rank({"a": good, "b": other})
    assert [row.name for row in whole.rows if row.rank == 1] == ["a"]
    # Dropping its bad seeds does not help: 6 of 10 failed, and it leads no more.
    board = rank({"a": good[:4], "b": other}, failed={"a": 6})
    rows = {row.name: row for row in board.rows}
    assert rows["a"].rank == rows["b"].rank == 1 and board.rows[0].name == "b"
    assert rows["a"].median == math.inf and rows["a"].low is None
    assert rows["a"].failed == 6 and len(rows["a"].scores) == 4
    assert any("a: 6 of 10 runs failed" in note for note in board.notes)
    lost = rank({"a": good[:1], "b": other}, failed={"a": 9})
    assert [row.rank for row in lost.rows] == [1, 2] and lost.rows[1].name == "a"


def test_a_failure_never_improves_a_rank():
    rng = np.random.default_rng(0)
    for _ in range(40):
        groups = {
            name: rng.normal(mean, 1, 8).tolist()
            for name, mean in zip("abc", rng.normal(0, 1.5, 3), strict=True)
        }
        kept = sorted(groups["a"])[: int(rng.integers(4, 8))]
        failed = 8 - len(kept)
        after = decide({**groups, "a": kept}, False, 0.05, {"a": failed})
        for pair in after.pairs:
            assert pair.method == "mann-whitney"
            if "a" in (pair.a, pair.b):
                other = pair.b if pair.a == "a" else pair.a
                now = compare([*kept, *[math.inf] * failed], groups[other])
                assert pair.p == now.p
                then = compare(groups["a"], groups[other])
                assert now.probability_better <= then.probability_better


def test_a_backbone_with_failures_wins_nothing_by_assumed_noise():
    groups = {"noise": around(1.0, 8, 0), "lucky": [0.5]}
    assert rank(groups).rows[0].name == "lucky"
    assert rank(groups).rows[1].rank == 2
    board = rank(groups, failed={"lucky": 1})
    assert {row.rank for row in board.rows} == {1}
    slow = rank({"noise": groups["noise"], "slow": [1.5]}, failed={"slow": 1})
    assert slow.rows[1].rank == 2


def test_only_failed_runs_are_last_and_untested():
    board = rank({"a": [1.0], "b": [1.2], "gone": []}, failed={"gone": 2, "kan": 1})
    assert [(row.name, row.rank) for row in board.rows] == [
        ("a", 1), ("b", 1), ("gone", 3), ("kan", 3),
    ]  # fmt: skip
    assert len(board.pairs) == 1 and board.rows[2].tied_with == ["kan"]
    assert any("gone: 2 of 2 runs failed" in note for note in board.notes)
    with pytest.raises(ValueError, match="gone: 0 scores and 0 failed"):
        rank({"gone": []})


# The lie detector


@pytest.mark.parametrize("shape", SHAPES)
def test_copies_of_one_backbone_are_not_ranked_apart(shape):
    for seeds in (5, 10):
        share = false_claims(seeds=seeds, shape=shape, boards=BOARDS, noise=NOISE)
        assert share <= chance_bound(BOARDS), seeds
    share = false_claims(backbones=34, seeds=3, shape=shape, boards=30)
    assert share <= chance_bound(30)


def test_single_seeds_with_measured_noise_are_not_ranked_apart():
    share = false_claims(seeds=1, measured=5, boards=BOARDS, noise=NOISE)
    assert 0.0 < share <= chance_bound(BOARDS)


def test_ranks_by_mean_or_without_holm_would_be_caught():
    by_mean = uncorrected = 0
    for claims in simulate(seeds=10, boards=BOARDS):
        by_mean += len({scores.mean() for scores in claims.scores.values()}) > 1
        uncorrected += any(pair.p <= 0.05 for pair in claims.pairs)
    assert by_mean / BOARDS > chance_bound(BOARDS)
    assert uncorrected / BOARDS > chance_bound(BOARDS)


def test_a_planted_gain_of_two_percent_is_found():
    found = [
        power(gain, seeds=10, noise=NOISE, boards=150)
        for gain in (0, 0.01, 0.015, 0.02)
    ]
    assert found[3] >= 0.8 and found == sorted(found) and found[0] < 0.05


def write_runs(folder, scores, **fields):
    for seed, score in enumerate(scores):
        result = {
            "task": "zelda", "protocol": "clean", "backbone": "gru", "seed": seed,
            "status": "ok", "best": {"step": 1, "metrics": {"loss": score}}, **fields,
        }  # fmt: skip
        path = folder / fields.get("purpose", "score") / str(seed) / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result))


def test_the_script_deals_real_seeds(tmp_path, monkeypatch, capsys):
    write_runs(tmp_path, around(1.0, 15, 0))
    write_runs(tmp_path, around(9.0, 15, 0), purpose="sweep")
    script = runpy.run_path(str(ROOT / "benchmarks" / "lie_detector.py"))
    monkeypatch.setattr(sys, "argv", ["", f"--runs={tmp_path}", "--deals=200"])
    script["main"]()
    last = capsys.readouterr().out.splitlines()[-1]
    name, seeds, spread, each, apart = last.strip("| ").split(" | ")
    assert (name, seeds, each) == ("gru", "15", "5")
    assert 0.2 < float(spread.rstrip("%")) < 0.9 and float(apart.rstrip("%")) < 10
    monkeypatch.setattr(sys, "argv", ["", f"--runs={tmp_path / 'no'}"])
    with pytest.raises(SystemExit, match="2"):
        script["main"]()
    assert capsys.readouterr().err.count("\n") == 1
