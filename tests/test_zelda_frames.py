"""Rows and windows of the clean protocol, and the games other tests build by hand."""

from __future__ import annotations

import copy
import functools
import hashlib

import jax
import numpy as np
import pytest

from jaxbench.data.game import Character, Game, Items, Player
from jaxbench.tasks.zelda import controller, features, frames, windows

MASKS = (0x100, 0x200, 0x400, 0x800, 0x10, 0x40, 0x20, 0x08)
OLD = frozenset(
    f"post.{name}" for name in ("hurtbox_state", *frames.SPEEDS, "hitlag")
)  # what version 2.0.1 lacks


def make_fighter(rng, count, internal, missing=frozenset(), absent=slice(0, 0)):
    """Random but plausible rows of one fighter."""

    def held(values):
        return np.repeat(values, 4)[:count]

    def stick():
        return held(rng.integers(-80, 81, count) / 80).astype(np.float32)

    def uniform(low, high):
        return rng.uniform(low, high, count).astype(np.float32)

    def small(high):
        return rng.integers(0, high, count).astype(np.uint8)

    buttons = held(rng.integers(0, 1 << 12, count)).astype(np.uint16)
    pre = {
        **{k: stick() for k in ("joystick_x", "joystick_y", "cstick_x", "cstick_y")},
        "trigger": uniform(0, 1),
        "trigger_l": uniform(0, 1),
        "trigger_r": uniform(0, 1),
        "buttons": buttons,
        "state": rng.integers(14, 320, count).astype(np.uint16),
    }
    post = {
        "character": np.full(count, internal, np.uint8),
        "state": rng.integers(14, 320, count).astype(np.uint16),
        "position_x": uniform(-220, 220),
        "position_y": uniform(-120, 220),
        "direction": rng.choice(np.float32([-1, 1]), count),
        "percent": uniform(0, 180),
        "shield": uniform(0, 60),
        "stocks": small(5),
        "state_age": uniform(-1, 130),
        **{f"flags_{i}": small(255) for i in range(5)},
        "misc_as": uniform(0, 100),
        "airborne": small(2),
        "jumps": small(3),
        "hurtbox_state": small(3),
        **{name: uniform(-5, 5) for name in frames.SPEEDS},
        "hitlag": uniform(0, 15),
    }
    present = np.ones(count, bool)
    present[absent] = False
    for fields in (pre, post):
        for name in fields:
            fields[name] = np.where(present, fields[name], 0).astype(fields[name].dtype)
    post = {k: v for k, v in post.items() if f"post.{k}" not in missing}
    return Character(present, pre, post)


def make_game(
    seed=0,
    count=300,
    ports=(1, 2),
    externals=(20, 2),
    internals=(22, 1),
    stage=31,
    missing=frozenset(),
    nana=False,
    items=0,
    kind="human",
    name=None,
):
    """A game by hand: `count` frames from -123, `items` rows of items a frame."""
    rng = np.random.default_rng(seed)
    players = tuple(
        Player(
            port=port,
            kind=kind,
            character=external,
            team=-1,
            leader=make_fighter(rng, count, internal, missing),
            nana=make_fighter(rng, count, 11, missing, slice(150, 170))
            if nana and i == 1
            else None,
        )
        for i, (port, external, internal) in enumerate(
            zip(ports, externals, internals, strict=True)
        )
    )
    name = name or f"game_{seed:03d}.slp"
    return Game(
        name=name,
        sha256=hashlib.sha256(f"{name}{seed}{count}".encode()).hexdigest(),
        version=(2, 0, 1) if missing else (3, 14, 0),
        stage=stage,
        is_teams=False,
        is_pal=False,
        end="game",
        frame_t=np.arange(-123, count - 123, dtype=np.int32),
        players=players,
        items=make_items(rng, count, items) if items else None,
        missing=missing,
        rows=count,
    )


def make_items(rng, count, most):
    per_frame = rng.integers(0, most + 1, count)
    frame_i = np.repeat(np.arange(count, dtype=np.int32), per_frame)
    total = len(frame_i)
    fields = {
        name: rng.uniform(-100, 100, total).astype(np.float32)
        for name in ("position_x", "position_y", "velocity_x", "velocity_y")
    }
    fields["type"] = rng.integers(0, 400, total).astype(np.uint16)
    fields["owner"] = rng.integers(-1, 2, total).astype(np.int8)
    return Items(frame_i, fields)


def edited(game, player, part, name, value):
    """A copy of a game with one field of one leader replaced."""
    game = copy.deepcopy(game)
    getattr(game.players[player].leader, part)[name][:] = value
    return game


def stored(game, delay=0, drop_idle=True, selected=((0, 0), (0, 1))):
    return frames.store([game], selected, delay=delay, drop_idle=drop_idle)


def slow_leader(player, t, ledge):
    """One leader's features by the book, in float64: name -> number."""
    post = {k: float(v[t]) for k, v in player.post.items()}
    flags = {i: int(post.get(f"flags_{i}", 0)) for i in range(5)}
    hurt = post.get("hurtbox_state", 0) > 0 or bool(flags[1] & 4)
    stun = post["misc_as"] if flags[3] & 2 else 0.0
    out = {
        "present": 1.0,
        "percent": min(post["percent"] / 100, 5),
        "facing": 1.0 if post["direction"] > 0 else -1.0,
        "x": max(-10, min(10, post["position_x"] / 20)),
        "y": max(-10, min(10, post["position_y"] / 20)),
        "ledge": (ledge - abs(post["position_x"])) / ledge if ledge else 0.0,
        "shield": min(post["shield"] / 100, 1),
        "jumps": min(post["jumps"] / 6, 1),
        "stocks": min(post["stocks"] / 4, 1),
        "airborne": float(post["airborne"] > 0),
        "invulnerable": float(hurt),
        "state_age": max(0, min(post["state_age"] / 60, 2)),
        "hitlag": min(post.get("hitlag", 0) / 20, 1),
        "hitstun": max(0, min(stun / 120, 1)),
    }
    return out | {name: post.get(name, 0.0) / 2 for name in frames.SPEEDS}


@functools.cache
def gather(delay, readout):
    return jax.jit(windows.clean_gather(window=30, delay=delay, readout=readout))


def batch_of(arrays, examples, delay=0, readout="last"):
    """Windows of 30 frames; tables are made equally long, so that one program does."""
    count, rows = len(examples), len(arrays["position"])
    lengths = {name: 2000 for name in arrays if name.startswith("item_")}
    lengths |= {name: 1000 for name in arrays if len(arrays[name]) == rows}
    tables = {name: padded(arrays[name], length) for name, length in lengths.items()}
    made = gather(delay, readout)(arrays | tables, padded(np.int32(examples), 24))
    return {name: np.asarray(values)[:count] for name, values in made.items()}


def padded(rows, length):
    """`rows` and the last of them again."""
    return np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), axis=0)])


@pytest.mark.parametrize(
    ("stage", "ledge", "missing"),
    [(31, 68.4, frozenset()), (2, 63.35, OLD), (28, 77.27, OLD), (5, 0, frozenset())],
)
def test_features_match_a_frame_by_frame_encoder(stage, ledge, missing):
    game = make_game(1, stage=stage, missing=missing, nana=True)
    arrays, _ = stored(game)
    batch = batch_of(arrays, [[0, 90], [1, 90]])
    for b in (0, 1):
        for t in (0, 7, 29):
            raw = 123 + 90 - 29 + t
            seen = dict(
                zip(features.NUMERIC, batch["numeric_btf"][b, t].tolist(), strict=True)
            )
            own, rival = game.players[b].leader, game.players[1 - b].leader
            for prefix, who in (("own", own), ("opponent", rival)):
                for name, value in slow_leader(who, raw, ledge).items():
                    assert seen[f"{prefix}.{name}"] == pytest.approx(
                        value, rel=2**-10, abs=1e-5
                    ), f"{prefix}.{name}"
            dx = float(rival.post["position_x"][raw] - own.post["position_x"][raw])
            dy = float(rival.post["position_y"][raw] - own.post["position_y"][raw])
            assert seen["relative_x"] == pytest.approx(dx / 200, abs=1e-5)
            assert seen["relative_y"] == pytest.approx(dy / 100, abs=1e-5)
            far = min((dx * dx + dy * dy) ** 0.5 / 200, 1.5)
            assert seen["distance"] == pytest.approx(far, abs=1e-5)
            assert seen["frame"] == pytest.approx((raw - 123) / 28800)
            ids = batch["action_state_btn"][b, t, :2]
            assert list(ids) == [own.post["state"][raw], rival.post["state"][raw]]
            assert list(batch["character_btp"][b, t]) == [[22, 1], [1, 22]][b]


def test_missing_fields_are_zero_and_their_bit_is_zero():
    old = batch_of(stored(make_game(2, missing=OLD))[0], [[0, 50]])["numeric_btf"]
    new = batch_of(stored(make_game(2, items=2))[0], [[0, 50]])["numeric_btf"]
    column = {name: i for i, name in enumerate(features.NUMERIC)}
    for group, fields in (
        ("hitlag", ("hitlag",)),
        ("velocity", frames.SPEEDS),
        ("items", ()),
    ):
        assert np.all(old[..., column[f"available.{group}"]] == 0)
        assert np.all(new[..., column[f"available.{group}"]] == 1)
        for name in fields:
            assert np.all(old[..., column[f"own.{name}"]] == 0)
            assert np.ptp(new[..., column[f"own.{name}"]]) > 0
    # 2.0.1 has no hurtbox state but the flag bit says who is invulnerable.
    assert np.all(old[..., column["available.invulnerable"]] == 1)
    assert np.ptp(old[..., column["own.invulnerable"]]) == 1


def test_nana_is_seen_only_while_she_is_there():
    game = make_game(3, nana=True)
    arrays, _ = stored(game)
    batch = batch_of(arrays, [[0, 60], [1, 60]])
    column = {name: i for i, name in enumerate(features.NUMERIC)}
    raw = np.arange(123 + 31, 123 + 61)
    gone = (raw >= 150) & (raw < 170)
    nana = game.players[1].nana
    for b, whose in ((0, "opponent_nana"), (1, "own_nana")):
        here = batch["numeric_btf"][b, :, column[f"{whose}.present"]]
        np.testing.assert_array_equal(here, ~gone)
        dx = nana.post["position_x"] - game.players[1].leader.post["position_x"]
        expected = np.where(gone, 0, np.clip(dx[raw] / 20, -10, 10))
        seen = batch["numeric_btf"][b, :, column[f"{whose}.dx"]]
        np.testing.assert_allclose(seen, expected, atol=1e-5)
        slot = {"own_nana": 2, "opponent_nana": 3}[whose]
        ids = batch["action_state_btn"][b, :, slot]
        np.testing.assert_array_equal(
            ids, np.where(gone, -1, nana.post["state"][raw].astype(int))
        )
        assert np.all(batch["action_state_btn"][b, :, 5 - slot] == features.ABSENT)


def test_items_are_the_nearest_of_others():
    game = make_game(4, items=9)
    arrays, _ = stored(game)
    items = game.items.fields
    for p in (0, 1):
        batch = batch_of(arrays, [[p, t] for t in range(0, 150, 7)])
        leader = game.players[p].leader.post
        for row, t in enumerate(range(0, 150, 7)):
            raw = 123 + t
            mine = np.flatnonzero((game.items.frame_i == raw) & (items["owner"] != p))
            away = [
                (
                    np.hypot(
                        items["position_x"][i] - leader["position_x"][raw],
                        items["position_y"][i] - leader["position_y"][raw],
                    ),
                    i,
                )
                for i in mine
            ]
            nearest = [i for _, i in sorted(away)[:4]]
            types = [min(int(items["type"][i]), 255) for i in nearest]
            types += [features.ABSENT] * (4 - len(nearest))
            assert list(batch["item_type_bti"][row, -1]) == types
            seen = batch["numeric_btf"][row, -1, features.NUMERIC.index("item_0.dx")]
            if nearest:
                dx = items["position_x"][nearest[0]] - leader["position_x"][raw]
                assert seen == pytest.approx(np.clip(dx / 20, -10, 10), abs=1e-5)


def test_items_without_an_owner_field_are_unavailable():
    game = make_game(4, items=3)
    del game.items.fields["owner"]
    arrays, _ = stored(game)
    assert not arrays["available"][:, frames.AVAILABLE.index("items")].any()
    assert len(arrays["item_type"]) == 1 and not arrays["item_slot"].any()


def test_unknown_ids_get_the_last_row_of_their_table():
    game = edited(make_game(5), 0, "post", "state", 500)
    game = edited(game, 0, "post", "character", 40)
    batch = batch_of(stored(game)[0], [[0, 50]])
    assert np.all(batch["action_state_btn"][..., 0] == features.ACTION_STATES)
    assert np.all(batch["character_btp"][..., 0] == features.CHARACTERS)


def test_a_mirror_match_stores_every_row_once():
    game = make_game(6, externals=(20, 20), internals=(22, 22))
    arrays, perspectives = stored(game)
    assert len(perspectives) == 2
    assert len(arrays["position"]) == 1 + 2 * (300 - 123)
    a, b = arrays["perspective"]
    assert (a[frames.EGO], a[frames.OPPONENT]) == (b[frames.OPPONENT], b[frames.EGO])
    one, _ = stored(game, selected=[(0, 1)])
    assert len(one["position"]) == len(arrays["position"])


def test_the_left_edge_repeats_the_first_frame_and_resets():
    arrays, _ = stored(make_game(7))
    batch = batch_of(arrays, [[0, 0], [0, 5], [0, 29], [0, 80]])
    expected = np.zeros((4, 30), bool)
    expected[0] = True
    expected[1, :25] = True
    expected[2:, 0] = True
    np.testing.assert_array_equal(batch["reset_bt"], expected)
    first = batch["numeric_btf"][2, 0]
    np.testing.assert_array_equal(
        batch["numeric_btf"][1, :25], np.broadcast_to(first, (25, len(first)))
    )
    np.testing.assert_array_equal(
        batch["numeric_btf"][1, 24:], batch["numeric_btf"][2, :6]
    )


@pytest.mark.parametrize("delay", [0, 3])
def test_labels_and_previous_controllers_are_where_they_should_be(delay):
    game = make_game(8)
    arrays, perspectives = stored(game, delay=delay)
    labels = controller.encode(game.players[1].leader.pre, "clean")
    batch = batch_of(arrays, [[1, 70]], delay=delay)
    raw = 123 + 70
    np.testing.assert_array_equal(batch["target_bta"][0, 0], labels[raw + 1 + delay])
    np.testing.assert_array_equal(
        batch["previous_bta"][0], labels[raw - 29 + delay : raw + 1 + delay]
    )
    examples = windows.clean_examples(arrays, perspectives, [1], 1)
    assert examples[:, 1].max() == (300 - 123) - 1 - (1 + delay)


@pytest.mark.parametrize("delay", [0, 3])
def test_the_future_changes_targets_but_no_input(delay):
    """Everything after t, controllers after t + delay, may change: inputs must not."""
    game = make_game(9, nana=True, items=4)
    other = make_game(10, nana=True, items=4)
    t, last = 60, 123 + 60
    changed = copy.deepcopy(game)
    for ours, theirs in zip(changed.players, other.players, strict=True):
        for mine, alien in ((ours.leader, theirs.leader), (ours.nana, theirs.nana)):
            if mine is None:
                continue
            for name in mine.post:
                mine.post[name][last + 1 :] = alien.post[name][last + 1 :]
            for name in mine.pre:
                mine.pre[name][last + 1 + delay :] = alien.pre[name][last + 1 + delay :]
    for values in changed.items.fields.values():
        late = game.items.frame_i > last
        if values.dtype == np.float32:
            values[late] += 1
    before = batch_of(stored(game, delay)[0], [[0, t], [1, t]], delay=delay)
    after = batch_of(stored(changed, delay)[0], [[0, t], [1, t]], delay=delay)
    assert np.any(before["target_bta"] != after["target_bta"])
    for name in before:
        if name != "target_bta":
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # The present does matter: the same check is able to fail.
    now = edited(game, 0, "post", "percent", 7.0)
    now = batch_of(stored(now, delay)[0], [[0, t], [1, t]], delay=delay)
    assert np.any(before["numeric_btf"] != now["numeric_btf"])


def test_idle_frames_are_no_targets_unless_asked_for():
    game = make_game(11)
    state = game.players[0].leader.post["state"]
    state[150:160] = 0
    state[160:170] = 12
    state[170:175] = 13  # waiting on the platform: it can act
    state[175:180] = 322
    dropped, perspectives = stored(game)
    kept, _ = stored(game, drop_idle=False)
    indices = windows.clean_examples(dropped, perspectives, [0], 1)[:, 1] + 123
    assert not set(indices) & (set(range(150, 170)) | set(range(175, 180)))
    assert set(range(170, 175)) <= set(indices.tolist())
    assert len(windows.clean_examples(kept, perspectives, [0], 1)) - len(indices) == 25
    assert indices.min() == 123


def test_readout_all_scores_real_labelled_frames_only():
    game = make_game(12)
    game.players[0].leader.post["state"][123 + 3] = 5
    arrays, perspectives = stored(game)
    batch = batch_of(arrays, [[0, 9], [0, 100]], readout="all")
    assert batch["target_bta"].shape == (2, 30, 6)
    valid = np.ones((2, 30), bool)
    valid[0, :20] = False
    valid[0, 20 + 3] = False
    np.testing.assert_array_equal(batch["valid_bt"], valid)
    labels = controller.encode(game.players[0].leader.pre, "clean")
    np.testing.assert_array_equal(batch["target_bta"][1], labels[123 + 72 : 123 + 102])
    examples = windows.clean_examples(arrays, perspectives, [0, 1], 15)
    batch = batch_of(arrays, examples, readout="all")
    flat = batch["target_bta"][batch["valid_bt"]]
    target, _, count = windows.clean_labels(
        arrays, examples, window=30, delay=0, readout="all"
    )
    assert count.sum() == len(flat)
    np.testing.assert_array_equal(
        np.bincount(flat[:, 1], minlength=17),
        np.bincount(target[:, 1], weights=count, minlength=17),
    )


def test_compact_types_hold_what_they_must():
    """Half precision is below a thousandth; positions keep every bit."""
    game = make_game(13)
    arrays, perspectives = stored(game)
    rows = slice(perspectives[0].start, perspectives[0].start + perspectives[0].length)
    post = game.players[0].leader.post
    np.testing.assert_array_equal(arrays["position"][rows, 0], post["position_x"][123:])
    percent = arrays["measure"][rows, 0].astype(np.float64) * 100
    np.testing.assert_allclose(percent, post["percent"][123:], rtol=2**-10, atol=1e-3)
    per_frame = sum(
        arrays[name][:1].nbytes
        for name in (
            *("position", "measure", "status", "action_state", "controller"),
            "item_slot",
        )
    )
    assert per_frame == 56


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"ports": (1, 2, 3), "externals": (20, 2, 9), "internals": (22, 1, 18)},
            "3 players",
        ),
        ({"count": 100}, "before the timer"),
    ],
)
def test_unusable_games_say_why(change, reason):
    assert frames.unusable(make_game(14)) is None
    assert reason in frames.unusable(make_game(14, **change))


def test_a_gap_in_the_frame_ids_is_unusable():
    game = make_game(15)
    game.frame_t[200:] += 1
    assert "consecutive" in frames.unusable(game)
