"""Stocks of scripts of one fighter against scripts of all, by the place they start in.

    python benchmarks/scripted_fighters.py --fighters=every,fox,zelda

A match of a policy is against scripts of every fighter. What a script of the policy's
own fighter comes to there is the fighter's doing: places and starting sides are spread
evenly, and all against all come out level. 12 s for each line on one core.
"""

from __future__ import annotations

import argparse

import numpy as np

from jaxbench.data.simulation.arena import FIGHTER_INDEX
from jaxbench.serving.match import EVERY, estimate, play, schedule
from jaxbench.serving.players import baselines


def main() -> None:
    """Prints a line for each fighter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everyone = ",".join((EVERY, *FIGHTER_INDEX))
    parser.add_argument("--fighters", default=everyone, help="default: %(default)s")
    parser.add_argument("--games", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| fighter | stocks taken - lost | 95 % | in place 1 | in place 2 |")
    print("|---|---:|---:|---:|---:|")
    for fighter in options.fighters.split(","):
        games = schedule(
            games=options.games,
            seconds=options.seconds,
            seed=options.seed,
            character=fighter,
        )
        own, rival = baselines()["scripted"], baselines(rival=True)["scripted"]
        match = play(own, rival, games)
        ahead_b = match.taken_b - match.lost_b
        found = estimate(lambda x, axis: np.mean(x, axis=axis), ahead_b)
        places = [ahead_b[games.side_b == side].mean() for side in (0, 1)]
        print(
            f"| {fighter} | {found['value']:+.2f} | {found['low']:+.2f} to "
            f"{found['high']:+.2f} | {places[0]:+.2f} | {places[1]:+.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
