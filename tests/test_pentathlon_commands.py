"""Synthetic tasks as their user runs them: files, exit codes, words on bad input."""

from __future__ import annotations

import json
import shutil

import boards
import pytest
from commands import assert_one_line_error, jaxbench, run_py
from processes import config

from jaxbench.bench.run_folder import write_json

TINY = (
    "width=16,depth=1,max_steps=40,batch_size=16,evaluate_every=10,steps_per_dispatch=5,"
    "train_examples=0,test_examples=40,platform=cpu,compilation_cache="
)
MQAR = f"mqar.py:level=custom,pairs=2,tokens=12,vocabulary=16,{TINY}"
WORDS = f"word_problem.py:group=Z60,level=L1,{TINY}"


@pytest.mark.integration
def test_a_run_ends_when_it_is_solved_and_scores_its_tests_once(shared_runs):
    result = json.loads((shared_runs("recall") / "result.json").read_text())
    assert result["status"] == "ok" and result["task"] == "mqar"
    # Three validations above a threshold that chance passes.
    assert result["steps"] == 30 and result["solved"]["step"] == 10
    assert result["solved"]["examples"] == 160
    assert result["solved"]["tokens"] == 160 * 12
    assert result["solved"]["flops"] == 10 * result["step_flops"] > 0
    assert result["solved"]["stages"] == {"custom": 10}
    assert result["ceiling"] == {"accuracy": 1.0}
    assert set(result["scores"]) == {"test"}
    assert result["excluded"] == {}
    assert {"uniform", "mode", "in_context_value"} <= set(result["floors"])
    assert result["data"]["version"] == 1 and result["data"]["fingerprint"]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (f"mqar.py:gru,level=L8,{TINY}", "there is no level 'L8'; nearest: L"),
        (f"mqar.py:gru,level=L1..,{TINY}", "a curriculum without an end"),
        (
            f"mqar.py:gru,level=custom,pairs=9,tokens=20,{TINY}",
            "9 are more pairs than the vocabulary or the sequence holds",
        ),
        (f"knapsack.py:gru,target=sum,{TINY}", "target='sum' is unknown"),
        (f"mqar.py:swa/noconv,{TINY}", "has no short convolution to take out"),
        (f"mqar.py:gru,parameters=20k,{TINY}", "both say how wide the model is"),
        (f"flip_flop.py:gru,solved=2,{TINY}", "goal.solved=2.0 must lie in (0, 1]"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(recipe, says, tmp_path):
    done = run_py(config(recipe), "--workdir=run", cwd=tmp_path)
    assert_one_line_error(done, says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_nothing_to_play_or_to_write_is_said(shared_runs, tmp_path):
    shutil.copytree(shared_runs("recall"), tmp_path / "run")
    done = jaxbench("latency", "run", cwd=tmp_path)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "neither played nor written" in said
    done = jaxbench("sample", "run", cwd=tmp_path)
    assert_one_line_error(done, "writes no text")


def test_a_board_over_two_versions_is_refused(tmp_path):
    for version in (1, 2):
        data = boards.data(source="synthetic") | {"version": version}
        changed = boards.result("gru", 0.5, task="mqar", data=data)
        (tmp_path / f"v{version}").mkdir()
        write_json(tmp_path / f"v{version}" / "result.json", changed)
    done = jaxbench("leaderboard", "v1", "v2", "--out=board", cwd=tmp_path)
    assert_one_line_error(done, "version", "v1", "v2")
    assert not (tmp_path / "board").exists()


def test_sides_that_cannot_be_one_program_are_refused(tmp_path):
    recipe = config(f"mqar.py:lstm_report,protocol=compat,epochs=1,{COMPAT}")
    done = jaxbench("suite", recipe, "--side_by_side", "--folder=s", cwd=tmp_path)
    assert_one_line_error(done, "leave out --side_by_side")
    assert not (tmp_path / "s").exists()


COMPAT = "width=16,platform=cpu,compilation_cache="


@pytest.mark.integration
def test_several_recipes_side_by_side_are_one_suite_and_one_board(tmp_path):
    flags = ["suite", config(MQAR), config(WORDS)]
    flags += ["--only=gru", "--seeds=2", "--side_by_side", "--folder=both"]
    done = jaxbench(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(p.read_text()) for p in tmp_path.rglob("result.json")]
    assert {(r["task"], r["seed"]) for r in results} == {
        (task, seed) for task in ("mqar", "word_problem") for seed in (0, 1)
    }
    assert {r["status"] for r in results} == {"ok"}
    assert {r["copies"] for r in results} == {2}
    board = (tmp_path / "both/leaderboard.md").read_text()
    assert "mqar" in board and r"word\_problem" in board
    assert "Takes no part" in board and (tmp_path / "both/leaderboard.html").exists()
    again = jaxbench(*flags, cwd=tmp_path)
    assert again.returncode == 0 and "2 runs side by side" not in again.stderr


@pytest.mark.integration
def test_the_report_s_run_has_its_epochs(tmp_path):
    recipe = config(f"flip_flop.py:lstm_report,protocol=compat,epochs=2,{COMPAT}")
    done = run_py(recipe, "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["steps"] == 64 and result["protocol"] == "compat"
    assert [step for step, _ in result["curve"]["validation"]] == [32, 64]
    # The off-by-one: nobody can pass this, and it is told.
    assert result["ceiling"]["accuracy"] == pytest.approx(0.107, abs=1e-3)
    assert result["best"]["metrics"]["accuracy"] < 0.13
