"""Parsed replays on disk: found by their bytes, never wrong, never an error."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from slp_bytes import assert_same, copy_some, frames_of, patched

from jaxbench.data import replay_cache, replay_pool, slippi
from jaxbench.data.replay_cache import ReplayCache
from jaxbench.data.replays import load_replays

PARSER = "jaxbench.data.slippi:parse"
SHORT = "v3_9_very_short.slp"


@pytest.fixture
def folder(melee_odd: Path, tmp_path: Path) -> Path:
    return copy_some(melee_odd, tmp_path / "replays")


def nothing_left(parser, files, workers, finished) -> None:
    assert not files


def test_a_second_start_parses_nothing(folder, tmp_path, monkeypatch):
    cache = tmp_path / "deep" / "cache"
    first, before = load_replays(folder, cache_dir=cache, progress=False)
    os.rename(folder / "b.slp", folder / "B2.slp")
    monkeypatch.setattr(replay_pool, "parse_all", nothing_left)
    second, after = load_replays(folder, cache_dir=cache, progress=False)
    assert {it.status for it in after} == {"cached", "skipped"}
    assert [it.reason for it in after if it.reason] == [
        it.reason for it in before if it.reason
    ]
    by_hash = {game.sha256: game for game in second}
    for game in first:
        again = by_hash[game.sha256]
        renamed = "B2.slp" if game.name == "b.slp" else game.name
        assert_same(dataclasses.replace(game, name=renamed), again)
    array = second[0].players[0].leader.pre["joystick_x"]
    assert array.flags.writeable


def test_other_bytes_parser_or_layout_are_parsed_again(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    load_replays(folder, cache_dir=cache, progress=False)

    def statuses() -> set[str]:
        _, outcomes = load_replays(folder / "b.slp", cache_dir=cache, progress=False)
        return {it.status for it in outcomes}

    assert statuses() == {"cached"}
    monkeypatch.setattr(replay_cache, "SCHEMA_VERSION", -1)
    assert statuses() == {"read"}
    monkeypatch.undo()
    monkeypatch.setattr(replay_cache, "_parser_version", lambda: "another")
    assert statuses() == {"read"}
    monkeypatch.undo()
    data = (folder / "b.slp").read_bytes()
    post = frames_of(data, 0x38)[(0, 0, 0)][-1]
    (folder / "b.slp").write_bytes(patched(data, post + 0x0A, "f", 1.25))
    assert statuses() == {"read"}
    assert statuses() == {"cached"}


def test_a_damaged_cache_file_is_never_an_error(folder, tmp_path):
    cache = ReplayCache(tmp_path / "cache", PARSER)
    game = slippi.parse(folder / "b.slp")
    cache.store(game.sha256, game)
    path = cache.path(game.sha256)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"PK", good[: len(good) // 2], good[:-1], bytes(len(good))]
    places = [*range(0, 200), *rng.integers(0, len(good), 200)]
    for place in places:
        flipped = bytearray(good)
        flipped[place] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    absent = 0
    for data in damaged:
        path.write_bytes(data)
        found = cache.load(game.sha256, game.name)
        absent += found is None
        if found is not None:
            assert_same(found, game)
    assert absent > len(damaged) // 2
    games, outcomes = load_replays(
        folder / "b.slp", cache_dir=cache.folder, progress=False
    )
    assert outcomes[0].status in ("read", "cached") and len(games) == 1
    path.write_bytes(b"broken")
    _, outcomes = load_replays(folder / "b.slp", cache_dir=cache.folder, progress=False)
    assert outcomes[0].status == "read"
    assert_same(cache.load(game.sha256, game.name), game)


def test_a_full_disk_is_one_warning(folder, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as caught:
        games, _ = load_replays(folder, cache_dir=tmp_path / "c", progress=False)
    assert len(caught) == 1 and len(games) == 3
    assert list((tmp_path / "c").iterdir()) == []


def test_a_cache_folder_that_cannot_be_one_is_a_warning(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        games, _ = load_replays(folder, cache_dir=tmp_path / "file", progress=False)
    assert len(games) == 3


@pytest.mark.integration
def test_a_kill_in_the_middle_of_a_write_leaves_nothing_wrong(folder, tmp_path):
    cache = tmp_path / "cache"
    code = (
        "import os, signal, sys\n"
        "from jaxbench.data.replays import load_replays\n"
        "os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "load_replays(sys.argv[1], cache_dir=sys.argv[2], progress=False)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(cache)])
    assert done.returncode == -signal.SIGKILL
    left = list(cache.iterdir())
    assert len(left) == 1 and left[0].suffix == ".part"
    _, outcomes = load_replays(folder, cache_dir=cache, progress=False)
    assert "cached" not in {it.status for it in outcomes}
    assert left[0].exists()
    os.utime(left[0], (0, 0))
    _, outcomes = load_replays(folder, cache_dir=cache, progress=False)
    assert {it.status for it in outcomes} == {"cached", "skipped"}
    assert not left[0].exists()


@pytest.mark.integration
def test_two_processes_share_a_cache(folder, tmp_path):
    code = (
        "import sys\n"
        "from jaxbench.data.replays import load_replays\n"
        "for _ in range(3):\n"
        "    games, _ = load_replays(sys.argv[1], cache_dir=sys.argv[2] + str(_ % 2),"
        " progress=False)\n"
        "    assert len(games) == 3\n"
    )
    args = [sys.executable, "-W", "error", "-c", code, str(folder), str(tmp_path / "c")]
    pair = [subprocess.Popen(args) for _ in range(2)]
    assert [process.wait(timeout=60) for process in pair] == [0, 0]
    for name in ("c0", "c1"):
        assert {path.suffix for path in (tmp_path / name).iterdir()} == {".npz"}
