"""What a board may claim from the scores of a few seeds.

A rank here is a claim: one backbone stands above another only where a test over seeds
says so, with the chance of any false claim on the whole board held to `alpha` (Holm,
over all pairs). Everything else is a tie, and is shown as one.

Two tests are used. Exact Mann-Whitney assumes nothing about the shape of the noise, but
with few seeds it cannot reach the level that many pairs ask for: 3 backbones need 5
seeds each, 34 need 9 (`needed_seeds`). Below that, if some backbone has the 3 seeds
that measure a noise, a two-sample t test borrows it for all, and says "assumed noise".
That test is as good as its assumption, that noise is normal and equally wide for all:
of boards of one seed each whose noise was measured on 5 seeds of one more copy, 2 %
made a false claim with normal noise, but 12 % where one seed in ten is bad.

How often each of them errs, or finds a planted gain, is simulated by
`jaxbench.bench.statistics.simulated` and printed by `benchmarks/lie_detector.py`.
"""

from jaxbench.bench.statistics.pairwise import (
    Comparison,
    compare,
    needed_seeds,
    smallest_p,
)
from jaxbench.bench.statistics.ranking import Pair, Ranking, RankRow, rank
from jaxbench.bench.statistics.scores import SuccessRate, interval, iqm, success_rate
from jaxbench.bench.statistics.strata import StratifiedMean, stratified_iqm
from jaxbench.bench.statistics.survival import (
    MedianTime,
    Times,
    TimesPair,
    compare_times,
    kaplan_meier,
    log_rank,
    median_time,
)

__all__ = [
    "Comparison",
    "MedianTime",
    "Pair",
    "RankRow",
    "Ranking",
    "StratifiedMean",
    "SuccessRate",
    "Times",
    "TimesPair",
    "compare",
    "compare_times",
    "interval",
    "iqm",
    "kaplan_meier",
    "log_rank",
    "median_time",
    "needed_seeds",
    "rank",
    "smallest_p",
    "stratified_iqm",
    "success_rate",
]
