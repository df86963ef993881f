"""The world model's task: what a frame is, what is learned, and what it must beat."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe
from test_zelda_frames import make_game
from world_games import COUNTDOWN, eventful, simulated

from jaxbench.errors import InputError
from jaxbench.tasks.world import frame, loss, next_frame, states
from jaxbench.tasks.zelda import controller, frames


def build(games, **changes):
    config = recipe("world", **{"window": 16, "stride": 8} | changes)
    return next_frame.build(games, config, 8, {"source": "by hand"})


@pytest.fixture(scope="module")
def games(shared_runs):
    return simulated(shared_runs)


@pytest.fixture(scope="module")
def task(games):
    return build(games)


@pytest.fixture(scope="module")
def batch(task):
    rows = task.splits["train"][::7][:12]
    cut = dict(jax.jit(task.gather)(task.arrays, rows))
    cut["weight_b"] = jnp.ones(len(rows))
    return cut


def oracle_of_a_fighter(post, t):
    """One fighter at one frame, a number at a time."""
    hurt = post["hurtbox_state"][t] > 0 or bool(int(post["flags_1"][t]) & 4)
    in_hitstun = bool(int(post["flags_3"][t]) & 2)
    return [
        float(post["position_x"][t]),
        float(post["position_y"][t]),
        float(post["self_x_air"][t]),
        float(post["self_y"][t]),
        float(post["knockback_x"][t]),
        float(post["knockback_y"][t]),
        float(post["self_x_ground"][t]),
        float(post["percent"][t]),
        float(post["shield"][t]),
        float(post["stocks"][t]),
        float(post["jumps"][t]),
        1.0 if post["direction"][t] > 0 else -1.0,
        1.0 if post["airborne"][t] > 0 else 0.0,
        1.0 if hurt else 0.0,
        float(post["state_age"][t]),
        float(post["hitlag"][t]),
        float(post["misc_as"][t]) if in_hitstun else 0.0,
    ]


def oracle_of_a_step(game, own, t):
    """Reward and done of the step from t to t + 1, indices of the recording."""

    def harm(player):
        post = player.leader.post
        taken = float(post["percent"][t + 1]) - float(post["percent"][t])
        lost = int(post["stocks"][t]) - int(post["stocks"][t + 1])
        return max(taken, 0.0) / 100 + max(lost, 0), lost > 0

    (mine, my_death), (theirs, their_death) = (
        harm(game.players[p]) for p in (own, 1 - own)
    )
    last = t + 1 == len(game.frame_t) - 1 and game.end in ("game", "time", "resolved")
    return theirs - mine, my_death or their_death or last


def test_states_of_a_simulated_game_are_what_a_loop_reads(games):
    game = games[0]
    arrays, (first, second) = states.store([game], [(0, 0), (0, 1)])
    begin = int(np.searchsorted(game.frame_t, 0))
    for seen, own in ((first, 0), (second, 1)):
        step = states.steps(arrays, seen.start, seen.rival, seen.length)
        for t in (0, 1, 77, 500, seen.length - 2):
            expected = [
                *oracle_of_a_fighter(game.players[own].leader.post, begin + t),
                *oracle_of_a_fighter(game.players[1 - own].leader.post, begin + t),
            ]
            np.testing.assert_array_equal(step["state_ts"][t], np.float32(expected))
        np.testing.assert_array_equal(step["next_ts"][:-1], step["state_ts"][1:])


@pytest.mark.parametrize("own", [0, 1])
def test_rewards_and_done_of_a_simulated_game_are_what_a_loop_says(games, own):
    game = games[0]
    arrays, (seen,) = states.store([game], [(0, own)])
    begin = int(np.searchsorted(game.frame_t, 0))
    step = states.steps(arrays, seen.start, seen.rival, seen.length)
    said = [oracle_of_a_step(game, own, begin + t) for t in range(seen.length - 1)]
    np.testing.assert_allclose(step["reward_t"], [r for r, _ in said], atol=1e-6)
    np.testing.assert_array_equal(step["done_t"], [d for _, d in said])
    assert np.any(step["reward_t"] > 0) and np.any(step["reward_t"] < 0)


def test_a_death_ends_an_episode_and_nothing_is_predicted_until_both_can_act():
    game = eventful()
    arrays, (own, rival) = states.store([game], [(0, 0), (0, 1)])
    step, other = (
        states.steps(arrays, p.start, p.rival, p.length) for p in (own, rival)
    )
    length = len(game.frame_t) - COUNTDOWN
    assert np.flatnonzero(step["done_t"]).tolist() == [100, 150, length - 2]
    # A stock, beside what was dealt at that very frame.
    assert round(float(step["reward_t"][100])) == -1
    assert round(float(step["reward_t"][150])) == 1
    np.testing.assert_allclose(step["reward_t"], -other["reward_t"])
    expected = np.ones(length - 1, bool)
    expected[100:141] = expected[150:191] = expected[length - 2] = False
    np.testing.assert_array_equal(step["valid_t"], expected)
    assert step["alive_t"][100] and not step["alive_t"][101]


def test_a_recording_that_stops_is_no_end_of_a_game():
    arrays, (seen,) = states.store([eventful(end="none")], [(0, 0)])
    step = states.steps(arrays, seen.start, seen.rival, seen.length)
    assert not step["done_t"][-1] and step["valid_t"][-1]


def test_a_batch_holds_the_frames_and_the_controllers_that_lead_to_the_next(
    games, task
):
    rows = task.splits["validation"][3:5]
    cut = jax.device_get(jax.jit(task.gather)(task.arrays, rows))
    table = task.arrays["perspective"]
    scales = frame.Scales.of(task.arrays)
    for b, (p, first) in enumerate(rows):
        game = games[table[p, states.GAME]]
        begin = int(np.searchsorted(game.frame_t, 0))
        other = int(table[p, states.OWN] > table[p, states.OPPONENT])
        leaders = [game.players[i].leader for i in (other, 1 - other)]
        for t in (0, 5, 15):
            at = begin + first + t
            now, then = (
                np.array([x for o in leaders for x in oracle_of_a_fighter(o.post, i)])
                for i in (at, at + 1)
            )
            np.testing.assert_allclose(
                cut["state_bts"][b, t],
                np.clip((now - scales.mean) / scales.std, -10, 10),
                atol=1e-4,
            )
            change = (then - now - scales.change_mean) / scales.change_std
            np.testing.assert_allclose(cut["target_bts"][b, t], change, atol=2e-3)
            for n, leader in enumerate(leaders):
                sent = controller.encode(leader.pre, "clean")[at + 1]
                np.testing.assert_array_equal(cut["controller_btna"][b, t, n], sent)
                assert cut["action_state_btn"][b, t, n] == leader.post["state"][at]
                said = cut["next_action_state_btn"][b, t, n]
                assert said == leader.post["state"][at + 1]
        assert cut["stage_bt"][b, 0] == frames.stage_class(game.stage)
    assert cut["reset_bt"][:, 0].all() and not cut["reset_bt"][:, 1:].any()


def test_windows_stay_inside_their_game_and_validation_scores_no_frame_twice(task):
    table, window = task.arrays["perspective"], task.tokens_per_example
    for rows in task.splits.values():
        assert (rows[:, 1] >= 1).all()
        assert (rows[:, 1] + window < table[rows[:, 0], states.LENGTH]).all()
    rows = task.splits["validation"]
    for p in np.unique(rows[:, 0]):
        assert (np.diff(np.sort(rows[rows[:, 0] == p, 1])) >= window).all()
    held = {
        name: set(table[r[:, 0], states.GAME].tolist())
        for name, r in task.splits.items()
    }
    assert not held["train"] & held["validation"]


def test_scales_are_moments_of_the_training_games_in_float64(task):
    table = task.arrays["perspective"]
    now, change = [], []
    for p in np.unique(task.splits["train"][:, 0]):
        own, rival, _, length, _ = table[p]
        step = states.steps(task.arrays, own, rival, length)
        kept = step["valid_t"]
        width = len(states.FIELDS)
        now.append(step["state_ts"][kept].reshape(-1, width).astype(np.float64))
        then = step["next_ts"][kept].reshape(-1, width).astype(np.float64)
        change.append(then - now[-1])
    now, change = np.concatenate(now), np.concatenate(change)
    scales = frame.Scales.of(task.arrays)
    for name, values in (("mean", now.mean(0)), ("change_mean", change.mean(0))):
        expected = np.tile(values, 2)
        np.testing.assert_allclose(getattr(scales, name), expected, atol=1e-4)
    for name, values in (("std", now.std(0)), ("change_std", change.std(0))):
        expected = np.tile(np.where(values > 1e-6, values, 1), 2)
        np.testing.assert_allclose(getattr(scales, name), expected, rtol=1e-4)


@pytest.mark.parametrize("residual", [True, False])
def test_what_a_head_learns_to_say_is_the_next_state(task, residual):
    rng = np.random.default_rng(0)
    scales = frame.Scales.of(task.arrays)
    now, then = rng.normal(size=(2, 5, states.STATE)).astype(np.float32) * 20
    said = frame.target(jnp.asarray(now), jnp.asarray(then), scales, residual)
    back = frame.next_state(jnp.asarray(now), said, scales, residual)
    np.testing.assert_allclose(back, then, atol=2e-3)


def outputs_of(batch, rng):
    shape = batch["target_bts"].shape
    classes = (*shape[:2], 2, 400)
    draws = [rng.normal(size=s) for s in (shape, classes, shape[:2], shape[:2])]
    names = ("state_bts", "action_state_btnk", "reward_bt", "done_bt")
    return {k: jnp.asarray(v, jnp.float32) for k, v in zip(names, draws, strict=True)}


def test_the_loss_is_the_formula_of_its_docstring(task, batch):
    outputs = outputs_of(batch, np.random.default_rng(1))
    weight = np.ones(len(batch["weight_b"]))
    weight[-2:] = 0
    scalar, sums = task.loss(outputs, {**batch, "weight_b": jnp.asarray(weight)})
    o = {k: np.asarray(v, np.float64) for k, v in outputs.items()}
    b = {k: np.asarray(v, np.float64) for k, v in batch.items()}
    alive, valid = (weight[:, None] * b[k] for k in ("alive_bt", "valid_bt"))
    state = ((o["state_bts"] - b["target_bts"]) ** 2).mean(-1)
    logits = o["action_state_btnk"]
    log_z = np.log(np.exp(logits).sum(-1))
    true = np.take_along_axis(
        logits, np.asarray(batch["next_action_state_btn"])[..., None], -1
    )[..., 0]
    nats = (log_z - true).mean(-1)
    reward = (o["reward_bt"] - b["reward_bt"]) ** 2
    done = np.log1p(np.exp(o["done_bt"])) - b["done_bt"] * o["done_bt"]
    total = valid * (state + 0.2 * nats) + alive * (0.5 * reward + 0.1 * done)
    assert float(scalar) == pytest.approx(total.sum() / alive.sum(), rel=1e-4)
    metrics = task.summarize(jax.device_get(sums))
    mean = (valid * state).sum() / valid.sum()
    assert metrics["state_error"] == pytest.approx(mean, rel=1e-4)
    assert metrics["frames"] == alive.sum()
    assert metrics["done_nats"] == pytest.approx(
        (alive * done).sum() / alive.sum(), rel=1e-4
    )


def test_both_forms_tell_the_same_error_of_the_same_prediction(task, batch):
    scales = frame.Scales.of(task.arrays)
    outputs = outputs_of(batch, np.random.default_rng(2))
    told = []
    now, then = batch["now_bts"], batch["next_bts"]
    said = frame.next_state(now, outputs["state_bts"], scales, True)
    for residual in (True, False):
        given = {
            **batch,
            "target_bts": frame.target(now, then, scales, residual),
        }
        answer = {
            **outputs,
            "state_bts": frame.target(now, said, scales, residual),
        }
        sums = loss.make(scales, residual)(answer, given)[1]
        told.append(loss.summarize(jax.device_get(sums)))
    for name in ("state_error", "distance", "state_error/position"):
        assert told[0][name] == pytest.approx(told[1][name], rel=1e-2)


def test_what_is_said_of_the_dead_counts_nothing():
    task = build([eventful(seed) for seed in range(4)], validation_fraction=0.25)
    rows = task.splits["train"]
    rows = rows[(rows[:, 1] > 84) & (rows[:, 1] < 100)]
    batch = dict(jax.jit(task.gather)(task.arrays, rows))
    batch["weight_b"] = jnp.ones(len(rows))
    assert 0 < float(batch["valid_bt"].sum()) < batch["valid_bt"].size
    outputs = outputs_of(batch, np.random.default_rng(3))
    dead = batch["alive_bt"] == 0
    changed = {
        k: jnp.where(dead.reshape(*dead.shape, *[1] * (v.ndim - 2)), 5.0, v)
        for k, v in outputs.items()
    }
    assert float(task.loss(outputs, batch)[0]) == float(task.loss(changed, batch)[0])


def test_floors_are_what_numpy_makes_of_the_scored_frames(task):
    table, window = task.arrays["perspective"], task.tokens_per_example
    scales = frame.Scales.of(task.arrays)
    spread = np.asarray(scales.change_std, np.float64)
    copied, moved, distance, right = [], [], [], []
    for p, first in task.splits["validation"]:
        own, rival, _, _, _ = table[p]
        both = np.concatenate(
            [task.arrays["state"][r + first - 1 :][: window + 2] for r in (own, rival)],
            axis=1,
        ).astype(np.float64)
        ids = np.stack(
            [
                task.arrays["action_state"][r + first :][: window + 1]
                for r in (own, rival)
            ],
            1,
        )
        for t in range(window):
            if np.isin(ids[t : t + 2], frames.IDLE).any():
                continue
            before, now, then = both[t : t + 3]
            if (then[[9, 26]] < now[[9, 26]]).any():
                continue
            guess = now.copy()
            for i in (0, 1, 17, 18):
                guess[i] += now[i] - before[i]
            copied.append(((now - then) / spread) ** 2)
            moved.append(((guess - then) / spread) ** 2)
            distance.append(
                (math.hypot(*(guess - then)[:2]) + math.hypot(*(guess - then)[17:19]))
                / 2
            )
            right.append((ids[t] == ids[t + 1]).mean())
    floors = task.floors
    assert floors["copy_last"]["state_error"] == pytest.approx(np.mean(copied))
    assert floors["constant_velocity"]["state_error"] == pytest.approx(np.mean(moved))
    assert floors["constant_velocity"]["distance"] == pytest.approx(np.mean(distance))
    assert floors["copy_last"]["action_state_accuracy"] == pytest.approx(np.mean(right))
    assert floors["constant_velocity"]["distance"] < floors["copy_last"]["distance"]


def test_a_projected_state_can_be(task):
    state = np.zeros((1, states.STATE), np.float32)
    column = {name: states.FIELDS.index(name) for name in states.FIELDS}
    for name, value in (
        ("stocks", 2.6),
        ("facing", -0.1),
        ("airborne", 1.7),
        ("shield", -3.0),
        ("hitlag", -0.5),
        ("x", -250.0),
        ("percent", 33.3),
    ):
        state[0, column[name]] = value
    found = np.asarray(frame.project(jnp.asarray(state)))[0]
    expected = {"stocks": 3, "facing": -1, "airborne": 1, "shield": 0, "hitlag": 0}
    expected |= {"x": -250.0, "percent": 33.3}
    for name, value in expected.items():
        assert found[column[name]] == pytest.approx(value)
    # Recorded states are left as they are.
    recorded = jnp.asarray(task.arrays["state"][:500].reshape(-1, states.STATE))
    np.testing.assert_array_equal(frame.project(recorded), recorded)


def test_the_fingerprint_tells_options_apart_and_seeds_draw_other_splits(games, task):
    other = build(games, stride=4)
    assert other.source["fingerprint"] != task.source["fingerprint"]
    assert build(games).source["fingerprint"] == task.source["fingerprint"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"protocol": "compat"}, "no original to compare with; use protocol=clean"),
        ({"window": 0}, "window=0 must be positive"),
        ({"window": 99_999}, r"hold no window of data.window=99999 .* shorten it"),
        (
            {"validation_fraction": 1.0},
            "validation_fraction=1.0 must lie in \\(0, 1\\)",
        ),
        ({"character": "yoshi"}, "character=yoshi is in none of the 3 games"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(games, options, message):
    with pytest.raises(InputError, match=message) as caught:
        build(games, **options)
    assert "\n" not in str(caught.value)


def test_games_that_cannot_be_used_are_left_out_with_a_reason(games):
    old = make_game(5, missing=frozenset({"post.hitlag"}))
    task = build([*games, old])
    assert task.source["left_out"] == [
        {"game": old.name, "reason": "its version records no hitlag"}
    ]
    with pytest.raises(InputError, match=r"only 1 of 2 can be used; .* no hitlag"):
        build([games[0], old])
