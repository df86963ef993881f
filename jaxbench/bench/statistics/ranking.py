"""Ranks by claims alone, and what a row of the board says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxbench.bench.statistics.claims import ASSUMED, EXACT, NONE, Claims, Pair, decide
from jaxbench.bench.statistics.notes import notes
from jaxbench.bench.statistics.scores import interval, iqm


@dataclass(frozen=True)
class RankRow:
    """One backbone on the board.

    `scores` are the finite ones, sorted as given. `median` and `iqm` count failed runs
    as worse than any score, so they may be infinite; `mean` and `sd` are of `scores`
    (nan and None where there are none, None for one). `low` and `high` bound the
    median, and are None for fewer than 3 scores or where a run failed. `tied_with` are
    the backbones from which nothing separates it. `method` is the least assuming test
    that was possible against any other row.
    """

    name: str
    rank: int
    scores: tuple[float, ...]
    failed: int
    median: float
    mean: float
    sd: float | None
    iqm: float
    low: float | None
    high: float | None
    tied_with: list[str]
    method: str


@dataclass(frozen=True)
class Ranking:
    """Rows best first, all pairs, the noise that was measured, and what n allows."""

    rows: list[RankRow]
    pairs: list[Pair]
    noise_sd: float | None
    noise_from: list[str]
    notes: list[str]


def rank(
    groups: Mapping[str, Sequence[float]],
    *,
    maximize: bool = False,
    alpha: float = 0.05,
    failed: Mapping[str, int] | None = None,
) -> Ranking:
    """Ranks backbones by claims alone; what is inside the noise shares a rank.

    All pairs are one Holm family at `alpha`. A pair is tested by exact Mann-Whitney if
    its numbers of seeds can pass Holm's first step, which depends on those numbers
    only, never on the scores. Otherwise, if a noise was measured (groups of 3 scores
    or more, their variances pooled), a two-sample t test takes that noise for both
    sides, with its degrees of freedom or 10, whichever is less. The noise is absolute,
    in the units of the scores: a relative one would be smallest for the best losses,
    where claims are read.
    Otherwise the pair claims nothing, but stays in the family.

    `rank` is 1 + the number of backbones that are better, by a claim or through a chain
    of claims, so a claim never contradicts the ranks (Mann-Whitney is not transitive,
    and a plain count of claims can). It is a lower bound: neighbours with different
    ranks need not be separated themselves, which `tied_with` tells. Claims that go
    round in a circle are withdrawn, with a note.

    A failed run is worse than any score in Mann-Whitney. In the t test it has no
    number, so a backbone with failures wins no such comparison. A backbone of failed
    runs only is placed last, untested.

    Args:
      groups: finite scores per backbone, one per seed.
      maximize: whether higher is better.
      alpha: bound on the chance of any false claim on the board.
      failed: number of failed runs per backbone; names missing in `groups` are added.

    Raises:
      ValueError: scores that are not finite, a backbone with no run at all, a negative
        number of failures.

    Cost: under 50 ms for the 561 pairs of 34 backbones, and 10 ms for each interval.
    """
    claims = decide(groups, maximize, alpha, failed or {})
    rows = [_row(name, claims, maximize) for name in claims.ranks]
    return Ranking(
        rows, claims.pairs, claims.noise_sd, claims.noise_from, notes(claims, alpha)
    )


def _row(name: str, claims: Claims, maximize: bool) -> RankRow:
    """Describes one backbone, in its own sign."""
    sign = -1.0 if maximize else 1.0
    scores, runs = sign * claims.scores[name], sign * claims.runs[name]
    own = [pair for pair in claims.pairs if name in (pair.a, pair.b)]
    tied = [pair.b if pair.a == name else pair.a for pair in own if pair.better is None]
    if not scores.size:
        tied = [n for n, s in claims.scores.items() if not s.size and n != name]
    methods = {pair.method for pair in own}
    bounds = interval(scores.tolist()) if scores.size == runs.size else None
    return RankRow(
        name=name,
        rank=claims.ranks[name],
        scores=tuple(scores.tolist()),
        failed=runs.size - scores.size,
        median=float(np.median(runs)),
        mean=float(scores.mean()) if scores.size else math.nan,
        sd=float(scores.std(ddof=1)) if scores.size > 1 else None,
        iqm=iqm(runs.tolist()),
        low=bounds[0] if bounds else None,
        high=bounds[1] if bounds else None,
        tied_with=tied,
        method=next((m for m in (EXACT, ASSUMED) if m in methods), NONE),
    )
