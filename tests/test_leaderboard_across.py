"""Several of the synthetic tasks at once: one table, and the page around it."""

from __future__ import annotations

import re
import statistics as average
from pathlib import Path

import boards
import pentathlon_boards as pentathlon
import pytest
from boards import board, rows, visible
from pentathlon_boards import RUNS, suite, table, texts

from jaxbench.bench.leaderboard.across import boards as across

A5 = {
    "deltanet": [(0.5, None)] * 5,
    "lstm": [(1.0, 500), (0.999, 750), (1.0, 750), (1.0, 500), (0.4, None)],
}


def two_tasks(tmp_path: Path) -> Path:
    folder = suite(tmp_path / "suite", RUNS)
    data = pentathlon.data("word_problem", fingerprint="9" * 16)
    return suite(folder, A5, task="word_problem", data=data)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The board of two tasks, with its figures."""
    return board(two_tasks(tmp_path_factory.mktemp("across")), figures=True)


def test_across_tasks_by_hand(drawn):
    _, lines, markdown, page = drawn
    assert markdown.index("## Across tasks, clean protocol") < markdown.index("## mqar")
    shown = table(markdown, "## Across tasks")
    assert list(shown) == ["deltanet", "lstm", "swa"]
    assert shown["lstm"]["mqar L1"] == "0.4400, 0/5 solved"
    assert shown["lstm"]["word_problem L1 A5"] == "1.0000, 4/5 solved"
    assert shown["swa"]["word_problem L1 A5"] == "–"
    assert (shown["swa"]["place"], shown["swa"]["rescaled IQM"]) == ("–", "–")
    assert shown["deltanet"]["place"] == "1" and shown["lstm"]["place"] == "2"
    floor = 1 / 60
    scores = [(acc - 0.25) / 0.75 for acc, _ in RUNS["lstm"]]
    scores += [(acc - floor) / (1 - floor) for acc, _ in A5["lstm"]]
    middle = average.mean(sorted(scores)[2:-2])
    line = rows(lines, "across")["lstm"]
    assert float(line["across_iqm"]) == pytest.approx(middle)
    low, high = float(line["across_low"]), float(line["across_high"])
    assert low < middle < high and line["across_place"] == "2"
    assert rows(lines, "across")["swa"]["across_iqm"] == ""
    for text in (markdown, visible(page)):
        assert "so without a place: swa." in text
    assert page.index('id="a1"') < page.index('id="s1"')
    drawn = re.search(r'aria-label="Accuracy by backbone and task.*?</svg>', page, re.S)
    assert "0.440" in drawn[0] and "4/5" in drawn[0] and "–" in drawn[0]


@pytest.mark.parametrize(
    ("mqar", "group", "word", "verdict"),
    [
        (0.995, "A5", 0.99, "yes"),
        (0.98, "A5", 1.0, "no"),
        (1.0, "A5", 0.98, "no"),
        (1.0, "Z60", 1.0, "–"),
    ],
)
def test_recall_and_state_tracking(tmp_path, mqar, group, word, verdict):
    folder = suite(tmp_path / "suite", {"gru": [(mqar, None)]})
    data = pentathlon.data("word_problem", group=group)
    suite(folder, {"gru": [(word, None)]}, task="word_problem", data=data)
    _, lines, markdown = texts(folder)
    shown = table(markdown, "## Across tasks")["gru"]
    assert shown["recall and state tracking"] == verdict
    found = rows(lines, "across")["gru"]["across_holds_both"]
    assert found == verdict.replace("–", "")


def test_both_must_hold_on_every_level(tmp_path):
    folder = suite(tmp_path / "suite", {"gru": [(1.0, None)]})
    suite(folder, {"gru": [(1.0, None)]}, task="word_problem")
    harder = pentathlon.data(level="L4", fingerprint="8" * 16)
    suite(folder, {"gru": [(0.4, None)]}, level="L4", data=harder)
    _, _, markdown = texts(folder)
    shown = table(markdown, "## Across tasks")["gru"]
    assert shown["recall and state tracking"] == "no"
    assert (shown["mqar L1"], shown["mqar L4"]) == (
        "1.0000, 0/1 solved",
        "0.4000, 0/1 solved",
    )


def test_a_failed_backbone_is_no_hole(tmp_path):
    folder = two_tasks(tmp_path)
    for task in ("mqar", "word_problem"):
        prints = {"word_problem": {"fingerprint": "9" * 16}}.get(task, {})
        data = pentathlon.data(task, **prints)
        boards.write(
            folder / task / "kan", pentathlon.failed("kan", 3, task=task, data=data)
        )
    _, lines, markdown = texts(folder)
    shown = table(markdown, "## Across tasks")["kan"]
    assert shown["mqar L1"] == "failed, 0/1 solved" and shown["place"] == "3"
    assert float(rows(lines, "across")["kan"]["across_iqm"]) == 0.0


@pytest.mark.parametrize("why", ["one task", "two protocols"])
def test_nothing_is_across_one_task(tmp_path, why):
    folder = suite(tmp_path / "suite")
    if why == "two protocols":
        suite(folder, A5, task="word_problem", protocol="compat")
    made, lines, markdown, page = board(folder)
    assert across(made.sections) == []
    assert "Across tasks" not in markdown and "Across tasks" not in page
    assert not rows(lines, "across")


def test_equal_places_are_shared_and_levels_alike_are_numbered(tmp_path):
    runs = {"gru": [(1.0, 500)] * 3, "lstm": [(1.0, 500)] * 3}
    folder = suite(tmp_path / "suite", runs)
    suite(folder, runs, task="flip_flop")
    data = pentathlon.data(fingerprint="7" * 16)
    suite(folder, runs, level="L2", data=data)
    _, _, markdown = texts(folder)
    shown = table(markdown, "## Across tasks")
    assert [line["place"] for line in shown.values()] == ["1", "1"]
    assert {"mqar L1 5e0c7a #1", "mqar L1 777777 #2"} <= set(shown["gru"])


# --- the page as a whole ------------------------------------------------------


def test_the_page_needs_nothing_but_itself(drawn):
    *_, page = drawn
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none';")
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert sources and all(x.startswith(("data:", "#")) for x in sources), sources
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_same_results_give_the_same_bytes(drawn):
    made, _, *texts_then = drawn
    then = made.csv.read_bytes()
    again, _, *texts_now = board(made.markdown.parents[1] / "suite", figures=True)
    assert texts_now == texts_then and again.csv.read_bytes() == then


def test_nothing_of_games_or_text_is_on_these_boards(drawn):
    _, _, markdown, page = drawn
    words = r"fps|\bframes?\b|controller|melee|\bplays?\b|nats/byte|corpus"
    for text in (markdown, visible(page)):
        found = re.search(words, text, re.IGNORECASE)
        assert not found, text[found.start() - 60 : found.end() + 60]
