"""The committed boards are what their committed results say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jaxbench.bench.leaderboard import write_leaderboard
from jaxbench.models.zoo import ORIGINAL

RESULTS = Path(__file__).resolve().parents[1] / "results"
BOARDS = sorted(path.parent for path in RESULTS.glob("*/leaderboard.md"))


def test_there_is_a_board():
    assert BOARDS


@pytest.mark.parametrize("folder", BOARDS, ids=lambda path: path.name)
def test_a_board_is_made_from_its_results(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(RESULTS)
    write_leaderboard([Path(folder.name)], tmp_path)
    for suffix in ("md", "csv"):
        name = f"leaderboard.{suffix}"
        assert (folder / name).read_text() == (tmp_path / name).read_text(), name


@pytest.mark.parametrize("folder", BOARDS, ids=lambda path: path.name)
def test_a_board_says_where_it_comes_from_and_names_no_machine(folder):
    readme = (folder / "README.md").read_text()
    assert "jaxbench suite" in readme
    for path in folder.rglob("result.json"):
        text = path.read_text()
        assert json.loads(text)["data"]["fingerprint"] in readme, path
        assert not re.search(r"/(?:home|root|Users|work|tmp)/", text), path


def test_the_original_34_are_on_the_board():
    rows = {
        json.loads(path.read_text())["backbone"]
        for path in (RESULTS / "zelda_clean").rglob("result.json")
    }
    assert set(ORIGINAL.values()) <= rows
