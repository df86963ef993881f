"""The scripted players, and the replays written of their games."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
from collections import Counter, defaultdict

import numpy as np
import peppi_py
import pytest

from jaxbench.data import slp_writer
from jaxbench.data.simulation import environment, moves, scripted
from jaxbench.data.simulation import record as replays
from jaxbench.data.simulation.fight import (
    A_BUTTON,
    B_BUTTON,
    D_UP,
    X_BUTTON,
    Y_BUTTON,
    L,
    R,
    Z,
    neutral_controls,
)
from jaxbench.data.simulation.moves import A
from jaxbench.data.simulation.observation import INTERNAL_F
from jaxbench.data.slippi import parse
from jaxbench.errors import InputError

GAMES = 16


@pytest.fixture(scope="module")
def setups() -> list[replays.Setup]:
    return [replays.game_setup(0, index, "zelda") for index in range(GAMES)]


@pytest.fixture(scope="module")
def recordings(setups) -> list[slp_writer.Recording]:
    return replays.record_games(setups, 120)


@pytest.fixture(scope="module")
def few(setups) -> list[slp_writer.Recording]:
    """Twelve seconds of three games, two of them with rollbacks."""
    return replays.record_games([setups[i] for i in (1, 5, 13)], 12)


def test_a_game_is_the_same_alone_and_in_any_batch(setups):
    together = replays.record_games(setups[4:7], 3)
    same, alone = together[1], replays.record_games(setups[5:6], 3)[0]
    np.testing.assert_array_equal(same.frame_r, alone.frame_r)
    for part in ("pre", "post", "items"):
        for name, values in getattr(same, part).items():
            np.testing.assert_array_equal(values, getattr(alone, part)[name], name)
    assert len({r.pre["joystick_x"].tobytes() for r in together}) == 3


def test_noise_is_uniform_and_its_streams_are_unrelated():
    seeds = np.arange(20000)
    draws = [
        scripted.noise(seeds, clock, np.full(1, s)) for clock in (0, 1) for s in (0, 1)
    ]
    for draw in draws:
        assert 0 <= draw.min() and draw.max() < 1
        counts, _ = np.histogram(draw, 20, (0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 50
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.03


# The scripted players.


def _final(recording: slp_writer.Recording, player_port: int) -> tuple[dict, dict]:
    """Returns pre and post fields of one port, last row of each frame."""
    column = recording.ports.index(player_port)
    _, last = np.unique(recording.frame_r[::-1], return_index=True)
    rows = len(recording.frame_r) - 1 - last
    return tuple(
        {name: values[rows, column] for name, values in fields.items()}
        for fields in (recording.pre, recording.post)
    )


def _action_class(pre: dict[str, np.ndarray]) -> np.ndarray:
    """One number per combination of pressed buttons and coarse sticks."""
    code = pre["buttons"].astype(np.int64)
    for name in ("joystick_x", "joystick_y", "cstick_x", "cstick_y"):
        level = np.sign(pre[name]) * (1 + (np.abs(pre[name]) > 0.75))
        code = code * 5 + level.astype(np.int64) + 2
    return code


@pytest.mark.integration
def test_most_games_end_with_a_winner_in_one_to_two_minutes(recordings):
    won = [r for r in recordings if r.end == "game"]
    assert len(won) >= 0.7 * GAMES
    seconds = np.array([len(np.unique(r.frame_r)) / 60 for r in recordings])
    assert 55 <= seconds.mean() <= 100
    for recording in won:
        stocks = recording.post["stocks"][-1]
        assert stocks.min() == 0
        assert recording.placements[int(stocks.argmax())] == 0
    winners = Counter(
        r.ports[r.placements.index(0)] == s.ports[0]
        for r, s in zip(
            recordings,
            [replays.game_setup(0, i, "zelda") for i in range(GAMES)],
            strict=True,
        )
        if r.end == "game"
    )
    assert len(winners) == 2, winners


@pytest.mark.integration
def test_players_act_like_people_hold_controllers(recordings, setups):
    pressed = Counter()
    for recording, setup in zip(recordings, setups, strict=True):
        for port in setup.ports:
            pre, _ = _final(recording, port)
            act = _action_class(pre)[84:]
            change = np.mean(act[1:] != act[:-1])
            assert 0.05 < change < 0.25, (setup, change)
            _, counts = np.unique(act, return_counts=True)
            assert counts.max() < 0.7 * len(act)
            idle = (pre["joystick_x"] == 0) & (pre["joystick_y"] == 0)
            assert 0.2 < idle[84:].mean() < 0.8
            for button in (A_BUTTON, B_BUTTON, X_BUTTON, Y_BUTTON, Z, L, R, D_UP):
                pressed[button] += int(((pre["buttons"] & button) != 0).sum())
    assert min(pressed.values()) > 50 and len(pressed) == 8, pressed


def _cross_entropy(
    games: list[tuple[np.ndarray, np.ndarray]], columns: tuple[int, ...]
) -> float:
    """Nats per frame of the second half of `games` under tables of the first half.

    Each column refines the last one's counts, backing off to it where it is thin.
    """
    tables = [defaultdict(Counter) for _ in range(len(columns) + 1)]
    half = len(games) // 2
    classes = len({y for _, target in games for y in target.tolist()})
    for features, target in games[:half]:
        for row, y in zip(features[:, columns].tolist(), target.tolist(), strict=True):
            for depth, table in enumerate(tables):
                table[tuple(row[:depth])][y] += 1
    total, count = 0.0, 0
    for features, target in games[half:]:
        for row, y in zip(features[:, columns].tolist(), target.tolist(), strict=True):
            p = 1 / classes
            for depth, table in enumerate(tables):
                seen = table.get(tuple(row[:depth]))
                if seen is not None:
                    p = (seen[y] + 2 * p) / (sum(seen.values()) + 2)
            total -= math.log(p)
            count += 1
    return total / count


@pytest.mark.integration
def test_memory_pays(recordings, setups):
    """What was seen and done up to half a second ago predicts the next input.

    Each table gets more of the past; targets are the ego's inputs one frame ahead.
    """
    games = []
    for recording, setup in zip(recordings, setups, strict=True):
        pre, own = _final(recording, setup.ports[0])
        _, other = _final(recording, setup.ports[1])
        act = _action_class(pre)
        frame = np.arange(len(act))
        started = np.r_[True, act[1:] != act[:-1]]
        last = np.maximum.accumulate(np.where(started, frame, 0))
        gap = other["position_x"].astype(np.float64) - own["position_x"]
        features = np.stack(
            [
                own["state"],
                np.minimum(own["state_age"], 40),
                np.sign(gap) * np.searchsorted([15, 32, 62], np.abs(gap)),
                scripted._CLASS[other["state"]],
                act,
                np.minimum(frame - last, 30),
                act[np.maximum(last - 1, 0)],
            ],
            axis=1,
        ).astype(np.int64)
        games.append((features[84:-1], act[85:]))
    seen_now = _cross_entropy(games, (0, 1, 2, 3))
    held_too = _cross_entropy(games, (4, 0, 2, 3))
    remembered = _cross_entropy(games, (4, 0, 5, 6, 2))
    print(f"nats/frame: {seen_now:.3f} now, {held_too:.3f} and held, {remembered:.3f}")
    assert held_too < seen_now - 0.2
    assert remembered < held_too - 0.15
    assert remembered > 0.1


def test_players_answer_what_they_saw_and_not_what_they_see():
    """Two opponents that differ only in their last frames get the same answer."""
    base = environment.reset([0], [("zelda", "fox")], 32)
    for _ in range(240):
        base = environment.step(base, neutral_controls(1))
    base = base.copy()
    base.x[:] = [[0, 10]]
    style = np.zeros((1, 2), np.int32)
    delay = int(scripted.styles.DELAY[0])

    def inputs_after(frames_ago: int) -> np.ndarray:
        state, memory = base, scripted.remember_nothing(base, style)
        pressed = []
        for frame in range(120):
            seen = state
            if frame >= 40 - frames_ago:
                seen = state.copy()
                seen.action[:, 1] = A.SMASH_S
            controls, memory = scripted.act(memory, seen)
            pressed.append(np.stack([field[0, 0] for field in controls]))
        return np.stack(pressed)

    never = inputs_after(-90)
    late = inputs_after(0)
    np.testing.assert_array_equal(never[: 40 + delay], late[: 40 + delay])
    assert (never != late).any()


@pytest.mark.integration
def test_the_players_reach_all_of_the_game(recordings):
    seen: set[int] = set()
    for recording in recordings:
        seen |= set(np.unique(recording.post["state"]).tolist())
    named = {v for k, v in vars(moves.Action).items() if k.isupper()}
    rare = {A.DAMAGE_N, A.FLY_LW, A.DIZZY, A.CLIFF_ATTACK}
    assert named - seen <= rare, sorted(named - seen)
    assert any(recording.item_present_ri.any() for recording in recordings)


# Files.


@pytest.fixture(scope="module")
def written(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slp")
    for recording in few[::2]:
        assert len(np.unique(recording.frame_r)) < len(recording.frame_r)
    paths = [folder / f"{i}.slp" for i in range(len(few))]
    for path, recording in zip(paths, few, strict=True):
        slp_writer.write_slp(path, recording)
    return list(zip(paths, few, strict=True))


_LEAVES = {
    "trigger": "triggers",
    "trigger_l": "triggers_physical.l",
    "trigger_r": "triggers_physical.r",
    "buttons": "buttons_physical",
    "buttons_processed": "buttons",
    **{f"flags_{k}": f"state_flags.{k}" for k in range(5)},
    **{
        f"{stick}_{axis}": f"{stick}.{axis}"
        for stick in ("position", "joystick", "cstick")
        for axis in "xy"
    },
    **{
        name: f"velocities.{name}"
        for name in (
            "self_x_air",
            "self_y",
            "knockback_x",
            "knockback_y",
            "self_x_ground",
        )
    },
}


def _leaf(data, path: str) -> np.ndarray:
    for part in path.split("."):
        data = data[int(part)] if part.isdigit() else getattr(data, part)
    return np.asarray(data)


def test_every_field_written_is_the_field_read(written):
    for path, recording in written:
        game = peppi_py.read_slippi(str(path))
        np.testing.assert_array_equal(np.asarray(game.frames.id), recording.frame_r)
        assert len(game.frames.ports) == 2
        for column, port in enumerate(game.frames.ports):
            for part, names in (
                ("pre", slp_writer.PRE_FIELDS),
                ("post", slp_writer.POST_FIELDS),
            ):
                for name in names:
                    read = _leaf(getattr(port.leader, part), _LEAVES.get(name, name))
                    sent = getattr(recording, part)[name][:, column]
                    assert read.dtype == sent.dtype, (part, name)
                    np.testing.assert_array_equal(read, sent, f"{part}.{name}")
        assert game.start.stage == recording.stage
        assert game.start.timer == recording.timer_seconds
        assert game.start.random_seed == recording.random_seed
        players = game.start.players
        assert tuple(int(p.port) + 1 for p in players) == recording.ports
        assert tuple(p.character for p in players) == recording.characters
        assert {int(p.type) for p in players} == {0}
        assert game.end.method.name.lower() == recording.end
        placed = tuple(p.placement for p in game.end.players)
        assert placed == recording.placements
        assert game.metadata["playedOn"] == replays.SOURCE
        assert game.metadata["lastFrame"] == recording.frame_r.max()


def test_items_written_are_the_items_read(written):
    for path, recording in written:
        items = parse(path).items
        _, last = np.unique(recording.frame_r[::-1], return_index=True)
        rows = len(recording.frame_r) - 1 - last
        present = recording.item_present_ri[rows]
        np.testing.assert_array_equal(items.frame_i, np.nonzero(present)[0])
        assert len(items.frame_i) > 0
        for name, values in items.fields.items():
            sent = recording.items[name][rows][present]
            np.testing.assert_array_equal(values, sent, name)


def test_frames_are_contiguous_and_rolled_back_rows_come_before_the_final_ones(written):
    for path, recording in written:
        game = parse(path)
        assert game.missing == frozenset() and game.version == (3, 14, 0)
        np.testing.assert_array_equal(
            game.frame_t, np.arange(-123, recording.frame_r.max() + 1)
        )
        assert game.rows == len(recording.frame_r)
        for player in game.players:
            pre, post = _final(recording, player.port)
            np.testing.assert_array_equal(player.leader.pre["buttons"], pre["buttons"])
            np.testing.assert_array_equal(
                player.leader.post["position_x"], post["position_x"]
            )
            before = np.arange(-123, -39) + 123
            for name in ("joystick_x", "joystick_y", "buttons", "trigger"):
                assert not player.leader.pre[name][before].any()
    rows = written[0][1]
    again = np.nonzero(np.diff(rows.frame_r) <= 0)[0]
    assert len(again) >= 5
    guessed = [
        (
            rows.pre["joystick_x"][i]
            != rows.pre["joystick_x"][
                np.nonzero(rows.frame_r == rows.frame_r[i])[0][-1]
            ]
        ).any()
        for i in again
    ]
    assert any(guessed)


def test_the_state_of_a_frame_is_what_the_next_frame_starts_from(written):
    for path, _ in written:
        for player in parse(path).players:
            pre, post = player.leader.pre, player.leader.post
            np.testing.assert_array_equal(pre["state"][1:], post["state"][:-1])


def test_events_have_the_sizes_of_a_real_recording(written, melee_train):
    def sizes(path) -> dict[int, int]:
        data = path.read_bytes()
        table = data[17 : 16 + data[16]]
        return {k: size for k, size in struct.iter_unpack(">BH", table)}

    real = next(melee_train.glob("falco-falco_battlefield_cd04c229.slp"))
    real_sizes, ours = sizes(real), sizes(written[0][0])
    assert set(ours) == {0x36, 0x37, 0x38, 0x39, 0x3A, 0x3B, 0x3C}
    assert ours == {event: real_sizes[event] for event in ours}
    game = peppi_py.read_slippi(str(real))
    grid = np.unique(np.asarray(game.frames.ports[0].leader.pre.joystick.x))
    sent = np.unique(written[0][1].pre["joystick_x"])
    assert np.isin(sent, grid).mean() > 0.9


def test_a_recording_that_does_not_fit_is_refused(written, tmp_path):
    recording = written[0][1]
    path = tmp_path / "x.slp"
    post = {k: v for k, v in recording.post.items() if k != "percent"}
    for wrong, message in (
        ({"post": post}, r"post: missing \['percent'\]"),
        ({"ports": (2, 1)}, "not increasing"),
        ({"ports": (0, 1)}, "expected numbers of 1 to 4"),
        ({"end": "won"}, "end='won'"),
        ({"placements": (0,)}, "placements"),
        ({"frame_r": recording.frame_r[1:]}, "first row"),
        (
            {"pre": recording.pre | {"state": np.zeros((3, 2))}},
            r"pre.state is \(3, 2\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            slp_writer.write_slp(path, dataclasses.replace(recording, **wrong))
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_or_not_at_all(written, tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="disk"):
        slp_writer.write_slp(tmp_path / "x.slp", written[0][1])
    assert list(tmp_path.iterdir()) == []


def _simulate(folder, **changes):
    arguments = {"games": 3, "seed": 4, "character": "zelda", "seconds": 1}
    return replays.simulate_replays(folder, **arguments | changes)


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    one, two = _simulate(tmp_path / "a"), _simulate(tmp_path / "b")
    assert [p.name for p in one] == [p.name for p in two]
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    other = _simulate(tmp_path / "a", seed=5)
    assert other[0].read_bytes() != one[0].read_bytes()
    assert len(list((tmp_path / "a").glob("*.slp"))) == 6


def test_what_is_there_is_kept_and_the_rest_is_made(tmp_path, monkeypatch):
    (tmp_path / "mine.slp").write_bytes(b"precious")
    paths = _simulate(tmp_path)
    data = [p.read_bytes() for p in paths]
    made = []
    monkeypatch.setattr(
        replays,
        "write_slp",
        lambda path, recording: (
            made.append(path),
            slp_writer.write_slp(path, recording),
        ),
    )
    assert _simulate(tmp_path) == paths
    assert made == []
    paths[1].write_bytes(b"cut")
    assert _simulate(tmp_path) == paths
    assert made == [paths[1]]
    more = _simulate(tmp_path, games=4)
    assert more[:3] == paths
    assert made == [paths[1], more[3]]
    assert [p.read_bytes() for p in paths] == data
    assert (tmp_path / "mine.slp").read_bytes() == b"precious"


def test_an_interrupted_set_is_finished(tmp_path, monkeypatch):
    def stops(path, recording):
        if "_0001_" in path.name:
            raise KeyboardInterrupt
        slp_writer.write_slp(path, recording)

    monkeypatch.setattr(replays, "write_slp", stops)
    with pytest.raises(KeyboardInterrupt):
        _simulate(tmp_path)
    monkeypatch.undo()
    assert len(list(tmp_path.glob("*.slp"))) == 1
    assert all(path.stat().st_size > 10_000 for path in _simulate(tmp_path))
    (manifest,) = tmp_path.glob("*.json")
    assert len(json.loads(manifest.read_text())) == 3


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"character": "zleda"}, "zelda"),
        ({"character": "bowser"}, "not in the simulation"),
        ({"games": 0}, "games=0"),
        ({"seed": -1}, "seed=-1"),
        ({"seconds": 500}, "seconds=500"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        _simulate(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_a_set_varies_in_all_that_a_reader_must_not_rely_on(setups):
    assert {setup.fighters[0] for setup in setups} == {"zelda"}
    assert sum(s.fighters[1] == "zelda" for s in setups) == GAMES // 6
    assert len({s.fighters[1] for s in setups}) >= 5
    assert len({frozenset(s.ports) for s in setups}) >= 4
    assert {s.ports[0] < s.ports[1] for s in setups} == {True, False}
    assert len({s.stage for s in setups}) >= 4
    assert len({style for s in setups for style in s.styles}) == scripted.STYLE_COUNT
    assert sum(s.rollbacks for s in setups) == GAMES // 4


def test_the_characters_recorded_are_the_ones_asked_for(tmp_path):
    for path in _simulate(tmp_path, character="Marth", games=2):
        game = parse(path)
        assert 9 in {player.character for player in game.players}
        for player in game.players:
            internal = set(player.leader.post["character"].tolist())
            assert internal <= set(INTERNAL_F.tolist()) and len(internal) == 1
