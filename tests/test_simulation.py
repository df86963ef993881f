"""The simulated fights: physics, hits, controls, invariants."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import numpy as np
import pytest

from jaxbench.data import slp_writer
from jaxbench.data.simulation import arena, environment, moves, scripted
from jaxbench.data.simulation.fight import (
    ARRAYS,
    BUTTONS,
    X_BUTTON,
    Y_BUTTON,
    Controls,
    L,
    R,
    State,
    Z,
    neutral_controls,
    quantize,
)
from jaxbench.data.simulation.moves import A
from jaxbench.data.simulation.observation import post_fields
from jaxbench.errors import InputError


def _hold(batch: int = 1, player: int = 0, **fields: float) -> Controls:
    held = neutral_controls(batch)
    for name, value in fields.items():
        getattr(held, name)[:, player] = value
    return held


def _random_controls(rng: np.random.Generator, batch: int) -> Controls:
    sticks = rng.uniform(-1.2, 1.2, (4, batch, 2)).astype(np.float32)
    sticks *= rng.random((4, batch, 2)) < 0.7
    triggers = rng.uniform(0, 1, (2, batch, 2)) * (rng.random((2, batch, 2)) < 0.1)
    buttons = rng.integers(0, 4096, (batch, 2)) & rng.integers(0, 4096, (batch, 2))
    return Controls(*sticks, *triggers.astype(np.float32), buttons & BUTTONS)


def _play(state: State, frames: int, controls: Controls | None = None) -> State:
    for _ in range(frames):
        state = environment.step(state, controls or neutral_controls(len(state.x)))
    return state


@functools.cache
def _ready(names: tuple[str, str]) -> State:
    """Four seconds into a game on Final Destination; not to be changed."""
    return _play(environment.reset([0], [names], 32), 240)


def _standing(
    x: float = -10.0, other_x: float = 40.0, names: tuple[str, str] = ("marth", "fox")
) -> State:
    """Two fighters on the main floor of Final Destination, facing each other."""
    state = _ready(names).copy()
    state.x[:] = [[x, other_x]]
    state.facing[:] = [[1, -1]]
    return _play(state, 1)


def _put(state: State, player: int, **fields: float) -> State:
    state = state.copy()
    for name, value in fields.items():
        getattr(state, name)[:, player] = value
    return state


@pytest.fixture(scope="module")
def random_history() -> list[State]:
    rng = np.random.default_rng(1)
    stages = [stage.id for stage in arena.STAGES]
    names = [fighter.name for fighter in arena.FIGHTERS]
    batch = len(names)
    pairs = [(name, names[(i + 5) % batch]) for i, name in enumerate(names)]
    state = environment.reset(
        range(batch), pairs, [stages[i % len(stages)] for i in range(batch)], 12
    )
    history = [state]
    while not state.over.all():
        if len(history) % 3 == 1:
            controls = _random_controls(rng, batch)
        state = environment.step(state, controls)
        history.append(state)
    return history


# Controls.


def test_quantize_gives_values_of_a_controller_and_nothing_changes_twice():
    rng = np.random.default_rng(0)
    once = quantize(_random_controls(rng, 500))
    twice = quantize(once)
    for first, second in zip(once, twice, strict=True):
        np.testing.assert_array_equal(first, second)
    for x, y in ((once[0], once[1]), (once[2], once[3])):
        steps_x, steps_y = np.rint(x * 80), np.rint(y * 80)
        np.testing.assert_array_equal(x, (steps_x / 80).astype(np.float32))
        assert (steps_x**2 + steps_y**2).max() <= 80**2
        off_centre = np.abs(steps_x[steps_x != 0])
        assert off_centre.min() >= 23


def test_quantize_refuses_a_stick_that_is_not_a_number():
    with pytest.raises(ValueError, match="not finite"):
        quantize(_hold(stick_x=math.nan))


# Physics.


def test_random_play_keeps_every_invariant(random_history):
    jumps = arena.attribute("jumps", np.int32)
    first = random_history[0]
    assert (random_history[-1].stocks < 4).sum() >= 3
    for before, after in itertools.pairwise(random_history):
        for name in ARRAYS:
            values = getattr(after, name)
            assert values.dtype == getattr(first, name).dtype, name
            if values.dtype.kind == "f":
                assert np.isfinite(values).all(), name
        assert np.isin(after.facing, (-1, 1)).all()
        assert (after.shield >= 0).all() and (after.shield <= 60).all()
        assert (after.percent >= 0).all() and (after.percent <= 999).all()
        assert (after.jumps >= 0).all()
        assert (after.jumps <= jumps[after.fighter]).all()
        lost = before.stocks - after.stocks
        assert np.isin(lost, (0, 1)).all()
        assert (after.percent[lost == 1] == 0).all()
        kept = (lost == 0) & (after.action != A.REBIRTH)
        assert (after.percent[kept] >= before.percent[kept]).all()
        assert (
            (lost == 1)
            == (moves.IS_DEAD[after.action] & (after.age == 0)) & (lost == 1)
        ).all()
        grounded = ~after.airborne
        height = arena.HEIGHT_SF[after.stage[:, None], np.maximum(after.ground, 0)]
        np.testing.assert_array_equal(after.y[grounded], height[grounded])
        playing = ~moves.IS_AWAY[after.action]
        side = arena.SIDE_S[after.stage][:, None]
        bottom = arena.BOTTOM_S[after.stage][:, None]
        inside = (np.abs(after.x) <= side) & (after.y >= bottom)
        assert (inside | ~playing).all()


def test_a_free_fall_follows_gravity_to_the_terminal_speed():
    state = _play(environment.reset([0], [("zelda", "fox")], 32), 200)
    state = _put(state, 0, y=150.0, vy=0.0, airborne=True, ground=-1)
    state.begin(np.array([[True, False]]), A.FALL)
    zelda = arena.FIGHTERS[arena.FIGHTER_INDEX["zelda"]]
    speed, height = 0.0, 150.0
    for _ in range(40):
        state = _play(state, 1)
        speed = max(speed - zelda.gravity, -zelda.fall)
        height += speed
        assert state.y[0, 0] == pytest.approx(height, abs=1e-3)
    assert state.vy[0, 0] == pytest.approx(-zelda.fall)
    state = _play(state, 1, _hold(stick_y=-1.0))
    assert state.vy[0, 0] == pytest.approx(-zelda.fast_fall)


@pytest.mark.parametrize("held, speed", [(1, "short_hop"), (20, "jump")])
def test_a_jump_is_full_when_held_and_short_when_not(held, speed):
    state = _standing()
    fighter = arena.FIGHTERS[state.fighter[0, 0]]
    top = 0.0
    for frame in range(70):
        pressed = X_BUTTON if frame < held else 0
        state = environment.step(state, _hold(buttons=pressed))
        top = max(top, float(state.y[0, 0]))
    rise, height = getattr(fighter, speed), 0.0
    while rise > 0:
        rise -= fighter.gravity
        height += max(rise, 0)
    assert top == pytest.approx(height, abs=0.02)


def test_jumps_run_out():
    state = _standing()
    jumps = 0
    for frame in range(120):
        pressed = X_BUTTON if frame % 8 == 0 else 0
        before = state
        state = environment.step(state, _hold(buttons=pressed))
        jumps += int(before.jumps[0, 0] - state.jumps[0, 0] == 1)
        if frame == 45:
            assert state.jumps[0, 0] == 0
        if frame > 20 and not state.airborne[0, 0]:
            break
    assert jumps == arena.FIGHTERS[state.fighter[0, 0]].jumps


def test_one_hit_follows_the_knockback_formula():
    state = _standing(x=0.0, other_x=12.0, names=("marth", "fox"))
    state = _put(state, 1, percent=60.0)
    state = _play(state, 1, _hold(cstick_y=1.0))
    for _ in range(40):
        state = _play(state, 1)
        if state.percent[0, 1] > 60:
            break
    move = next(m for m in moves.MOVES if m.action == A.SMASH_HI)
    percent = 60 + move.damage
    assert state.percent[0, 1] == percent
    weight = arena.FIGHTERS[state.fighter[0, 1]].weight
    force = percent / 10 + percent * move.damage / 20
    force = (force * 200 / (weight + 100) * 1.4 + 18) * move.growth / 100 + move.base
    speed = math.hypot(state.kx[0, 1], state.ky[0, 1])
    assert speed == pytest.approx(0.035 * force, rel=1e-5)
    angle = math.degrees(math.atan2(state.ky[0, 1], state.kx[0, 1]))
    assert angle == pytest.approx(move.angle, abs=0.01)
    assert state.hitstun[0, 1] == math.floor(0.4 * force)
    assert state.hitlag[0, 0] == state.hitlag[0, 1] == math.floor(move.damage / 3 + 3)
    assert state.damage[0].tolist() == [move.damage, 0]
    assert state.last_hit_by[0].tolist() == [-1, 0]
    where = state.x.copy(), state.y.copy()
    frozen = _play(state, int(state.hitlag[0, 0]))
    np.testing.assert_array_equal(frozen.x, where[0])
    assert _play(frozen, 1).y[0, 1] > where[1][0, 1]


def test_knockback_grows_with_percent_and_shrinks_with_weight():
    def launch(percent: float, name: str) -> float:
        state = _standing(x=0.0, other_x=12.0, names=("marth", name))
        state = _put(state, 1, percent=percent)
        state = _play(state, 1, _hold(cstick_x=1.0))
        for _ in range(40):
            state = _play(state, 1)
            if state.hitstun[0, 1]:
                return math.hypot(state.kx[0, 1], state.ky[0, 1])
        raise AssertionError("no hit")

    assert launch(0, "fox") < launch(50, "fox") < launch(120, "fox")
    assert launch(50, "samus") < launch(50, "fox") < launch(50, "jigglypuff")


def test_a_shield_takes_the_hit_a_grab_goes_through_it_and_it_wears_out():
    guard = {"buttons": R, "trigger_r": 1.0}
    state = _standing(x=0.0, other_x=12.0)
    held = _hold(player=1, **guard)
    state = _play(state, 12, held)
    assert state.action[0, 1] == A.GUARD and state.shield[0, 1] < 60
    smash = held._replace(cstick_x=np.array([[1, 0]], np.float32))
    blocked = _play(_play(state, 1, smash), 16, held)
    assert blocked.percent[0, 1] == 0 and blocked.hitstun[0, 1] == 0
    assert blocked.shield[0, 1] < state.shield[0, 1] - 15
    grab = held._replace(buttons=held.buttons | np.array([[Z, 0]], np.int32))
    thrown = _play(_play(state, 1, grab), 12, held)
    assert thrown.percent[0, 1] > 0 and moves.IS_THROW[thrown.action[0, 0]]
    broken = state
    for _ in range(300):
        broken = _play(broken, 1, held)
        if broken.action[0, 1] == A.DIZZY:
            break
    assert broken.action[0, 1] == A.DIZZY


def test_an_edge_is_caught_and_climbed_and_held_by_one_only():
    state = _standing()
    edge = float(arena.EDGE_S[state.stage[0]])
    for player, x in ((0, edge + 4), (1, edge + 6)):
        state = _put(state, player, x=x, y=-12.0, vx=0, vy=-1, airborne=True)
    state.begin(np.ones((1, 2), bool), A.FALL)
    state = _play(state, 1)
    assert state.action[0, 0] == A.CLIFF_CATCH and state.facing[0, 0] == -1
    assert state.action[0, 1] == A.FALL
    state = _play(_play(state, 10), 1, _hold(stick_y=1.0))
    assert state.action[0, 0] == A.CLIFF_CLIMB
    state = _play(state, 40)
    assert not state.airborne[0, 0]
    assert state.y[0, 0] == 0 and state.x[0, 0] < edge


@pytest.mark.parametrize("press, expected", [(0, A.DOWN_BOUND), (R, A.TECH)])
def test_a_tumbling_fighter_lands_on_its_back_unless_it_techs(press, expected):
    state = _standing()
    state = _put(state, 0, y=12.0, vy=-1.0, airborne=True, hitstun=60)
    state.begin(np.array([[True, False]]), A.FLY_N)
    state = _play(state, 1, _hold(buttons=press))
    for _ in range(15):
        state = _play(state, 1)
        if not state.airborne[0, 0]:
            break
    assert state.action[0, 0] == expected


def test_a_dodge_into_the_floor_slides():
    state = _standing(x=-40.0)
    state = _play(state, 1, _hold(buttons=Y_BUTTON))
    state = _play(state, 5)
    x = float(state.x[0, 0])
    dodge = _hold(stick_x=0.8, stick_y=-0.55, buttons=L, trigger_l=1.0)
    state = _play(state, 3, dodge)
    state = _play(state, 10)
    assert not state.airborne[0, 0]
    assert state.x[0, 0] > x + 8


def test_who_leaves_the_arena_loses_a_stock_and_returns_unhurt():
    state = _put(_standing(), 0, x=300.0, y=9.0, airborne=True, percent=88.0)
    state.begin(np.array([[True, False]]), A.FALL)
    state = _play(state, 1)
    assert state.stocks[0].tolist() == [3, 4]
    assert state.action[0, 0] == A.DEAD_RIGHT and state.percent[0, 0] == 0
    state = _play(state, 110)
    assert state.action[0, 0] == A.REBIRTH_WAIT
    state = _play(state, 1, _hold(stick_y=-1.0))
    assert state.invulnerable[0, 0] > 100


def test_a_finished_game_does_not_change_and_the_winner_is_known():
    state = environment.reset([0, 1], [("fox", "marth")] * 2, 32)
    state = _play(state, 200)
    state = _put(state, 1, stocks=1).copy()
    state.x[0, 1] = 500
    state.y[0, 1] = 9
    state.airborne[0, 1] = True
    state.begin(np.array([[False, True], [False, False]]), A.FALL)
    state = _play(state, 1)
    standing = environment.score(state)
    assert standing.over.tolist() == [True, False]
    assert standing.winner.tolist() == [0, 0]
    later = _play(state, 30, _hold(batch=2, stick_x=1.0))
    for name in ARRAYS:
        old, new = getattr(state, name), getattr(later, name)
        np.testing.assert_array_equal(old[0], new[0], err_msg=name)
    assert later.frame[1] == state.frame[1] + 30


def test_controls_do_nothing_before_the_players_are_let_go():
    start = environment.reset([3], [("fox", "fox")], 31)
    held = _hold(stick_x=1.0)
    idle, busy = _play(start, 84), _play(start, 84, held)
    assert busy.frame[0] == environment.FIRST_CONTROLLED_FRAME - 1
    np.testing.assert_array_equal(idle.x, busy.x)
    assert _play(busy, 20, held).x[0, 0] != _play(idle, 20).x[0, 0]


def test_reset_names_what_it_does_not_have():
    with pytest.raises(InputError, match="fighter='bowser'"):
        environment.reset([0], [("bowser", "fox")], 31)
    with pytest.raises(InputError, match="stage=2 "):
        environment.reset([0], [("zelda", "fox")], 2)
    with pytest.raises(InputError, match="seconds=0"):
        environment.reset([0], [("zelda", "fox")], 31, seconds=0)


# Determinism.


def test_step_and_act_leave_their_arguments_alone():
    state = environment.reset([5, 6], [("zelda", "fox")] * 2, 31)
    memory = scripted.remember_nothing(state, [[0, 1], [2, 3]])
    for _ in range(150):
        controls, memory = scripted.act(memory, state)
        state = environment.step(state, controls)
    old_state, old_memory = state.copy(), memory.copy()
    first = scripted.act(memory, state)
    environment.step(state, first[0])
    second = scripted.act(memory, state)
    for a, b in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(state, name), getattr(old_state, name))
    for field in dataclasses.fields(memory):
        np.testing.assert_array_equal(
            getattr(memory, field.name), getattr(old_memory, field.name)
        )


def test_a_state_gives_the_fields_a_replay_has(random_history):
    fields = post_fields(random_history[500])
    assert set(fields) == set(slp_writer.POST_FIELDS)
    assert all(values.shape == (12, 2) for values in fields.values())
