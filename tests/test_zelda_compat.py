"""The original's 288 columns and windows, against a slow encoder of its own."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe
from test_zelda_frames import OLD, make_game

from jaxbench.tasks.zelda import compat, controller, imitation, windows

VECTOR = jax.jit(compat.vector)


def clip(value, low, high):
    return max(low, min(high, value))


def slow_player(post, t):
    """56 numbers of a player; post None is an empty port."""
    if post is None:
        return [0.0, -1.0] + [0.0] * 14 + [1.0] + [0.0] * 39, 0.0, 0.0, 0, 0

    def get(name, missing=0.0):
        return float(post[name][t]) if name in post else missing

    x, y = get("position_x"), get("position_y")
    flags = int(get("flags_0"))
    age = math.floor(get("state_age") + 0.5)
    block = [
        clip(get("percent") * 0.01, 0, 5),
        1.0,
        clip(x * 0.05, -10, 10),
        clip(y * 0.05, -10, 10),
        1.0 if flags & 0x04 or flags & 0x10 else 0.0,
        min(get("jumps", 2.0) / 6, 1),
        clip(get("shield") * 0.01, 0, 1),
        1.0 if get("airborne") == 0 else 0.0,
        clip(get("self_x_air") * 0.5, -10, 10),
        clip(get("self_x_ground") * 0.5, -10, 10),
        clip(get("self_y") * 0.5, -10, 10),
        clip(get("knockback_x") * 0.5, -10, 10),
        clip(get("knockback_y") * 0.5, -10, 10),
        clip(get("hitlag") / 120, 0, 1),
        clip(age / 60, 0, 2),
        clip(get("stocks") / 4, 0, 1),
        clip((85 - abs(x)) / 85, -10, 10),
    ]
    character = int(get("character"))
    character = character if character <= 25 else -1
    return block + [0.0] * 39, x, y, int(get("state")), character


def slow_vector(game, t):
    by_port = {p.port: p.leader.post for p in game.players}
    own, x, y, action, character = slow_player(by_port[1], t)
    opp, x2, y2, action2, character2 = slow_player(by_port.get(2), t)
    stages = [2, 3, 8, 28, 31, 32]
    stage = [1.0 if game.stage == s else 0.0 for s in stages]
    stage.append(0.0 if game.stage in stages else 1.0)
    names = [1.0] + [0.0] * 111
    distance = clip(math.hypot(x2 - x, y2 - y) / 200, 0, 1.5)
    spatial = [
        distance,
        clip((x2 - x) / 200, -10, 10),
        clip((y2 - y) / 100, -10, 10),
        clip(int(game.frame_t[t]) / 28800, 0, 1),
    ]
    ids = [action, action2, character, character2]
    raw = own + opp + stage + [0.0] * 13 + names + spatial + [0.0] * 35 + ids
    assert len(raw) == 287
    return np.array([*raw, 0.0], np.float32)


def assert_close_in_bfloat16(seen, expected):
    """Equal up to one unit in the last place of bfloat16."""
    np.testing.assert_allclose(seen, expected, rtol=2**-7, atol=1e-6)
    rounded = expected.astype(jnp.bfloat16).astype(np.float32)
    assert np.mean(np.asarray(seen) == rounded) > 0.999


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"missing": OLD},
        {"missing": OLD | {"post.airborne", "post.jumps", "post.flags_0"}, "stage": 8},
        {"stage": 32, "internals": (26, 25)},
        {"stage": 6},
        {"ports": (1, 4)},
        {"nana": True, "items": 3, "stage": 2},
    ],
)
def test_every_column_matches_the_slow_encoder(change):
    game = make_game(21, **change)
    vectors = np.asarray(VECTOR(compat.columns(game)), np.float32)
    expected = np.stack([slow_vector(game, t) for t in range(len(game.frame_t))])
    assert vectors.shape == (300, 288)
    assert_close_in_bfloat16(vectors, expected)


def test_real_frames_match_the_slow_encoder(melee_train):
    from jaxbench.data.slippi import parse

    for pattern in ("falco-falco_battlefield_a772*", "cfalcon-zelda*"):
        game = parse(next(melee_train.glob(pattern)))
        vectors = np.asarray(VECTOR(compat.columns(game)), np.float32)
        some = range(0, len(game.frame_t), 97)
        assert_close_in_bfloat16(
            vectors[some], np.stack([slow_vector(game, t) for t in some])
        )


def test_forty_seven_columns_can_vary_and_the_rest_are_constant():
    assert len(compat.INFORMATIVE) == 47 and len(compat.STORED) == 48
    games = [make_game(30 + i, stage=s) for i, s in enumerate((2, 3, 8, 28, 31, 32, 9))]
    vectors = np.concatenate(
        [np.asarray(VECTOR(compat.columns(g)), np.float32) for g in games]
    )
    # Characters change in a game only for Zelda: make them differ between games.
    vectors[0, 285:287] = 3
    varies = np.flatnonzero(np.ptp(vectors, axis=0) > 0)
    assert tuple(varies) == compat.INFORMATIVE
    assert 288 - len(varies) == 241


def test_widths_of_the_layout():
    player, stage, action, names, spatial, projectiles = 56, 7, 13, 112, 4, 35
    scalars = 2 * player + stage + action + names + spatial + projectiles
    assert scalars == min(compat.STORED[-4:]) == 283
    assert scalars + 4 == 287 and -(-287 // 8) * 8 == compat.WIDE
    assert scalars + 2 * 64 + 2 * 64 == 539  # what the tables would have made it
    assert scalars + 2 * 399 + 2 * 33 + 64 - stage == 1204  # everything one-hot


def test_bfloat16_merges_action_states_above_256():
    game = make_game(22)
    game.players[0].leader.post["state"][:6] = [255, 256, 257, 259, 260, 383]
    ids = np.asarray(VECTOR(compat.columns(game))[:6, 283], np.float32)
    assert list(ids) == [255, 256, 256, 260, 260, 384]


def test_facing_is_constant_and_an_empty_port_two_faces_left():
    game = make_game(23)
    vectors = np.asarray(VECTOR(compat.columns(game)), np.float32)
    assert np.ptp(game.players[0].leader.post["direction"]) == 2
    assert np.all(vectors[:, [1, 57]] == 1)
    alone = VECTOR(compat.columns(make_game(23, ports=(1, 3))))
    alone = np.asarray(alone, np.float32)
    assert np.all(alone[:, 57] == -1) and np.all(alone[:, 72] == 1)
    block = np.delete(alone[:, 56:112], [1, 16], axis=1)
    assert np.all(block == 0) and np.all(alone[:, [284, 286]] == 0)


def build(games, **changes):
    settings = {"protocol": "compat", "character": "falco"}
    return imitation.build(games, recipe("zelda", **settings | changes), 8, {})


def test_thirty_files_give_the_original_windows():
    games = [make_game(100 + i, count=40 + i) for i in range(30)]
    task = build(games)
    lengths = [len(g.frame_t) for g in games]
    train, validation = task.splits["train"], task.splits["validation"]
    assert len(train) == sum(lengths[:27]) - 29
    assert len(validation) == sum(lengths[27:]) - 29
    first = np.cumsum([0, *lengths])
    game_of = np.searchsorted(first, np.arange(first[-1]), side="right")
    assert np.sum(game_of[train] != game_of[train - 29]) == 26 * 29 == 754
    # No window of one split reaches into the other.
    assert train.min() == 29 and train.max() == first[27] - 1
    assert validation.min() - 29 == first[27]
    assert task.source["splits"]["validation"]["games"] == [g.name for g in games[27:]]


def test_the_split_truncates_like_the_original():
    for count in range(2, 400):
        assert int((1 - 0.1) * count) == math.trunc(0.9 * count)


def test_a_batch_pairs_state_and_controller_of_the_same_frame():
    games = [make_game(40 + i, count=60) for i in range(10)]
    task = build(games)
    crossing = 60 + 10
    batch = jax.jit(task.gather)(task.arrays, np.int32([29, 59, 60, crossing]))
    assert batch["frame_btf"].shape == (4, 30, 288)
    assert batch["frame_btf"].dtype == jnp.bfloat16
    expected = np.zeros((4, 30), bool)
    expected[:, 0] = True
    np.testing.assert_array_equal(batch["reset_bt"], expected)
    for b, (g, t) in enumerate(((0, 29), (0, 59), (1, 0), (1, 10))):
        leader = games[g].players[0].leader
        labels = controller.encode(leader.pre, "compat")
        np.testing.assert_array_equal(batch["target_bta"][b, 0], labels[t])
        before = controller.NEUTRAL if t == 0 else labels[t - 1]
        np.testing.assert_array_equal(batch["previous_bta"][b, 0], before)
        vector = np.asarray(batch["frame_btf"][b, -1], np.float32)
        assert_close_in_bfloat16(vector, slow_vector(games[g], t))
    # A window that crosses a boundary goes on with the end of the game before.
    vector = np.asarray(batch["frame_btf"][3, 18], np.float32)
    assert_close_in_bfloat16(vector, slow_vector(games[0], 59))


def test_a_delay_pairs_an_older_state_with_the_controller():
    game = make_game(50, count=60)
    arrays, bounds = windows.compat_arrays([game, game], 3)
    assert list(bounds) == [0, 57, 114]
    labels = controller.encode(game.players[0].leader.pre, "compat")
    np.testing.assert_array_equal(arrays["controller"][:57], labels[3:])
    np.testing.assert_array_equal(arrays["columns"][57:], compat.columns(game)[:57])


def test_port_one_is_imitated_whoever_it_is_and_that_is_counted():
    games = [
        make_game(60, count=60),
        make_game(61, count=60, externals=(2, 20), internals=(1, 22)),
        make_game(62, count=60, ports=(3, 4)),
        make_game(63, count=60, externals=(9, 2), internals=(18, 1), kind="cpu"),
    ]
    task = build(games, validation_fraction=0.3)
    assert len(task.arrays["controller"]) == 180
    assert task.source["port_1_is_another_character"] == 3
    reasons = [entry["reason"] for entry in task.source["left_out"]]
    assert reasons == ["no player in port 1"]
    assert (
        build(games, character="any", validation_fraction=0.3).source[
            "port_1_is_another_character"
        ]
        == 0
    )
