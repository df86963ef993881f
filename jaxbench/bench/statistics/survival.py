"""How long until a task is solved, where some runs ended before they solved it.

Such a run is right-censored: it says "not until here", and nothing of what would have
come. Counting its last step as the step at which it solved would make a backbone look
faster the earlier its runs are stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy import stats

from jaxbench.bench.statistics.claims import holm
from jaxbench.bench.statistics.pairwise import smallest_p

# A product of fractions that is a half misses it by less than this.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Times:
    """When the runs of one backbone solved a task, and when the others ended.

    Attributes:
      solved: of each run that solved it: when. Steps, examples or FLOPs.
      unsolved: of each other run: until when it was watched.

    Raises:
      ValueError: no run at all, or a time that is negative or not finite.
    """

    solved: tuple[float, ...]
    unsolved: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        times = np.asarray([*self.solved, *self.unsolved], np.float64)
        if not times.size or not np.isfinite(times).all() or (times < 0).any():
            raise ValueError(f"times must be finite and at least 0, got {self}")

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self.solved) + len(self.unsolved)

    @property
    def watched(self) -> float:
        """Until when the longest run was watched."""
        return max(*self.solved, *self.unsolved, 0.0)

    def censored(self) -> stats.CensoredData:
        """As scipy takes them."""
        return stats.CensoredData(uncensored=self.solved, right=self.unsolved)


@dataclass(frozen=True)
class Curve:
    """A Kaplan-Meier curve, which begins with 1 at time 0.

    Attributes:
      times: at which runs solved the task, rising.
      share: of runs that have not solved it, from each of the times on.
      low, high: ends of the share's interval.
    """

    times: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class MedianTime:
    """The time after which half of the runs have solved a task.

    Attributes:
      median: None where it was not reached.
      low, high: ends of its interval; None where they were not reached.
      watched: until when the longest run was watched.
    """

    median: float | None
    low: float | None
    high: float | None
    watched: float


@dataclass(frozen=True)
class TimesPair:
    """A comparison of two backbones' times.

    `p` is the test's own, `p_holm` is corrected for all pairs; `sooner` names the
    backbone that solves sooner, None unless that is claimed.
    """

    a: str
    b: str
    p: float
    p_holm: float
    sooner: str | None


@lru_cache(maxsize=1024)
def kaplan_meier(times: Times, confidence: float = 0.95) -> Curve:
    """The product-limit estimate of the share of runs that have not solved the task.

    S(t) = product over solving times u <= t of 1 - d_u / n_u, with d_u runs that solve
    it at u and n_u that were watched until u (Kaplan and Meier 1958). The interval is
    of log(-log S) with Greenwood's variance ("exponential Greenwood"). Where S is 0 the
    formula has no value: the low end is 0 then and the high end stays what it was.
    """
    found = stats.ecdf(times.censored()).sf
    with warnings.catch_warnings():
        # Bounds without a value are replaced below.
        warnings.simplefilter("ignore", RuntimeWarning)
        band = found.confidence_interval(confidence, method="log-log")
    at = np.isin(found.quantiles, times.solved)
    share, low, high = (x.probabilities[at] for x in (found, band.low, band.high))
    # Only the last share can be 0, and the one bound that is missing is its own.
    gone = np.isnan(high)
    low = np.where(gone, 0.0, low)
    high = np.where(gone, high[-2] if high.size > 1 else 1.0, high)
    columns = (found.quantiles[at], share, low, high)
    return Curve(*(tuple(column.tolist()) for column in columns))


@lru_cache(maxsize=1024)
def median_time(times: Times, confidence: float = 0.95) -> MedianTime:
    """The first time at which at most half of the runs are unsolved.

    Its interval holds the times at which the curve's interval holds a half (Brookmeyer
    and Crowley 1982, on the log-log scale). With few runs its high end is not reached
    even where all have solved the task: 5 runs bound the median from below alone.
    """
    curve = kaplan_meier(times, confidence)

    def first(shares: tuple[float, ...]) -> float | None:
        pairs = zip(curve.times, shares, strict=True)
        return next((t for t, share in pairs if share <= 0.5 + ROUNDING), None)

    return MedianTime(
        first(curve.share), first(curve.low), first(curve.high), times.watched
    )


def log_rank(a: Times, b: Times) -> tuple[float, float]:
    """Two-sided p that `a` and `b` solve alike, and z, positive where `a` is sooner.

    Mantel's log-rank test with the hypergeometric variance. Its p is from the normal
    distribution, which for a handful of runs promises more than they can: no test of
    exchangeable runs has a smaller p than `smallest_p`, so p is never below that. Where
    nobody solved anything nothing is compared: p is 1.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        found = stats.logrank(a.censored(), b.censored())
    if not np.isfinite(found.statistic):
        return 1.0, 0.0
    p = max(float(found.pvalue), smallest_p(a.runs, b.runs))
    return p, float(found.statistic)


def compare_times(
    groups: Mapping[str, Times], *, alpha: float = 0.05
) -> list[TimesPair]:
    """Log-rank tests of all pairs of backbones, as one family (Holm).

    Args:
      groups: times by backbone.
      alpha: bound on the chance of any false claim.
    """
    return list(_pairs(tuple(groups.items()), alpha))


@lru_cache(maxsize=64)
def _pairs(
    groups: tuple[tuple[str, Times], ...], alpha: float
) -> tuple[TimesPair, ...]:
    pairs = list(combinations(groups, 2))
    tests = [log_rank(a, b) for (_, a), (_, b) in pairs]
    corrected = holm(np.array([p for p, _ in tests]))
    found = []
    for ((a, _), (b, _)), (p, z), p_holm in zip(pairs, tests, corrected, strict=True):
        sooner = (a if z > 0 else b) if p_holm <= alpha else None
        found.append(TimesPair(a, b, p, float(p_holm), sooner))
    return tuple(found)
