"""The board's lie detector: boards of simulated scores whose truth is known.

Share of 200 boards on which one backbone better by 1, 1.5, 2, 5 % is found better than
every other one, with normal noise of sd 0.5 % of the loss:

    backbones  seeds     1 %   1.5 %     2 %     5 %
            3      5    30 %    81 %    99 %   100 %
            3     10    92 %   100 %   100 %   100 %
           34      5     0 %     0 %     4 %   100 %
           34     10     0 %    15 %    84 %   100 %

Only the ratio of gain to noise counts. `benchmarks/lie_detector.py` prints more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from jaxbench.bench.statistics.claims import Claims, decide


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape)


def _heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Student's t with 3 degrees of freedom, scaled to variance 1."""
    return rng.standard_t(3, shape) / math.sqrt(3.0)


def _bimodal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Half of the seeds in each of two narrow modes, as on all-or-nothing tasks."""
    modes = rng.choice([-1.0, 1.0], shape)
    return (modes + 0.1 * rng.standard_normal(shape)) / math.sqrt(1.01)


def _bad_seed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """One seed in ten is worse by five widths of the others."""
    raw = rng.standard_normal(shape) + 5.0 * (rng.random(shape) < 0.1)
    return (raw - 0.5) / math.sqrt(1.0 + 25.0 * 0.09)


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": _normal,
    "heavy-tailed": _heavy_tailed,
    "bimodal": _bimodal,
    "bad seed": _bad_seed,
}


def simulate(
    *,
    backbones: int = 3,
    seeds: int = 10,
    gain: float = 0.0,
    noise: float = 0.005,
    shape: str = "normal",
    measured: int = 0,
    boards: int = 400,
    alpha: float = 0.05,
    rng_seed: int = 0,
) -> list[Claims]:
    """Decides boards of renamed copies of one backbone, whose loss is 1 on average.

    Args:
      gain: by which share the first backbone's loss is lower.
      noise: standard deviation over seeds, as a share of the mean.
      shape: of the noise, a key of `SHAPES`.
      measured: seeds of one more copy, that only measures the noise; 0 for none.
    """
    rng = np.random.default_rng(rng_seed)
    means = np.ones(backbones)
    means[0] -= gain
    decided = []
    for _ in range(boards):
        losses = means[:, None] + noise * SHAPES[shape](rng, (backbones, seeds))
        groups = {f"copy {k}": row for k, row in enumerate(losses.tolist())}
        if measured:
            groups["noise"] = (1.0 + noise * SHAPES[shape](rng, (measured,))).tolist()
        decided.append(decide(groups, False, alpha, {}))
    return decided


def false_claims(**board: float | str) -> float:
    """Share of boards of equal backbones on which any two are ranked apart.

    Takes the arguments of `simulate`, except `gain`.
    """
    decided = simulate(gain=0.0, **board)  # type: ignore[arg-type]
    return float(np.mean([max(claims.ranks.values()) > 1 for claims in decided]))


def power(gain: float, **board: float | str) -> float:
    """Share of boards on which the backbone with the gain alone has rank 1.

    That is, it is found better than every other one. Takes the arguments of `simulate`.
    """
    decided = simulate(gain=gain, **board)  # type: ignore[arg-type]
    firsts = ([n for n, r in claims.ranks.items() if r == 1] for claims in decided)
    return float(np.mean([names == ["copy 0"] for names in firsts]))
