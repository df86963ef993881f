"""The files of a board, from its dict alone: Markdown, CSV, PNG, the page's data."""

from __future__ import annotations

import csv
import io
import json
import re

import board_dicts
import matplotlib.image
import pytest
from board_dicts import FORMULA, HOSTILE

from jaxbench.board import command, page, plots, write
from jaxbench.errors import InputError


def lines_of(board) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(write.csv_text(board))))


def data_of(text: str):
    """The dict inside a page."""
    return json.loads(re.search(r'id="board">(.*?)</script>', text, re.DOTALL)[1])


@pytest.mark.parametrize(
    ("facts", "value", "shown"),
    [
        ({"unit": "B"}, 33_792, "33 KiB"),
        ({"unit": "B"}, 12, "12 B"),
        ({"unit": "FLOP"}, 2.5e12, "2.5 TFLOP"),
        ({"unit": "%"}, 0.1539, "15.4 %"),
        ({"digits": 4}, 1.44081, "1.4408"),
        ({"digits": 0}, 145_801, "145,801"),
        ({}, 0.03456, "0.0346"),
        ({}, 12_345.6, "12,346"),
        ({}, 3.2e-5, "3.2e-05"),
        ({}, None, ""),
        ({}, "yes", "yes"),
    ],
)
def test_numbers_as_people_read_them(facts, value, shown):
    assert write.show({"unit": "", "digits": None} | facts, value) == shown


def test_csv_holds_every_number_in_full_and_no_formula():
    lines = {line["name"]: line for line in lines_of(board_dicts.full())}
    assert float(lines["gru"]["score_mean"]) == pytest.approx(1.11, abs=1e-15)
    assert lines["gru"]["score_values"].split() == ["1.1", "1.11", "1.12"]
    assert (lines["gru"]["rank_low"], lines["gru"]["rank_high"]) == ("1", "2")
    floor = lines["copy-previous"]
    assert (floor["kind"], floor["loss"], floor["params"]) == ("floor", "1.4", "")
    # A spreadsheet runs cells that begin so; ours begin with an apostrophe.
    assert FORMULA not in lines and f"'{FORMULA}" in lines
    assert HOSTILE in lines["kan"]["reason"]
    for line in csv.reader(io.StringIO(write.csv_text(board_dicts.full()))):
        assert not [c for c in line if c[:1] in ("=", "+", "@", "\t")]


def test_markdown_shows_all_and_runs_nothing():
    text = write.markdown_text(board_dicts.full(), "leaderboard.png")
    assert "<script" not in re.sub(r"\\<", "", text)
    # One cell stays one cell.
    table = [line for line in text.splitlines() if line.startswith("| kan")]
    pipes = {len(re.findall(r"(?<!\\)\|", line)) for line in table}
    assert pipes == {10, 3}
    first = text.partition("## Speed")[0].splitlines()
    names = [line[2:].split(" | ")[0] for line in first if line.startswith("| ")][2:]
    floors = ["floor: copy-previous", "floor: marginal"]
    assert [n for n in names if "HYPERLINK" not in n] == [
        *("gru", "s4", "mamba", floors[0], "mlp", floors[1], "snn", "kan")
    ]
    assert "(leaderboard.png)" in text and "nine seeds would say" in text
    assert "28 GiB of 24" in text and "0.003, at the edge" in text


def test_a_board_inside_a_board_is_in_every_file():
    board = board_dicts.pentathlon()
    assert [line["board"] for line in lines_of(board)] == [
        *["pentathlon, clean protocol"] * 2,
        "mqar",
        "flip_flop",
    ]
    text = write.markdown_text(board)
    assert "\n## mqar\n" in text and "\n### Score\n" in text
    assert [part["title"] for part in data_of(page.page_text(board))["parts"]] == [
        "mqar",
        "flip_flop",
    ]


def test_the_page_is_one_file_whose_data_cannot_end_its_script():
    text = page.page_text(board_dicts.full())
    assert not re.search(r"""(?:src|href)=|url\(['"]?http|@import""", text)
    data = data_of(text)
    assert data["rows"][-1]["reason"] == f"28 GiB of 24 {HOSTILE}"
    assert text.count("<script") == text.count("</script>") == 2
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("far", "outside"), [(9.1, ["snn", "marginal"]), (1.7, ["marginal"])]
)
def test_one_row_far_away_does_not_squeeze_the_others(far, outside):
    board = board_dicts.full()
    board["rows"][5] = board_dicts.row("snn", [far, far, far])
    found = plots.limits(board, "loss")
    assert found["outside"] == outside
    assert found["low"] < 1.1 and 1.7 < found["high"] < 1.9


def test_brackets_hold_neighbours_of_one_tier():
    tiers = [1, None, 1, 2, None, 2, 1]
    assert plots.brackets(tiers) == [(1, 0, 2), (2, 3, 5), (1, 6, 6)]


@pytest.mark.parametrize(
    "make", [board_dicts.full, board_dicts.single, board_dicts.pentathlon]
)
def test_the_picture_is_drawn_for_any_board(make):
    image = matplotlib.image.imread(io.BytesIO(plots.png(make())))
    assert image.shape[1] == 1800
    assert image[..., :3].std() > 0.02


def test_no_score_no_picture(tmp_path, monkeypatch):
    board = board_dicts.board([board_dicts.row("gru", [])])
    monkeypatch.setattr(command, "make_board", lambda folders: board)
    (tmp_path / "leaderboard.png").write_bytes(b"an old one")
    command.write_leaderboard([tmp_path], tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".csv",
        ".html",
        ".md",
    ]
    assert "png" not in (tmp_path / "leaderboard.md").read_text()


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "make_board", lambda folders: board_dicts.full())
    (tmp_path / "leaderboard.md").write_text("old")
    (tmp_path / "leaderboard.html.partial").mkdir()
    with pytest.raises(InputError, match="cannot write the leaderboard"):
        command.write_leaderboard([tmp_path], tmp_path)
    assert (tmp_path / "leaderboard.md").read_text() == "old"
    assert not (tmp_path / "leaderboard.md.partial").exists()
