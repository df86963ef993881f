"""Two groups of runs: exact Mann-Whitney, with ties and for many pairs at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

# Beyond so many pairs of scores, counting every relabelling takes seconds and gives
# what the normal approximation gives.
EXACT_PAIRS = 2_500


@dataclass(frozen=True)
class Comparison:
    """Two-sided exact p, and how often a score of `a` beats one of `b` (ties 1/2)."""

    p: float
    probability_better: float
    n_a: int
    n_b: int


def compare(
    a: Sequence[float], b: Sequence[float], *, maximize: bool = False
) -> Comparison:
    """Two-sided exact Mann-Whitney test of two groups of independent runs.

    p is twice the smaller tail, over all relabellings of the pooled scores, of the
    number of pairs in which `a` beats `b`. Midranks make it exact with ties too, where
    scipy's `method="exact"` is not; infinite scores count as the extremes. Beyond 2,500
    pairs (50 runs a side) the tie-corrected normal approximation is used. It tests that
    both distributions are one: groups of equal median and unlike spread can differ.

    Raises:
      ValueError: an empty group or a nan.
    """
    sign = -1.0 if maximize else 1.0
    left, right = (sign * np.asarray(x, np.float64) for x in (a, b))
    if not left.size or not right.size or np.isnan([*left, *right]).any():
        raise ValueError(f"cannot compare {list(a)} with {list(b)}: empty, or nan")
    p = mann_whitney(left[None], right[None])[0]
    better = wins(left[None], right[None])[0] / (2 * left.size * right.size)
    return Comparison(float(p), float(better), left.size, right.size)


def smallest_p(n_a: int, n_b: int) -> float:
    """The smallest two-sided exact p that two groups of these sizes can give."""
    if n_a < 1 or n_b < 1:
        raise ValueError(f"groups of {n_a} and {n_b} scores cannot be compared")
    return min(1.0, 2 / math.comb(n_a + n_b, n_a))


def needed_seeds(pairs: int, alpha: float = 0.05) -> int:
    """Fewest seeds per side whose smallest exact p passes Holm's first step."""
    if pairs < 1 or not 0.0 < alpha < 1.0:
        raise ValueError(f"needed_seeds of {pairs} pairs at alpha={alpha}")
    seeds = 1
    while smallest_p(seeds, seeds) > alpha / pairs:
        seeds += 1
    return seeds


def wins(a_pn: np.ndarray, b_pm: np.ndarray) -> np.ndarray:
    """Per pair of groups: twice the pairs of runs in which `a` is lower, plus ties."""
    a_pn1, b_p1m = a_pn[:, :, None], b_pm[:, None, :]
    return ((a_pn1 < b_p1m).sum((1, 2)) + (a_pn1 <= b_p1m).sum((1, 2))).astype(int)


def mann_whitney(a_pn: np.ndarray, b_pm: np.ndarray) -> np.ndarray:
    """Two-sided p of P pairs of groups of the same two sizes."""
    won = wins(a_pn, b_pm)
    pooled = np.sort(np.concatenate([a_pn, b_pm], axis=1))
    new = pooled[:, 1:] != pooled[:, :-1]
    p = np.empty(len(won))
    if a_pn.shape[1] * b_pm.shape[1] > EXACT_PAIRS:
        for k, differs in enumerate(new.any(1)):
            # Of equal scores the variance is 0 and scipy's p is nan.
            found = stats.mannwhitneyu(a_pn[k], b_pm[k], method="asymptotic")
            p[k] = found.pvalue if differs else 1.0
        return p
    distinct = new.all(1)
    if distinct.any():
        table = _exact_p(a_pn.shape[1], (1,) * pooled.shape[1])
        p[distinct] = np.asarray(table)[won[distinct]]
    for k in np.flatnonzero(~distinct).tolist():
        starts = np.flatnonzero(np.append(True, new[k]))
        sizes = np.diff(np.append(starts, pooled.shape[1]))
        p[k] = _exact_p(a_pn.shape[1], tuple(sizes.tolist()))[won[k]]
    return p


@lru_cache(maxsize=4096)
def _exact_p(n_a: int, sizes: tuple[int, ...]) -> list[float]:
    """Two-sided p by `wins`, for groups of tied scores of these sizes.

    Counts, by one pass over the pooled scores, how many choices of n_a of them have
    which sum of (doubled, hence whole) midranks.
    """
    total = sum(sizes)
    ranks: list[int] = []
    for size in sizes:
        ranks += [2 * len(ranks) + size + 1] * size
    counts = np.zeros((n_a + 1, total * (total + 1) + 1))
    counts[0, 0] = 1.0
    for seen, value in enumerate(ranks):
        for k in range(min(seen + 1, n_a), 0, -1):
            counts[k, value:] += counts[k - 1, :-value]
    # wins = 2 n_a n_b - (rank sum - its least value), both doubled.
    least = n_a * (n_a + 1)
    by_wins = counts[n_a, least : least + 2 * n_a * (total - n_a) + 1][::-1]
    tails = np.minimum(np.cumsum(by_wins), np.cumsum(by_wins[::-1])[::-1])
    return np.minimum(1.0, 2.0 * tails / by_wins.sum()).tolist()
