"""Plans carried out: what a planner is shown, whether it steers and repeats itself."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from test_play import countdown, same, write_replay
from world_games import uniform

from jaxbench.data.slippi import parse
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.match import play, schedule
from jaxbench.serving.players import CopyPrevious, Scripted
from jaxbench.serving.world import planning
from jaxbench.serving.world.members import World
from jaxbench.serving.world.planner import carry_out, planner
from jaxbench.serving.world.rollout import warm_up
from jaxbench.tasks.world import states, windows
from jaxbench.tasks.world.frame import Scales
from jaxbench.tasks.world.modules import WorldEncoder, WorldHead
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.features import ACTION_STATES

pytestmark = pytest.mark.integration

PLAIN = Scales(
    mean=np.zeros(states.STATE, np.float32),
    std=np.full(states.STATE, 50, np.float32),
    change_mean=np.zeros(states.STATE, np.float32),
    change_std=np.ones(states.STATE, np.float32),
    reward=np.ones(1, np.float32),
)


def test_a_planner_is_shown_what_a_replay_of_its_game_shows(tmp_path):
    model = Model(
        encoder=WorldEncoder(width=8),
        stack=build_stack("gru", width=8, depth=1),
        head=WorldHead(),
        readout="all",
    )
    games = schedule(games=2, seconds=2, seed=2)
    history = windows_of_zeros()
    members = [jax.device_put(draw(model, history, seed=seed)) for seed in range(2)]
    world = World.of(model, members, PLAIN, True)
    search = planning.Search(horizon=4, samples=16)
    player = planner(
        world,
        method="cem",
        goal=planning.reward_goal(),
        search=search,
        prior=uniform(1, search),
        every=4,
    )
    places = []

    def spied(place, rival_ba, key):
        places.append((place, rival_ba))
        return player.decide(place, rival_ba, key)

    seen = []
    play(
        dataclasses.replace(player, decide=spied), Scripted(3), games, watch=seen.append
    )
    assert len(places) == 30  # of 120 frames, every fourth
    before = countdown(games)
    replays = [
        parse(write_replay(tmp_path / f"{g}.slp", games, before, seen, g))
        for g in range(2)
    ]
    arrays, _ = states.store(replays, [(g, int(games.side_b[g])) for g in range(2)])
    table = arrays["perspective"]
    for index in (0, 1, 12, 29):
        place, rival_ba = places[index]
        rows = table[:, None, :2] + np.arange(4 * index + 1)[None, :, None]
        frames = windows.read(arrays, rows, table[:, states.STAGE])
        for found, expected in zip(place.frame, frames, strict=True):
            for member in np.asarray(found):
                np.testing.assert_array_equal(member, np.asarray(expected)[:, -1])
        sent = jnp.asarray(arrays["controller"][rows], jnp.int32)
        np.testing.assert_array_equal(rival_ba, sent[:, -1, 1])
        frames = jax.tree.map(jnp.asarray, frames)
        expected = warm_up(world, frames, sent[:, 1:])
        for a, b in zip(
            jax.tree.leaves(place.memory), jax.tree.leaves(expected.memory), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def windows_of_zeros():
    """A batch of one window of two frames, to initialise a model with."""
    return {
        "state_bts": jnp.zeros((1, 2, states.STATE)),
        "action_state_btn": jnp.zeros((1, 2, 2), int),
        "character_btn": jnp.zeros((1, 2, 2), int),
        "stage_bt": jnp.zeros((1, 2), int),
        "controller_btna": jnp.zeros((1, 2, 2, 6), int),
        "reset_bt": jnp.zeros((1, 2), bool),
    }


class Walk:
    """A world that knows one thing: who holds the main stick right moves right."""

    def apply(self, variables, given, memory=None, method=None):
        if method == "initial_state":
            return jnp.zeros((given, 1))
        stick_bt = given["controller_btna"][:, :, 0, 1] / 8 - 1
        shape = (*stick_bt.shape, states.STATE)
        change = jnp.zeros(shape).at[..., states.FIELDS.index("x")].set(stick_bt)
        outputs = {
            "state_bts": change,
            "action_state_btnk": jnp.zeros((*stick_bt.shape, 2, ACTION_STATES + 1)),
            "reward_bt": jnp.zeros(stick_bt.shape),
            "done_bt": jnp.zeros(stick_bt.shape),
        }
        return outputs, memory


def walker(place, method="cem", seed=0):
    search = planning.Search(horizon=8, samples=128)
    # The main stick alone, so that nobody jumps or attacks.
    played = np.tile(controller.NEUTRAL, (17, 1))
    played[:, 1] = np.arange(17)
    return planner(
        World.of(Walk(), [{"none": jnp.zeros(1)}], PLAIN, True),
        method=method,
        goal=planning.position_goal(*place),
        search=search,
        prior=planning.as_played(played, 1, search),
        every=4,
        seed=seed,
    )


@pytest.mark.parametrize(
    "method", ["cem", pytest.param("shooting", marks=pytest.mark.slow)]
)
def test_a_planner_walks_where_its_goal_is(method):
    games = schedule(games=4, seconds=4, seed=5, stages=[32])
    ends = {}
    for x in (-30.0, 30.0):
        seen = []
        play(walker((x, 0.0), method), CopyPrevious(), games, watch=seen.append)
        rows = np.arange(4), games.side_b
        ends[x] = np.stack([state.x[rows] for state in seen[-60:]])
        begun = np.abs(seen[0].x[rows] - x).mean()
        assert np.abs(ends[x] - x).mean() < min(15, begun / 2)
    assert (ends[30.0].mean(axis=0) > ends[-30.0].mean(axis=0) + 30).all()


def test_the_same_seed_plays_the_same_games():
    games = schedule(games=4, seconds=3, seed=1)
    one, again, other = (
        play(walker((0.0, 0.0), seed=seed), Scripted(0), games) for seed in (0, 0, 1)
    )
    same(one, again)
    assert not np.array_equal(one.received_b, other.received_b) or not np.array_equal(
        one.dealt_b, other.dealt_b
    )


def test_floors_play_the_games_that_a_plan_plays():
    games = schedule(games=4, seconds=2, seed=1)
    found = carry_out(walker((0.0, 0.0)), games)
    assert list(found) == ["plan", "scripted", "random", "copy_previous"]
    assert len({tuple(row["each"]["seed"]) for row in found.values()}) == 1
    assert found["copy_previous"]["damage_dealt"]["value"] == 0
