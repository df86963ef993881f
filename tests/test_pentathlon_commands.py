"""Synthetic tasks as their user runs them: files, exit codes, words on bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from processes import config, jaxbench, run_py

TINY = (
    "width=16,depth=1,max_steps=40,batch_size=16,evaluate_every=10,steps_per_dispatch=5,"
    "train_examples=0,test_examples=40,platform=cpu,compilation_cache="
)
MQAR = f"mqar.py:gru,level=custom,pairs=2,tokens=12,vocabulary=16,{TINY}"
WORDS = f"word_problem.py:group=Z60,level=L1,{TINY}"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("cwd")
    recipe = config(f"{MQAR},solved=0.02,positions=learned")
    done = run_py(recipe, "--workdir=run", cwd=cwd, cache=home)
    assert done.returncode == 0, done.stderr
    return cwd, recipe, done


def test_a_run_ends_when_it_is_solved_and_scores_its_tests_once(finished, home):
    cwd, recipe, done = finished
    result = json.loads((cwd / "run/result.json").read_text())
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
    assert "accuracy" in done.stdout + done.stderr
    before = (cwd / "run/result.json").read_bytes()
    again = run_py(recipe, "--workdir=run", cwd=cwd, cache=home)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    assert (cwd / "run/result.json").read_bytes() == before


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
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    recipe, says, home, tmp_path
):
    done = run_py(config(recipe), "--workdir=run", cwd=tmp_path, cache=home)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 1 and says in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_nothing_to_play_or_to_write_is_said(finished, home):
    cwd, *_ = finished
    done = jaxbench("latency", "run", cwd=cwd, cache=home)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "neither played nor written" in said
    done = jaxbench("sample", "run", cwd=cwd, cache=home)
    assert done.returncode == 2 and "writes no text" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_board_over_two_versions_is_refused(finished, home, tmp_path):
    cwd, *_ = finished
    result = json.loads((cwd / "run/result.json").read_text())
    for version in (1, 2):
        folder = tmp_path / f"v{version}"
        folder.mkdir()
        changed = {**result, "data": {**result["data"], "version": version}}
        (folder / "result.json").write_text(json.dumps(changed))
    done = jaxbench("leaderboard", "v1", "v2", "--out=board", cwd=tmp_path, cache=home)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "version" in done.stderr and "v1" in done.stderr and "v2" in done.stderr
    assert not (tmp_path / "board").exists()


def test_sides_that_cannot_be_one_program_are_refused(home, tmp_path):
    recipe = config(f"mqar.py:lstm_report,protocol=compat,epochs=1,{COMPAT}")
    done = jaxbench(
        "suite", recipe, "--side_by_side", "--folder=s", cwd=tmp_path, cache=home
    )
    assert done.returncode == 2 and "leave out --side_by_side" in done.stderr
    assert not (tmp_path / "s").exists()


COMPAT = "width=16,platform=cpu,compilation_cache="


@pytest.mark.integration
def test_several_recipes_side_by_side_are_one_suite_and_one_board(home, tmp_path):
    flags = [
        "suite",
        config(MQAR.replace("gru,", "")),
        config(WORDS),
        *("--only=gru,mlp", "--seeds=2", "--side_by_side", "--folder=both"),
    ]
    done = jaxbench(*flags, cwd=tmp_path, cache=home, timeout=500)
    assert done.returncode == 0, done.stderr
    results = [json.loads(p.read_text()) for p in tmp_path.rglob("result.json")]
    assert {(r["task"], r["backbone"], r["seed"]) for r in results} == {
        (task, backbone, seed)
        for task in ("mqar", "word_problem")
        for backbone in ("gru", "mlp")
        for seed in (0, 1)
    }
    assert {r["status"] for r in results} == {"ok"}
    assert {r["copies"] for r in results} == {2}
    board = (tmp_path / "both/leaderboard.md").read_text()
    assert "mqar" in board and "word_problem" in board
    assert "recall" in board and (tmp_path / "both/leaderboard.html").exists()
    again = jaxbench(*flags, cwd=tmp_path, cache=home)
    assert again.returncode == 0 and "2 runs side by side" not in again.stderr


@pytest.mark.integration
def test_the_report_s_run_has_its_epochs(home, tmp_path):
    recipe = config(f"flip_flop.py:lstm_report,protocol=compat,epochs=2,{COMPAT}")
    done = run_py(recipe, "--workdir=run", cwd=tmp_path, cache=home)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["steps"] == 64 and result["protocol"] == "compat"
    assert [step for step, _ in result["curve"]["validation"]] == [32, 64]
    # The off-by-one: nobody can pass this, and it is told.
    assert result["ceiling"]["accuracy"] == pytest.approx(0.107, abs=1e-3)
    assert result["best"]["metrics"]["accuracy"] < 0.13
