"""Boards of the five synthetic tasks: solved or not, how long it took, and what for."""

from __future__ import annotations

import json
import re
import statistics as average

import boards
import numpy as np
import pentathlon_boards as pentathlon
import pytest
from boards import board, rows, visible
from pentathlon_boards import LENGTHS, RUNS, suite, table, texts

from jaxbench.bench.leaderboard import plots_pentathlon, solving
from jaxbench.bench.leaderboard.board import sections
from jaxbench.bench.leaderboard.column import show
from jaxbench.bench.leaderboard.read import read_runs
from jaxbench.bench.leaderboard.splits import TRAINED, Split
from jaxbench.bench.leaderboard.tasks import PENTATHLON
from jaxbench.bench.statistics import needed_seeds, success_rate
from jaxbench.bench.statistics.survival import Times
from jaxbench.data.synthetic.flip_flop import FlipFlop
from jaxbench.data.synthetic.knapsack import Knapsack
from jaxbench.data.synthetic.mqar import Mqar
from jaxbench.data.synthetic.word_problem import WordProblem
from jaxbench.errors import InputError

# --- solved or not ------------------------------------------------------------


def test_solved_runs_and_their_interval(tmp_path):
    _, lines, markdown, page = board(suite(tmp_path / "suite"))
    for name, hits in {"deltanet": 4, "lstm": 0, "swa": 3}.items():
        line = rows(lines)[name]
        wilson = success_rate(hits, 5)
        assert (line["solved_runs"], line["solved_of_runs"]) == (str(hits), "5")
        assert float(line["solved"]) == hits / 5
        assert float(line["solved_low"]) == wilson.low
        assert float(line["solved_high"]) == wilson.high
        told = f"{hits}/5 ({100 * wilson.low:.0f} to {100 * wilson.high:.0f} %)"
        assert table(markdown, "### Ranking")[name]["solved"] == told
        assert told in visible(page)
    # By Wilson's formula: 4 of 5 at 95 %.
    assert "4/5 (38 to 96 %)" in markdown


def test_steps_to_solve_are_a_median_with_censored_runs(tmp_path):
    _, lines, markdown = texts(suite(tmp_path / "suite"))
    found, shown = rows(lines), table(markdown, "### Ranking")
    # deltanet: 4/5, 3/5, then 2/5 of the runs are left unsolved, at 1500.
    assert float(found["deltanet"]["steps_to_solve"]) == 1500
    assert shown["deltanet"]["steps to solve"] == "1,500 (1,000 or more)"
    # swa: the third of its five runs solves at 6000, two never do.
    assert float(found["swa"]["steps_to_solve"]) == 6000
    assert found["lstm"]["steps_to_solve"] == ""
    assert float(found["lstm"]["steps_to_solve_watched"]) == 10_000
    assert shown["lstm"]["steps to solve"] == "not reached in 10,000"
    assert float(found["deltanet"]["examples_to_solve"]) == 1500 * pentathlon.BATCH
    flops = 1500 * pentathlon.STEP_FLOPS
    assert float(found["deltanet"]["flops_to_solve"]) == flops
    assert shown["deltanet"]["FLOPs to solve"] == "3 TFLOP (2 TFLOP or more)"
    assert shown["lstm"]["FLOPs to solve"] == "not reached in 20 TFLOP"


def test_nobody_solving_is_said_and_not_left_out(tmp_path):
    _, lines, markdown, page = board(suite(tmp_path / "suite", {"lstm": RUNS["lstm"]}))
    assert "| steps to solve |" in markdown and "not reached in 10,000" in markdown
    assert "not reached in 10,000" in visible(page)
    assert rows(lines)["lstm"]["solved"] == "0.0"


def test_a_run_that_ended_early_is_censored_there(tmp_path):
    folder = tmp_path / "suite"
    pentathlon.write_row(folder, "gru", [(0.999, 3000), (1.0, 3500), (1.0, 4000)])
    for seed, steps in ((3, 500), (4, 800)):
        content = pentathlon.result("gru", 0.2, steps=steps, seed=seed)
        content["solved"]["stalled"] = steps
        boards.write(folder / "gru" / str(seed), content)
    (section,) = sections(read_runs([folder]))
    times = solving.times(section, section.rows[0], solving.STEPS)
    assert times == Times((3000.0, 3500.0, 4000.0), (500.0, 800.0))
    _, lines, markdown = texts(folder)
    # Three are left when the first solves: 2/3, then 1/3.
    assert float(rows(lines)["gru"]["steps_to_solve"]) == 3500
    assert "2 runs gave up before the budget was spent" in markdown


def test_a_failed_run_stays_unsolved_to_the_end_of_its_budget(tmp_path):
    folder = pentathlon.write_row(
        tmp_path / "suite", "gru", [(0.999, 3000), (1.0, 3500)]
    )
    for seed in (2, 3, 4):
        content = pentathlon.failed("gru", 400, seed=seed)
        # It may have failed before it knew what a step costs.
        content |= {"solved": None, "step_flops": None} if seed == 2 else {}
        boards.write(folder / "gru" / str(seed), content)
    _, lines, markdown = texts(folder)
    line = rows(lines)["gru"]
    assert (line["solved_runs"], line["solved_of_runs"]) == ("2", "5")
    # Censored at 400 they would leave the two alone, with a median of 3,000 steps.
    assert line["steps_to_solve"] == "" and line["flops_to_solve"] == ""
    shown = table(markdown, "### Ranking")["gru"]
    assert shown["steps to solve"] == "not reached in 10,000"
    assert shown["FLOPs to solve"] == "not reached in 20 TFLOP"


def test_interrupted_runs_are_neither_solved_nor_unsolved(tmp_path):
    folder = suite(tmp_path / "suite", {"swa": RUNS["swa"]})
    lost = pentathlon.result("swa", None, steps=900, seed=9, status="interrupted")
    boards.write(folder / "waiting", lost)
    _, lines, *_ = texts(folder)
    assert rows(lines)["swa"]["solved_of_runs"] == "5"


def test_log_rank_claims_need_seeds(tmp_path):
    few = suite(tmp_path / "few", {name: runs[:4] for name, runs in RUNS.items()})
    _, lines, markdown = texts(few)
    told = "Log-rank tests of the steps to solve (Holm, 3 pairs)"
    assert f"{told} tell no backbones apart." in markdown
    assert "solves_sooner_than" not in lines[0]
    many = {
        "deltanet": [(1.0, 1000 + 250 * k) for k in range(8)],
        "lstm": [(0.4 + 0.01 * k, None) for k in range(8)],
        "swa": [(1.0, 5000 + 250 * k) for k in range(8)],
    }
    _, lines, markdown, page = board(suite(tmp_path / "many", many))
    found = rows(lines)
    assert found["deltanet"]["solves_sooner_than"] == "swa; lstm"
    assert found["swa"]["solves_sooner_than"] == "lstm"
    assert found["lstm"]["solves_sooner_than"] == ""
    for text in (markdown, visible(page)):
        assert f"{told} claim: deltanet before swa (p " in text


@pytest.mark.parametrize("seeds", [5, 4])
def test_fewer_seeds_than_a_claim_needs(tmp_path, seeds):
    assert needed_seeds(3) == 5
    runs = {name: seeds_of[:seeds] for name, seeds_of in RUNS.items()}
    _, _, markdown, page = board(suite(tmp_path / "suite", runs))
    said = "Fewer seeds than a claim needs: 5 for each of 3 backbones; here 4."
    for text in (markdown, visible(page)):
        assert (said in text) == (seeds == 4)


# --- what the rows are measured against ---------------------------------------


def test_ranks_are_by_accuracy_and_bounds_stand_among_the_rows(tmp_path):
    made, lines, markdown, page = board(suite(tmp_path / "suite"))
    (section,) = made.sections
    assert [row.name for row in section.rows] == ["deltanet", "swa", "lstm"]
    ranking = markdown.split("### Ranking")[1].split("###")[0]
    order = re.findall(
        r"\| ([\w: -]*(?:swa|deltanet|lstm|floor|ceiling)[^|]*) \|", ranking
    )
    assert order == [
        "ceiling: best possible", "deltanet", "swa", "lstm",
        "floor: in-context value", "floor: uniform",
    ]  # fmt: skip
    assert float(rows(lines, "ceiling")["best possible"]["best_median"]) == 1.0
    assert float(rows(lines, "floor")["uniform"]["best_median"]) == 1 / 8192
    assert "best possible <small>ceiling</small>" in page
    assert "over uniform" not in markdown
    # (0.44 - 0.25) / (1 - 0.25), and seed by seed the median of the scores.
    assert float(rows(lines)["lstm"]["rescaled"]) == pytest.approx(0.19 / 0.75)
    assert float(rows(lines)["swa"]["best_median"]) == 0.999


def test_a_ceiling_below_one_is_said(tmp_path):
    _, _, markdown = texts(suite(tmp_path / "suite"))
    assert "best possible accuracy" not in markdown
    fields = {"task": "flip_flop", "ceiling": 0.107}
    low = suite(tmp_path / "low", {"lstm": [(0.1, None)]}, **fields)
    _, lines, markdown = texts(low)
    assert "The best possible accuracy is 0.1070" in markdown
    # Its floors lie above it: there is nothing to learn.
    assert "rescaled" not in lines[0]


def test_below_the_best_floor_is_nothing(tmp_path):
    """Greedy is right on 89 %: 80 % is no better than a rule of five lines."""
    runs = {"gru": [(0.945, None)], "lstm": [(0.80, None)], "swa": [(0.10, None)]}
    _, lines, _ = texts(suite(tmp_path / "suite", runs, task="knapsack"))
    found = {name: float(line["rescaled"]) for name, line in rows(lines).items()}
    assert found == {"gru": pytest.approx(0.5), "lstm": 0.0, "swa": 0.0}


def test_an_accuracy_of_zero_is_a_score(tmp_path):
    folder = suite(tmp_path / "suite", {"lstm": [(0.0, None)], "gru": [(0.1, None)]})
    *_, page = board(folder, figures=True)
    assert "lstm\nrank 1, accuracy 0.0000" in page


@pytest.mark.parametrize("task", PENTATHLON)
def test_every_task_has_its_board(tmp_path, task):
    runs = {"gru": RUNS["deltanet"], "lstm": RUNS["swa"]}
    _, lines, markdown, page = board(
        suite(tmp_path / "suite", runs, task=task, tests=LENGTHS),
        figures=task == "knapsack",
    )
    assert {line["task"] for line in lines} == {task}
    for heading in ("Test splits", "Length generalisation", "Speed", "Size and memory"):
        part = markdown.split(f"### {heading}")[1].split("###")[0]
        assert "| gru |" in part, heading
    titles = markdown.split("### Ranking")[1].strip().splitlines()[0]
    wanted = "solved | steps to solve | FLOPs to solve | parameters | state | status |"
    assert titles.endswith(wanted)
    assert "Figures without data" not in page
    assert "not measured" not in markdown.lower()


# --- test splits --------------------------------------------------------------


def test_numbers_of_test_splits(tmp_path):
    folder = tmp_path / "suite"
    sparse = [0.9999, 0.9990, 0.91]
    for seed, value in enumerate(sparse):
        tests = {"test_sparse": value, "length_1024": 0.5 + 0.1 * seed}
        content = pentathlon.result(
            "gru", 0.9, task="flip_flop", seed=seed, tests=tests
        )
        boards.write(folder / str(seed), content)
    _, lines, markdown = texts(folder)
    line = rows(lines)["gru"]
    assert float(line["scores/test"]) == 0.9
    assert float(line["scores/test_sparse"]) == average.median(sparse)
    assert float(line["errors/test_sparse"]) == pytest.approx(1e-3)
    assert float(line["worst_errors/test_sparse"]) == pytest.approx(0.09)
    assert float(line["scores/length_1024"]) == 0.6
    assert float(line["scores/test/sequence_accuracy"]) == 0.9
    tests = table(markdown, "### Test splits")["gru"]
    # Errors are shown where the accuracy is near 1, so that a long tail can be seen.
    assert tests["errors, test sparse"] == "0.001"
    assert tests["worst, test sparse"] == "0.09"
    assert "errors, test" not in tests and tests["test"] == "0.9000"
    assert table(markdown, "### Length gen")["gru"]["length 1024"] == "0.6000"


def test_numbers_that_answer_have_an_error(tmp_path):
    folder = suite(tmp_path / "suite", {"gru": [(0.9, None)]}, task="knapsack")
    _, lines, markdown = texts(folder)
    line = rows(lines)["gru"]
    assert float(line["relative_error"]) == pytest.approx(0.01)
    assert float(line["scores/test/relative_error"]) == pytest.approx(0.01)
    assert "| within 1 %, test |" in markdown


def test_excluded_splits_say_why(tmp_path):
    folder = suite(tmp_path / "suite", tests=LENGTHS)
    why = "its 1024 tokens are more than the 64 positions the model has learned"
    for path in (folder / "mqar" / "L1" / "swa").rglob("result.json"):
        content = json.loads(path.read_text())
        del content["scores"]["length_1024"]
        path.write_text(json.dumps(content | {"excluded": {"length_1024": why}}))
    _, lines, markdown, page = board(folder)
    assert rows(lines)["swa"]["scores/length_1024"] == ""
    for text in (markdown, visible(page)):
        assert f"Not scored on length_1024: swa; {why}." in text


@pytest.mark.parametrize(
    ("name", "length", "kind", "title"),
    [
        ("test", None, "", "test"),
        ("test_sparse", None, "sparse", "test sparse"),
        ("length_512", 512, "", "length 512"),
        ("length_1024_sparse", 1024, "sparse", "length 1024, sparse"),
    ],
)
def test_names_of_splits(name, length, kind, title):
    split = Split.of(name)
    assert (split.length, split.kind, split.title) == (length, kind, title)


def test_training_lengths_are_those_of_the_generators():
    for event in (Mqar(), FlipFlop(), WordProblem()):
        found = {level: event.length(level) for level in event.levels}
        assert TRAINED[event.name] == found
    # A capacity and a count before the items, a question after them.
    items = {level: (Knapsack().length(level) - 3) // 2 for level in Knapsack().levels}
    assert TRAINED["knapsack"] == items
    for event in (Mqar(), FlipFlop(), WordProblem(), Knapsack()):
        for level in event.levels:
            lengths = [Split.of(name).length for name in event.tests(level)]
            assert None in lengths and any(lengths)


# --- sections -----------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"level": "L2"},
        {"level": "L1..L2"},
        {"fingerprint": "f" * 16},
        {"filler": "random"},
        {"train": "100,000 fixed examples"},
    ],
    ids=["level", "curriculum", "fingerprint", "options", "training"],
)
def test_other_examples_are_rankings_of_their_own(tmp_path, other):
    folder = suite(tmp_path / "suite")
    content = pentathlon.result("gru", 0.5, data=pentathlon.data(**other))
    boards.write(tmp_path / "other", content)
    made, _, markdown, page = board(folder, tmp_path / "other")
    assert sorted(len(section.rows) for section in made.sections) == [1, 3]
    # The list of rankings tells them apart.
    items = re.findall(r"^- mqar .*$", markdown, re.MULTILINE)
    assert len(set(items)) == 2, items
    titles = re.findall(r'<a href="#s\d">(.*?)</a> <span class="muted">(.*?)<', page)
    assert len(set(titles)) == 2


def test_headings_name_the_variant(tmp_path):
    for task, options, title in (
        ("word_problem", {"group": "Z60"}, "word_problem L3 Z60"),
        ("knapsack", {"target": "dp"}, "knapsack L3 dp"),
        ("mqar", {"filler": "random"}, "mqar L3 random filler"),
        ("flip_flop", {"train_mix": True}, "flip_flop L3 mixed training"),
    ):
        data = pentathlon.data(task, "L3", **options)
        content = pentathlon.result("gru", 0.5, task=task, data=data)
        boards.write(tmp_path / task / "gru", content)
        _, _, markdown, page = board(tmp_path / task)
        heading = f"{title}, clean protocol"
        assert re.search(rf"^## {re.escape(heading)}$", markdown, re.MULTILINE)
        assert f"<h2>{heading}</h2>" in page


def test_versions_of_a_task_are_never_one_board(tmp_path):
    folder = suite(tmp_path / "suite")
    content = pentathlon.result("gru", 0.5, data=pentathlon.data(version=2))
    boards.write(tmp_path / "newer" / "gru", content)
    with pytest.raises(InputError) as caught:
        board(folder, tmp_path / "newer")
    message = str(caught.value)
    assert "\n" not in message
    assert "a board over runs of different task versions: mqar (clean)" in message
    assert "version 1 in" in message and "deltanet/seed0" in message
    assert f"version 2 in {tmp_path / 'newer'}/gru" in message
    # Another task has versions of its own; another protocol other generators.
    others = {"task": "flip_flop", "data": pentathlon.data("flip_flop", version=2)}
    boards.write(tmp_path / "flip" / "gru", pentathlon.result("gru", 0.5, **others))
    compat = {"protocol": "compat", "data": pentathlon.data(version=3)}
    boards.write(tmp_path / "compat" / "gru", pentathlon.result("gru", 0.5, **compat))
    found, *_ = texts(folder, tmp_path / "flip", tmp_path / "compat")
    assert len(found) == 3


def test_a_solved_run_ended_early_with_reason(tmp_path):
    """Its fewer examples are no unequal training; those of another budget are."""
    folder = suite(tmp_path / "suite")
    _, _, markdown = texts(folder)
    assert "Training was not equal" not in markdown
    boards.write(folder / "gru", pentathlon.result("gru", 0.3, steps=5000))
    _, _, markdown = texts(folder)
    assert "Training was not equal" in markdown


def test_which_examples_and_what_solved_means(tmp_path):
    fields = {"level": "L1..L3", "tests": LENGTHS}
    _, _, markdown, page = board(suite(tmp_path / "suite", **fields))
    for text in (markdown, visible(page)):
        assert "Level L1..L3 of version 1, 3,000 fixed validation examples" in text
        assert "trained at length 256" in text
        assert "accuracy of at least 0.99 in 3 validations in a row" in text
        assert "mqar L1..L3, clean protocol" in text
    assert "- version: 1" in markdown and "length\\_512" not in markdown


def test_levels_of_a_curriculum_are_told_by_seed(tmp_path):
    content = pentathlon.result("gru", 0.9)
    content["solved"]["stages"] = {"L1": 500, "L2": 2250, "L3": None}
    boards.write(tmp_path / "suite" / "gru", content)
    _, _, markdown = texts(tmp_path / "suite")
    assert "| L1: 500, L2: 2,250, L3: - |" in markdown


# --- figures ------------------------------------------------------------------


def test_every_figure_is_drawn(tmp_path):
    folder = suite(tmp_path / "suite", tests=LENGTHS)
    boards.write(folder / "fnet", pentathlon.result("fnet", 0.5, state_bytes=0))
    *_, page = board(folder, figures=True)
    assert "Figures without data" not in page
    captions = re.findall(r"<b>Figure \d+\. (.*?)\.</b>", page)
    assert captions == [
        "Quality: best validation accuracy",
        "Learning curves",
        "Runs that have solved the task",
        "Length generalisation",
        "Accuracy against state",
        "Quality against parameters",
        "Training speed",
        "Memory",
    ]
    labels = re.findall(r'<svg viewBox[^>]* role="img" aria-label="([^"]+)"', page)
    assert set(captions) <= set(labels)
    drawn = re.search(r'aria-label="Length generalisation".*?</svg>', page, re.DOTALL)
    assert "trained" in drawn[0] and "var(--line-1)" in drawn[0]
    assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]", drawn[0])
    assert "Without a state: fnet." in page


def test_figures_without_data_say_what_they_lack(tmp_path):
    content = pentathlon.result("gru", 0.5, solved=None, curve=None)
    boards.write(tmp_path / "suite" / "gru", content)
    _, lines, markdown, page = board(tmp_path / "suite", figures=True)
    for said in (
        "The results hold no curves.",
        "No run says whether it solved the task.",
        "No run was scored on longer sequences.",
    ):
        assert said in page
    assert "solved" not in lines[0] and "| steps to solve |" not in markdown


def test_curves_over_seeds():
    runs = [
        [(250.0, 0.1), (500.0, 0.5), (750.0, 1.0)],
        [(250.0, 0.2), (500.0, 0.3), (750.0, 0.4), (1000.0, 0.9)],
        [(500.0, 0.4), (1000.0, 0.6)],
    ]
    found = plots_pentathlon.over_seeds(runs)
    assert [point[0] for point in found] == [500, 750, 1000]
    # At 750 the third still has 0.4; at 1000 the first, which has ended, keeps 1.
    assert [point[1] for point in found] == [0.4, 0.4, 0.9]
    assert found[0][2:] == pytest.approx(
        tuple(np.quantile([0.5, 0.3, 0.4], [0.25, 0.75]))
    )
    assert plots_pentathlon.over_seeds([runs[0]])[0] == (250.0, 0.1, 0.1, 0.1)
    assert plots_pentathlon.over_seeds([[], []]) == []


def test_the_staircase_of_solved_runs():
    times = Times((2.0, 4.0), (3.0, 5.0))
    line = plots_pentathlon.staircase(times)
    # A quarter has solved at 2, then half of the two that are left.
    assert line == [(0, 0), (2, 0), (2, 0.25), (4, 0.25), (4, 0.625), (5, 0.625)]
    assert plots_pentathlon.censored(times) == [(3.0, 0.25), (5.0, 0.625)]
    assert plots_pentathlon.staircase(Times((), (5.0,))) == [(0, 0), (5, 0)]


# --- units ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (950, "950 FLOP"),
        (2.5e6, "2.5 MFLOP"),
        (3e12, "3 TFLOP"),
        (4.56e18, "4.56 EFLOP"),
    ],
)
def test_flops_have_units(value, shown):
    assert show("flops", value) == shown
