"""Closed loop: fair games, what a policy is shown in them, pictures, the command."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections import Counter
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from commands import assert_one_line_error, jaxbench, measured_here
from PIL import Image
from rich.console import Console

from jaxbench.data.simulation import arena, environment, fight, record, scripted
from jaxbench.data.simulation.fight import ARRAYS, Controls, State
from jaxbench.data.slippi import parse
from jaxbench.data.slp_writer import write_slp
from jaxbench.errors import InputError
from jaxbench.serving import picture, play_command
from jaxbench.serving.match import estimate, play, schedule
from jaxbench.serving.players import (
    CopyPrevious,
    PolicyPlayer,
    Random,
    Scripted,
    baselines,
    controls_of_labels,
)
from jaxbench.tasks.zelda import controller, frames, view, windows

OUTCOMES = ("taken_b", "lost_b", "dealt_b", "received_b", "result_b", "frames_b")


@pytest.fixture(scope="module")
def run(shared_runs):
    """The session's run; tests that write take a copy."""
    return shared_runs("policy")


def same(one, other):
    for name in OUTCOMES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_schedule_gives_nobody_an_advantage():
    games = schedule(games=120, character="zelda", seed=3)
    side, left = games.side_b, np.array(games.seeds) % 2
    # Each place, each start, as often.
    assert set(Counter(zip(side.tolist(), left.tolist(), strict=True)).values()) == {30}
    own = [pair[s] for pair, s in zip(games.fighters, side, strict=True)]
    others = Counter(pair[1 - s] for pair, s in zip(games.fighters, side, strict=True))
    assert set(own) == {"zelda"}
    assert set(others) == set(arena.FIGHTER_INDEX) and set(others.values()) == {10}
    assert set(Counter(games.stages).values()) == {24}
    assert len(set(games.seeds)) == 120


def test_a_schedule_is_its_seeds():
    one, again, other = (schedule(games=9, seed=seed) for seed in (1, 1, 2))
    assert one.seeds == again.seeds and one.fighters == again.fighters
    assert one.stages == again.stages
    assert one.seeds != other.seeds and one.fighters != other.fighters
    counts = Counter(name for pair in one.fighters for name in pair)
    assert max(counts.values()) <= 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"games": 0}, "games=0 must be 1 or more"),
        ({"seconds": 0}, "seconds=0 must be 1 to 480"),
        ({"seconds": 481}, "seconds=481"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_schedule_refuses_what_is_out_of_range(wrong, message):
    with pytest.raises(InputError, match=message):
        schedule(**wrong)


def test_a_match_is_the_same_again_and_from_the_other_side():
    games = schedule(games=12, seconds=4, seed=1)
    players = Scripted(repeat=scripted.STYLE_COUNT), Scripted(style=0)
    one = play(*players, games)
    same(one, play(*players, games))
    turned = dataclasses.replace(games, side_b=1 - games.side_b)
    other = play(*reversed(players), turned)
    np.testing.assert_array_equal(one.taken_b, other.lost_b)
    np.testing.assert_array_equal(one.dealt_b, other.received_b)
    np.testing.assert_array_equal(one.result_b, -other.result_b)
    assert one.dealt_b.sum() > 0 and one.received_b.sum() > 0
    assert (one.frames_b == 240).any() and (one.frames_b <= 240).all()


def test_a_game_is_the_same_alone():
    games = schedule(games=6, seconds=4, seed=4)
    whole = play(Scripted(style=2), Random(), games)
    alone = dataclasses.replace(
        games,
        seeds=games.seeds[4:5],
        side_b=games.side_b[4:5],
        fighters=games.fighters[4:5],
        stages=games.stages[4:5],
    )
    part = play(Scripted(style=2), Random(), alone)
    for name in OUTCOMES:
        assert getattr(part, name)[0] == getattr(whole, name)[4]


@pytest.mark.integration
def test_scripts_of_all_styles_are_equal_to_themselves():
    games = schedule(games=100, seconds=20, seed=0)
    match = play(Scripted(repeat=scripted.STYLE_COUNT), Scripted(), games)
    wins = match.summary()["wins"]
    decided = 100 - wins["level"]
    assert decided > 80
    # Four standard deviations of a fair coin.
    assert abs(wins["won"] - decided / 2) < 2 * decided**0.5
    # And the place alone decides nothing.
    first = (match.result_b > 0) == (games.side_b == 0)
    assert abs(first[match.result_b != 0].sum() - decided / 2) < 2 * decided**0.5
    ratio = match.summary()["damage_ratio"]
    assert ratio["low"] < 1 < ratio["high"]


def test_who_plays_without_a_run_is_named_where_no_jax_is_imported():
    assert tuple(baselines()) == play_command.BASELINES
    assert tuple(baselines(rival=True)) == play_command.BASELINES
    # Opposite habits: one changes its style every game, the other after all of them.
    repeats = [baselines(rival=rival)["scripted"].repeat for rival in (True, False)]
    assert repeats == [1, scripted.STYLE_COUNT]


def test_nobody_acts_before_the_timer_starts():
    seen = []
    games = schedule(games=2, seconds=1)
    play(Random(), Scripted(), games, watch=seen.append)
    assert [int(state.frame[0]) for state in seen] == list(range(61))
    held = [any(np.any(field) for field in state.controls) for state in seen]
    assert not held[0] and held[1]


def test_who_repeats_its_last_controller_never_moves():
    seen = []
    games = schedule(games=3, seconds=2)
    match = play(CopyPrevious(), CopyPrevious(), games, watch=seen.append)
    assert not any(np.any(field) for state in seen for field in state.controls)
    assert match.dealt_b.sum() == 0 and (match.result_b == 0).all()
    summary = match.summary()
    assert summary["damage_ratio"]["value"] is None
    assert summary["wins"] | {"high": 0} == {
        **{"value": 0.0, "low": 0.0, "high": 0, "won": 0, "level": 3}
    }
    json.loads(json.dumps(summary, allow_nan=False))


def test_random_controllers_are_drawn_anew_each_frame_and_game():
    state = environment.reset([8, 8, 9], [("fox", "zelda")] * 3)
    player, side_b = Random(), np.array([0, 1, 0])
    held, memories = [], player.start(state, side_b)
    for _ in range(200):
        controls, memories = player.act(memories, state, side_b)
        both = Controls(*(np.stack([f, f], axis=1) for f in controls))
        held.append(np.stack([f[:, 0] for f in fight.quantize(both)]))
    drawn = np.stack(held)  # [frames, fields, games]
    assert (drawn[1:] != drawn[:-1]).any(axis=1).mean() > 0.8
    assert all((drawn[..., 0] != drawn[..., other]).any() for other in (1, 2))
    # Both ways alike, and pressed as seldom as people press.
    assert abs(np.sign(drawn[:, 0]).mean()) < 0.1
    assert 0.02 < (drawn[:, 6] != 0).mean() < 0.5


def test_intervals_over_games():
    rng = np.random.default_rng(1)
    sample = rng.normal(3, 2, 400)
    found = estimate(lambda x, axis: x.mean(axis=axis), sample)
    assert found["value"] == pytest.approx(sample.mean())
    half = 1.96 * sample.std() / 20
    assert found["low"] == pytest.approx(sample.mean() - half, abs=0.03)
    assert found["high"] == pytest.approx(sample.mean() + half, abs=0.03)
    one = estimate(lambda x, axis: x.mean(axis=axis), np.array([2.0]))
    assert one == {"value": 2.0, "low": None, "high": None}


class Spy:
    """In a policy's place: keeps what it is shown, and holds random labels a while."""

    delay = hold = 0

    def __init__(self):
        self.views, self.rng, self.labels_ba = [], np.random.default_rng(0), None

    def initial_state(self, games):
        return np.tile(controller.NEUTRAL.astype(np.int32), (games, 1))

    def step_views(self, state, view, *, strict):
        assert strict
        self.views.append(view)
        if len(self.views) % 8 == 1:
            counts = (256, 17, 17, 17, 17, 5)
            state = self.rng.integers(0, counts, (len(view), 6)).astype(np.int32)
        return state, state


@pytest.mark.integration
def test_a_policy_is_shown_what_a_replay_of_its_game_shows(tmp_path):
    games = schedule(games=2, seconds=8, seed=2)
    assert games.side_b.tolist() == [0, 1]
    spy, states = Spy(), []
    # Style 3 throws projectiles.
    play(PolicyPlayer(spy), Scripted(style=3), games, watch=states.append)
    shown = [v for v in spy.views if v.frame_b[0] >= 0]
    # The last state is not acted on.
    assert len(shown) == len(states) - 1 == 480
    assert states[-1].stocks.min() > 0  # no game ends before
    before = countdown(games)
    replays = [
        parse(write_replay(tmp_path / f"{g}.slp", games, before, states, g))
        for g in range(2)
    ]
    arrays, _ = frames.store(replays, [(0, 0), (1, 1)], delay=0, drop_idle=True)
    gather = jax.jit(windows.clean_gather(window=1, delay=0, readout="last"))
    inputs = jax.jit(view.inputs)
    items = 0
    for t, of_both in enumerate(shown):
        rows = view.arrays(of_both)
        trained = gather(arrays, np.array([[0, t], [1, t]], np.int32))
        for name, values in jax.device_get(inputs(rows)).items():
            np.testing.assert_array_equal(
                values, trained[name], err_msg=f"{name}, frame {t}"
            )
            items += name == "item_type_bti" and bool((values >= 0).any())
        np.testing.assert_array_equal(
            view.own_controller(rows), trained["previous_bta"][:, 0]
        )
    assert items > 50


def write_replay(path, games, before, states, g):
    """Writes what a recorder saw of one game of a match, and returns the path."""
    history = [*before, *states]
    track = State(
        **{n: np.stack([getattr(s, n)[g] for s in history]) for n in ARRAYS},
        controls=Controls(
            *(
                np.stack([s.controls[k][g] for s in history])
                for k in range(len(Controls._fields))
            )
        ),
    )
    setup = record.Setup(
        seed=games.seeds[g],
        fighters=games.fighters[g],
        ports=(1, 2),
        styles=(0, 0),
        stage=games.stages[g],
        rollbacks=False,
    )
    write_slp(path, record._recording(track, setup, games.seconds))
    return path


def countdown(games):
    """The states before the timer starts, in which nobody holds anything."""
    states = [
        environment.reset(games.seeds, games.fighters, games.stages, games.seconds)
    ]
    none = fight.neutral_controls(len(games.seeds))
    while states[-1].frame[0] < -1:
        states.append(environment.step(states[-1], none))
    return states


def test_labels_are_pressed_as_a_replay_is_read():
    # Of replays: what a controller can hold comes back as the labels it was read as.
    games = record.record_games([record.game_setup(0, 0, "zelda")], 20)
    pre = {name: values[:, 0] for name, values in games[0].pre.items()}
    labels_ba = controller.encode(pre, "clean")
    held = controls_of_labels(labels_ba)
    assert set(np.unique(held.buttons)) == set(
        np.unique(pre["buttons"] & fight.BUTTONS)
    )
    again = controller.encode(
        {
            **{"joystick_x": held.stick_x, "joystick_y": held.stick_y},
            **{"cstick_x": held.cstick_x, "cstick_y": held.cstick_y},
            **{"trigger_l": held.trigger_l, "trigger_r": held.trigger_r},
            "buttons": held.buttons.astype(np.uint16),
        },
        "clean",
    )
    np.testing.assert_array_equal(again, labels_ba)


def test_a_policy_that_learned_a_delay_must_hold_its_controllers_back():
    with pytest.raises(ValueError, match="hold=3"):
        PolicyPlayer(SimpleNamespace(delay=3, hold=0))


def film(count=60):
    states = []
    games = schedule(games=2, seconds=2, seed=5)
    players = Scripted(), Scripted(repeat=5)
    play(*players, games, watch=lambda s: states.append(picture.one_game(s, 1)))
    return states[:count]


def test_a_picture_has_its_frames_in_real_time(tmp_path):
    told = []
    path = tmp_path / "game.gif"
    count = picture.draw(path, film(), names=("a", "b"), progress=told.append)
    assert count == 20 and told == list(range(1, 21))
    assert [p.name for p in tmp_path.iterdir()] == ["game.gif"]
    assert path.stat().st_size < 100_000
    with Image.open(path) as image:
        assert image.format == "GIF" and image.size == (576, 360)
        duration, colors = 0, set()
        for n in range(image.n_frames):
            image.seek(n)
            duration += image.info["duration"]
            colors |= {c for _, c in image.convert("RGB").getcolors(1 << 16)}
    # Pictures that show the same are one that lasts longer.
    assert duration == 20 * 50
    # Both fighters are in it, each in its colour.
    for blue_or_orange in ((0x46, 0xB8, 0xFF), (0xFF, 0x9D, 0x42)):
        assert blue_or_orange in colors


def test_a_picture_follows_the_game(tmp_path):
    """The fighter's body is drawn where the fighter is."""
    state = film(1)[0]
    centres = []
    for x in (-40.0, 40.0):
        moved = picture.one_game(state, 0)
        moved.x[:], moved.y[:] = [[x, 0.0]], 0.0
        moved.action[:] = 14  # standing
        path = tmp_path / "one.gif"
        picture.draw(path, [moved], names=("a", "b"), side=0)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        blue = np.abs(pixels - [0x46, 0xB8, 0xFF]).sum(axis=-1) < 10
        # Above what is written below the arena.
        rows, columns = np.nonzero(blue[:270])
        centres.append((columns.mean(), rows.mean()))
    edge = arena.STAGES[int(state.stage[0])].edge
    scale = 576 / (2 * (edge + 72.0))
    assert centres[1][0] - centres[0][0] == pytest.approx(80 * scale, abs=2)
    assert centres[0][1] == pytest.approx(centres[1][1], abs=1)


@pytest.mark.parametrize(
    "name, message",
    [("game.mp4", "is no .gif"), ("nowhere/game.gif", "no folder")],
)
def test_a_picture_that_cannot_be_written_is_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        picture.draw(tmp_path / name, film(3), names=("a", "b"))
    with pytest.raises(InputError, match="no frame to draw"):
        picture.draw(tmp_path / "game.gif", [], names=("a", "b"))
    assert list(tmp_path.iterdir()) == []


def terms(**changes):
    given = {
        **{"opponent": "scripted", "games": 3, "seconds": 2, "seed": 0},
        **{"mode": "stateful", "temperature": 1.0, "which": "best"},
    }
    return play_command.Terms(**(given | changes))


@pytest.mark.integration
@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_a_policy_plays_and_its_result_says_how(run, tmp_path, mode, capfd):
    folder = shutil.copytree(run, tmp_path / "run")
    before = json.loads((folder / "result.json").read_text())
    assert before["play"] is None
    found = play_command.measure_play(terms(mode=mode), str(folder), "zelda")
    after = json.loads((folder / "result.json").read_text())
    assert after["play"] == found and {**after, "play": None} == before
    assert found["protocol"] == {
        "version": 1,
        "opponent": "scripted",
        "opponent_character": "every",
        "character": "zelda",
        "games": 3,
        "seconds": 2,
        "seed": 0,
        "mode": mode,
        "temperature": 1.0,
        "weights": "best",
    }
    assert found["weights"] == {"which": "best", "step": before["best"]["step"]}
    assert len(found["each"]["seed"]) == 3 and found["fps"] > 0
    for name in ("stocks_difference", "damage_dealt", "damage_taken", "frames"):
        assert set(found[name]) == {"value", "low", "high"}
    again = play_command.measure_play(terms(mode=mode), str(folder), "zelda")
    assert {**again, "fps": 0} == {**found, "fps": 0}


def test_the_table_says_who_plays_and_how_it_draws():
    value = {"value": -0.75, "low": -1.25, "high": -0.25}
    row = {
        **dict.fromkeys(("stocks_difference", "damage_dealt", "damage_taken"), value),
        **{"damage_ratio": value, "wins": value | {"level": 0}, "fps": 900.0},
        "protocol": {"character": "fox", "temperature": 0.5},
    }
    rows = [("gru", row | {"weights": {"which": "best"}}), ("scripted", row)]
    console = Console(width=170, record=True, file=io.StringIO())
    console.print(play_command.play_table(rows, "a match", 64))
    lines = [x for x in console.export_text().splitlines() if "│" in x]
    cells = [[c.strip() for c in line.split("│")[1:4]] for line in lines]
    assert cells == [["gru", "fox", "0.5"], ["scripted", "fox", "-"]]


@pytest.mark.integration
def test_a_run_may_be_the_opponent(run):
    found = play_command.measure_play(terms(opponent=str(run)), "scripted", "fox")
    rival = found["protocol"]["opponent"]
    assert rival.startswith("gru seed0 ") and str(run) not in json.dumps(found)
    assert found["protocol"]["opponent_character"] == "zelda"
    assert set(found["each"]["opponent"]) == {"zelda"}
    assert found["weights"] is None


def test_a_character_the_simulation_lacks_is_every_character():
    assert play_command.simulated("Captain Falcon") == "captain_falcon"
    assert play_command.simulated("any") == play_command.simulated("yoshi") == "every"


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """Runs to name: a good one, one without weights, one of pile."""
    folder = tmp_path_factory.mktemp("folders")
    shutil.copytree(run, folder / "both" / "good")
    bare = shutil.copytree(run, folder / "both" / "bare")
    shutil.rmtree(bare / "checkpoints")
    text = shutil.copytree(run, folder / "text")
    result = json.loads((text / "result.json").read_text()) | {"task": "pile"}
    (text / "result.json").write_text(json.dumps(result))
    return folder


@pytest.mark.integration
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "nowhere is no folder"),
        (["both/good", "--games=0"], "--games=0 must be 1 or more"),
        (["both/good", "--seconds=0"], "--seconds=0 must be 1 to 480"),
        (["both/good", "--temperature=-1"], "--temperature=-1.0"),
        (["both/good", "--opponent=scriptd"], "'scriptd' is neither a folder of a run"),
        (["both/good", "--opponent=text"], "is a run of pile"),
        (["text"], "only runs of configs/zelda.py are played"),
        (["both/good", "--picture=film.mp4"], "is no .gif"),
        (["both", "--picture=film.gif"], "name one"),
    ],
)
def test_what_cannot_be_played_is_one_line(folder, arguments, message):
    done = jaxbench("play", *arguments, cwd=folder)
    assert_one_line_error(done, "jaxbench play: error: ", message)
    assert done.stdout == "" and done.stderr.count("\n") == 1


@pytest.mark.integration
def test_the_command_plays_what_it_can_once_and_says_what_it_cannot(folder):
    """First in processes of their own, as always; then in this one."""
    small = ("--games=2", "--seconds=1")
    done = jaxbench("play", "both", *small, cwd=folder)
    assert done.returncode == 1, done.stderr
    assert "bare: " not in done.stdout and "failed" in done.stdout
    assert "no checkpoint" in " ".join(done.stdout.split())
    good = json.loads((folder / "both" / "good" / "result.json").read_text())
    assert good["play"]["protocol"]["games"] == 2
    bare = json.loads((folder / "both" / "bare" / "result.json").read_text())
    assert bare["play"] is None

    (folder / "both" / "good" / "checkpoints").rename(folder / "away")
    again = jaxbench("play", "both/good", *small, cwd=folder)
    assert again.returncode == 0 and again.stderr == ""  # read, not played
    with measured_here():
        anew = jaxbench("play", "both/good", *small, "--again", cwd=folder)
    assert anew.returncode == 1
    (folder / "away").rename(folder / "both" / "good" / "checkpoints")

    with measured_here():
        shown = jaxbench(
            *("play", "both/good", *small, "--seed=1", "--baselines"),
            *("--picture=game.gif", "--picture_seconds=1"),
            cwd=folder,
        )
    assert shown.returncode == 0, shown.stderr
    for name in ("gru", "scripted", "random", "copy_previous"):
        assert f"│ {name} " in shown.stdout
    with Image.open(folder / "game.gif") as image:
        assert image.n_frames > 5
    good = json.loads((folder / "both" / "good" / "result.json").read_text())
    assert good["play"]["protocol"]["seed"] == 1  # the last match is kept
    floors = good["play"]["floors"]
    assert set(floors) == {"scripted", "random", "copy_previous"}
    assert floors["copy_previous"]["damage_dealt"]["value"] == 0
    assert "each" not in floors["random"] and "each" in good["play"]
