"""Play on a board: which matches are compared, and whether loss says who plays well."""

from __future__ import annotations

import csv
import itertools
import math

import boards
import pytest
from scipy import stats

from jaxbench.bench.leaderboard import play, write_leaderboard
from jaxbench.bench.leaderboard.board import sections
from jaxbench.bench.leaderboard.read import read_runs

TERMS = {
    "version": 1,
    "opponent": "scripted",
    "opponent_character": "every",
    "character": "falco",
    "games": 64,
    "seconds": 60,
    "seed": 0,
    "mode": "stateful",
    "temperature": 0.0,
    "weights": "best",
}


def played(ratio, stocks=0.0, *, spread=0.1, **terms):
    """What a result holds of a match."""

    def around(value):
        return {"value": value, "low": value - spread, "high": value + spread}

    return {
        "protocol": TERMS | terms,
        "weights": {"which": "best", "step": 100},
        "stocks_difference": around(stocks),
        "damage_ratio": around(ratio),
        "damage_dealt": around(100 * ratio),
        "damage_taken": around(100.0),
        "wins": {**around(0.5), "won": 32, "level": 0},
        "frames": around(3600.0),
        "fps": 60.0,
    }


def write_runs(folder, runs):
    """Runs as (backbone, loss, seed, play)."""
    for n, (backbone, loss, seed, match) in enumerate(runs):
        content = boards.result(backbone, loss, seed=seed, play=match)
        boards.write(folder / f"run{n}", content)
    return folder


def section_of(folder):
    (found,) = sections(read_runs([folder]))
    return found


def rows_of(folder):
    lines = csv.DictReader((folder / "leaderboard.csv").open())
    return {line["backbone"]: line for line in lines if line["kind"] == "backbone"}


def test_play_stands_beside_the_loss(tmp_path):
    write_runs(
        tmp_path,
        [
            ("gru", 1.0, 0, played(1.5, 0.75)),
            ("lstm", 1.1, 0, played(0.5, -1.25)),
            ("mlp", 1.2, 0, None),
        ],
    )
    board = write_leaderboard([tmp_path], tmp_path)
    rows = rows_of(tmp_path)
    assert float(rows["gru"]["play_damage_ratio"]) == 1.5
    assert float(rows["gru"]["play_damage_ratio_low"]) == 1.4
    assert float(rows["lstm"]["play_stocks_difference_high"]) == -1.15
    assert rows["mlp"]["play_damage_ratio"] == ""
    text = board.markdown.read_text()
    overview = text.split("### Ranking")[1].split("###")[0]
    gru = next(line for line in overview.splitlines() if "| gru |" in line)
    assert "1.50 (1.40 to 1.60)" in gru and "+0.75 (+0.65 to +0.85)" in gru
    assert "### Play in the simulation" in text
    assert "64 games of 60 s against scripted, as falco" in text
    page = board.html.read_text()
    assert "Quality against play" in page and 'value="play"' in page
    assert "1 of 2 dealt more damage than they took" in page


def test_floors_of_the_same_games_stand_beside_the_rows(tmp_path):
    match = played(1.5)
    match["floors"] = {
        "scripted": played(1.0, 0.25),
        "copy_previous": played(1.0, -2.0)
        | {"damage_ratio": {"value": None, "low": None, "high": None}},
    }
    other = played(9.0, seed=7) | {"floors": {"random": played(0.1, -3.0)}}
    write_runs(
        tmp_path,
        [("mlp", 1.2, 0, other), ("gru", 1.0, 0, match), ("lstm", 1.1, 0, played(0.5))],
    )
    said = (
        "In the same games: scripted +0.25 stocks, 1.00 dealt / taken; copy previous "
        "-2.00 stocks."
    )
    assert said in play.notes(section_of(tmp_path))
    board = write_leaderboard([tmp_path], tmp_path)
    assert said in board.markdown.read_text() and said in board.html.read_text()
    assert "-3.00 stocks" not in board.markdown.read_text()


def test_without_a_match_the_board_says_how_to_get_one(tmp_path):
    write_runs(tmp_path, [("gru", 1.0, 0, None), ("lstm", 1.1, 0, None)])
    board = write_leaderboard([tmp_path], tmp_path)
    text, page = board.markdown.read_text(), board.html.read_text()
    assert "Spearman" not in text and "stocks" not in text
    assert "### Play in the simulation\n\nNot measured." in text
    assert "No run has played" in page and 'value="play"' not in page


def test_only_matches_under_the_same_terms_are_compared(tmp_path):
    write_runs(
        tmp_path,
        [
            ("gru", 1.0, 0, played(1.5)),
            ("lstm", 1.1, 0, played(0.5)),
            ("s4", 1.2, 0, played(9.0, opponent="random")),
            ("mlp", 1.3, 0, played(8.0, temperature=1.0)),
        ],
    )
    write_leaderboard([tmp_path], tmp_path)
    rows = rows_of(tmp_path)
    assert rows["s4"]["play_damage_ratio"] == rows["mlp"]["play_damage_ratio"] == ""
    assert float(rows["gru"]["play_damage_ratio"]) == 1.5
    notes = play.notes(section_of(tmp_path))
    assert "2 runs played under other terms" in notes[0]
    assert "needs 3 rows" in notes[1]


def test_seeds_of_a_row_share_a_median_and_an_interval(tmp_path):
    ratios = {"gru": [1.0], "lstm": [1.0, 1.4], "s4": [1.0, 1.4, 1.2]}
    runs = [
        (name, 1.0 + seed / 100, seed, played(ratio))
        for name, found in ratios.items()
        for seed, ratio in enumerate(found)
    ]
    # A seed that played under other terms is not among them.
    runs.append(("gru", 1.0, 1, played(7.0, seed=9)))
    section = section_of(write_runs(tmp_path, runs))
    terms = play.shown_terms(section)
    found = {
        row.name: (
            play.value_of(row, terms, "damage_ratio"),
            play.ends_of(row, terms, "damage_ratio"),
        )
        for row in section.rows
    }
    assert found["gru"] == (1.0, pytest.approx((0.9, 1.1)))
    assert found["lstm"] == (pytest.approx(1.2), pytest.approx((0.9, 1.5)))
    # Over seeds: at three of them the whole range.
    assert found["s4"] == (1.2, (1.0, 1.4))


def exact(losses, ratios):
    """Spearman's rho of low loss and ratio, and its p over all permutations."""
    rho = stats.spearmanr([-x for x in losses], ratios).statistic
    every = [
        stats.spearmanr([-x for x in order], ratios).statistic
        for order in itertools.permutations(losses)
    ]
    above = sum(other >= rho - 1e-9 for other in every) / len(every)
    below = sum(other <= rho + 1e-9 for other in every) / len(every)
    return rho, min(1.0, 2 * min(above, below))


@pytest.mark.parametrize(
    "ratios",
    [
        [2.0, 1.5, 1.2, 0.9, 0.4],
        [0.4, 0.9, 1.2, 1.5, 2.0],
        [1.0, 2.0, 0.5, 1.5, 0.7],
        [1.0, 1.0, 0.5, 1.5, 0.5],
    ],
)
def test_the_rank_correlation_is_the_exact_one(tmp_path, ratios):
    losses = [1.0, 1.1, 1.2, 1.3, 1.4]
    names = ["gru", "lstm", "s4", "mlp", "mamba"]
    runs = [
        (name, loss, 0, played(ratio))
        for name, loss, ratio in zip(names, losses, ratios, strict=True)
    ]
    section = section_of(write_runs(tmp_path, runs))
    found = play.agreement(section, "damage_ratio")
    rho, p = exact(losses, ratios)
    assert found.rows == 5
    assert math.isclose(found.rho, rho, abs_tol=1e-9)
    assert math.isclose(found.p, p, abs_tol=1e-9)
    note = play.notes(section)[1]
    assert f"by damage {rho:+.2f} (n = 5 rows" in note
    assert ("That may be chance." in note) is bool(p >= 0.05)
    # All have the same difference of stocks: nothing to rank by.
    assert play.agreement(section, "stocks_difference") is None


def test_two_rows_have_no_correlation(tmp_path):
    runs = [("gru", 1.0, 0, played(1.5)), ("lstm", 1.1, 0, played(0.5))]
    section = section_of(write_runs(tmp_path, runs))
    assert play.agreement(section, "damage_ratio") is None


def test_a_ratio_without_damage_taken_is_a_hole_and_not_a_number(tmp_path):
    match = played(1.0)
    match["damage_ratio"] = {"value": None, "low": None, "high": None}
    write_runs(tmp_path, [("gru", 1.0, 0, match), ("lstm", 1.1, 0, played(0.5))])
    write_leaderboard([tmp_path], tmp_path)
    rows = rows_of(tmp_path)
    assert rows["gru"]["play_damage_ratio"] == ""
    assert float(rows["gru"]["play_damage_dealt"]) == 100.0
