"""A policy answers frame by frame what training's programs say of the same frames."""

from __future__ import annotations

import copy
import dataclasses

import jax
import numpy as np
import pytest
from conftest import SHARED
from policies import WINDOW, batch_logits, human_labels, make_policy
from test_zelda_frames import OLD, make_game

from jaxbench.data import slippi
from jaxbench.errors import InputError
from jaxbench.models.backbone import table
from jaxbench.serving import bad_frame
from jaxbench.serving.policy import BadFrame, Policy, controllers
from jaxbench.tasks.zelda import controller, view

BEGIN = 123  # index of frame 0 in games by hand
ROWS = [("mamba", "stateful"), ("swa", "stateful"), ("fnet", "window")]
STREAMABLE = [row["name"] for row in table()]


def play(policy, game, player, times, human=False, state=None, look=False):
    """Labels [T, 6] of the frames at `times`, the state, and with `look` all logits."""
    state = policy.initial_state() if state is None else state
    sent, labels, logits = human_labels(game, player), [], []
    for t in times:
        seen = view.view_of_replay(game, player, t)
        previous = sent[t + policy.delay][None] if human else None
        if look:
            logits.append(policy.logits(state, seen, previous_ba=previous))
        state, answer = policy.step_views(state, seen, previous_ba=previous)
        labels.append(answer[0])
    if not look:
        return np.array(labels), state
    together = {k: np.concatenate([row[k] for row in logits]) for k in logits[0]}
    return np.array(labels), state, together


def assert_equal_batch(policy, game, player, *, human=False, typical=False):
    """What the policy answers to a game against the batch evaluation of it."""
    expected, labels = batch_logits(policy, game, player, policy.delay)
    begin = int(np.searchsorted(game.frame_t, 0))
    times = np.arange(begin, len(game.frame_t) - policy.delay)
    expected = {name: rows[: len(times)] for name, rows in expected.items()}
    answers, _, found = play(policy, game, player, times, human=human, look=True)
    worst = np.zeros(len(times))
    for name, rows in expected.items():
        assert np.ptp(rows) > 1e-2
        worst = np.maximum(worst, np.abs(found[name] - rows).max(axis=1))
    # A router or a threshold that flips at one frame is no disagreement.
    assert (np.median(worst) if typical else worst.max()) < 2e-4
    same = (answers == labels[: len(times)]).all(axis=1)
    assert same[worst < 2e-4].mean() > 0.99


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mode", "head"),
    [
        ("stateful", "independent"),
        ("window", "autoregressive"),
        pytest.param("stateful", "autoregressive", marks=pytest.mark.slow),
        pytest.param("window", "independent", marks=pytest.mark.slow),
    ],
)
def test_steps_equal_the_batch_evaluation(mode, head):
    policy = make_policy("gru", head, mode=mode)
    assert_equal_batch(policy, make_game(1, count=155, items=3, nana=True), 1)


@pytest.mark.integration
@pytest.mark.parametrize(
    "mode", ["stateful", pytest.param("window", marks=pytest.mark.slow)]
)
def test_with_a_delay_the_previous_controller_is_the_last_sent(mode):
    policy = make_policy("gru", mode=mode, delay=3)
    game = make_game(2, count=155, items=1)
    assert_equal_batch(policy, game, 0, human=True)
    # Its own decisions come back to it where no human is followed.
    state, sent = policy.initial_state(), []
    for t in range(BEGIN, BEGIN + 6):
        seen = view.view_of_replay(game, 0, t)
        last = sent[-1] if sent else controller.NEUTRAL[None]
        told = policy.logits(state, seen, previous_ba=last)
        alone = policy.logits(state, seen)
        for name, rows in told.items():
            np.testing.assert_array_equal(alone[name], rows)
        state, labels = policy.step_views(state, seen)
        sent.append(labels)
    seen = view.view_of_replay(game, 0, BEGIN + 20)
    other = policy.logits(state, seen, previous_ba=sent[-1] * 0 + 3)
    assert np.any(other["main_x"] != policy.logits(state, seen)["main_x"])


@pytest.mark.integration
@pytest.mark.parametrize(("backbone", "mode"), ROWS)
def test_some_backbones_step_as_in_the_batch_evaluation(backbone, mode):
    policy = make_policy(backbone, mode=mode, depth=2)
    assert_equal_batch(policy, make_game(3, count=155, items=2), 0)


@pytest.fixture(scope="module")
def recorded():
    """The first ten seconds of a real game, or a game by hand where there is none."""
    folder = SHARED / "melee" / "train"
    if not folder.is_dir():
        return make_game(4, count=155, items=2)
    game = slippi.parse(sorted(folder.glob("falco-fox*.slp"))[-1])
    return cut(game, int(np.searchsorted(game.frame_t, 0)) + 600)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backbone", STREAMABLE)
def test_every_backbone_steps_as_in_the_batch_evaluation(backbone, recorded):
    policy = make_policy(backbone, depth=None, head="autoregressive")
    assert_equal_batch(policy, recorded, 0, typical=True)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_a_held_out_replay_is_answered_as_in_the_batch_evaluation(melee_train, mode):
    game = slippi.parse(sorted(melee_train.glob("falco-fox*.slp"))[-1])
    begin = int(np.searchsorted(game.frame_t, 0))
    policy = make_policy("mamba", "autoregressive", mode=mode, depth=2)
    assert_equal_batch(policy, cut(game, begin + 1500), 0)


def cut(game, end):
    """A game's first frames."""

    def first(fighter):
        pre, post = (
            {k: v[:end] for k, v in part.items()}
            for part in (fighter.pre, fighter.post)
        )
        return type(fighter)(fighter.present_t[:end], pre, post)

    players = tuple(
        dataclasses.replace(p, leader=first(p.leader), nana=p.nana and first(p.nana))
        for p in game.players
    )
    kept = game.items.frame_i < end
    items = type(game.items)(
        game.items.frame_i[kept], {k: v[kept] for k, v in game.items.fields.items()}
    )
    return dataclasses.replace(
        game, players=players, items=items, frame_t=game.frame_t[:end]
    )


@pytest.fixture(scope="module")
def policy():
    return make_policy("gru")


@pytest.fixture(scope="module")
def game():
    return make_game(7, count=170, items=3)


def same_state(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        if not np.array_equal(x, y):
            return False
    return a.reasons == b.reasons


@pytest.mark.parametrize(
    "mode", ["stateful", pytest.param("window", marks=pytest.mark.integration)]
)
def test_a_new_game_starts_from_the_initial_state(mode, game):
    policy = make_policy("gru", mode=mode)
    first, again = range(BEGIN, BEGIN + 20), range(BEGIN, BEGIN + 12)
    fresh, _, logits = play(policy, game, 0, again, look=True)
    _, state = play(policy, game, 0, first)
    labels, _, after = play(policy, game, 0, again, state=state, look=True)
    np.testing.assert_array_equal(labels, fresh)
    for name, rows in logits.items():
        np.testing.assert_array_equal(after[name], rows)
    # On another stage its first frame may have any id.
    elsewhere = dataclasses.replace(game, stage=8)
    later = range(BEGIN + 25, BEGIN + 30)
    _, _, logits = play(policy, elsewhere, 0, later, look=True)
    _, _, after = play(policy, elsewhere, 0, later, state=state, look=True)
    np.testing.assert_array_equal(after["main_x"], logits["main_x"])
    # Without a new game the same frames are answered from what came before.
    _, _, other = play(policy, game, 0, later, state=state, look=True)
    _, _, unseen = play(policy, game, 0, later, look=True)
    assert np.any(other["main_x"] != unseen["main_x"])


def test_the_same_state_and_frame_give_the_same_answer(policy, game):
    _, state = play(policy, game, 0, range(BEGIN, BEGIN + 10))
    before = jax.tree.map(jax.numpy.copy, state)
    seen = view.view_of_replay(game, 0, BEGIN + 10)
    frozen = copy.deepcopy(seen)
    first, held = policy.step(state, seen)
    # What comes after must not reach back into the old state.
    _, later = play(policy, game, 0, range(BEGIN + 11, BEGIN + 20), state=first)
    second, again = policy.step(state, seen)
    assert same_state(state, before) and same_state(first, second) and held == again
    assert not same_state(first, later)
    for name in view.FIGHTERS[:2]:
        for part in ("pre", "post"):
            old = getattr(getattr(frozen, name), part)
            for field, values in getattr(getattr(seen, name), part).items():
                np.testing.assert_array_equal(values, old[field])


@pytest.mark.integration
def test_one_program_answers_all_frames(game):
    policy = make_policy("gru", temperature=1.0)
    state = policy.initial_state()
    others = (make_game(8, count=150, nana=True), make_game(9, count=150, missing=OLD))
    for one in (game, *others):
        for t in range(BEGIN, BEGIN + 5):
            state, _ = policy.step(state, view.view_of_replay(one, 0, t))
    assert policy.answer._cache_size() == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mode", "temperature"),
    [("stateful", 1.0), pytest.param("window", 0.0, marks=pytest.mark.slow)],
)
def test_games_side_by_side_are_each_as_alone(mode, temperature):
    """Other games, other starts, a countdown and a bad frame among them."""
    policy = make_policy("gru", mode=mode, temperature=temperature)
    games = [make_game(20 + i, count=160, items=2) for i in range(3)]
    starts = [BEGIN, BEGIN + 7, BEGIN - 4]
    together = policy.initial_state(3)
    alone = [
        jax.tree.map(
            lambda x, i=i: x[i : i + 1], dataclasses.replace(together, reasons=())
        )
        for i in range(3)
    ]
    alone = [dataclasses.replace(state, reasons=("",)) for state in alone]
    for n in range(15):
        seen = [
            view.view_of_replay(game, 0, start + n)
            for game, start in zip(games, starts, strict=True)
        ]
        if n in (4, 9):
            bad = np.array([np.nan], np.float32)
            seen[1].own.post["percent"] = bad
        together, labels = policy.step_views(together, view.joined(seen))
        for i, one in enumerate(seen):
            alone[i], answer = policy.step_views(alone[i], one)
            np.testing.assert_array_equal(labels[i], answer[0], err_msg=f"{n} {i}")
            assert together.reasons[i] == alone[i].reasons[0]
    assert together.skipped == 2 and together.skipped_b.tolist() == [0, 2, 0]
    assert "percent" in together.reason
    # The draws of different games are different.
    if temperature:
        key = jax.random.key_data(together.memory["keys_b"])
        assert len(np.unique(key, axis=0)) == 3


def test_the_countdown_is_not_looked_at(policy, game):
    state = policy.initial_state()
    for t in range(BEGIN - 10, BEGIN):
        state, held = policy.step(state, view.view_of_replay(game, 0, t))
        assert held == controllers(controller.NEUTRAL[None])[0]
    assert state.skipped == 0
    seen = view.view_of_replay(game, 0, BEGIN)
    counted, fresh = (
        policy.logits(state, seen),
        policy.logits(policy.initial_state(), seen),
    )
    for name, rows in fresh.items():
        np.testing.assert_array_equal(counted[name], rows)


def changed(seen, path, value):
    """A copy of a view with one thing replaced; a value of None removes a field."""
    seen = copy.deepcopy(seen)
    if "." not in path:
        return dataclasses.replace(seen, **{path: value})
    who, *parts = path.split(".")
    if who == "items" and parts[0] == "frame_i":
        items = dataclasses.replace(seen.items, frame_i=value)
        return dataclasses.replace(seen, items=items)
    fields = (
        seen.items.fields if who == "items" else getattr(getattr(seen, who), parts[0])
    )
    if value is None:
        del fields[parts[-1]]
    elif isinstance(value, np.ndarray):
        fields[parts[-1]] = value
    else:
        old = fields[parts[-1]]
        kind = old.dtype if old.dtype.kind == "f" else np.int64
        fields[parts[-1]] = np.full(old.shape, value, kind)
    return seen


BAD = [
    ("own.post.position_x", np.nan, r"frame 5: own\.post\.position_x is nan"),
    ("opponent.post.position_y", np.inf, r"opponent\.post\.position_y is inf"),
    ("own.post.percent", -np.inf, r"own\.post\.percent is -inf"),
    ("own.post.hitlag", np.nan, r"own\.post\.hitlag is nan"),
    ("own.pre.joystick_x", np.nan, r"own\.pre\.joystick_x is nan"),
    ("own.post.percent", np.array([1e300]), r"own\.post\.percent is inf"),
    ("own.post.character", 40, r"own\.post\.character is 40"),
    ("opponent.post.character", -1, r"opponent\.post\.character is -1"),
    ("own.post.state", 70_000, r"own\.post\.state is 70000"),
    ("own.post.stocks", -1, r"own\.post\.stocks is -1"),
    ("stage_b", np.array([0]), "the stage is 0"),
    ("stage_b", np.array([999]), "the stage is 999"),
    ("own_port", np.array([5]), "own_port is 5"),
    ("own.post.percent", None, r"own\.post\.percent is missing"),
    ("opponent.post.position_x", None, r"opponent\.post\.position_x is missing"),
    ("own.pre.buttons", None, r"own\.pre\.buttons is missing"),
    ("opponent", None, "there is no opponent fighter"),
    (
        "own.post.percent",
        np.zeros(2),
        r"own\.post\.percent is \(2,\), not an array of 1",
    ),
    ("own.pre.buttons", np.zeros(1), r"own\.pre\.buttons holds float64"),
    ("stage_b", 31, "stage_b is int, not an array of 1"),
    ("frame_b", None, "frame_b is no array"),
    ("items.position_x", np.nan, r"items\.position_x is nan"),
    ("items.frame_i", np.array([0, 3]), r"items\.frame_i names games that are none"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_a_bad_frame_is_refused_or_skipped(policy, game, path, value, message):
    times = range(BEGIN, BEGIN + 5)
    _, state = play(policy, game, 0, times)
    t = next(t for t in range(BEGIN + 5, 170) if (game.items.frame_i == t).sum() == 2)
    seen = view.view_of_replay(game, 0, t)
    seen = dataclasses.replace(seen, frame_b=np.array([5], np.int32))
    bad = changed(seen, path, value)
    with pytest.raises(BadFrame, match=message) as caught:
        policy.step(state, bad, strict=True)
    assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    if path != "frame_b":
        with pytest.raises(BadFrame, match=message):
            bad_frame.raise_first(bad_frame.problems(bad))
    _, last = policy.step_views(*replayed(policy, game))
    skipped, held = policy.step(state, bad)
    assert held == controllers(last)[0]
    assert skipped.skipped == 1 and state.skipped == 0
    assert skipped.reason in str(caught.value)
    # It goes on as if the frame had not been.
    before, after = policy.logits(state, seen), policy.logits(skipped, seen)
    for name, rows in before.items():
        np.testing.assert_array_equal(after[name], rows)
    moved, _ = policy.step(skipped, seen)
    assert moved.skipped == 1 and moved.frame_b[0] == 5


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({}, "the frame is of the type dict, not a View"),
        (None, "the frame is of the type NoneType, not a View"),
        ("own", "own is of the type dict, not a Character"),
        ("items", "items is of the type dict, not Items"),
    ],
)
def test_what_is_no_frame_is_skipped_like_a_bad_one(policy, game, frame, message):
    state, seen = replayed(policy, game)
    state, last = policy.step(state, seen)
    bad = frame
    if isinstance(frame, str):
        later = view.view_of_replay(game, 0, BEGIN + 5)
        bad = dataclasses.replace(later, **{frame: {}})
    after, held = policy.step(state, bad)
    assert held == last and (after.skipped, after.reason) == (1, message)
    with pytest.raises(BadFrame, match=message):
        policy.step(state, bad, strict=True)


def replayed(policy, game):
    """The state before the fifth frame, and that frame."""
    _, state = play(policy, game, 0, range(BEGIN, BEGIN + 4))
    return state, view.view_of_replay(game, 0, BEGIN + 4)


def test_a_frame_is_answered_once(policy, game):
    state, seen = replayed(policy, game)
    state, first = policy.step(state, seen)
    again, held = policy.step(state, seen)
    assert held == first and again.reason == "frame 4 has been answered already"
    with pytest.raises(BadFrame, match="frame 4 has been answered already; read"):
        policy.step(state, seen, strict=True)


def test_a_frame_that_cannot_be_read_is_skipped_by_name(policy, game):
    state, seen = replayed(policy, game)
    state, held = policy.step(state, seen)
    after, labels = policy.skip(state, "the socket is gone")
    assert controllers(labels)[0] == held
    assert (after.skipped, after.reason) == (1, "the socket is gone")


@pytest.mark.parametrize(
    "path", ["own.post.hitlag", "opponent.post.hurtbox_state", "own.post.misc_as"]
)
def test_a_group_that_old_recordings_lack_is_no_error(policy, game, path):
    state, seen = replayed(policy, game)
    lacking = changed(seen, path, None)
    bad_frame.raise_first(bad_frame.problems(lacking))
    after, _ = policy.step(state, lacking, strict=True)
    assert after.skipped == 0
    told = [policy.logits(state, one)["main_x"] for one in (seen, lacking)]
    assert np.any(told[0] != told[1])
    # Data that is no hitstun is not looked at, whatever it holds.
    other = changed(changed(seen, "own.post.flags_3", 0), "own.post.misc_as", np.nan)
    bad_frame.raise_first(bad_frame.problems(other))


def test_states_and_views_of_other_sizes_are_refused(policy, game):
    seen = view.view_of_replay(game, 0, BEGIN)
    two = view.joined([seen, seen])
    state = policy.initial_state()
    with pytest.raises(InputError, match="view is of 2 games and the state of 1"):
        policy.step_views(state, two)
    with pytest.raises(InputError, match="step answers one game and the state is of 2"):
        policy.step(policy.initial_state(2), two)
    with pytest.raises(InputError, match="games=0"):
        policy.initial_state(0)
    early = view.view_of_replay(game, 0, BEGIN - 1)
    with pytest.raises(BadFrame, match="timer has not started"):
        policy.logits(state, early)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "windows"}, "mode='windows' is none of stateful, window; nearest"),
        ({"temperature": -1}, "temperature=-1 must"),
        ({"temperature": float("nan")}, "temperature=nan must"),
        ({"hold": 3, "delay": 2}, "hold=3 must be between 0 and the delay .* 2"),
        ({"hold": -1}, "hold=-1 must"),
    ],
)
def test_settings_that_cannot_be_are_refused(policy, settings, message):
    with pytest.raises(InputError, match=message):
        Policy.of(policy.model, policy.variables, window=WINDOW, **settings)


@pytest.mark.integration
def test_held_controllers_come_later_and_in_order(game):
    now = make_policy("gru", delay=3)
    later = make_policy("gru", delay=3, hold=2)
    times = range(BEGIN, BEGIN + 20)
    decided, _ = play(now, game, 0, times)
    sent, state = play(later, game, 0, times)
    assert (sent[:2] == controller.NEUTRAL).all()
    np.testing.assert_array_equal(sent[2:], decided[:-2])
    # What is held does not pass into the next game.
    sent, _ = play(later, game, 0, times, state=state)
    assert (sent[:2] == controller.NEUTRAL).all()


@pytest.mark.integration
def test_draws_follow_the_seed_and_the_temperature(policy, game):
    warm = make_policy("gru", temperature=1.0)

    def labels(one, seed):
        one = dataclasses.replace(one, seed=seed)
        return play(one, game, 0, range(BEGIN, BEGIN + 12))[0]

    drawn = labels(warm, 3)
    np.testing.assert_array_equal(drawn, labels(warm, 3))
    assert np.any(drawn != labels(warm, 4)) and np.any(drawn != labels(policy, 3))
    np.testing.assert_array_equal(labels(policy, 3), labels(policy, 4))
    # Each frame draws anew: the same inputs do not give the same answer twice.
    still = [view.view_of_replay(game, 0, BEGIN)] * 12
    state, answers = warm.initial_state(), set()
    for n, seen in enumerate(still):
        seen = dataclasses.replace(seen, frame_b=np.array([12 - n], np.int32))
        state, answer = warm.step_views(state, seen)  # each the first of a new game
        answers.add(answer.tobytes())
    assert len(answers) > 6


def test_a_controller_is_what_its_labels_say():
    row = np.array([[0b10000101, 16, 0, 8, 4, 3], [0, 8, 8, 8, 8, 0]])
    pressed, neutral = controllers(row)
    assert pressed.buttons == ("A", "X", "D_UP")
    assert (pressed.main_x, pressed.main_y, pressed.c_x) == (1.0, -1.0, 0.0)
    assert (pressed.c_y, pressed.shoulder) == (-0.5, 0.75)
    assert neutral.buttons == () and neutral.main_x == 0.0 and neutral.shoulder == 0.0
