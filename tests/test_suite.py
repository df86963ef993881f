"""A suite: isolation, failures as rows, and going on after any end.

Where a test is of the suite and not of training, its children are processes that last
a moment and leave what a run leaves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import boards
import pytest
from commands import assert_one_line_error, jaxbench
from processes import ROOT, config, environment

from configs import zelda
from jaxbench.bench.heartbeat import FILE, read_heartbeat
from jaxbench.bench.result import blank_result
from jaxbench.bench.run_folder import held, is_held, read_json
from jaxbench.bench.suite import process
from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.bench.suite.schedule import Limits, finished_results, run_suite
from jaxbench.errors import InputError

BEAT = {"phase": "train", "step": 4, "total": 100, "loss": 1.5, "steps_per_s": 2.0}
BEAT["seconds_left"] = 48.0
RECORD = {"step": 4, "split": "train", "total_loss": 1.5}
HOLD = "import time; time.sleep(100)"


def request_of(*, backbones=("gru",), seeds=(0,), **data) -> Request:
    base = json.loads(zelda.get_config("width=16").to_json())
    base["data"] |= data
    return Request(base, tuple(backbones), tuple(seeds))


def run(request: Request, folder: Path, limits: Limits | None = None, **options):
    options = {"command": ("test",), "jobs": 1} | options
    return run_suite(request, folder, limits=limits or Limits(), **options)


def only_result(outcome) -> dict:
    (result,) = outcome.results.values()
    return dict(result)


@pytest.fixture
def children(monkeypatch):
    """Puts small processes in the place of runs.

    Each has trained for four steps when it begins; `act` gets its folder then, and
    `code` is what the process does.
    """
    begin = subprocess.Popen

    def replace(code: str = "", act: Callable[[Path], None] = lambda folder: None):
        def popen(arguments, **options):
            if "jaxbench.bench.suite.child" not in arguments:
                return begin(arguments, **options)
            folder = Path(arguments[-1])
            (folder / FILE).write_text(json.dumps(BEAT))
            (folder / "metrics.jsonl").write_text(json.dumps(RECORD) + "\n")
            act(folder)
            code_of_all = f"print('training', flush=True); {code}"
            return begin([sys.executable, "-c", code_of_all], **options)

        monkeypatch.setattr(process.subprocess, "Popen", popen)

    return replace


def finish(loss_of: Callable[[dict], float | None]) -> Callable[[Path], None]:
    """An act that writes the result of a run; one without a loss has diverged."""

    def act(folder: Path) -> None:
        of = read_json(folder / "config.json")
        loss = loss_of(of)
        content = boards.result(
            of["model"]["backbone"],
            loss,
            seed=of["seed"],
            rate=of["train"]["learning_rate"],
            purpose=of["purpose"],
            status="diverged" if loss is None else "ok",
            reason="the loss is not finite" if loss is None else "",
        )
        (folder / "result.json").write_text(json.dumps(content))

    return act


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_run_that_a_signal_ends_is_a_row(name, children, tmp_path):
    number = int(getattr(signal, name))
    children(f"import os; os.kill(os.getpid(), {number})")
    request = request_of()
    (cell,) = request.cells({})
    outcome = run(request, tmp_path)
    result = only_result(outcome)
    assert result["status"] == "crashed"
    assert f"ended by {name} at step 4" in result["reason"]
    assert result["steps"] == 4 and result["log_tail"] == ["training"]
    assert result["curve"]["train"]
    assert not outcome.all_ok() and not outcome.interrupted
    assert set(result) == set(blank_result(cell.config(request.base), "ok", ""))
    # It stands, and is run again only when asked for.
    assert finished_results(request, tmp_path, retry=False)
    assert not finished_results(request, tmp_path, retry=True)


def test_a_kill_by_the_kernel_is_out_of_memory(children, tmp_path, monkeypatch):
    kills = iter([3, 4])
    monkeypatch.setattr(process, "oom_kills", lambda: next(kills, 4))
    children("import os; os.kill(os.getpid(), 9)")
    result = only_result(run(request_of(), tmp_path))
    assert result["status"] == "oom" and "want of memory" in result["reason"]


def test_a_run_that_hangs_is_a_row(children, tmp_path, monkeypatch):
    """It does not even answer when it is asked to end; the file's age tells."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.1)

    def long_ago(folder: Path) -> None:
        then = time.time() - 3600
        os.utime(folder / FILE, (then, then))

    children("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", long_ago)
    result = only_result(run(request_of(), tmp_path, Limits(hang=1800)))
    assert result["status"] == "timeout" and "hung: no sign" in result["reason"]


def test_a_run_over_its_time_is_a_row(children, tmp_path):
    children(HOLD)
    result = only_result(run(request_of(), tmp_path, Limits(timeout=0.5)))
    assert result["status"] == "timeout" and "not done after 0 s" in result["reason"]


@pytest.mark.integration
def test_missing_data_is_a_row(tmp_path):
    """A child as it is, which refuses its data."""
    (tmp_path / "replays").mkdir()
    request = request_of(replays=str(tmp_path / "replays"))
    result = only_result(run(request, tmp_path / "suite"))
    assert result["status"] == "crashed"
    assert "unusable input: " in result["reason"] and "no .slp" in result["reason"]
    assert any("no .slp" in line for line in result["log_tail"])


def test_the_suite_refuses_what_no_run_could_use(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        run(request_of(replays=str(tmp_path / "none")), tmp_path / "suite")
    request = request_of()
    request.base["train"]["batch_size"] = 0
    with pytest.raises(InputError, match="batch_size"):
        run(request, tmp_path / "suite")
    assert not (tmp_path / "suite").exists()


def test_rows_side_by_side_resume_and_do_not_repeat(children, tmp_path):
    children("", finish(lambda of: 1.0))
    request = request_of(backbones=("gru", "mlp"))
    outcome = run(request, tmp_path / "suite", jobs=2)
    assert outcome.all_ok() and len(outcome.results) == 2
    files = {
        path: path.stat().st_mtime_ns
        for path in (tmp_path / "suite").rglob("result.json")
    }
    assert len(files) == 2
    more = dataclasses.replace(request, seeds=(0, 1))
    outcome = run(more, tmp_path / "suite")
    assert outcome.all_ok() and len(outcome.results) == 4
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())
    other = dataclasses.replace(request, base=json.loads(json.dumps(request.base)))
    other.base["model"]["width"] = 32
    with pytest.raises(InputError, match=r"model\.width is 16 there and 32"):
        run(other, tmp_path / "suite")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no suite"):
        run(request, tmp_path / "notes")


def test_a_folder_is_held_by_one_process(tmp_path):
    code = (
        "import sys, time; from pathlib import Path;"
        "from jaxbench.bench.run_folder import held\n"
        "with held(Path(sys.argv[1]), 'the suite'): print('in', flush=True); "
        "time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == b"in\n"
        assert is_held(tmp_path)
        expected = f"the suite .* is held by process {other.pid} on "
        with pytest.raises(InputError, match=expected), held(tmp_path, "the suite"):
            pass
    finally:
        other.kill()
        other.wait()
    assert not is_held(tmp_path)
    with held(tmp_path, "the suite"):
        assert is_held(tmp_path)


# --- the command --------------------------------------------------------------


FLAGS = ("suite", config("zelda.py:width=16"))


def test_the_command_makes_rows_and_a_board(children, tmp_path):
    flags = (*FLAGS, "--only=gru,mlp", "--folder=s")
    plan = jaxbench(*flags, "--dry_run", cwd=tmp_path)
    assert plan.returncode == 0 and "2 runs, 2 to do" in plan.stdout, plan.stderr
    assert list(tmp_path.iterdir()) == []
    children("", finish(lambda of: 1.0 if of["model"]["backbone"] == "gru" else None))
    done = jaxbench(*flags, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "diverged" in done.stdout and "not finite" in done.stdout
    board = (tmp_path / "s" / "leaderboard.md").read_text()
    assert "gru" in board and "diverged" in board
    assert (tmp_path / "s" / "leaderboard.html").exists()
    again = jaxbench(*flags, "--dry_run", cwd=tmp_path)
    assert "2 runs, 0 to do" in again.stdout


def test_the_command_sweeps_then_scores_at_the_best_rate(children, tmp_path):
    children("", finish(lambda of: 1 + abs(of["train"]["learning_rate"] - 1e-2)))
    flags = (*FLAGS, "--only=mlp", "--sweep=1e-6,1e-2", "--folder=s")
    flags = (*flags, "--side_by_side=off")
    done = jaxbench(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(p.read_text()) for p in (tmp_path / "s").rglob("result.json")]
    sweep = {r["learning_rate"]: r for r in rows if r["purpose"] == "sweep"}
    (score,) = (r for r in rows if r["purpose"] == "score")
    # The best of the two is at the edge, so one more is tried beyond.
    assert set(sweep) == {1e-6, 1e-2, 3e-2} and score["learning_rate"] == 1e-2
    assert {r["seed"] for r in sweep.values()}.isdisjoint({score["seed"]})


@pytest.mark.parametrize(
    "flags, texts",
    [
        (["--only=gruu"], ["no backbone is called 'gruu'"]),
        (["--skip=gru", "--only=gru"], ["leave no backbone"]),
        (["--seeds=none"], ["--seeds='none'"]),
        (["--timeout=soon"], ["--timeout='soon'"]),
        (["--memory_limit=lots"], ["--memory_limit='lots'"]),
        (["--sweep=0"], ["--sweep='0'"]),
        (["--jobs=-1"], ["--jobs=-1"]),
        (["--config.model.widht=3"], ["widht"]),
        (["--config.data.replays=nowhere"], ["nowhere"]),
        (["--confg=3"], ["unrecognized arguments: --confg=3"]),
    ],
    ids=lambda value: value[0][:30],
)
def test_bad_input_of_the_command_is_one_line(flags, texts, tmp_path):
    assert_one_line_error(jaxbench(*FLAGS, *flags, cwd=tmp_path), *texts)
    assert list(tmp_path.iterdir()) == []


# --- real runs ----------------------------------------------------------------


def numbers(folder: Path) -> dict[str, dict]:
    keys = ("status", "steps", "best", "last", "floors", "curve")
    return {
        str(path.relative_to(folder)): {
            k: json.loads(path.read_text())[k] for k in keys
        }
        for path in sorted(folder.rglob("result.json"))
    }


def text_flags(shared_runs, *flags: str) -> list[str]:
    recipe = config(shared_runs.recipe("text"))
    return [sys.executable, "-m", "jaxbench.cli", "suite", recipe, *flags]


@pytest.mark.slow
def test_a_suite_killed_three_times_ends_as_one_that_was_not(shared_runs, tmp_path):
    def suite(folder: str) -> subprocess.Popen:
        flags = text_flags(
            shared_runs,
            *("--config.train.budget=6000steps", "--config.train.checkpoint_every=400"),
            *("--seeds=2", "--jobs=2", f"--folder={folder}"),
        )
        return subprocess.Popen(
            flags, cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
        )

    assert suite("whole").wait(800) == 0
    draw = random.Random(5)
    for _ in range(3):
        victim = suite("killed")
        time.sleep(draw.uniform(3, 20))
        victim.kill()
        victim.wait()
    assert suite("killed").wait(800) == 0
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    for path in (tmp_path / "killed").rglob("metrics.jsonl"):
        same = tmp_path / "whole" / path.relative_to(tmp_path / "killed")
        assert path.read_text() == same.read_text(), "a record is lost or doubled"


@pytest.mark.integration
def test_stopping_a_suite_stops_its_runs_and_goes_on_later(shared_runs, tmp_path):
    endless = ("--config.train.budget=100000steps", "--folder=s")
    flags = text_flags(shared_runs, *endless)
    victim = subprocess.Popen(
        flags,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    rate = shared_runs.config("text")["train"]["learning_rate"]
    folder = Cell("gru", 0, rate).folder(tmp_path / "s")

    def stop_once_it_trains() -> None:
        # The test has a time limit, and this thread ends with the process.
        while "step" not in read_heartbeat(folder)[0]:
            time.sleep(0.05)
        victim.terminate()

    threading.Thread(target=stop_once_it_trains, daemon=True).start()
    out, _ = victim.communicate(timeout=800)
    assert victim.returncode == 128 + signal.SIGTERM, out
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "interrupted" and result["steps"] > 0
    assert not is_held(folder) and not is_held(tmp_path / "s")
    plan = jaxbench(*flags[3:], "--dry_run", cwd=tmp_path)
    assert "1 runs, 1 to do" in plan.stdout
