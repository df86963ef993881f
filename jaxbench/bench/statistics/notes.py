"""What the numbers of seeds allow, in plain sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxbench.bench.statistics.claims import ASSUMED, NONE, Claims
from jaxbench.bench.statistics.pairwise import needed_seeds
from jaxbench.bench.statistics.scores import NOISE_SEEDS


def notes(claims: Claims, alpha: float) -> list[str]:
    """What the numbers of seeds allow, and what was assumed, in plain sentences."""
    said = []
    seeds = [values.size for values in claims.runs.values()]
    methods = {pair.method for pair in claims.pairs}
    if claims.pairs:
        need = needed_seeds(len(claims.pairs), alpha)
        most = f" to {max(seeds)}" if max(seeds) > min(seeds) else ""
        said.append(
            f"{len(claims.pairs)} pairs are compared (Holm, {alpha:g} for the board): "
            f"a claim that assumes nothing about the noise needs {need} seeds on each "
            f"side; here {min(seeds)}{most}."
        )
    if NONE in methods:
        said.append(_no_noise(claims, max(seeds)))
    if ASSUMED in methods:
        said.append(
            f"assumed noise: where seeds are too few, a t test takes sd "
            f"{claims.noise_sd:.4g} for both sides (measured on "
            f"{_list(claims.noise_from)}) and noise to be normal and alike for all."
        )
        wide = _widest(claims)
        if wide:
            said.append(wide)
    for name, runs in claims.runs.items():
        bad = runs.size - claims.scores[name].size
        if bad == runs.size:
            said.append(f"{name}: {bad} of {bad} runs failed; placed last, not tested.")
        elif bad:
            said.append(
                f"{name}: {bad} of {runs.size} runs failed; they count as worse than "
                "any score."
            )
    if claims.circle:
        said.append(
            f"the claims between {_list(claims.circle)} go round in a circle and are "
            "withdrawn."
        )
    return said


def _no_noise(claims: Claims, most: int) -> str:
    """Why pairs were left untested."""
    if any(values.size >= NOISE_SEEDS for values in claims.scores.values()):
        return (
            "all seeds of a backbone score the same, so no noise is measured: where "
            "seeds are too few for the exact test, nothing is claimed."
        )
    if most == 1:
        return "one seed each: nothing is claimed."
    return (
        f"no backbone has {NOISE_SEEDS} scores to measure the noise: nothing is "
        "claimed where seeds are too few for the exact test."
    )


def _widest(claims: Claims) -> str | None:
    """Names the backbone whose noise is far from the pooled one, if there is one."""
    sds = {name: claims.scores[name].std(ddof=1) for name in claims.noise_from}
    widest = max(sds, key=sds.__getitem__)
    typical = float(np.median(list(sds.values())))
    if len(sds) < 2 or sds[widest] <= 3.0 * typical:
        return None
    return (
        f"noise is not alike: sd {sds[widest]:.4g} for {widest}, {typical:.4g} for the "
        "median backbone; read claims by assumed noise with care."
    )


def _list(names: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
