"""Rollouts, ensembles, errors by horizon and planning, against numpy and toy costs."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import draw
from recipes import recipe
from world_games import simulated, uniform

from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.world import horizon, planning
from jaxbench.serving.world.members import World
from jaxbench.serving.world.rollout import Trajectory, recorded, rollout, warm_up
from jaxbench.tasks.world import frame, next_frame, states

WARM_UP, HORIZON = 6, 5
COLUMN = {name: states.FIELDS.index(name) for name in states.FIELDS}


@pytest.fixture(scope="module")
def task(shared_runs):
    config = recipe("world", window=WARM_UP, stride=8)
    return next_frame.build(simulated(shared_runs), config, 8, {"source": "simulated"})


@pytest.fixture(scope="module")
def members(task):
    """A model and two draws of its weights that say something of every frame."""
    stack = build_stack("gru", width=8, depth=1)
    model = Model(encoder=task.encoder, stack=stack, head=task.head, readout="all")
    batch = jax.jit(task.gather)(task.arrays, task.splits["train"][:2])
    return model, [jax.device_put(draw(model, batch, seed=seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def world(task, members):
    model, weights = members
    return World.of(model, weights, frame.Scales.of(task.arrays), True)


@pytest.fixture(scope="module")
def held(task):
    return horizon.held_out(task, warm_up=WARM_UP, horizon=HORIZON, count=4)


@pytest.fixture(scope="module")
def start(world, held):
    past = jax.tree.map(lambda x: jnp.asarray(x[:, :WARM_UP]), held.frames)
    return warm_up(world, past, jnp.asarray(held.controllers_ntna))


def ahead(held):
    return jnp.asarray(held.controllers_ntna[:, WARM_UP - 1 :])


@pytest.fixture(scope="module")
def said(world, held, start):
    return jax.device_get(rollout(world, start, HORIZON, recorded(ahead(held))))


@pytest.mark.integration
def test_one_frame_of_a_rollout_is_the_prediction_of_the_whole_window(
    task, members, world, held, said
):
    model, weights = members
    past = jax.tree.map(lambda x: jnp.asarray(x[:, :WARM_UP]), held.frames)
    sent = jnp.asarray(held.controllers_ntna[:, :WARM_UP])
    batch = frame.inputs(past, sent, world.scales)
    batch["reset_bt"] = jnp.zeros((len(held), WARM_UP), bool).at[:, 0].set(True)
    trajectory, _ = said
    for m, variables in enumerate(weights):
        outputs, _ = jax.jit(model.apply)(variables, batch)
        then, reward, done = frame.following(past, outputs, world.scales, True)
        for found, expected in (
            (trajectory.state_mbhs, then.state_bs),
            (trajectory.action_state_mbhn, then.action_state_bn),
            (trajectory.reward_mbh, reward),
            (trajectory.done_mbh, done),
        ):
            np.testing.assert_allclose(
                found[m, :, 0], expected[:, -1], rtol=1e-4, atol=1e-4
            )


@pytest.mark.integration
def test_a_rollout_goes_on_where_it_stopped(world, held, start, said):
    whole, end = said
    first, middle = rollout(world, start, 2, recorded(ahead(held)))
    second, last = rollout(world, middle, HORIZON - 2, recorded(ahead(held)[:, 2:]))
    for a, b, c in zip(whole, first, second, strict=True):
        np.testing.assert_allclose(np.concatenate([b, c], 2), a, rtol=1e-5, atol=1e-5)
    for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.integration
def test_members_roll_out_alone_and_their_mean_and_variance_are_numpys(
    task, members, world, held, said
):
    model, weights = members
    past = jax.tree.map(lambda x: jnp.asarray(x[:, :WARM_UP]), held.frames)
    alone = []
    for variables in weights:
        one = World.of(model, [variables], world.scales, True)
        place = warm_up(one, past, jnp.asarray(held.controllers_ntna))
        found, _ = rollout(one, place, HORIZON, recorded(ahead(held)))
        np.testing.assert_array_equal(found.state_mbhs.var(0), 0)
        alone.append(np.asarray(found.state_mbhs[0], np.float64))
    trajectory = Trajectory(*map(jnp.asarray, said[0]))
    np.testing.assert_allclose(
        trajectory.state_mbhs.mean(0), np.mean(alone, axis=0), rtol=1e-4, atol=1e-3
    )
    np.testing.assert_allclose(
        trajectory.state_mbhs.var(0), np.var(alone, axis=0), rtol=1e-2, atol=1e-3
    )
    assert np.asarray(trajectory.state_mbhs.var(0)).max() > 0


@pytest.mark.integration
def test_a_policy_sees_the_frame_that_its_member_predicted(world, held, start):
    def act(seen, step):
        del step
        high = (seen.state_bs[:, COLUMN["percent"]] > 50).astype(jnp.int32)
        neutral = jnp.array([0, 8, 8, 8, 8, 0])
        return neutral[None, None] + high[:, None, None] * jnp.ones((1, 2, 6), int)

    found, _ = rollout(world, start, 1, act)
    high = (held.frames.state_bs[:, WARM_UP - 1, COLUMN["percent"]] > 50).astype(int)
    labels = np.array([0, 8, 8, 8, 8, 0]) + high[:, None]
    sent = jnp.asarray(np.tile(labels[:, None, None], (1, 1, 2, 1)))
    same, _ = rollout(world, start, 1, recorded(sent))
    np.testing.assert_allclose(found.state_mbhs, same.state_mbhs, rtol=1e-5, atol=1e-5)


def perfect(held, off=0.0):
    """A trajectory of two members that say what came, `off` units too far right."""
    state = np.repeat(held.frames.state_bs[None, :, WARM_UP:], 2, axis=0).copy()
    state[..., COLUMN["x"]] += off
    ids = np.repeat(held.frames.action_state_bn[None, :, WARM_UP:], 2, axis=0)
    reward = np.repeat(held.reward_nt[None, :, WARM_UP - 1 :], 2, axis=0)
    return Trajectory(state, ids, reward, np.zeros(reward.shape))


def test_errors_by_horizon_are_what_numpy_says(held):
    steps = [1, 3, HORIZON]
    found = horizon.errors(perfect(held, off=2.0), held, steps)
    # The own fighter is 2 units off, the opponent 0.
    np.testing.assert_allclose(found["position"]["model"], 1.0, rtol=1e-5)
    for group in ("velocity", "percent", "hitstun", "action_state", "reward"):
        np.testing.assert_allclose(found[group]["model"], 0, atol=1e-6)
    state = held.frames.state_bs.astype(np.float64)
    now, before = state[:, WARM_UP - 1], state[:, WARM_UP - 2]
    for i, h in enumerate(steps):
        then = state[:, WARM_UP - 1 + h]
        for name, speed in (("copy_last", 0), ("constant_velocity", h)):
            guess = now + speed * (now - before)
            apart = [
                np.hypot(*(guess - then)[:, [c, c + 1]].T).mean()
                for c in (0, len(states.FIELDS))
            ]
            assert found["position"][name][i] == pytest.approx(np.mean(apart))
        percent = [COLUMN["percent"], len(states.FIELDS) + COLUMN["percent"]]
        expected = np.abs(now - then)[:, percent].mean()
        assert found["percent"]["constant_velocity"][i] == pytest.approx(expected)
    assert horizon.behind(found, "velocity") == [False] * 3


def test_disagreement_of_members_is_their_spread(held):
    apart = perfect(held)
    state = apart.state_mbhs.copy()
    state[1, :, :, COLUMN["x"]] += 4.0
    found = horizon.disagreement(apart._replace(state_mbhs=state), held, [1])
    # A standard deviation of 2 for the own fighter, 0 for the opponent.
    assert found["spread"] == [pytest.approx(1.0, rel=1e-4)]
    assert found["rank_correlation"] == [pytest.approx(1.0)]


def test_held_out_stretches_are_valid_and_do_not_overlap():
    valid = np.random.default_rng(0).random(400) > 0.05
    found = horizon.stretches(valid, 7)
    assert found and found[0] >= 1
    assert all(valid[s : s + 7].all() for s in found)
    assert (np.diff(found) >= 8).all()
    # Nothing was passed over: between two, no other one fits.
    for before, after in itertools.pairwise(found):
        between = range(before + 8, after)
        assert not any(valid[s : s + 7].all() for s in between)


def test_a_horizon_longer_than_any_episode_is_refused(task):
    with pytest.raises(InputError, match=r"no held-out game has 9006 frames in a row"):
        horizon.held_out(task, warm_up=6, horizon=9000, count=4)


# Planning.


def quadratic(labels_bnha):
    """Squared distance of the main stick from a place that moves: least is 0."""
    wanted = 3 + jnp.arange(labels_bnha.shape[2]) % 11
    off = labels_bnha[..., 1] - wanted[None, None]
    return jnp.sum(jnp.square(off), axis=-1).astype(jnp.float32)


@pytest.mark.integration
def test_shooting_keeps_the_cheapest_of_what_it_drew():
    search = planning.Search(horizon=6, hold=1, samples=64)
    prior = uniform(3, search)
    key = jax.random.key(1)
    found = planning.shoot(key, quadratic, prior, search)
    drawn = planning.draw(key, prior, 64, search)
    costs = np.asarray(quadratic(drawn))
    np.testing.assert_array_equal(found.cost_b, costs.min(axis=1))
    for b in range(3):
        best = np.asarray(drawn)[b, costs[b].argmin()]
        np.testing.assert_array_equal(found.labels_bha[b], best)
    assert len({float(c) for c in found.first_b}) > 1
    again = planning.shoot(key, quadratic, prior, search)
    np.testing.assert_array_equal(again.labels_bha, found.labels_bha)
    other = planning.shoot(jax.random.key(2), quadratic, prior, search)
    assert not np.array_equal(other.labels_bha, found.labels_bha)


@pytest.mark.integration
def test_shooting_finds_the_optimum_of_a_toy_with_one_decision():
    search = planning.Search(horizon=4, hold=4, samples=512)

    def cost(labels):
        x = jnp.cumsum((labels[..., 1] - 8) / 8, axis=-1)
        return jnp.abs(x[..., -1] - 2.5)

    found = planning.shoot(jax.random.key(0), cost, uniform(2, search), search)
    # Four frames of (level - 8) / 8 are 2.5 at level 13.
    np.testing.assert_array_equal(found.labels_bha[..., 1], 13)
    np.testing.assert_allclose(found.cost_b, 0, atol=1e-6)


@pytest.mark.integration
def test_cem_beats_shooting_at_equal_samples_on_a_quadratic():
    search = planning.Search(horizon=12, hold=1, samples=400, rounds=5)
    prior, key = uniform(8, search), jax.random.key(3)
    shot = planning.shoot(key, quadratic, prior, search)
    found = planning.cem(key, quadratic, prior, search)
    np.testing.assert_allclose(
        found.cost_b, quadratic(found.labels_bha[:, None])[:, 0], rtol=1e-6
    )
    assert (np.asarray(found.cost_b) < np.asarray(shot.cost_b)).all()
    assert float(found.cost_b.mean()) < 0.6 * float(shot.cost_b.mean())


@pytest.mark.integration
def test_plans_hold_decisions_and_are_drawn_as_they_were_played():
    search = planning.Search(horizon=7, hold=3)
    played = np.tile(np.array([[0, 8, 8, 8, 8, 0]], np.uint8), (100, 1))
    played[:25, 0] = 0b10  # the second button
    played[:50, 1] = 16
    prior = planning.as_played(played, 1, search)
    assert prior.buttons_bdk.shape == (1, 3, 8)
    drawn = np.asarray(planning.draw(jax.random.key(0), prior, 4000, search))[0]
    assert drawn.shape == (4000, 7, 6)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    np.testing.assert_array_equal(drawn[:, 3], drawn[:, 5])
    assert set(np.unique(drawn[..., 0])) == {0, 2}
    assert (drawn[..., 0] == 2).mean() == pytest.approx(0.25, abs=0.02)
    assert set(np.unique(drawn[..., 1])) == {8, 16}
    assert (drawn[..., 2:] == np.array([8, 8, 8, 0])).all()


def test_goals_are_what_numpy_says():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(2, 3, 4, states.STATE)).astype(np.float32)
    reward = rng.normal(size=(2, 3, 4))
    done = rng.random((2, 3, 4))
    said = Trajectory(state, np.zeros((2, 3, 4, 2)), reward, done)
    place = planning.parse_goal("1.5,-2", 0.9)(said)
    apart = np.hypot(state[..., 0] - 1.5, state[..., 1] + 2)
    np.testing.assert_allclose(place, apart.mean(axis=(0, 2)), rtol=1e-5)
    total = np.zeros((2, 3))
    going = np.ones((2, 3))
    for h in range(4):
        total += 0.9**h * going * reward[:, :, h]
        going *= 1 - done[:, :, h]
    cost = planning.parse_goal("reward", 0.9)(said)
    np.testing.assert_allclose(cost, -total.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("text", ["win", "1", "1,2,3", "nan,0", "1,x"])
def test_an_unknown_goal_is_one_clear_line(text):
    with pytest.raises(InputError, match=r"neither 'reward' nor a place X,Y") as caught:
        planning.parse_goal(text, 0.99)
    assert "\n" not in str(caught.value)


@pytest.mark.integration
def test_the_cost_of_a_sequence_does_not_depend_on_what_is_tried_beside_it(
    world, held, start
):
    goal = planning.position_goal(0.0, 10.0)
    rival = jnp.asarray(held.controllers_ntna[:, WARM_UP - 2, 1])
    search = planning.Search(horizon=3, hold=1)
    first = uniform(len(held), search)
    tried = planning.draw(jax.random.key(0), first, 3, search)
    costs = planning.predicted_cost(world, start, rival, goal)(tried)
    assert costs.shape == (len(held), 3)
    both = jnp.stack([tried[:, 2], jnp.repeat(rival[:, None], 3, axis=1)], axis=2)
    alone, _ = rollout(world, start, 3, recorded(both))
    np.testing.assert_allclose(costs[:, 2], goal(alone), rtol=1e-4)


@pytest.mark.integration
def test_worlds_are_stacked_member_by_member(world, members):
    assert world.members == 2
    first = jax.tree.map(lambda x: x[0], world.variables)
    for a, b in zip(
        jax.tree.leaves(first), jax.tree.leaves(members[1][0]), strict=True
    ):
        np.testing.assert_array_equal(a, b)
