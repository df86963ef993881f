"""A suite: isolation, failures as rows, and going on after any end."""

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

import pytest
from processes import ROOT, environment, jaxbench

from configs import zelda
from jaxbench.bench.heartbeat import FILE, read_heartbeat
from jaxbench.bench.result import blank_result
from jaxbench.bench.run_folder import held, is_held
from jaxbench.bench.suite import process
from jaxbench.bench.suite.plan import Cell, Request
from jaxbench.bench.suite.schedule import Limits, finished_results, run_suite
from jaxbench.errors import InputError

# Several processes that compile, each of them, on cores that others may use too.
pytestmark = pytest.mark.timeout(900)

SETTINGS = "width=16,window=8,batch_size=16,steps_per_dispatch=4,warmup_steps=2"
ENDLESS = "epochs=1000000,checkpoint_every=100"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Simulated games and compiled programs that the suites here share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def compiled(cache, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache / "xla"))


def request_of(
    cache: Path, text: str, *, backbones=("gru",), seeds=(0,), **changes
) -> Request:
    text = f"{SETTINGS},{text},simulated_games=3,cache={cache}"
    base = json.loads(zelda.get_config(text).to_json())
    base["data"] |= changes
    return Request(base, tuple(backbones), tuple(seeds))


def run(request: Request, folder: Path, limits: Limits | None = None, **options):
    options = {"command": ("test",), "jobs": 1} | options
    return run_suite(request, folder, limits=limits or Limits(), **options)


def only_result(outcome) -> dict:
    (result,) = outcome.results.values()
    return dict(result)


class Saboteur(threading.Thread):
    """Does something to a run's process once it trains."""

    def __init__(self, folder: Path, act: Callable[[int], None]):
        super().__init__(daemon=True)
        self.folder, self.act = folder, act
        self.start()

    def run(self) -> None:
        # The test has a time limit, and this thread ends with the process.
        while True:
            if "step" in read_heartbeat(self.folder)[0]:
                holder = (self.folder / "lock").read_text()
                self.act(int(holder.split()[1]))
                return
            time.sleep(0.05)


@pytest.mark.parametrize(
    "number, status, text",
    [
        pytest.param(
            signal.SIGKILL, "crashed", "ended by SIGKILL at step", id="killed"
        ),
        pytest.param(
            signal.SIGSEGV,
            "crashed",
            "ended by SIGSEGV at step",
            id="crash",
            marks=[pytest.mark.integration],
        ),
    ],
)
def test_a_run_that_a_signal_ends_is_a_row(number, status, text, cache, tmp_path):
    request = request_of(cache, ENDLESS)
    (cell,) = request.cells({})
    saboteur = Saboteur(cell.folder(tmp_path), lambda pid: os.kill(pid, number))
    outcome = run(request, tmp_path)
    saboteur.join(5)
    result = only_result(outcome)
    assert result["status"] == status and text in result["reason"], result["reason"]
    assert result["steps"] > 0 and result["log_tail"] and result["curve"]["train"]
    assert not outcome.all_ok() and not outcome.interrupted
    assert set(result) == set(blank_result(cell.config(request.base), "ok", ""))
    # It stands, and is run again only when asked for.
    assert finished_results(request, tmp_path, retry=False)
    assert not finished_results(request, tmp_path, retry=True)


@pytest.mark.integration
def test_a_kill_by_the_kernel_is_out_of_memory(cache, tmp_path, monkeypatch):
    kills = iter([3, 4])
    monkeypatch.setattr(process, "oom_kills", lambda: next(kills, 4))
    request = request_of(cache, ENDLESS)
    (cell,) = request.cells({})
    Saboteur(cell.folder(tmp_path), lambda pid: os.kill(pid, signal.SIGKILL))
    result = only_result(run(request, tmp_path))
    assert result["status"] == "oom" and "want of memory" in result["reason"]


@pytest.mark.integration
def test_a_run_that_hangs_is_a_row(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    request = request_of(cache, ENDLESS)
    (cell,) = request.cells({})
    folder = cell.folder(tmp_path)

    def freeze(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.2)
        long_ago = time.time() - 3600
        os.utime(folder / FILE, (long_ago, long_ago))

    Saboteur(folder, freeze)
    began = time.monotonic()
    result = only_result(run(request, tmp_path, Limits(hang=1800)))
    # Nobody waited the half hour: the file's age tells.
    assert time.monotonic() - began < 240
    assert result["status"] == "timeout" and "hung: no sign" in result["reason"]


def test_a_run_over_its_time_is_a_row(cache, tmp_path):
    result = only_result(run(request_of(cache, ENDLESS), tmp_path, Limits(timeout=0.5)))
    assert result["status"] == "timeout" and "not done after 0 s" in result["reason"]


def test_missing_data_is_a_row_and_a_missing_folder_is_refused(cache, tmp_path):
    replays = tmp_path / "replays"
    replays.mkdir()
    request = request_of(cache, "max_steps=8", replays=str(replays))
    result = only_result(run(request, tmp_path / "suite"))
    assert result["status"] == "crashed"
    assert "unusable input: " in result["reason"] and "no .slp" in result["reason"]
    assert any("no .slp" in line for line in result["log_tail"])
    replays.rmdir()
    with pytest.raises(InputError, match="is no folder"):
        run(request, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_suite_refuses_what_no_run_could_use(cache, tmp_path):
    request = request_of(cache, "max_steps=8")
    request.base["train"]["batch_size"] = 0
    with pytest.raises(InputError, match="batch_size"):
        run(request, tmp_path / "suite")
    assert not (tmp_path / "suite").exists()


@pytest.mark.integration
def test_rows_side_by_side_resume_and_do_not_repeat(cache, tmp_path):
    request = request_of(cache, "max_steps=8", backbones=("gru", "mlp"))
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


def suite_flags(cache: Path, text: str, *flags: str) -> list[str]:
    settings = f"{SETTINGS},{text},simulated_games=3,cache={cache}"
    return ["suite", f"--config={ROOT / 'configs/zelda.py'}:{settings}", *flags]


def test_the_command_makes_rows_and_a_board(cache, tmp_path):
    flags = suite_flags(cache, "max_steps=8", "--only=gru,mlp", "--folder=s")
    plan = jaxbench(*flags, "--dry_run", cwd=tmp_path)
    assert plan.returncode == 0 and "2 runs, 2 to do" in plan.stdout, plan.stderr
    assert list(tmp_path.iterdir()) == []
    # A decay with which nothing stays finite.
    overflow = "--config.train.weight_decay=1e38"
    done = jaxbench(*flags, overflow, cwd=tmp_path, timeout=800)
    assert done.returncode == 1, done.stderr
    assert "diverged" in done.stdout and "not finite" in done.stdout
    board = (tmp_path / "s" / "leaderboard.md").read_text()
    assert "gru" in board and "diverged" in board
    assert (tmp_path / "s" / "leaderboard.html").exists()
    again = jaxbench(*flags, overflow, "--dry_run", cwd=tmp_path)
    assert "2 runs, 0 to do" in again.stdout


@pytest.mark.integration
def test_the_command_sweeps_then_scores_at_the_best_rate(cache, tmp_path):
    flags = suite_flags(
        cache, "max_steps=8", "--only=mlp", "--sweep=1e-6,1e-2", "--folder=s"
    )
    done = jaxbench(*flags, cwd=tmp_path, timeout=800)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(p.read_text()) for p in (tmp_path / "s").rglob("result.json")]
    sweep = {r["learning_rate"]: r for r in rows if r["purpose"] == "sweep"}
    (score,) = (r for r in rows if r["purpose"] == "score")
    best = min(sweep, key=lambda rate: sweep[rate]["best"]["metrics"]["loss"])
    assert len(sweep) == 2 and score["learning_rate"] == best
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
def test_bad_input_of_the_command_is_one_line(flags, texts, cache, tmp_path):
    done = jaxbench(*suite_flags(cache, "max_steps=8"), *flags, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    for text in texts:
        assert text in errors[0]
    assert list(tmp_path.iterdir()) == []


def numbers(folder: Path) -> dict[str, dict]:
    keys = ("status", "steps", "best", "last", "floors", "curve")
    return {
        str(path.relative_to(folder)): {
            k: json.loads(path.read_text())[k] for k in keys
        }
        for path in sorted(folder.rglob("result.json"))
    }


@pytest.mark.slow
def test_a_suite_killed_three_times_ends_as_one_that_was_not(cache, tmp_path):
    flags = suite_flags(
        cache,
        "max_steps=600,checkpoint_every=40",
        "--only=gru",
        "--seeds=2",
        "--jobs=2",
    )
    whole = jaxbench(*flags, "--folder=whole", cwd=tmp_path, timeout=800)
    assert whole.returncode == 0, whole.stderr
    draw = random.Random(5)
    for _ in range(3):
        victim = subprocess.Popen(
            [sys.executable, "-m", "jaxbench.cli", *flags, "--folder=killed"],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.DEVNULL,
        )
        time.sleep(draw.uniform(3, 20))
        victim.kill()
        victim.wait()
    last = jaxbench(*flags, "--folder=killed", cwd=tmp_path, timeout=800)
    assert last.returncode == 0, last.stderr
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    for path in (tmp_path / "killed").rglob("metrics.jsonl"):
        same = tmp_path / "whole" / path.relative_to(tmp_path / "killed")
        assert path.read_text() == same.read_text(), "a record is lost or doubled"


def test_stopping_a_suite_stops_its_runs_and_goes_on_later(cache, tmp_path):
    flags = suite_flags(cache, ENDLESS, "--only=gru", "--folder=s")
    victim = subprocess.Popen(
        [sys.executable, "-m", "jaxbench.cli", *flags],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    cell = Cell("gru", 0, 1e-3)
    folder = cell.folder(tmp_path / "s")
    Saboteur(folder, lambda pid: victim.terminate())
    out, _ = victim.communicate(timeout=800)
    assert victim.returncode == 128 + signal.SIGTERM, out
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "interrupted" and result["steps"] > 0
    assert not is_held(folder) and not is_held(tmp_path / "s")
    plan = jaxbench(*flags, "--dry_run", cwd=tmp_path)
    assert "1 runs, 1 to do" in plan.stdout
