"""One recording: what its bytes say is what the `Game` holds."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from slp_bytes import (
    assert_same,
    check_against_bytes,
    events,
    frames_of,
    games_of,
    patched,
    without,
)

from jaxbench.data import characters, replay_cache, slippi
from jaxbench.data.game import Game, identity
from jaxbench.data.replay_report import Outcome
from jaxbench.errors import InputError

ROLLBACKS = "falco-falco_battlefield_c357f034.slp"
SHORT = "v3_9_very_short.slp"

# What `Game.missing` has to name, by version; from the field table of the data.
V3_12: set[str] = set()
V3_7 = V3_12 | {"post.hitlag"}
V2_2 = V3_7 | {
    "items",
    *(f"post.self_{name}" for name in ("x_air", "y", "x_ground")),
    *(f"post.knockback_{axis}" for axis in "xy"),
}
V2_0 = V2_2 | {"post.hurtbox_state"}
V1_7 = V2_0 | {
    *(f"post.{name}" for name in ("airborne", "ground", "jumps", "l_cancel")),
    *(f"post.flags_{i}" for i in range(5)),
    "post.misc_as",
}
V1_2 = V1_7 | {"start.is_pal"}
V0_1 = V1_2 | {"post.state_age"}
MISSING = {
    (0, 1, 0): V0_1,
    (1, 0, 0): V1_2,
    (1, 2, 0): V1_2,
    (1, 7, 1): V1_7,
    (2, 0, 1): V2_0,
    (2, 2, 0): V2_2,
    (3, 6, 1): V3_7,
    (3, 7, 0): V3_7,
}


@pytest.fixture(scope="session")
def train(melee_train: Path) -> list[Game]:
    return games_of(melee_train)[0]


@pytest.fixture(scope="session")
def odd(melee_odd: Path) -> tuple[dict[str, Game], dict[str, Outcome]]:
    games, outcomes = games_of(melee_odd)
    return {it.name: it for it in games}, {it.name: it for it in outcomes}


@pytest.mark.parametrize("name", [ROLLBACKS, "cfalcon-zelda_yoshisstory_a35c9eb2.slp"])
def test_last_recorded_version_of_a_frame_is_kept(melee_train, name):
    data = (melee_train / name).read_bytes()
    game = slippi.parse(melee_train / name)
    assert game.frame_t.tolist() == list(range(-123, len(game.frame_t) - 123))
    rewritten = check_against_bytes(game, data)
    # Otherwise keeping the first row, or any row, would pass as well.
    assert (rewritten > 100) == (name == ROLLBACKS)
    if name == ROLLBACKS:
        assert (len(game.frame_t), game.rows) == (4955, 8009)


def test_fighters_that_come_back_are_on_their_own_frames(melee_odd):
    """The parser closes such gaps in old versions: rows shift, nulls go last."""
    gone: dict[str, list[list[int]]] = {}
    for name in (
        "v0_1_0_sheik_vs_ics_cpu.slp",
        "v1_0_0_ics_nana.slp",
        "v1_2_0_doubles_teams.slp",
        "v3_13_teams_4p.slp",
    ):
        game = slippi.parse(melee_odd / name)
        check_against_bytes(game, (melee_odd / name).read_bytes())
        fighters = [player.nana or player.leader for player in game.players]
        gone[name[:4]] = [np.flatnonzero(~it.present_t).tolist() for it in fighters]
    assert list(map(len, gone["v1_2"])) == [534, 0, 0, 98]
    assert gone["v1_2"][0] == [*range(7878, 7906), *range(8360, 8866)]
    assert gone["v0_1"][1][:13] == [*range(3266, 3279)]
    assert list(map(len, gone["v3_1"])) == [0, 0, 2723, 0]
    doubles = slippi.parse(melee_odd / "v1_2_0_doubles_teams.slp")
    assert doubles.is_teams and [it.team for it in doubles.players] == [1, 1, 0, 0]


def test_players_are_told_apart_by_hashes_of_their_codes(train):
    """Codes of the net alone count, from version 3.9 on; none can be read here."""
    assert identity("abcd＃12") == identity(" ABCD#12") != ""
    assert identity("ABCD#12") != identity("ABCD#13")
    for no_code in (None, "", "P1", "Platinum Player", "#1", "ABCD#"):
        assert identity(no_code) == ""
    known = {p.who for g in train if g.version >= (3, 9, 0) for p in g.players}
    assert len(known) > 10  # and none of the games at a console
    assert all(len(who) == 16 and int(who, 16) for who in known - {""})
    assert not any(p.who for g in train if g.version < (3, 9, 0) for p in g.players)


def test_nana_is_the_follower(melee_train, odd):
    game = slippi.parse(melee_train / "iceclimbers-falco_dreamland_d2ba1a09.slp")
    climbers, falco = game.players
    assert falco.nana is None
    nana = climbers.nana
    assert set(nana.post["character"][nana.present_t]) == {characters.NANA_INTERNAL}
    assert set(climbers.leader.post["character"]) == {10}
    assert (~nana.present_t).sum() == 2007 and nana.present_t[-1]
    for values in (*nana.pre.values(), *nana.post.values()):
        assert not values[~nana.present_t].any()
    assert nana.post["state"].dtype == np.uint16
    assert nana.post["character"].dtype == np.uint8
    first = odd[0]["v1_0_0_ics_nana.slp"].players
    assert first[0].nana is not None and first[0].nana.present_t.any()
    assert (first[1].kind, first[1].nana) == ("cpu", None)


def test_ports_are_those_of_the_console(train):
    ports = {game.name: [player.port for player in game.players] for game in train}
    assert ports["cfalcon-zelda_yoshisstory_a35c9eb2.slp"] == [1, 4]
    assert ports["falco-fox_dreamland_019de0d7.slp"] == [1, 3]
    assert ports["sheik-marth_battlefield_50eca32a.slp"] == [3, 4]
    zelda = next(game for game in train if "zelda" in game.name).players[1]
    assert (zelda.port, zelda.character, zelda.kind, zelda.team) == (4, 18, "human", -1)
    assert set(zelda.leader.post["character"]) == {19}


def test_items_are_those_of_the_kept_rows(melee_train):
    import peppi_py

    raw = peppi_py._read_slippi(str(melee_train / ROLLBACKS), False).frames
    ids = raw.field("id").to_pylist()
    last = {frame: row for row, frame in enumerate(ids)}
    want = []
    for i, frame in enumerate(sorted(last)):
        for it in raw.field("item")[last[frame]].as_py():
            velocity = it["velocity"]["x"]
            want.append((i, it["type"], it["id"], it["owner"], velocity, it["timer"]))
    items = slippi.parse(melee_train / ROLLBACKS).items
    names = ("type", "id", "owner", "velocity_x", "timer")
    columns = [items.frame_i, *(items.fields[name] for name in names)]
    np.testing.assert_array_equal(np.stack(columns, 1), np.array(want))
    # Fewer than were recorded, or the test could not tell.
    assert 1000 < len(want) < sum(map(len, raw.field("item").to_pylist()))
    assert items.fields["owner"].dtype == np.int8
    assert items.fields["id"].dtype == np.uint32


def test_missing_fields_are_named_by_version(train, odd):
    for game in (*train, *odd[0].values()):
        assert game.missing == MISSING.get(game.version, V3_12), game.name
        assert (
            (game.items is None)
            == (game.version < (3, 0, 0))
            == ("items" in game.missing)
        )
        for player in game.players:
            names = {f"pre.{name}" for name in player.leader.pre}
            names |= {f"post.{name}" for name in player.leader.post}
            assert names.isdisjoint(game.missing)
            assert len(names | game.missing - {"items", "start.is_pal"}) == 9 + 29


def test_without_the_private_reader_items_are_missing(melee_odd, monkeypatch):
    import peppi_py

    full = slippi.parse(melee_odd / "v3_7_items.slp")
    assert len(full.items.frame_i) == 513
    monkeypatch.delattr(peppi_py, "_read_slippi")
    # `read_slippi` itself needs the private name; a later release would not.
    from peppi_py import _peppi

    parsed = _peppi.read_slippi(str(melee_odd / "v3_7_items.slp"), False)
    game = peppi_py.Game(
        peppi_py.dc_from_json(peppi_py.Start, parsed.start),
        peppi_py.dc_from_json(peppi_py.End, parsed.end),
        None,
        peppi_py.frames_from_sa(parsed.frames),
    )
    monkeypatch.setattr(peppi_py, "read_slippi", lambda path: game)
    plain = slippi.parse(melee_odd / "v3_7_items.slp")
    assert plain.items is None and plain.missing == full.missing | {"items"}
    assert_same(dataclasses.replace(full, items=None, missing=plain.missing), plain)


def test_every_float_is_finite_and_every_type_is_kept(train, odd):
    kinds: dict[str, set[str]] = {}
    for game in (*train, *odd[0].values()):
        for player in game.players:
            for fighter in filter(None, (player.leader, player.nana)):
                assert fighter.present_t.dtype == bool
                for part in ("pre", "post"):
                    for name, values in getattr(fighter, part).items():
                        assert values.shape == game.frame_t.shape
                        assert np.isfinite(values).all(), (game.name, name)
                        kinds.setdefault(f"{part}.{name}", set()).add(values.dtype.name)
        if game.items is not None:
            for values in game.items.fields.values():
                assert np.isfinite(values).all()
    assert all(len(types) == 1 for types in kinds.values()), kinds
    types = {name: found.pop() for name, found in kinds.items()}
    assert types["pre.buttons"] == types["post.state"] == types["pre.state"] == "uint16"
    assert types["post.character"] == types["post.flags_4"] == "uint8"
    assert types["post.position_x"] == types["pre.joystick_x"] == "float32"


def test_no_player_name_survives(melee_train):
    import peppi_py

    for name in (ROLLBACKS, "sheik-sheik_pokemonstadium_41a07c41.slp"):
        start = peppi_py.read_slippi(str(melee_train / name), skip_frames=True).start
        private = {
            text
            for player in start.players
            if player.netplay
            for text in (player.netplay.name, player.netplay.code, player.netplay.suid)
            if text
        }
        header, _ = replay_cache._pack(slippi.parse(melee_train / name))
        leaks = [text for text in private if text in str(header)]
        # Never the texts themselves in a failure.
        assert private and len(leaks) == 0


def test_other_data_in_the_hitstun_slot_is_not_a_damaged_file(melee_odd, tmp_path):
    data = (melee_odd / "v3_9_heavy_rollback.slp").read_bytes()
    post = frames_of(data, 0x38)
    in_hitstun = next(k for k, at in post.items() if data[at[-1] + 0x29] & 2)
    at_rest = (-100, 0, 0)
    path = tmp_path / "a.slp"
    path.write_bytes(patched(data, post[at_rest][-1] + 0x2B, "f", np.nan))
    assert slippi.parse(path).players[0].leader.post["misc_as"][23] == 0
    path.write_bytes(patched(data, post[in_hitstun][-1] + 0x2B, "f", np.nan))
    (remark,) = slippi.parse(path).remarks
    assert (
        "post.misc_as of P" in remark and f"is nan at frame {in_hitstun[0]}" in remark
    )


def test_a_nonfinite_value_that_was_rolled_back_does_no_harm(melee_train, tmp_path):
    data = (melee_train / ROLLBACKS).read_bytes()
    at = next(at for at in frames_of(data, 0x38).values() if len(at) > 1)
    path = tmp_path / "a.slp"
    path.write_bytes(patched(data, at[0] + 0x0A, "f", np.inf))
    assert not slippi.parse(path).remarks
    path.write_bytes(patched(data, at[-1] + 0x0A, "f", np.inf))
    (remark,) = slippi.parse(path).remarks
    assert "1 frame(s), post.position_x of P1 is inf at frame" in remark


@pytest.mark.parametrize(
    "code, offset, kind, value, named",
    [
        (0x38, 0x0A, "f", 1e30, "post.position_x"),
        (0x38, 0x16, "f", -1e9, "post.percent"),
        (0x38, 0x21, "B", 255, "post.stocks"),
        (0x38, 0x08, "H", 65535, "post.state"),
        (0x37, 0x19, "f", -1.5, "pre.joystick_x"),
    ],
)
def test_values_that_cannot_be(melee_odd, tmp_path, code, offset, kind, value, named):
    """One such frame is left out and counted; fifty of them are a damaged file."""
    data = (melee_odd / "v3_7_items.slp").read_bytes()
    whole = slippi.parse(melee_odd / "v3_7_items.slp")
    path = tmp_path / "a.slp"
    at = [where[-1] + offset for k, where in frames_of(data, code).items() if not k[1]]
    few = patched(data, at[500], kind, value)
    path.write_bytes(few)
    game = slippi.parse(path)
    assert f"1 frame(s), {named} of P" in game.remarks[0]
    gone = game.players[0].leader
    assert np.flatnonzero(~gone.present_t).tolist() == [500]
    assert not any(column[500] for column in (*gone.pre.values(), *gone.post.values()))
    assert_same(game.players[1], whole.players[1])
    for place in at[:100]:
        few = patched(few, place, kind, value)
    path.write_bytes(few)
    with pytest.raises(InputError, match=rf"{named} of P\d is .*101 frames .*damaged"):
        slippi.parse(path)


def test_garbage_in_the_physical_triggers_gives_way(melee_odd):
    """Version 0.1.0 records 3.8e22 there: the label was 'fully pressed' throughout."""
    game = slippi.parse(melee_odd / "v0_1_0_sheik_vs_ics_cpu.slp")
    sheik = game.players[0].leader
    assert_same(sheik.pre["trigger_l"], sheik.pre["trigger"])
    assert not sheik.pre["trigger_r"].any() and len(set(sheik.pre["trigger"])) > 1
    assert "physical triggers replaced by the processed one: P1" in game.remarks


@pytest.mark.parametrize(
    "name, version, frames, remark",
    [
        ("valid/v1_0_0_event_of_size_zero.slp", (1, 0, 0), 5209, "does not know"),
        ("valid/v3_17_form_unknown.slp", (3, 17, 0), 10373, "version 3.16.0"),
        ("odd/valid_game_parser_rejects_v3.slp", (3, 17, 0), 10584, "version 3.16.0"),
        ("odd/panics_parser_old.slp", (3, 6, 1), 1038, "version 3.7.0"),
        ("odd/cut_in_half.slp", (3, 14, 0), 4589, "cut off at byte 1,556,132"),
        ("odd/incomplete_no_game_end.slp", (1, 2, 0), 7780, "never closed"),
        ("odd/severed_metadata.slp", (3, 9, 0), 2891, ""),
    ],
)
def test_whole_frames_of_a_rejected_file_are_kept(
    melee_odd, name, version, frames, remark
):
    path = melee_odd.parent / name
    game = slippi.parse(path)
    assert (game.version, len(game.frame_t)) == (version, frames)
    assert remark in game.remarks[0] and game.remarks[0].startswith("salvaged: ")
    data = path.read_bytes()
    if len(data) >= 15 + int.from_bytes(data[11:15], "big") > 15:
        check_against_bytes(game, data)


def test_a_fighter_whose_state_was_lost_is_absent_on_that_frame(melee_odd, tmp_path):
    data = (melee_odd / SHORT).read_bytes()
    lost = next(at for kind, at, _ in events(data) if kind == 0x38)
    path = tmp_path / "a.slp"
    seen = []

    def first_state(code, frame):
        seen.append(code)
        return code == 0x38 and seen.count(0x38) == 1

    path.write_bytes(without(data, first_state))
    game = slippi.parse(path)
    whole = slippi.parse(melee_odd / SHORT)
    assert lost and game.remarks == (
        "salvaged: 1 event(s) without the other of their pair",
    )
    fighter = game.players[0].leader
    assert np.flatnonzero(~fighter.present_t).tolist() == [0]
    assert_same(game.players[1], whole.players[1])


def test_neither_metadata_nor_name_reach_the_parser(melee_odd, tmp_path):
    """Nested 20,000 deep the metadata overflowed its stack: SIGSEGV, no message."""
    data = (melee_odd / SHORT).read_bytes()
    end = 15 + int.from_bytes(data[11:15], "big")
    nested = data[:end] + b"U\x08metadata" + b"{U\x01a" * 20_000
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/Jos\xe9\n.slp"))
    path.write_bytes(nested)
    game = slippi.parse(path)
    assert game.name == "Jos??.slp"
    whole = slippi.parse(melee_odd / SHORT)
    assert_same(
        dataclasses.replace(game, name="", sha256=""),
        dataclasses.replace(whole, name="", sha256=""),
    )


def test_frames_missing_in_between_are_noticed(melee_odd, tmp_path):
    data = (melee_odd / SHORT).read_bytes()
    frame_codes = {0x37, 0x38, 0x3A, 0x3B, 0x3C}
    path = tmp_path / "a.slp"
    path.write_bytes(without(data, lambda code, t: code in frame_codes and t == -50))
    with pytest.raises(InputError, match=r"a.slp: frame ids jump from -51 to -49"):
        slippi.parse(path)
    path.write_bytes(without(data, lambda code, t: code in frame_codes))
    with pytest.raises(InputError, match=r"a.slp: "):
        slippi.parse(path)


def test_fewer_than_two_players_or_no_frames_is_refused(melee_odd):
    recording = slippi._read((melee_odd / SHORT).read_bytes())
    one = dataclasses.replace(recording.start, players=recording.start.players[:1])
    with pytest.raises(InputError, match="1 port"):
        slippi._game(recording._replace(start=one), b"")
    short = dataclasses.replace(recording.frames, id=recording.frames.id[:0])
    with pytest.raises(InputError, match="no frames"):
        slippi._game(recording._replace(frames=short), b"")
