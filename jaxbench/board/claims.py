"""Which of several rows are better: claims that hold with few seeds and unlike noise.

A row is a backbone with one recipe, a score the result of one seed of it. All pairs of
rows are one family at 5 % (Holm 1979). For a pair the larger p counts of two tests:

    paired t over the seeds that both rows have (runs of a seed share the data's order)
    Welch's t on both rows' own scores

with variances that are moderated over rows and over pairs (Smyth 2004, "Linear models
and empirical Bayes methods", section 6): shrunk towards what they have in common, never
below a row's own, with at most 20 borrowed degrees of freedom, and none borrowed by a
row that stands out (F test at 0.2). Below eight rows nothing is known of what rows have
in common, so no variance is moderated, the exact rank test has to agree as well, and
both rows of a pair need five seeds.

Where scores jump between two levels, as of a task that some seeds solve and others do
not, a row whose few seeds are all on one level looks quiet, and better or worse than it
is. `two_levels` asks all rows together whether they do; if so, pairs need nine seeds.

`benchmarks/claims.py` counts false claims and power of these very functions.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from math import comb

import numpy as np
from scipy import special, stats

ALPHA = 0.05
FEWEST_SEEDS, FEWEST_OF_FEW_ROWS, FEWEST_OF_TWO_LEVELS = 3, 5, 9
# A false alarm costs every claim of a board with fewer than nine seeds.
ALARM = 0.01
# Two-sided normal noise is covered in 97 to 98 of 100 cases, skewed noise in 93.
COVERAGE = 0.975
FEWEST_ROWS, MOST_BORROWED, STANDS_OUT = 8, 20.0, 0.2


@dataclasses.dataclass(frozen=True)
class Claims:
    """What the scores of R rows prove.

    Attributes:
      takes_part: [R], whether a row has seeds enough to be compared.
      better: [R, R], whether row i is proven better than row j.
      p: [R, R], corrected for all pairs; 1 where rows are not compared.
      mean: [R], of the scores of runs that ended well; nan without any.
      sd: [R], of those scores, as the tests use it; nan for fewer than two.
      low, high: [R], ends of the 95 % interval of the mean, wide enough for skewed
        noise; nan where a row takes no part, has failures or a single score.
      rank_low, rank_high: [R], 1 + rows proven better, and R - rows proven worse.
      tier: [R], 1 for the best row by score and all that are not proven worse, 2 for
        the best of the others and so on; 0 for rows that take no part.
      needs: seeds that both rows of a pair need.
    """

    takes_part: np.ndarray
    better: np.ndarray
    p: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    rank_low: np.ndarray
    rank_high: np.ndarray
    tier: np.ndarray
    needs: int = FEWEST_SEEDS


def decide(
    scores_rk: np.ndarray,
    *,
    maximize: bool = False,
    alpha: float = ALPHA,
    may: np.ndarray | None = None,
) -> Claims:
    """Compares all rows with all others.

    Args:
      scores_rk: a line for each row, a column for each seed (and split) that any row
        has; nan where a row has no such run, infinity where the run failed: worse than
        any score.
      maximize: whether more is better. A failed run is +-infinity all the same.
      alpha: bound on the chance that a board makes any false claim.
      may: [R], rows that may be compared at all; None for all.

    Cost: all pairs at once, about a millisecond for 34 rows of 5 seeds.
    """
    y_rk = np.where(np.isinf(scores_rk), np.inf, -scores_rk if maximize else scores_rk)
    runs_r = (~np.isnan(y_rk)).sum(1)
    failed_r = np.isinf(y_rk).sum(1)
    takes_r = runs_r >= FEWEST_SEEDS
    if may is not None:
        takes_r = takes_r & may
    mean_r, variance_r, freedom_r = _noise(y_rk, takes_r)
    p_rr = np.ones((len(y_rk),) * 2)
    i, j = np.triu_indices(len(y_rk), 1)
    compared = takes_r[i] & takes_r[j]
    i, j = i[compared], j[compared]
    needs = FEWEST_SEEDS if takes_r.sum() >= FEWEST_ROWS else FEWEST_OF_FEW_ROWS
    if two_levels(y_rk[takes_r]):
        needs = FEWEST_OF_TWO_LEVELS
    if len(i):
        smooth = (failed_r[i] == 0) & (failed_r[j] == 0)
        p = np.ones(len(i))
        few = takes_r.sum() < FEWEST_ROWS
        a, b = i[smooth], j[smooth]
        p[smooth] = np.maximum(
            _paired(y_rk, a, b),
            _welch(mean_r, variance_r, freedom_r, runs_r, a, b),
        )
        for k in np.flatnonzero(~smooth | few):
            p[k] = np.where(smooth[k], p[k], 0.0)
            p[k] = max(p[k], rank_test(y_rk[i[k]], y_rk[j[k]]))
        p[np.minimum(runs_r[i], runs_r[j]) < needs] = 1.0
        p_rr[i, j] = p_rr[j, i] = holm(p)
    order_r = np.where(failed_r > 0, np.inf, mean_r)
    ahead_rr = order_r[:, None] < order_r[None]
    rank_rr = _wins(y_rk) > 0.5
    ragged = (failed_r[:, None] > 0) | (failed_r[None] > 0)
    better_rr = (p_rr <= alpha) & np.where(ragged, rank_rr, ahead_rr)
    reach_r = stats.t.ppf((1 + COVERAGE) / 2, freedom_r)
    half_r = reach_r * np.sqrt(variance_r / runs_r.clip(1))
    half_r = np.where(takes_r & (failed_r == 0), half_r, np.nan)
    sign = -1.0 if maximize else 1.0
    scored = int((np.isfinite(y_rk)).any(1).sum())
    return Claims(
        takes_part=takes_r,
        better=better_rr,
        p=p_rr,
        mean=sign * mean_r,
        sd=np.sqrt(variance_r),
        low=sign * mean_r - half_r,
        high=sign * mean_r + half_r,
        rank_low=1 + better_rr.sum(0),
        rank_high=max(scored, int(takes_r.sum())) - better_rr.sum(1),
        tier=_tiers(better_rr, order_r, takes_r),
        needs=needs,
    )


def two_levels(y_rk: np.ndarray) -> bool:
    """Whether the scores of the rows jump between two levels, each row's own.

    Of a row with n scores: the largest gap between neighbours (from five scores on with
    two at least on either side, so that one that went astray is no level), over their
    range, as a p under normal noise; Fisher's sum over rows against 0.01.
    """
    p = []
    for y_k in y_rk:
        y = np.sort(y_k[np.isfinite(y_k)])
        if len(y) >= FEWEST_SEEDS and y[-1] > y[0]:
            law = _gap_law(len(y))
            p.append((1 + (law >= _gap(y)).sum()) / (1 + len(law)))
    found = stats.chi2.sf(-2 * np.log(p).sum(), 2 * len(p)) if p else 1.0
    return bool(found < ALARM)


def _gap(y: np.ndarray) -> np.ndarray:
    """The largest gap of sorted scores [..., n] over their range."""
    n = y.shape[-1]
    side = 1 if n < 5 else 2
    gaps = np.diff(y, axis=-1)[..., side - 1 : n - side]
    return gaps.max(-1) / (y[..., -1] - y[..., 0])


@lru_cache(maxsize=64)
def _gap_law(n: int) -> np.ndarray:
    """Gaps of 4,000 times n normal scores."""
    return _gap(np.sort(np.random.default_rng(0).standard_normal((4000, n)), axis=1))


def _noise(
    y_rk: np.ndarray, takes_r: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of the finite scores, moderated variance and degrees of freedom of rows."""
    finite = np.isfinite(y_rk)
    count_r = finite.sum(1)
    filled = np.where(finite, y_rk, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_r = filled.sum(1) / np.where(count_r, count_r, np.nan)
        squares = np.where(finite, (filled - mean_r[:, None]) ** 2, 0.0).sum(1)
        variance_r = squares / np.where(count_r > 1, count_r - 1.0, np.nan)
    freedom_r = (count_r - 1.0).clip(1)
    used = takes_r & (count_r >= FEWEST_SEEDS) & (finite | np.isnan(y_rk)).all(1)
    variance_r[used], freedom_r[used] = moderated(variance_r[used], freedom_r[used])
    return mean_r, variance_r, freedom_r


def moderated(
    variance: np.ndarray, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Variances and degrees of freedom after a look at all; unchanged below 8 of them.

    The prior is Smyth's (2004, eq. 8 to 10) with moments of log variances. Variances of
    0 count as a hundred-thousandth of the median in it, as limma has it.
    """
    if len(variance) < FEWEST_ROWS or not variance.any():
        return variance, freedom
    middle = np.median(variance) or variance[variance > 0].min()
    half = freedom / 2
    e = np.log(np.maximum(variance, 1e-5 * middle)) - special.digamma(half)
    e += np.log(half)
    excess = e.var(ddof=1) - special.polygamma(1, half).mean()
    if excess <= 0:
        prior_freedom, prior = 1e3, np.exp(e.mean())
    else:
        prior_freedom = 2 * _trigamma_inverse(excess)
        shift = special.digamma(prior_freedom / 2) - np.log(prior_freedom / 2)
        prior = np.exp(e.mean() + shift)
    out = stats.f.sf(variance / prior, freedom, prior_freedom) < STANDS_OUT
    shrunk = prior_freedom * prior + freedom * variance
    shrunk = shrunk / (prior_freedom + freedom)
    borrowed = np.where(out, 0.0, min(prior_freedom, MOST_BORROWED))
    return np.maximum(variance, shrunk), borrowed + freedom


def _trigamma_inverse(x: float) -> float:
    """Newton's way of Smyth's appendix."""
    y = 0.5 + 1 / x
    for _ in range(50):
        value = special.polygamma(1, y)
        step = value * (1 - value / x) / special.polygamma(2, y)
        y += step
        if abs(step / y) < 1e-8:
            break
    return float(y)


def _welch(
    mean_r: np.ndarray,
    variance_r: np.ndarray,
    freedom_r: np.ndarray,
    runs_r: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
) -> np.ndarray:
    """Two-sided p of pairs (i, j), with Satterthwaite's degrees of freedom."""
    a, b = variance_r[i] / runs_r[i], variance_r[j] / runs_r[j]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = (a + b) ** 2 / (a**2 / freedom_r[i] + b**2 / freedom_r[j])
        t = np.abs(mean_r[i] - mean_r[j]) / np.sqrt(a + b)
    return _two_sided(t, np.where(np.isnan(freedom), freedom_r[i], freedom))


def _paired(y_rk: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Two-sided p of pairs over the seeds they share; 0 where those are below three."""
    off_pk = y_rk[i] - y_rk[j]
    there = np.isfinite(off_pk)
    count = there.sum(1)
    p = np.zeros(len(i))
    used = count >= FEWEST_SEEDS
    if used.any():
        count, there = count[used], there[used]
        off_pk = np.where(there, off_pk[used], 0.0)
        mean = off_pk.sum(1) / count
        squares = np.where(there, (off_pk - mean[:, None]) ** 2, 0.0).sum(1)
        variance, freedom = moderated(squares / (count - 1), count - 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.abs(mean) / np.sqrt(variance / count)
        p[used] = _two_sided(t, freedom)
    return p


def _two_sided(t: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """p of |t|; 1 where both means and both noises are 0 apart."""
    return np.where(np.isnan(t), 1.0, 2 * stats.t.sf(t, freedom))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p: the k-th smallest of m times m - k, never falling."""
    order = np.argsort(p)
    raised = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(raised, 1.0)
    return adjusted


def _wins(y_rk: np.ndarray) -> np.ndarray:
    """[R, R], how often a score of row i is below one of row j, ties half."""
    lower = (y_rk[:, None, :, None] < y_rk[None, :, None, :]).sum((2, 3))
    equal = (y_rk[:, None, :, None] == y_rk[None, :, None, :]).sum((2, 3))
    runs = (~np.isnan(y_rk)).sum(1)
    pairs = (runs[:, None] * runs[None]).clip(1)
    return (lower + 0.5 * equal) / pairs


def _tiers(
    better_rr: np.ndarray, order_r: np.ndarray, takes_r: np.ndarray
) -> np.ndarray:
    tier_r = np.zeros(len(order_r), int)
    left, number = takes_r.copy(), 0
    while left.any():
        number += 1
        first = int(
            np.argmin(np.where(left, np.nan_to_num(order_r, nan=np.inf), np.inf))
        )
        if not left[first]:
            first = int(np.flatnonzero(left)[0])
        here = left & ~better_rr[first]
        tier_r[here] = number
        left &= ~here
    return tier_r


def rank_test(a_k: np.ndarray, b_k: np.ndarray) -> float:
    """Two-sided exact p of the Mann-Whitney test, ties by midranks; nan is no score."""
    a, b = a_k[~np.isnan(a_k)], b_k[~np.isnan(b_k)]
    pooled = np.concatenate([a, b])
    ranks = np.round(2 * stats.rankdata(pooled)).astype(int)
    found = int(ranks[: len(a)].sum())
    sums, counts = _rank_sums(len(a), tuple(np.sort(ranks).tolist()))
    total = counts.sum()
    tail = min(counts[sums <= found].sum(), counts[sums >= found].sum())
    return float(min(1.0, 2 * tail / total))


@lru_cache(maxsize=4096)
def _rank_sums(n: int, ranks: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """All sums of n of the (doubled) ranks, and in how many ways each comes about."""
    ways = np.zeros((n + 1, sum(ranks) + 1))
    ways[0, 0] = 1.0
    for seen, rank in enumerate(ranks):
        for k in range(min(seen + 1, n), 0, -1):
            ways[k, rank:] += ways[k - 1, :-rank]
    assert round(ways[n].sum()) == comb(len(ranks), n) or len(ranks) > 50
    sums = np.flatnonzero(ways[n])
    return sums, ways[n, sums]


def log_rank(
    times_a: np.ndarray,
    solved_a: np.ndarray,
    times_b: np.ndarray,
    solved_b: np.ndarray,
    *,
    draws: int = 20_000,
) -> float:
    """Two-sided p that two rows solve a task alike soon, by permutation of the runs.

    The statistic is Mantel's observed minus expected number of solutions of row a. All
    relabellings are counted where they are at most `draws`, otherwise so many random
    ones with a fixed generator; the normal approximation promises too much for a
    handful of runs (8.5 % false at 0.05 with five a side).

    Args:
      times_a, times_b: when each run solved it, or until when it was watched.
      solved_a, solved_b: whether it did.
    """
    return _log_rank(times_a, solved_a, times_b, solved_b, draws)[0]


def _log_rank(
    times_a: np.ndarray,
    solved_a: np.ndarray,
    times_b: np.ndarray,
    solved_b: np.ndarray,
    draws: int = 20_000,
) -> tuple[float, bool]:
    """As `log_rank`, and whether row a is the sooner."""
    times = np.concatenate([times_a, times_b]).astype(float)
    solved = np.concatenate([solved_a, solved_b]).astype(bool)
    n, n_a = len(times), len(times_a)
    # A run's log-rank score: solved minus the summed hazard until its time; the
    # statistic is the sum of row a's scores, whatever the labels.
    events = np.unique(times[solved])
    at_risk = (times[:, None] >= events).sum(0)
    died = ((times[:, None] == events) & solved[:, None]).sum(0)
    hazard = ((times[:, None] >= events) * (died / at_risk.clip(1))).sum(1)
    score = solved - hazard
    observed = score[:n_a].sum()
    found = abs(observed)
    total = comb(n, n_a)
    if total <= draws:
        sums = _subset_sums(score, n_a)
    else:
        rng = np.random.default_rng(0)
        picks = rng.random((draws, n)).argsort(1)[:, :n_a]
        # The labels as they are count as one of the draws, so that p is never 0.
        sums = np.append(score[picks].sum(1), found)
    return float(np.mean(np.abs(sums) >= found - 1e-9)), bool(observed > 0)


def _subset_sums(values: np.ndarray, n: int) -> np.ndarray:
    """Sums of all choices of n of the values."""
    sums: list[np.ndarray] = [np.zeros(1)] + [np.empty(0)] * n
    for value in values:
        for k in range(n, 0, -1):
            sums[k] = np.concatenate([sums[k], sums[k - 1] + value])
    return sums[n]


def decide_times(
    times_rk: np.ndarray,
    solved_rk: np.ndarray,
    *,
    alpha: float = ALPHA,
    may: np.ndarray | None = None,
) -> Claims:
    """Which rows solve a task sooner: `log_rank` of all pairs, as one family (Holm).

    Args:
      times_rk: when each run solved it, or how long it was watched; nan without one.
      solved_rk: whether it did.
      may: [R], rows that may be compared at all; None for all.

    The mean is the mean time watched, a lower bound where some runs did not solve it.
    """
    runs_r = (~np.isnan(times_rk)).sum(1)
    takes_r = runs_r >= FEWEST_SEEDS
    if may is not None:
        takes_r = takes_r & may
    rows = len(times_rk)
    p_rr, sooner_rr = np.ones((rows, rows)), np.zeros((rows, rows), bool)
    i, j = np.triu_indices(rows, 1)
    compared = takes_r[i] & takes_r[j]
    i, j = i[compared], j[compared]
    p = np.ones(len(i))
    for k, (a, b) in enumerate(zip(i, j, strict=True)):
        in_a, in_b = ~np.isnan(times_rk[a]), ~np.isnan(times_rk[b])
        first = times_rk[a][in_a], solved_rk[a][in_a]
        second = times_rk[b][in_b], solved_rk[b][in_b]
        p[k], sooner_rr[a, b] = _log_rank(*first, *second)
        sooner_rr[b, a] = not sooner_rr[a, b]
    if len(i):
        p_rr[i, j] = p_rr[j, i] = holm(p)
    better_rr = (p_rr <= alpha) & sooner_rr
    with np.errstate(invalid="ignore"):
        mean_r = np.nansum(times_rk, 1) / np.where(runs_r, runs_r, np.nan)
    none = np.full(rows, np.nan)
    return Claims(
        takes_part=takes_r,
        better=better_rr,
        p=p_rr,
        mean=mean_r,
        sd=none,
        low=none,
        high=none,
        rank_low=1 + better_rr.sum(0),
        rank_high=int((runs_r > 0).sum()) - better_rr.sum(1),
        tier=_tiers(better_rr, mean_r, takes_r),
    )


def detectable(sd: float, seeds: int, rows: int, alpha: float = ALPHA) -> float:
    """A gap that about four of five boards of so many rows and seeds would show.

    Of a pair of rows with this standard deviation between seeds, at the first step of
    Holm: (t of alpha / pairs + t of 0.8) sqrt(2 / seeds) sd. Two tests that have to
    agree, and variances that are only ever raised, cost some of that: six borrowed
    degrees of freedom and 15 % make simulated power 0.7 to 0.95 (tests/test_claims.py).
    """
    pairs = max(1, rows * (rows - 1) // 2)
    freedom = seeds - 1 + (6.0 if rows >= FEWEST_ROWS else seeds - 1)
    t = stats.t.ppf(1 - alpha / 2 / pairs, freedom) + stats.t.ppf(0.8, freedom)
    return float(1.15 * t * sd * np.sqrt(2 / seeds))
