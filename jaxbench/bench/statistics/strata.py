"""One number for several tasks: the interquartile mean over all their runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jaxbench.bench.statistics.scores import NOISE_SEEDS, finite, iqm


@dataclass(frozen=True)
class StratifiedMean:
    """Interquartile mean, and its interval; None where seeds are too few for one."""

    iqm: float
    low: float | None
    high: float | None


def stratified_iqm(
    strata: Sequence[Sequence[float]],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> StratifiedMean:
    """Interquartile mean over the runs of all tasks, with a bootstrap over seeds.

    Tasks are strata: seeds are drawn again within each of them, never tasks, so the
    interval says what other seeds would have given on these tasks, and nothing of other
    tasks (Agarwal et al. 2021, arXiv 2108.13264). Percentile interval with a fixed
    generator; the scores of a task are sorted first, so that their order is no matter.
    None for a task of fewer than 3 scores, which measures no noise.

    Args:
      strata: scores of each task, rescaled so that tasks compare.

    Raises:
      ValueError: no task, a task without scores, or scores that are not finite.
    """
    tasks = tuple(tuple(np.sort(finite(scores)).tolist()) for scores in strata)
    if not tasks or not all(tasks):
        raise ValueError(f"every task needs scores, got {[list(s) for s in strata]}")
    return _mean(tasks, confidence, resamples)


@lru_cache(maxsize=256)
def _mean(
    strata: tuple[tuple[float, ...], ...], confidence: float, resamples: int
) -> StratifiedMean:
    tasks = [np.array(scores) for scores in strata]
    middle = iqm(np.concatenate(tasks).tolist())
    if min(scores.size for scores in tasks) < NOISE_SEEDS:
        return StratifiedMean(middle, None, None)
    rng = np.random.default_rng(0)
    drawn = np.concatenate(
        [
            scores[rng.integers(0, scores.size, (resamples, scores.size))]
            for scores in tasks
        ],
        axis=1,
    )
    drawn.sort(axis=1)
    cut = drawn.shape[1] // 4
    means = drawn[:, cut : drawn.shape[1] - cut].mean(axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail])
    return StratifiedMean(middle, float(low), float(high))
