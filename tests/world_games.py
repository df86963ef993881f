"""For tests of the world model: games, simulated or by hand, and a prior of plans."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from small_run import SharedRuns
from test_zelda_frames import make_game

from jaxbench.data.game import Game
from jaxbench.data.replays import load_replays
from jaxbench.serving.world import planning

# Frames of a game by hand before its timer starts.
COUNTDOWN = 123


def simulated(shared_runs: SharedRuns) -> list[Game]:
    """The session's three games of half a minute, read as replays."""
    paths = sorted(shared_runs.replays().glob("*.slp"))
    games, _ = load_replays(paths, max_files=0, workers=1, cache_dir=None)
    return list(games)


def eventful(seed: int = 0, count: int = 400, end: str = "game") -> Game:
    """Percent goes up in steps; player 0 dies once at frame 100, player 1 at 150."""
    game = make_game(seed, count=count)
    rng = np.random.default_rng(seed + 1)
    players = []
    for number, player in enumerate(game.players):
        post = dict(player.leader.post)
        death = COUNTDOWN + (100, 150)[number]
        hits = rng.choice([0.0, 0.0, 0.0, 4.5], count).cumsum()
        post["percent"] = np.where(np.arange(count) > death, 0, hits - hits[0]).astype(
            np.float32
        )
        stocks = np.where(np.arange(count) > death, 3, 4)
        post["stocks"] = stocks.astype(np.uint8)
        state = post["state"].copy()
        state[death + 1 : death + 31] = 4  # dead
        state[death + 31 : death + 41] = 12  # carried down
        post["state"] = state
        leader = dataclasses.replace(player.leader, post=post)
        players.append(dataclasses.replace(player, leader=leader))
    return dataclasses.replace(game, players=tuple(players), end=end)


def uniform(situations, search):
    """Every label as likely as any other."""
    shape = (situations, -(-search.horizon // search.hold))
    parts = {(8,): 1 / 2, (4, 17): 1 / 17, (5,): 1 / 5}
    return planning.Proposal(*(jnp.full((*shape, *s), p) for s, p in parts.items()))
