"""A view of one frame is, bit for bit, what training shows of that frame."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from test_zelda_frames import OLD, make_game

from jaxbench.data import slippi
from jaxbench.errors import InputError
from jaxbench.tasks.zelda import features, frames, view, windows

INPUTS = jax.jit(view.inputs)
GATHER = jax.jit(windows.clean_gather(1, 0, "last"))


def stored(game, player):
    """Training's arrays, filled up so that games of any length share a program."""
    arrays, _ = frames.store([game], [(0, player)], delay=0, drop_idle=True)

    def filled(rows):
        more = -len(rows) % 65_536 if len(rows) > 1 else 0
        return np.concatenate([rows, np.zeros((more, *rows.shape[1:]), rows.dtype)])

    whole = ("perspective", "available")
    return {k: v if k in whole else filled(v) for k, v in arrays.items()}


def compare(game, player, times, singles=3):
    """Features of views at `times` against those of training's gather."""
    arrays = stored(game, player)
    begin = int(np.searchsorted(game.frame_t, 0))
    examples = np.array([[0, t - begin] for t in times], np.int32)
    batch = GATHER(arrays, examples)
    expected = {k: np.asarray(batch[k]) for k in INPUT_NAMES}
    seen = [view.view_of_replay(game, player, t) for t in times]
    # Three frames as so many games, and some of them alone.
    last = len(seen) - len(seen) % 3
    parts = [(view.joined(seen[i : i + 3]), slice(i, i + 3)) for i in range(0, last, 3)]
    parts += [
        (seen[i], slice(i, i + 1))
        for i in range(0, len(seen), -(-len(seen) // singles))
    ]
    for one, rows in parts:
        laid = view.arrays(one)
        found = INPUTS({k: v for k, v in laid.items() if k != "controller"})
        assert set(found) == set(INPUT_NAMES) - {"previous_bta"}
        for name, values in found.items():
            assert values.dtype == expected[name].dtype
            np.testing.assert_array_equal(values, expected[name][rows], err_msg=name)
        np.testing.assert_array_equal(
            view.own_controller(laid), expected["previous_bta"][rows, 0]
        )
    return expected


INPUT_NAMES = (
    *("numeric_btf", "action_state_btn", "character_btp", "stage_bt"),
    *("item_type_bti", "previous_bta"),
)


@pytest.mark.parametrize(
    "settings",
    [
        {"items": 9, "nana": True},
        {"missing": OLD, "stage": 2, "ports": (2, 4)},
        {"items": 2, "stage": 5, "missing": frozenset({"post.misc_as"})},
    ],
    ids=["new", "old", "another stage"],
)
@pytest.mark.parametrize("player", [0, 1])
def test_a_view_shows_what_training_shows(settings, player):
    game = make_game(21, **settings)
    expected = compare(game, player, range(123, 300))
    # What is compared is there at all.
    column = {name: i for i, name in enumerate(features.NUMERIC)}
    numeric = expected["numeric_btf"]
    assert np.ptp(numeric[..., column["own.x"]]) > 0
    present = numeric[
        ..., column["opponent_nana.present" if player == 0 else "own_nana.present"]
    ]
    assert (np.ptp(present) == 1) == bool(settings.get("nana"))
    assert (expected["item_type_bti"] >= 0).any() == bool(settings.get("items"))


def test_the_check_can_fail():
    game = make_game(21, items=3)
    other = make_game(22, items=3)
    seen = view.view_of_replay(other, 0, 150)
    arrays, _ = frames.store([game], [(0, 0)], delay=0, drop_idle=True)
    batch = features.inputs(arrays, np.zeros(1, np.int32), np.array([[27]]))
    found = INPUTS(view.arrays(seen))
    for name in ("numeric_btf", "action_state_btn"):
        assert np.any(np.asarray(found[name]) != np.asarray(batch[name]))


def test_shapes_depend_on_the_number_of_games_alone():
    games = [make_game(1), make_game(2, nana=True, items=9), make_game(3, missing=OLD)]
    shapes = {
        tuple((k, v.shape, v.dtype) for k, v in view.arrays(seen).items())
        for seen in [view.view_of_replay(g, 0, 200) for g in games] + [view.blank(1)]
    }
    assert len(shapes) == 1


def test_joined_views_are_each_as_alone():
    nana, plain = make_game(2, nana=True, items=4), make_game(5, items=4)
    alone = [
        view.view_of_replay(nana, 0, 160),  # she is away here
        view.view_of_replay(nana, 1, 190),
        view.view_of_replay(plain, 1, 170),
    ]
    together = INPUTS(view.arrays(view.joined(alone)))
    for row, one in enumerate(alone):
        for name, values in INPUTS(view.arrays(one)).items():
            np.testing.assert_array_equal(together[name][row], values[0], err_msg=name)
    with pytest.raises(InputError, match=r"some views have own\.post\.\w+ and some do"):
        view.joined(
            [alone[0], view.view_of_replay(make_game(6, missing=OLD, items=1), 0, 150)]
        )
    with pytest.raises(InputError, match="some views know their items"):
        view.joined([alone[0], view.view_of_replay(make_game(6), 0, 150)])
    with pytest.raises(InputError, match="no views"):
        view.joined([])


def test_a_game_taken_out_of_a_view_leaves_the_others():
    alone = [view.view_of_replay(make_game(i, items=5), 0, 150) for i in range(3)]
    together = view.joined(alone)
    before = INPUTS(view.arrays(together))
    after = INPUTS(view.arrays(view.without(together, np.array([False, True, False]))))
    for name, values in after.items():
        for row in (0, 2):
            np.testing.assert_array_equal(values[row], before[name][row])
    assert not np.asarray(after["numeric_btf"])[1, 0, 0]
    assert (np.asarray(after["item_type_bti"])[1] == features.ABSENT).all()


def test_a_frame_that_is_not_there_is_refused():
    game = make_game(1, count=200)
    for player, t in ((2, 150), (0, 200), (0, -1)):
        with pytest.raises(InputError, match=f"no player {player} at {t}"):
            view.view_of_replay(game, player, t)
    three = dataclasses.replace(game, players=(*game.players, game.players[0]))
    with pytest.raises(InputError, match="has 3 players"):
        view.view_of_replay(three, 0, 150)


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["melee_train", "melee_odd"])
def test_views_of_real_replays_show_what_training_shows(folder, request):
    """400 frames of every usable game, from both sides."""
    compared = nanas = items = 0
    for path in sorted(request.getfixturevalue(folder).glob("*.slp")):
        try:
            game = slippi.parse(path)
        except InputError:
            continue
        if frames.unusable(game):
            continue
        begin = int(np.searchsorted(game.frame_t, 0))
        times = np.linspace(begin, len(game.frame_t) - 1, 400).astype(int)
        for player in (0, 1):
            seen = compare(game, player, times.tolist())
            compared += len(times)
            nanas += int((seen["action_state_btn"][..., 2:] >= 0).sum())
            items += int((seen["item_type_bti"] >= 0).sum())
    assert compared > 1000 and items > 100
    assert nanas > 100 or folder == "melee_train"
