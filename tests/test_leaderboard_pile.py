"""Boards of language models: equal time or equal text, and what they may say."""

from __future__ import annotations

import json
import re
import statistics as average

import boards
import pile_boards
import pytest
from boards import board, visible

from jaxbench.bench.leaderboard import plots_pile
from jaxbench.bench.leaderboard.board import sections
from jaxbench.bench.leaderboard.plots_scatter import unbeaten
from jaxbench.bench.leaderboard.read import read_runs
from jaxbench.models.zoo import ROWS
from jaxbench.tasks.pile import published as published_pile

LOSSES = {"mamba2": 1.05, "e61": 1.10, "lstm": 1.30}
TEXT = pile_boards.text_budget(3051)
FAILED = {"status": "oom", "reason": "28 GiB of 24", "steps": 0, "examples": 0}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A board with its figures: three rows with a state and one without."""
    suite = pile_boards.write_suite(tmp_path_factory.mktemp("pile") / "suite", LOSSES)
    boards.write(suite / "fnet", pile_boards.result("fnet", 2.0, state_bytes=0))
    return board(suite, figures=True)


def test_csv_numbers_are_the_results_numbers(tmp_path):
    suite = pile_boards.write_suite(tmp_path / "suite", LOSSES)
    _, lines, _, _ = board(suite)
    for name in LOSSES:
        (line,) = (x for x in lines if x["backbone"] == name)
        results = [
            json.loads(path.read_text())
            for path in sorted((suite / "runs" / name).rglob("result.json"))
        ]

        def median(get, results=results):
            return average.median(get(result) for result in results)

        expected = {
            "best_median": lambda r: r["best"]["metrics"]["nats_per_byte"],
            "last_median": lambda r: r["last"]["metrics"]["nats_per_byte"],
            "bits_per_byte": lambda r: r["best"]["metrics"]["bits_per_byte"],
            "last_bits_per_byte": lambda r: r["last"]["metrics"]["bits_per_byte"],
            "seen_bytes": lambda r: r["examples"] * r["data"]["options"]["window"],
            "tokens_per_s": lambda r: r["throughput"]["tokens_per_s"],
            "params_backbone": lambda r: r["params"]["backbone"],
            "width": lambda r: r["shape"]["width"],
            "state_bytes": lambda r: r["state_bytes"],
            "compile_seconds": lambda r: r["seconds"]["compile"],
            "first_steps_seconds": lambda r: r["seconds"]["first_steps"],
            "peak_bytes": lambda r: r["memory"]["peak_bytes"],
            "decode_bytes_per_s": lambda r: r["decode"]["bytes_per_s"],
            "decode_p99_ms": lambda r: r["decode"]["p99_ms"],
        }
        for column, get in expected.items():
            assert float(line[column]) == pytest.approx(median(get)), column
        best = results[1]["best"]["metrics"]
        gain = best["nats_per_byte/quarter_4"] - best["nats_per_byte/quarter_1"]
        assert float(line["context_gain"]) == pytest.approx(gain)
        assert line["shape"] == "640 x 20" and line["skips"] == "0"
        assert line["budget"] == "600 seconds"
    floors = {x["backbone"]: x for x in lines if x["kind"] == "floor"}
    for name, value in pile_boards.FLOORS.items():
        assert float(floors[name]["best_median"]) == value


def test_time_and_text_are_never_one_ranking(tmp_path):
    time = pile_boards.write_suite(tmp_path / "time", LOSSES)
    text = pile_boards.write_suite(tmp_path / "text", LOSSES, budget=TEXT, steps=3051)
    made, lines, markdown, page = board(time, text)
    units = [section.key.budget.unit for section in made.sections]
    assert units == ["seconds", "steps"]
    assert all(len(section.rows) == 3 for section in made.sections)
    assert {x["budget"] for x in lines} == {"600 seconds", "3051 steps"}
    for shown in (markdown, visible(page)):
        assert "data, budget or device differ" in shown
        assert "equal time (600 s)" in shown and "equal text (50.0 MB)" in shown
        assert (
            "Equal time: 600 s of training, compilation and first steps excluded, on "
            "H200 (gpu); rows read 32.8 MB to 49.2 MB of text in it." in shown
        )
        assert "Equal text: 50.0 MB in 3,051 steps; rows took 600 s for it." in shown
        assert "Training was not equal" not in shown


@pytest.mark.parametrize(
    ("budget", "rankings"), [(pile_boards.TIME, 2), (TEXT, 1)], ids=["time", "text"]
)
def test_seconds_compare_on_one_device_only(tmp_path, budget, rankings):
    fields = {"budget": budget, "steps": 3051}
    first = pile_boards.write_suite(tmp_path / "a", {"e61": 1.1}, **fields)
    other = pile_boards.write_suite(
        tmp_path / "b", {"lstm": 1.2}, device="L4", **fields
    )
    made, _, markdown, _ = board(first, other)
    assert len(made.sections) == rankings
    if rankings == 1:
        assert "Runs come from 2 devices" in markdown
    else:
        for section in made.sections:
            assert len({run.device for run in section.runs}) == 1
        assert "classics100.xz d9af9420faf3, H200 (gpu)" in markdown


@pytest.mark.parametrize(
    "other",
    [
        {"budget": {"total": 60.0, "unit": "seconds"}, "seconds": 60.0},
        {"budget": pile_boards.text_budget(3051), "steps": 3051, "batch": 16},
        {"data": pile_boards.data(fingerprint="f" * 64)},
    ],
    ids=["length", "batch", "corpus"],
)
def test_unequal_budgets_and_corpora_are_rankings_of_their_own(tmp_path, other):
    same = {"budget": other["budget"]} if "batch" in other else {}
    steps = {"steps": 3051} if "batch" in other else {}
    first = pile_boards.write_suite(tmp_path / "a", LOSSES, **same, **steps)
    second = pile_boards.write_suite(tmp_path / "b", {"e61": 1.0}, **other)
    made, *_ = board(first, second)
    assert sorted(len(section.rows) for section in made.sections) == [1, 3]


def test_batches_of_a_time_budget_are_the_recipes_own(tmp_path):
    first = pile_boards.write_suite(tmp_path / "a", {"e61": 1.1})
    second = pile_boards.write_suite(tmp_path / "b", {"lstm": 1.2}, batch=64)
    made, *_ = board(first, second)
    assert len(made.sections) == 1


@pytest.mark.parametrize("known", [True, False], ids=["data", "nothing"])
def test_failures_join_the_ranking_of_what_they_know(tmp_path, known):
    """A run that took no step knows no batch; one that was killed knows nothing."""
    bare = {} if known else {"data": None, "budget": None, "device": None}
    folders = []
    for name, budget in (("time", pile_boards.TIME), ("text", TEXT)):
        suite = pile_boards.write_suite(tmp_path / name, {"e61": 1.1}, budget=budget)
        lost = pile_boards.result("kan", None, budget=budget, **FAILED)
        boards.write(suite / "kan", lost | bare)
        folders.append(suite)
    made, lines, *_ = board(*folders)
    assert [[row.name for row in s.rows] for s in made.sections] == [["e61", "kan"]] * 2
    for section in made.sections:
        assert len({run.source for run in section.runs}) == 1
    lost = [x for x in lines if x["backbone"] == "kan"]
    assert [x["status"] for x in lost] == ["oom", "oom"]


def test_a_budget_nobody_knows_is_no_budget(tmp_path):
    odd = {"total": 3, "unit": "moons"}
    pile_boards.write_suite(tmp_path / "suite", {"e61": 1.1}, budget=odd)
    (section,) = sections(read_runs([tmp_path / "suite"]))
    assert section.key.budget.name == ""


@pytest.mark.parametrize(("most", "said"), [(101_900_000, False), (115e6, True)])
def test_sizes_that_differ_are_said(tmp_path, most, said):
    suite = pile_boards.write_suite(tmp_path / "suite", {"e61": 1.1})
    size = {"total": most, "backbone": most}
    boards.write(suite / "e1", pile_boards.result("e1", 1.2, params=size))
    _, _, markdown, page = board(suite)
    for text in (markdown, page):
        assert ("Sizes differ by 15 %: from 100,000,000" in text) == said


def test_which_text_it_was(tmp_path):
    books = pile_boards.write_suite(tmp_path / "books", {"e61": 1.1})
    _, _, markdown, _ = board(books)
    assert "models text of books" not in markdown
    assert "2.0 MB of held-out text of classics100.xz" in markdown
    assert "- corpus: classics100.xz, 100.0 MB, 210 documents" in markdown
    assert "- validation: bytes 90,000,000 to 95,000,000 (5.0 MB)" in markdown
    source = pile_boards.data(source="python")
    code = pile_boards.write_suite(tmp_path / "code", {"e61": 1.1}, data=source)
    _, _, markdown, page = board(code)
    for text in (markdown, page):
        assert "nothing here says how a backbone models text of books" in text


def test_divergence_and_skips_are_said_with_their_steps(tmp_path):
    suite = pile_boards.write_suite(tmp_path / "suite", {"e61": 1.1})
    lost = {"status": "diverged", "reason": "the loss is not finite", "steps": 812}
    skips = {"count": 10, "first_step": 640}
    content = pile_boards.result("e71", None, skips=skips, **lost)
    boards.write(suite / "e71", content)
    skips = {"count": 3, "first_step": 120}
    boards.write(suite / "e72", pile_boards.result("e72", 1.2, skips=skips))
    _, lines, markdown, page = board(suite)
    for text in (markdown, page):
        assert (
            "Diverged: e71 at step 812 after 10 skipped updates, the first at step 640."
        ) in text
        assert "left out: e72 3 skipped updates, the first at step 120." in text
    found = {x["backbone"]: x for x in lines}
    assert (found["e71"]["skips"], found["e71"]["first_skip"]) == ("10", "640")
    assert found["e71"]["status"] == "diverged" and found["e71"]["rank"] == ""


def test_nothing_of_games_is_on_a_board_of_text_and_units_are_told(drawn):
    _, lines, markdown, page = drawn
    words = r"fps|\bframes?\b|controller|melee|policy|\bplays?\b|nats_per_byte\b"
    for text in (markdown, visible(page)):
        found = re.search(words, text, re.IGNORECASE)
        assert not found, text[found.start() - 60 : found.end() + 60]
    assert not {"makes_60fps", "share_of_frame", "gain_copy_previous"} & set(lines[0])
    ranking = markdown.split("### Ranking")[1].split("\n| ---")[0]
    for header in ("nats/byte, best", "nats/byte, last", "bits/byte", "bytes/s"):
        assert f"| {header} |" in ranking
    assert "| decode bytes/s |" in ranking
    for heading in ("### Nats/byte by quarter", "### Decoding"):
        assert heading in markdown


def test_decoding_is_optional(tmp_path):
    suite = pile_boards.write_suite(tmp_path / "suite", {"e61": 1.1})
    for path in suite.rglob("result.json"):
        content = json.loads(path.read_text())
        del content["decode"]
        path.write_text(json.dumps(content))
    _, lines, markdown, _ = board(suite)
    assert "### Decoding\n\nNot measured." in markdown
    assert "decode_bytes_per_s" not in lines[0]


def test_scores_on_other_splits_are_columns(tmp_path):
    scores = {"test": pile_boards.metrics(1.11), "test_carried": {"nats_per_byte": 1}}
    suite = pile_boards.write_suite(tmp_path / "suite", {"e61": 1.1}, scores=scores)
    _, lines, markdown, _ = board(suite)
    assert float(lines[0]["scores/test"]) == 1.11
    assert "| nats/byte, test | nats/byte, test carried |" in markdown


# --- published numbers --------------------------------------------------------


def test_published_numbers_stand_beside_ours_in_compat_only(tmp_path):
    clean = pile_boards.write_suite(tmp_path / "clean", {"e61": 1.1})
    _, _, markdown, page = board(clean)
    assert "1.521" not in markdown and "1.521" not in page
    compat = pile_boards.write_suite(
        tmp_path / "compat", {"mamba2": 1.6, "e61": 1.5}, protocol="compat", budget=TEXT
    )
    _, _, markdown, page = board(compat)
    for text in (markdown, visible(page)):
        assert "Their losses are of training, on a shard of the Pile" in text
        assert "mean of a run's last 10 steps" in text and "1.521" in text
    table = markdown.split("### The published numbers")[1]
    assert re.search(
        r"\| e61 \| E61 \| 1\.76 \| 1\.521 \| 1\.5150 \| 1\.5000 \|", table
    )
    assert table.index("| mamba2 |") < table.index("| e61 |")
    assert re.search(r"\| e1 \| E1 \| 1\.58 \|  \|  \| not on this board", table)


def test_the_published_rows_are_those_of_the_listing():
    listed = [row.listed for row in published_pile.ROWS.values() if row.listed]
    assert len(listed) == 14 and listed == sorted(listed)
    assert sum(row.logged is not None for row in published_pile.ROWS.values()) == 10
    for name in published_pile.ROWS:
        assert ROWS[name].published is not None, name


# --- figures ------------------------------------------------------------------


def test_every_figure_is_drawn(drawn):
    *_, page = drawn
    missing = page.split("Figures without data")[1].split("</ul>")[0]
    assert re.findall(r"<b>(.*?)</b>", missing) == ["Exported step."]
    captions = re.findall(r"<b>Figure \d+\. (.*?)\.</b>", page)
    assert captions == [
        "Quality: best validation nats/byte",
        "Validation by text and by time",
        "Quality against training speed",
        "What the context is worth",
        "Quality against decode state",
        "Quality against parameters",
        "Training speed",
        "Memory",
    ]
    assert "text read (MB)" in page and "training (s)" in page
    assert "Without a state: fnet." in page


def test_the_page_needs_nothing_but_itself(drawn):
    *_, page = drawn
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and policy[1].startswith("default-src 'none';")
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s>]+)", page)
    assert sources and all(x.startswith(("data:", "#")) for x in sources), sources


def test_curves_by_text_and_by_time(tmp_path):
    content = pile_boards.result("e61", 1.1, steps=1000, seconds=500.0)
    content["curve"]["validation"] = [[3, 5.0], [505, 2.0], [1000, 1.1]]
    boards.write(tmp_path / "e61", content)
    (run,) = read_runs([tmp_path])
    step_mb = 32 * 512 / 1e6
    assert plots_pile.by_text(run) == [
        (pytest.approx(3 * step_mb), 5.0),
        (pytest.approx(505 * step_mb), 2.0),
        (pytest.approx(1000 * step_mb), 1.1),
    ]
    # 995 steps took 500 s; the five before them are not on the clock.
    assert plots_pile.by_seconds(run) == [
        (pytest.approx(500 * 500 / 995), 2.0),
        (pytest.approx(500.0), 1.1),
    ]


@pytest.mark.parametrize("better", ["low", "high"])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_front_is_what_nobody_beats_in_both(better, maximize):
    points = [
        (i, None, float(x), float(y))
        for i, (x, y) in enumerate(
            [(1, 5), (2, 3), (2, 4), (3, 3), (4, 1), (5, 2), (6, 6), (1, 6), (7, 0)]
        )
    ]

    def beats(a, b):
        cost = (b[2] - a[2]) * (1 if better == "low" else -1)
        gain = (b[3] - a[3]) * (-1 if maximize else 1)
        return cost >= 0 and gain >= 0 and (cost > 0 or gain > 0)

    expected = {p[0] for p in points if not any(beats(q, p) for q in points)}
    assert {p[0] for p in unbeaten(points, better, maximize)} == expected
    assert unbeaten(points, "", maximize) == []
