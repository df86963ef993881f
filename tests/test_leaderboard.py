"""A board says what the result files say: no more, no less."""

from __future__ import annotations

import json
import re
import statistics as average

import boards
import pytest
from boards import board, rows

from jaxbench.bench.leaderboard import write_leaderboard
from jaxbench.errors import InputError
from jaxbench.models.zoo import ORIGINAL
from jaxbench.tasks.zelda import published

FAR_APART = {"gru": 1.10, "lstm": 1.20, "mamba": 1.30}


def test_csv_numbers_are_the_results_numbers(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", FAR_APART, range(5), steady=True)
    _, lines, _, _ = board(suite)
    for name, line in rows(lines).items():
        results = [
            json.loads(path.read_text())
            for path in sorted((suite / "runs" / name).rglob("result.json"))
        ]
        assert len(results) == int(line["n"]) == 5 and line["failed"] == "0"

        def median(*keys, results=results):
            values = []
            for value in results:
                for key in keys:
                    value = value[key]
                values.append(value)
            return average.median(values)

        assert line["best_scores"] == "; ".join(
            repr(r["best"]["metrics"]["loss"]) for r in results
        )
        for column, keys in {
            "best_median": ("best", "metrics", "loss"),
            "last_median": ("last", "metrics", "loss"),
            "loss/main_x": ("best", "metrics", "loss/main_x"),
            "f1/buttons_micro": ("best", "metrics", "f1/buttons_micro"),
            "change/any": ("best", "metrics", "change/any"),
            "params_total": ("params", "total"),
            "state_bytes": ("state_bytes",),
            "steps_per_s": ("throughput", "steps_per_s"),
            "steady_examples_per_s": ("throughput", "steady", "examples_per_s"),
            "steady_matmul_fraction": ("throughput", "steady", "matmul_fraction"),
            "train_seconds": ("seconds", "train"),
            "peak_bytes": ("memory", "peak_bytes"),
            "latency_step_p99_ms": ("latency", "step", "p99_ms"),
            "latency_window_p50_ms": ("latency", "window", "p50_ms"),
            "learning_rate": ("learning_rate",),
        }.items():
            assert float(line[column]) == median(*keys), column
        gain = 1 - float(line["best_median"]) / boards.COPY_PREVIOUS
        assert float(line["gain_copy_previous"]) == pytest.approx(gain, rel=1e-12)
        low, high = float(line["best_low"]), float(line["best_high"])
        assert low <= float(line["best_median"]) <= high


def test_floors_are_rows_at_their_place_without_a_rank(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1, "mlp": 2.0})
    _, lines, markdown, page = board(suite)
    floors = {x["backbone"]: x for x in lines if x["kind"] == "floor"}
    assert float(floors["copy_previous"]["best_median"]) == boards.COPY_PREVIOUS
    assert float(floors["marginal"]["best_median"]) == boards.MARGINAL
    assert all(x["rank"] == "" for x in floors.values())
    ranking = markdown.split("### Ranking")[1].split("###")[0]
    order = re.findall(r"gru|mlp|floor: copy_previous|floor: marginal", ranking)
    assert order == ["gru", "floor: copy_previous", "mlp", "floor: marginal"]
    assert page.index("copy-previous <small>") < page.index("marginal <small>")


def test_rows_inside_the_noise_share_a_rank_and_others_do_not(tmp_path):
    close = {"gru": 1.100, "lstm": 1.1001, "mamba": 1.5}
    suite = boards.write_suite(tmp_path / "suite", close, range(6))
    _, lines, _, _ = board(suite)
    found = rows(lines)
    assert found["gru"]["rank"] == found["lstm"]["rank"] == "1"
    assert found["mamba"]["rank"] == "3"
    assert found["gru"]["tied_with"] == "lstm" and found["mamba"]["tied_with"] == ""


def test_one_seed_each_claims_nothing(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", FAR_APART)
    _, lines, markdown, _ = board(suite)
    assert {line["rank"] for line in rows(lines).values()} == {"1"}
    assert "one seed each: nothing is claimed" in markdown


@pytest.mark.parametrize(("status", "known"), [("diverged", True), ("oom", False)])
def test_failures_never_vanish(tmp_path, status, known):
    suite = boards.write_suite(tmp_path / "suite", FAR_APART, range(3))
    bare = {} if known else {"data": None, "floors": None, "device": None}
    lost = {"reason": "why it ended", "log_tail": ["a line before", "the last line"]}
    for name, seed in (("gru", 3), ("kan", 0)):
        content = boards.result(name, None, seed=seed, status=status, **lost, **bare)
        boards.write(suite / "runs" / name / f"seed{seed}", content)
    made, lines, markdown, page = board(suite)
    assert len(made.sections) == 1 and made.runs == 11
    found = rows(lines)
    assert found["gru"]["failed"] == "1" and found["gru"]["n"] == "3"
    assert found["kan"]["rank"] == "" and found["kan"]["status"] == status
    for name in ("gru", "kan"):
        assert f"{status}: why it ended" in found[name]["reason"]
        assert re.search(rf"\*\*{name}\*\*.*{status}\. why it ended", markdown)
    assert markdown.count("the last line") == 2
    assert page.count("why it ended") == page.count("the last line") == 4


def test_a_failed_seed_counts_against_its_backbone(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1, "lstm": 1.1}, range(4))
    for seed in (4, 5, 6):
        content = boards.result("gru", None, seed=seed, status="diverged", reason="nan")
        boards.write(suite / "runs" / "gru" / f"seed{seed}", content)
    _, lines, _, _ = board(suite)
    gru = rows(lines)["gru"]
    scores = sorted(float(score) for score in gru["best_scores"].split("; "))
    # Of 7 runs the fourth best is the worst that ended.
    assert float(gru["best_median"]) == scores[-1]


BROKEN = {
    '{"schema": 2, "task"': "Expecting",
    "": "Expecting value",
    "[1, 2]": "not a JSON object",
    json.dumps(boards.result(schema=9)): "schema 9 is not one of 1, 2",
    json.dumps(boards.result(backbone="")): "backbone is '', not a text",
    json.dumps(boards.result(status="fine")): "status 'fine' is unknown",
    json.dumps(boards.result(params=[1])): "params is",
    "\x00\xff" * 10: "Expecting value",
    "[" * 100_000: "recursion",
}


def test_a_broken_file_is_a_row_with_its_reason(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1})
    for i, text in enumerate(BROKEN):
        boards.write(suite / "runs" / "lstm" / f"seed{i}", text)
    _, lines, markdown, page = board(suite)
    found = rows(lines)
    for i, reason in enumerate(BROKEN.values()):
        broken = found[f"runs/lstm/seed{i}"]
        assert broken["status"] == "unreadable" and reason in broken["reason"]
        assert broken["rank"] == ""
        assert f"runs/lstm/seed{i}" in markdown and f"runs/lstm/seed{i}" in page
    assert found["gru"]["rank"] == "1" and len(found) == 1 + len(BROKEN)


def test_an_ok_run_without_a_finite_score_is_a_failure(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1})
    boards.write(suite / "lstm", boards.result("lstm", float("nan")))
    _, lines, _, _ = board(suite)
    lstm = rows(lines)["lstm"]
    assert (lstm["rank"], lstm["status"]) == ("", "crashed")
    assert "no finite loss" in lstm["reason"]


def test_sweep_runs_are_a_curve_and_never_in_the_ranking(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", FAR_APART, range(3))
    _, before, _, _ = board(suite)
    for rate, loss in ((3e-4, 0.2), (1e-3, 0.1), (3e-3, 0.3)):
        content = boards.result("gru", loss, rate=rate, purpose="sweep")
        boards.write(suite / "sweep" / f"gru-{rate}", content)
    content = boards.result("lstm", None, rate=1.0, purpose="sweep", status="diverged")
    boards.write(suite / "sweep" / "lstm", content)
    made, after, markdown, page = board(suite)
    assert after == before
    table = markdown.split("### Learning-rate search")[1].split("###")[0]
    assert re.search(r"gru \| 0\.2000 \| 0\.1000 \\\* \| 0\.3000", table)
    assert "| lstm |" in table and "diverged" in table
    assert len(made.sections[0].failures) == 1 and "learning-rate search" in page


def test_what_differs_is_never_one_ranking(tmp_path):
    first = boards.write_suite(tmp_path / "first", FAR_APART, range(3))
    for number, other in enumerate(
        (
            {"fingerprint": "f" * 64},
            {"protocol": "compat"},
            {"task": "pile"},
            {"data": boards.data(source="simulated")},
        )
    ):
        second = boards.write_suite(
            tmp_path / str(number), {"gru": 0.5}, range(3), **other
        )
        made, lines, markdown, page = board(first, second)
        assert sorted(len(section.rows) for section in made.sections) == [1, 3], other
        assert len([x for x in lines if x["backbone"] == "gru"]) == 2
        for text in (markdown, page):
            assert "2 rankings, because task, protocol or data differ" in text
        assert page.count('<section class="ranking"') == 2


def test_devices_are_not_compared_in_speed_and_a_board_is_made_the_same_again(tmp_path):
    suite = boards.write_suite(tmp_path / "cpu", FAR_APART)
    other = boards.write_suite(tmp_path / "gpu", {"s4": 1.0}, device="gpu")
    made, lines, markdown, page = board(suite, other, figures=True)
    assert len(made.sections) == 1
    assert {x["device"] for x in rows(lines).values()} == {"cpu", "gpu"}
    assert "Runs come from 2 devices" in markdown
    for title in ("Training speed, gpu", "Memory, gpu", "Quality against latency, gpu"):
        assert title in page
    assert board(suite, other, figures=True)[1:] == (lines, markdown, page)


def test_recipes_of_one_backbone_are_rows_of_their_own(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1}, range(3), rate=1e-3)
    other = boards.write_suite(tmp_path / "other", {"gru": 1.2}, range(3), rate=3e-3)
    _, lines, _, _ = board(suite, other)
    assert len(rows(lines)) == 2
    assert all(line["n"] == "3" for line in rows(lines).values())


def test_a_seed_counts_once(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1}, range(3))
    copy = boards.write_suite(tmp_path / "copy", {"gru": 1.1}, range(3))
    _, lines, markdown, _ = board(suite, suite / "runs", copy)
    assert rows(lines)["gru"]["n"] == "3"
    assert "same seed of the same recipe" in markdown


def test_unequal_training_is_said(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1}, steps=2000)
    boards.write(suite / "lstm", boards.result("lstm", 1.0, steps=6000))
    _, _, markdown, page = board(suite)
    for text in (markdown, page):
        assert "Training was not equal" in text and "384,000 (lstm)" in text


def test_schema_1_is_read(tmp_path):
    content = boards.result("gru", 1.1)
    for new in ("purpose", "learning_rate", "group", "primary", "curve", "log_tail"):
        del content[new]
    content["throughput"].pop("steady")
    content["memory"] = {"predicted_bytes": 7, "peak_bytes": 9}
    boards.write(tmp_path / "gru", content | {"schema": 1, "latency": None})
    _, lines, markdown, page = board(tmp_path / "gru", figures=True)
    (line,) = rows(lines).values()
    assert float(line["best_median"]) == 1.1 and line["peak_bytes"] == "9"
    assert "learning_rate" not in line and "remat" not in line
    assert "schema 1 did not keep them" in page
    assert "### Latency\n\nNot measured." in markdown


def test_more_can_be_better(tmp_path):
    for name, seed in ((n, s) for n in ("gru", "lstm") for s in range(6)):
        score = (0.9 if name == "gru" else 0.4) + 0.001 * seed
        best = {"step": 1, "metrics": {"accuracy": score}}
        content = boards.result(
            name,
            seed=seed,
            task="mqar",
            best=best,
            last=best,
            primary={"metric": "accuracy", "maximize": True},
            floors={"chance": {"accuracy": 0.1}},
        )
        boards.write(tmp_path / "suite" / name / str(seed), content)
    made, lines, _, _ = board(tmp_path / "suite")
    assert [row.name for row in made.sections[0].rows] == ["gru", "lstm"]
    assert [x["rank"] for x in rows(lines).values()] == ["1", "2"]
    assert float(rows(lines)["gru"]["gain_chance"]) == pytest.approx(8.025)


def test_published_numbers_stand_beside_ours_in_compat_only(tmp_path):
    clean = boards.write_suite(tmp_path / "clean", {"gru": 1.1})
    _, _, markdown, page = board(clean)
    assert "2.8219" not in markdown and "2.8219" not in page
    compat = boards.write_suite(
        tmp_path / "compat", {"gru": 2.9, "s4": 2.8}, protocol="compat"
    )
    _, _, markdown, page = board(compat)
    for text in (markdown, page):
        assert "2.8219" in text and "162.00" in text and "micro-benchmark" in text
    table = markdown.split("### The published numbers")[1]
    assert table.index("| s4 | S4 | 1 |") < table.index("| gru | GRU | 5 |")


def test_the_published_rows_are_the_34_of_the_original():
    assert set(published.ROWS) == set(ORIGINAL.values())
    losses = [row.loss for row in published.ROWS.values() if row.loss is not None]
    assert len(losses) == 31 and losses == sorted(losses)
    fast = [row.latency_ms for row in published.ROWS.values() if row.latency_ms]
    assert len(fast) == 10 and sum(ms < 1000 / 60 for ms in fast) == 5


def test_hostile_text_stays_text(tmp_path):
    name = '<img src=x onerror="alert(1)">|`$x$'
    script = "</script><script>document.title='owned'</script>\x1b[31m\u2028&<b>"
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1, name: 1.2}, range(3))
    bad = boards.result(
        name, None, seed=9, status="crashed", reason=script, log_tail=[script] * 3
    )
    boards.write(suite / "bad", bad | {"git": script, "versions": {script: script}})
    _, lines, markdown, page = board(suite, figures=True)
    assert name in rows(lines)
    body = page.split("<body>")[1]
    assert "<img" not in body and "onerror=&quot;alert" in body
    assert body.count("<script>") == 1 and body.count("</script>") == 1
    assert "\x1b" not in page + markdown and "\u2028" not in page + markdown
    prose = re.sub(r"^ {6}.*$", "", markdown, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)<(?:img|script|b>)", prose)
    for line in markdown.splitlines():
        if line.startswith("| ") and "img" in line and "alert" in line:
            assert r"\|" in line


def test_long_logs_do_not_make_a_long_page(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1})
    log = ["x" * 10_000] * 300
    content = boards.result("lstm", None, status="crashed", reason="z", log_tail=log)
    boards.write(suite / "lstm", content)
    made, *_ = board(suite)
    assert made.html.stat().st_size < 300_000


def test_nothing_to_show_is_one_clear_line(tmp_path):
    broken = boards.write(tmp_path / "broken", "{")
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (tmp_path / "empty", "no result.json under"),
        (tmp_path / "missing", "is not a folder"),
        (broken, "none of 1 result.json can be read"),
    ):
        with pytest.raises(InputError, match=message) as error:
            write_leaderboard([folder], tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_files_are_whole_or_as_they_were(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1})
    made, *_ = board(suite)
    old = made.markdown.read_text()
    boards.write(suite / "lstm", boards.result("lstm", 1.0))
    # A folder in the place of the last partial file: writing it must fail.
    blocker = made.html.with_name("leaderboard.html.partial")
    blocker.mkdir()
    with pytest.raises(InputError, match="cannot write the leaderboard"):
        board(suite)
    blocker.rmdir()
    assert made.markdown.read_text() == old
    assert not list(made.html.parent.glob("*.partial"))


def test_checkpoints_are_not_searched(tmp_path):
    suite = boards.write_suite(tmp_path / "suite", {"gru": 1.1})
    boards.write(suite / "runs" / "gru" / "checkpoints" / "5", boards.result("s4", 0.1))
    _, lines, _, _ = board(suite)
    assert set(rows(lines)) == {"gru"}


@pytest.mark.integration
def test_sixty_backbones_with_ten_seeds_are_ranked(tmp_path):
    losses = {f"b{i:02}": 1.1 + 0.002 * i for i in range(60)}
    suite = boards.write_suite(tmp_path / "suite", losses, range(10))
    made, lines, _, _ = board(suite, figures=True)
    assert made.runs == 600 and len(rows(lines)) == 60
    assert made.html.stat().st_size < 3_000_000
