"""How often a board claims what is not so, and finds what is.

Without arguments, simulated boards: renamed copies of one backbone (any claim is
false), and one backbone with a planted gain among copies (to be found better than every
other). With `--runs`, the same question on real runs: the seeds of one backbone, dealt
at random to three names.

    python benchmarks/lie_detector.py --boards=400
    python benchmarks/lie_detector.py --runs=runs/suite --deals=1000
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxbench.bench.statistics import needed_seeds
from jaxbench.bench.statistics.claims import decide
from jaxbench.bench.statistics.simulated import (
    SHAPES,
    false_claims,
    power,
)
from jaxbench.errors import InputError

NAMES = 3


def main() -> None:
    """Prints the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=400)
    parser.add_argument("--runs", type=Path, help="a suite's folder")
    parser.add_argument("--deals", type=int, default=1000)
    options = parser.parse_args()
    if options.runs is not None:
        try:
            print_real(options.runs, options.deals)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        return
    print_false_claims(options.boards)
    print_power(options.boards)


def print_false_claims(boards: int) -> None:
    """Equal backbones: share of boards with any claim, for each shape of noise."""
    bound = stats.binom.ppf(0.99, boards, 0.05) / boards
    print(
        f"False claims: share of {boards} boards of equal backbones with any two "
        f"ranked apart (at most 5 %; up to {bound:.1%} is chance)\n"
    )
    print("| backbones | seeds | test | " + " | ".join(SHAPES) + " |")
    print("|---:|---:|---|" + "---:|" * len(SHAPES))
    cases = [(3, 1, 5), (3, 3, 0), (3, 5, 0), (3, 10, 0)]
    cases += [(34, 1, 5), (34, 3, 0), (34, 5, 0), (34, 10, 0)]
    for backbones, seeds, measured in cases:
        copies = backbones + (measured > 0)
        exact = seeds >= needed_seeds(copies * (copies - 1) // 2)
        shares = [
            false_claims(
                backbones=backbones, seeds=seeds, measured=measured, shape=shape,
                boards=boards,
            )
            for shape in SHAPES
        ]  # fmt: skip
        test = "mann-whitney" if exact else "assumed noise"
        test += f" ({measured} seeds of one more)" if measured else ""
        cells = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {backbones} | {seeds} | {test} | {cells} |", flush=True)


def print_power(boards: int) -> None:
    """One better backbone: share of boards on which it is found better than all."""
    gains = (0.005, 0.01, 0.015, 0.02, 0.05)
    print(f"\nPower: share of {boards} boards on which a gain is found\n")
    print(
        "| backbones | noise | seeds | " + " | ".join(f"{g:.1%}" for g in gains) + " |"
    )
    print("|---:|---:|---:|" + "---:|" * len(gains))
    for backbones in (3, 34):
        for noise in (0.0025, 0.005, 0.01, 0.014):
            for seeds in (3, 5, 10):
                found = [
                    power(
                        gain, backbones=backbones, noise=noise, seeds=seeds,
                        boards=boards,
                    )
                    for gain in gains
                ]  # fmt: skip
                cells = " | ".join(f"{share:.0%}" for share in found)
                print(f"| {backbones} | {noise:.2%} | {seeds} | {cells} |", flush=True)


def print_real(folder: Path, deals: int) -> None:
    """Real seeds dealt at random to three names: share of deals with any claim."""
    recipes = read_scores(folder)
    enough = {name: x for name, x in recipes.items() if len(x) >= 2 * NAMES}
    if not enough:
        most = max((len(x) for x in recipes.values()), default=0)
        raise InputError(
            f"{folder}: no backbone has {2 * NAMES} finished seeds of one recipe "
            f"(most: {most}); run the suite with more seeds"
        )
    print(f"Real seeds dealt to {NAMES} names {deals} times (deals overlap)\n")
    print("| backbone | seeds | sd / mean | per name | ranked apart |")
    print("|---|---:|---:|---:|---:|")
    for name, scores in sorted(enough.items()):
        share = dealt_apart(scores, deals)
        spread = np.std(scores, ddof=1) / abs(np.mean(scores))
        each = len(scores) // NAMES
        print(f"| {name} | {len(scores)} | {spread:.2%} | {each} | {share:.1%} |")


def dealt_apart(scores: list[float], deals: int) -> float:
    """Share of random deals of one backbone's seeds that rank any two names apart."""
    rng = np.random.default_rng(0)
    each = len(scores) // NAMES
    apart = 0
    for _ in range(deals):
        dealt = rng.permutation(scores)[: NAMES * each].reshape(NAMES, each)
        groups = {str(k): row for k, row in enumerate(dealt.tolist())}
        apart += max(decide(groups, False, 0.05, {}).ranks.values()) > 1
    return apart / deals


def read_scores(folder: Path) -> dict[str, list[float]]:
    """Best primary metric of each seed, by backbone and recipe.

    Raises:
      InputError: no result in the folder.
    """
    found: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.rglob("result.json")):
        result = json.loads(path.read_text())
        scored = result.get("purpose", "score") == "score"
        if "checkpoints" in path.parts or not scored or result["status"] != "ok":
            continue
        metric = (result.get("primary") or {"metric": "loss"})["metric"]
        data = result.get("data") or {}
        recipe = (
            result["backbone"], result["task"], result["protocol"],
            str(result.get("group", "")), str(data.get("fingerprint", "")),
        )  # fmt: skip
        found[recipe][result["seed"]] = float(result["best"]["metrics"][metric])
    if not found:
        raise InputError(f"{folder}: no finished result.json below it")
    names = [recipe[0] for recipe in found]
    return {
        recipe[0] if names.count(recipe[0]) == 1 else "/".join(recipe): list(x.values())
        for recipe, x in found.items()
    }


if __name__ == "__main__":
    main()
