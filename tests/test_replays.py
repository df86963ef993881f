"""Folders of replays: all that can be read is read, and no file stops a load."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from slp_bytes import copy_some, events, frames_of, games_of, patched

from jaxbench.data import characters, replay_pool, replays
from jaxbench.data.game import Character, Game, Player
from jaxbench.data.replay_report import Outcome, summary
from jaxbench.data.replays import load_replays
from jaxbench.errors import InputError

SHORT = "v3_9_very_short.slp"


@pytest.fixture(scope="session")
def train(melee_train: Path) -> list[Game]:
    return games_of(melee_train)[0]


@pytest.fixture(scope="session")
def odd(melee_odd: Path) -> tuple[dict[str, Game], dict[str, Outcome]]:
    games, outcomes = games_of(melee_odd)
    return {it.name: it for it in games}, {it.name: it for it in outcomes}


@pytest.fixture
def folder(melee_odd: Path, tmp_path: Path) -> Path:
    return copy_some(melee_odd, tmp_path / "replays")


# ---- characters -------------------------------------------------------------------


def test_ids_agree_with_the_first_frame_of_every_game(train):
    for game in train:
        for player in game.players:
            first = int(player.leader.post["character"][0])
            assert characters.EXTERNAL_TO_INTERNAL[player.character] == first
            name = characters.external_name(player.character)
            if name != "ice_climbers":
                assert characters.INTERNAL_NAME[first] in (name, "popo")


def test_tables_cover_the_cast():
    assert sorted(characters.EXTERNAL_NAME) == list(range(33))
    assert sorted(characters.INTERNAL_NAME) == list(range(33))
    assert len(characters.PLAYABLE) == len(set(characters.PLAYABLE)) == 26
    facts = {"falco": (20, 22), "fox": (2, 1), "marth": (9, 18), "sheik": (19, 7)}
    facts |= {"zelda": (18, 19), "peach": (12, 9), "samus": (16, 13), "luigi": (7, 17)}
    facts |= {"captain_falcon": (0, 2), "ganondorf": (25, 25), "ice_climbers": (14, 10)}
    for name, (external, internal) in facts.items():
        assert characters.EXTERNAL_ID[name] == external
        assert characters.EXTERNAL_TO_INTERNAL[external] == internal
    assert characters.stage_name(8) == "yoshis_story"
    assert characters.stage_name(99) == "stage_99"
    assert characters.external_name(40) == "character_40"


def test_names_as_people_write_them():
    written = {
        "zelda": "zelda",
        "Captain Falcon": "captain_falcon",
        "cfalcon": "captain_falcon",
        "FALCO ": "falco",
        "Mr. Game & Watch": "mr_game_and_watch",
        "dr-mario": "dr_mario",
        "Ganon": "ganondorf",
        "ICs": "ice_climbers",
        "young_link": "young_link",
    }
    assert {text: characters.character_key(text) for text in written} == written
    with pytest.raises(InputError, match=r"character='zeldda'.*zelda"):
        characters.character_key("zeldda")
    with pytest.raises(InputError):
        characters.character_key("")


def test_zelda_and_sheik_are_one_player(odd):
    game = odd[0]["v1_7_1_zelda_sheik_transform.slp"]
    falcon, zelda = game.players
    assert set(zelda.leader.post["character"]) == {7, 19}
    assert characters.plays(zelda, "zelda") and characters.plays(zelda, "Sheik")
    assert not characters.plays(zelda, "captain_falcon")
    assert characters.plays(falcon, "falcon") and not characters.plays(falcon, "sheik")
    assert replays.select_players([game], "zelda") == [(0, 1)]
    old = odd[0]["v0_1_0_sheik_vs_ics_cpu.slp"].players
    assert characters.plays(old[0], "sheik") and characters.plays(old[1], "ics")


def test_counts_and_selection(train):
    counts = {it.name: it for it in replays.describe(train)}
    assert next(iter(counts)) == "falco"
    expect = {
        "falco": (39, 405_654),
        "fox": (14, 135_681),
        "marth": (12, 102_104),
        "sheik": (7, 85_202),
        "captain_falcon": (7, 54_976),
        "ganondorf": (2, 18_875),
        "zelda": (1, 7_766),
        "ice_climbers": (1, 9_519),
    }
    for name, numbers in expect.items():
        assert (counts[name].games, counts[name].frames) == numbers
    assert counts["falco"].perspectives == 47
    assert len(replays.select_players(train, "falco")) == 47
    assert len(replays.select_players(train, "zelda")) == 1
    assert len(replays.select_players(train, "sheik")) == 8
    assert replays.select_players(train, "Any") == [
        (i, j) for i in range(len(train)) for j in (0, 1)
    ]
    with pytest.raises(
        InputError, match=r"character=roy .*falco \(39 games, 405,654 fr"
    ):
        replays.select_players(train, "roy")
    with pytest.raises(InputError, match="found: nobody"):
        replays.select_players([], "any")


# ---- folders ------------------------------------------------------------------------


def test_the_whole_of_train_is_read(train, melee_train):
    assert len(train) == 49
    assert sum(len(game.frame_t) for game in train) == 426_290
    assert sum(game.rows for game in train) == 433_706
    assert [game.name for game in train] == sorted(os.listdir(melee_train))
    assert {game.stage for game in train} == set(characters.TOURNAMENT_STAGES)
    ends = {game.name.split("_")[-1][:8]: game.end for game in train}
    assert ends["6b3cca25"] == "no_contest" and ends["5d94d17b"] == "none"
    assert sum(end == "game" for end in ends.values()) == 47


def test_no_odd_file_stops_the_load(odd, melee_odd):
    games, outcomes = odd
    assert sorted(outcomes) == sorted(os.listdir(melee_odd)) and len(outcomes) == 27
    for name, outcome in outcomes.items():
        assert (outcome.status == "read") == (name in games)
        if name not in games:
            assert (outcome.status, outcome.frames) == ("skipped", 0)
            assert outcome.reason and "\n" not in outcome.reason
    assert len(games) == 20
    why = {name: outcome.reason for name, outcome in outcomes.items()}
    assert why["zero_length.slp"] == "the file is empty"
    assert "not a Slippi replay" in why["not_slp_png.slp"]
    assert "invalid game end method: 9" in why["homerun_contest.slp"]
    assert "cut off" in outcomes["cut_in_half.slp"].remarks[0]
    assert "pre.joystick_x of P1 is nan at frame 100" in why["nonfinite_floats.slp"]
    assert outcomes["v3_9_heavy_rollback.slp"].rows == 13_569
    assert outcomes["v3_9_heavy_rollback.slp"].frames == 9_276


def test_files_are_found_and_ordered(folder, capfd):
    games, outcomes = load_replays(folder, progress=False)
    names = ["a.SLP", "b.slp", "e.slp", "more/c.slp", "more/d.slp"]
    assert [it.name for it in outcomes] == names
    assert [game.name for game in games] == ["a.SLP", "b.slp", "c.slp"]
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
    some, outcomes = load_replays(folder, max_files=2, progress=False)
    assert [it.name for it in outcomes] == names[:2] and len(some) == 2
    chosen, outcomes = load_replays([folder / "more/c.slp", folder / "b.slp"])
    assert [game.name for game in chosen] == ["c.slp", "b.slp"]
    assert [it.name for it in outcomes] == [f"{folder}/more/c.slp", f"{folder}/b.slp"]
    one, _ = load_replays(str(folder / "b.slp"), progress=False)
    assert [game.name for game in one] == ["b.slp"]


def test_the_report_names_files_and_reasons(folder, capfd):
    load_replays(folder)
    err = capfd.readouterr().err
    assert "\x1b" not in err
    assert "read  3" in err and "more/d.slp" in err and "game end method" in err
    rows = summary(
        [Outcome(f"{i}.slp", "skipped", "why") for i in range(5)]
        + [Outcome("x.slp", "cached", "", 10, 12), Outcome("y.slp", "skipped", "b")]
    )
    assert rows == [
        ("cached", "1", "10 frames", ""),
        ("skipped", "5", "", "why: 0.slp, 1.slp, 2.slp and 2 more"),
        ("skipped", "1", "", "b: y.slp"),
    ]


def test_what_the_user_can_fix_is_said(folder, melee_odd, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_replays(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.slp replays"):
        load_replays(tmp_path / "empty")
    with pytest.raises(InputError, match="no such file"):
        load_replays([folder / "b.slp", folder / "zz.slp"])
    with pytest.raises(InputError, match="max_files=-1"):
        load_replays(folder, max_files=-1)
    with pytest.raises(InputError, match="workers=-1"):
        load_replays(folder, workers=-1)
    broken = [melee_odd / "not_slp_text.slp", melee_odd / "not_slp_png.slp"]
    with pytest.raises(InputError, match=r"none of the 3 .*\(2 of 3\).*not a Slippi"):
        load_replays([*broken, melee_odd / "zero_length.slp"], progress=False)


def test_a_recording_counts_once(melee_odd, tmp_path):
    data = (melee_odd / SHORT).read_bytes()
    (tmp_path / "a.slp").write_bytes(data)
    (tmp_path / "b.slp").write_bytes(data)
    # The same game saved again: only the seed of the start event differs.
    at = next(at for code, at, _ in events(data) if code == 0x36)
    (tmp_path / "c.slp").write_bytes(patched(data, at + 0x13D, "I", 12345))
    # Another game: somebody stood elsewhere on one frame.
    post = frames_of(data, 0x38)[(0, 0, 0)][-1]
    (tmp_path / "d.slp").write_bytes(patched(data, post + 0x0A, "f", 1.25))
    games, outcomes = load_replays(tmp_path, progress=False)
    assert [game.name for game in games] == ["a.slp", "d.slp"]
    assert [it.reason for it in outcomes] == ["", *["duplicate of a.slp"] * 2, ""]
    again, original = replays.drop_duplicates([*games, games[1]])
    assert len(again) == 2 and original == {2: 1}


# ---- processes -------------------------------------------------------------------


def toy_game(path: Path) -> Game:
    frame_t = np.arange(-123, 0, dtype=np.int32)
    x = np.full(frame_t.shape, sum(path.name.encode()), np.float32)
    post = {"position_x": x, "position_y": x, "character": x.astype(np.uint8)}
    leader = Character(np.ones(frame_t.shape, bool), {}, post)
    players = tuple(Player(port, "human", 20, -1, leader, None) for port in (1, 2))
    return Game(
        name=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        version=(3, 0, 0),
        stage=31,
        is_teams=False,
        is_pal=False,
        end="game",
        frame_t=frame_t,
        players=players,
        items=None,
        missing=frozenset(),
        rows=123,
    )


def fragile_parse(path: Path) -> Game:
    """A parser with every bad habit, by file name. Runs in the workers."""
    print("noise between the replies", flush=True)
    os.write(2, b"noise on stderr")
    what = path.stem.split("-")[-1]
    if what == "exit":
        os._exit(3)
    if what == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    if what == "hang":
        time.sleep(60)
    if what == "raise":
        raise KeyError("broken")
    if what == "imports":
        heavy = {"jax", "jaxlib", "flax", "torch"} & set(sys.modules)
        raise InputError(f"{path.name}: loaded {sorted(heavy)}")
    return toy_game(path)


@pytest.mark.integration
def test_a_crashing_parser_costs_only_its_file(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(replays, "PARSER", "test_replays:fragile_parse")
    monkeypatch.setattr(replay_pool, "FILE_SECONDS", 3.0)
    habits = ["ok", "exit", "ok", "abort", "hang", "ok", "raise", "imports", "ok"]
    names = [f"{i}-{habit}.slp" for i, habit in enumerate(habits)]
    folder, cache = tmp_path / "replays", tmp_path / "cache"
    folder.mkdir()
    for name in names:
        (folder / name).write_text(name)
    start = time.monotonic()
    games, outcomes = load_replays(folder, workers=2, cache_dir=cache, progress=False)
    assert time.monotonic() - start < 30
    assert [it.name for it in outcomes] == names
    assert [game.name for game in games] == [name for name in names if "ok" in name]
    why = {it.name: it.reason for it in outcomes}
    assert why["1-exit.slp"] == "the parser ended its process (exit code 3)"
    assert why["3-abort.slp"] == "the parser crashed (SIGABRT)"
    assert why["4-hang.slp"] == "no answer from the parser within 3 s"
    assert why["6-raise.slp"] == "the reader failed (KeyError: 'broken')"
    assert why["7-imports.slp"] == "loaded []"
    assert capfd.readouterr() == ("", "")
    # What the bytes alone explain is kept; a crash may be the machine's fault.
    monkeypatch.setattr(
        replay_pool, "parse_all", only("raise", "exit", "abort", "hang")
    )
    load_replays(folder, workers=2, cache_dir=cache, progress=False)


def only(*habits: str):
    """A stand-in for `parse_all` that checks which files are left to parse."""

    def parse_all(parser, files, workers, finished):
        left = {path.stem.split("-")[-1] for _, path, _ in files}
        assert left == set(habits)
        for number, path, _ in files:
            finished(number, toy_game(path))

    return parse_all


def test_a_parser_that_cannot_be_imported_is_one_clear_error(folder, monkeypatch):
    monkeypatch.setattr(replays, "PARSER", "no_such_module:parse")
    with pytest.raises(InputError, match=r"does not start .*no_such_module"):
        load_replays(folder, workers=1, progress=False)


def test_a_game_under_a_name_that_is_not_utf8_is_read_once_for_all(melee_odd, tmp_path):
    """Its name, not its bytes, was at fault, and the cache refused it for ever."""
    folder, cache = tmp_path / "replays", tmp_path / "cache"
    folder.mkdir()
    data = (melee_odd / SHORT).read_bytes()
    Path(os.fsdecode(os.fsencode(folder) + b"/Jos\xe9.slp")).write_bytes(data)
    (folder / "line\nbreak.slp").write_bytes(data)
    for status in ("read", "cached"):
        games, outcomes = load_replays(folder, cache_dir=cache, progress=False)
        assert [(it.name, it.status) for it in outcomes] == [
            ("Jos?.slp", status),
            ("line?break.slp", "skipped"),
        ]
        assert outcomes[1].reason == "duplicate of Jos?.slp" and len(games) == 1
