"""Times to solve: product-limit numbers by hand, and two other implementations."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from jaxbench.bench.statistics import iqm
from jaxbench.bench.statistics.strata import stratified_iqm
from jaxbench.bench.statistics.survival import (
    Times,
    compare_times,
    kaplan_meier,
    log_rank,
    median_time,
)

# Two runs of the ten end where another one solves the task: they were watched until it.
MIXED = Times((250.0, 500.0, 500.0, 750.0, 1250.0), (500.0, 750.0, 1000.0, 2000.0, 2e3))


def product_limit(times: Times) -> list[tuple[float, float, float, float]]:
    """(time, share, low, high) from the definition, without arrays."""
    z, share, variance, found = stats.norm.ppf(0.975), 1.0, 0.0, []
    for at in sorted(set(times.solved)):
        watched = sum(t >= at for t in (*times.solved, *times.unsolved))
        solved = times.solved.count(at)
        share *= 1 - solved / watched
        if share == 0:
            found.append((at, 0.0, 0.0, found[-1][3] if found else 1.0))
            break
        variance += solved / (watched * (watched - solved))
        reach = z * math.sqrt(variance) / abs(math.log(share))
        low, high = share ** math.exp(reach), share ** math.exp(-reach)
        found.append((at, share, low, high))
    return found


def mantel(a: Times, b: Times) -> float:
    """z of the log-rank test from its definition: observed minus expected of `a`."""
    excess = variance = 0.0
    for at in sorted({*a.solved, *b.solved}):
        n_a, n_b = (sum(t >= at for t in (*x.solved, *x.unsolved)) for x in (a, b))
        d_a, d_b = a.solved.count(at), b.solved.count(at)
        n, d = n_a + n_b, d_a + d_b
        excess += d_a - d * n_a / n
        if n > 1:
            variance += d * n_a * n_b * (n - d) / (n * n * (n - 1))
    return excess / math.sqrt(variance)


def some_times(seed: int, runs: int, scale: float = 1.0) -> Times:
    """Times on a grid of evaluations, so that there are ties; a third is censored."""
    rng = np.random.default_rng(seed)
    steps = 250.0 * rng.integers(1, 20, runs) * scale
    ended = rng.random(runs) < 0.35
    return Times(tuple(steps[~ended].tolist()), tuple(steps[ended].tolist()))


def test_the_curve_by_hand():
    curve = kaplan_meier(MIXED)
    assert curve.times == (250.0, 500.0, 750.0, 1250.0)
    # 1 of 10, 2 of 9, 1 of 6, then 1 of the 3 that are left.
    expected = [9 / 10, 9 / 10 * 7 / 9, 0.7 * 5 / 6, 0.7 * 5 / 6 * 2 / 3]
    assert curve.share == pytest.approx(expected)
    assert median_time(MIXED).median == 1250.0


def test_an_unsolved_run_is_not_counted_at_its_last_step():
    early = Times((1000.0, 1100.0), (200.0, 300.0, 400.0))
    assert median_time(early).median == 1000.0
    # As events the three would pull the median to 400.
    assert median_time(Times((200.0, 300.0, 400.0, 1000.0, 1100.0))).median == 400.0
    never = median_time(Times((), (5000.0, 10_000.0)))
    assert (never.median, never.low, never.high) == (None, None, None)
    assert never.watched == 10_000.0
    assert kaplan_meier(Times((), (5000.0,))).times == ()


def test_half_of_the_runs_is_enough_for_a_median():
    # 3/4 * 2/3 is a half, in floating point too.
    assert median_time(Times((1.0, 2.0), (3.0, 3.0))).median == 2.0
    assert median_time(Times((1.0,), (3.0, 3.0))).median is None


@pytest.mark.parametrize("seed", range(8))
def test_curve_and_median_agree_with_the_definition(seed):
    times = some_times(seed, 3 + 4 * seed)
    curve, expected = kaplan_meier(times), product_limit(times)
    found = zip(curve.times, curve.share, curve.low, curve.high, strict=True)
    assert np.allclose(list(found), expected, atol=1e-12)
    median = median_time(times)
    for name, column in (("median", 1), ("low", 2), ("high", 3)):
        first = next((row[0] for row in expected if row[column] <= 0.5 + 1e-12), None)
        assert getattr(median, name) == first, name
    assert np.all(np.array(curve.low) <= curve.share)
    assert np.all(np.array(curve.high) >= curve.share)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_statsmodels(seed):
    survfunc = pytest.importorskip("statsmodels.duration.survfunc")
    # The longest runs are censored, so that no share is 0 and both have every bound.
    times = some_times(seed, 30)
    times = Times(times.solved, (*times.unsolved, *[6000.0] * 4))
    values = [*times.solved, *times.unsolved]
    status = [1] * len(times.solved) + [0] * len(times.unsolved)
    theirs = survfunc.SurvfuncRight(values, status)
    curve, median = kaplan_meier(times), median_time(times)
    assert np.allclose(curve.times, theirs.surv_times)
    assert np.allclose(curve.share, theirs.surv_prob)
    assert median.median == theirs.quantile(0.5)
    low, high = theirs.quantile_ci(0.5, method="cloglog")
    assert median.low == low and (median.high or math.inf) == high

    other = some_times(seed + 100, 25, scale=1.5)
    p, z = log_rank(times, other)
    both = [*values, *other.solved, *other.unsolved]
    status += [1] * len(other.solved) + [0] * len(other.unsolved)
    group = [0] * len(values) + [1] * other.runs
    square, expected = survfunc.survdiff(both, status, group)
    assert (z**2, p) == (pytest.approx(square), pytest.approx(expected))


def test_five_runs_bound_the_median_from_below_alone():
    found = median_time(Times((1.0, 2.0, 3.0, 4.0, 5.0)))
    assert (found.median, found.low, found.high) == (3.0, 1.0, None)
    many = median_time(Times(tuple(range(1, 41))))
    assert many.low and many.high and many.low < many.median < many.high


# --- log-rank -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_log_rank_agrees_with_its_definition(seed):
    a, b = some_times(seed, 12), some_times(50 + seed, 9, scale=2.0)
    p, z = log_rank(a, b)
    assert z == pytest.approx(mantel(a, b)) == pytest.approx(-log_rank(b, a)[1])
    normal = 2 * stats.norm.sf(abs(z))
    assert p == pytest.approx(max(normal, 2 / math.comb(21, 9)))


def test_a_handful_of_runs_promises_no_more_than_it_can():
    fast, never = Times((1.0, 2.0, 3.0)), Times((), (10.0,) * 3)
    p, z = log_rank(fast, never)
    # The normal distribution would say 0.02; 3 against 3 runs can say 2 / 20.
    assert 2 * stats.norm.sf(z) < 0.03 and p == pytest.approx(0.1)


def test_where_nobody_solves_nothing_is_compared():
    assert log_rank(Times((), (5.0,)), Times((), (9.0, 9.0))) == (1.0, 0.0)


def test_pairs_are_one_family():
    groups = {
        "fast": Times(tuple(range(1, 11))),
        "slow": Times(tuple(range(101, 111))),
        "never": Times((), (200.0,) * 10),
    }
    pairs = compare_times(groups)
    assert [(x.a, x.b) for x in pairs] == list(combinations(groups, 2))
    assert [x.sooner for x in pairs] == ["fast", "fast", "slow"]
    p = np.array([x.p for x in pairs])
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    assert [x.p_holm for x in pairs] == pytest.approx(
        multipletests(p, method="holm")[1].tolist()
    )
    # Three seeds can claim nothing, however far apart they are.
    few = {name: Times(t.solved[:3], t.unsolved[:3]) for name, t in groups.items()}
    assert all(x.sooner is None for x in compare_times(few))
    assert compare_times({"fast": groups["fast"]}) == []


def test_copies_are_seldom_told_apart():
    rng, boards, wrong = np.random.default_rng(0), 100, 0
    for _ in range(boards):
        groups = {}
        for k in range(4):
            steps = rng.exponential(4000, 6)
            solved = tuple(steps[steps < 8000].tolist())
            groups[f"copy {k}"] = Times(solved, (8000.0,) * (6 - len(solved)))
        wrong += any(pair.sooner for pair in compare_times(groups))
    assert wrong / boards <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / boards)


@pytest.mark.parametrize("solved", [(), (math.nan,), (math.inf,), (-1.0,)])
def test_times_that_are_none_are_refused(solved):
    with pytest.raises(ValueError, match="finite and at least 0"):
        Times(solved)


# --- one number over several tasks --------------------------------------------


def test_iqm_over_tasks_is_that_of_all_runs():
    strata = [[0.0, 0.1, 0.2], [0.9, 1.0, 0.8], [0.5, 0.5, 0.5]]
    found = stratified_iqm(strata)
    assert found.iqm == pytest.approx(iqm([x for task in strata for x in task]))
    # Sorted, without 2 at each end: 0.2 0.5 0.5 0.5 0.8.
    assert found.iqm == pytest.approx(0.5)
    assert found.low is not None and found.high is not None
    assert found.low <= found.iqm <= found.high
    assert stratified_iqm([task[::-1] for task in strata]) == found


def test_the_bootstrap_draws_seeds_within_tasks():
    # Equal seeds on each task: other seeds would have said the same.
    found = stratified_iqm([[0.2] * 4, [0.8] * 4])
    assert (found.low, found.high) == (found.iqm, found.iqm) == (0.5, 0.5)
    rng = np.random.default_rng(1)
    scores = rng.normal(0.5, 0.1, (3, 5))
    found = stratified_iqm(scores.tolist())
    drawn = np.take_along_axis(scores[None], rng.integers(0, 5, (4000, 3, 5)), axis=2)
    means = stats.trim_mean(drawn.reshape(4000, 15), 0.25, axis=1)
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5])), abs=0.01
    )


def test_two_seeds_measure_no_noise():
    found = stratified_iqm([[0.2, 0.4, 0.6], [0.5, 0.7]])
    assert found.low is found.high is None and found.iqm == pytest.approx(0.5)
    with pytest.raises(ValueError, match="every task needs scores"):
        stratified_iqm([[0.5], []])
