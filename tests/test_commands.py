"""Every command as a process: exit codes, files, and what it says on bad input."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT, SMALL, config, environment, jaxbench, run_py

RESULT_FIELDS = (
    "schema task protocol backbone seed purpose learning_rate group primary status "
    "reason log_tail params shape budget steps examples skips copies solved best last "
    "floors ceiling curve throughput seconds memory state_bytes latency play export "
    "decode speculative scores excluded step_flops data device versions git config_hash"
).split()


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A home folder of its own, so that caches start empty and are shared here."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def finished(home, tmp_path_factory):
    """One small run on the built-in simulation, from nothing."""
    cwd = tmp_path_factory.mktemp("cwd")
    done = run_py(config(), "--workdir=run", *SMALL, cwd=cwd, cache=home)
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_run_leaves_what_the_design_names(finished):
    cwd, done = finished
    folder = cwd / "run"
    result = json.loads((folder / "result.json").read_text())
    assert list(result) == RESULT_FIELDS
    assert result["status"] == "ok" and result["reason"] == ""
    assert result["steps"] == 12 and result["examples"] == 12 * 16
    assert result["data"]["source"] == "simulated"
    assert result["best"]["metrics"]["loss"] > 0
    assert result["floors"]["marginal"]["loss"] > 0
    assert result["floors"]["copy_previous"]["change/any"] == 0
    assert result["params"]["total"] > result["params"]["backbone"] > 0
    assert result["state_bytes"] == 2 * 16 * 4  # two GRU layers of width 16
    memory = result["memory"]
    assert memory["predicted_bytes"] > 0 and memory["micro_batches"] == 1
    assert memory["tried"][-1]["predicted_bytes"] == memory["predicted_bytes"]
    assert result["primary"] == {"metric": "loss", "maximize": False}
    assert [step for step, _ in result["curve"]["train"]] == [4, 8, 12]
    assert json.loads((folder / "progress.json").read_text())["step"] == 12
    assert result["device"]["platform"] == "cpu"
    resolved = json.loads((folder / "config.json").read_text())
    assert resolved["train"]["steps_per_dispatch"] == 4
    assert resolved["config_hash"] == result["config_hash"]
    assert (folder / "checkpoints" / "last" / "12").is_dir()
    assert (folder / "checkpoints" / "best").is_dir()
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.glob("*.partial"))
    records = [
        json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    terms = {"buttons", "main_x", "main_y", "c_x", "c_y", "shoulder"}
    for record in records:
        assert all(f"loss/{term}" in record for term in terms)
    assert "floor: marginal" in done.stdout and "run folder: run" in done.stdout


def test_a_finished_run_is_not_repeated(finished, home):
    cwd, _ = finished
    before = (cwd / "run" / "result.json").read_bytes()
    again = run_py(config(), "--workdir=run", *SMALL, cwd=cwd, cache=home)
    assert again.returncode == 0 and "nothing to do" in again.stderr
    assert (cwd / "run" / "result.json").read_bytes() == before


def test_the_default_folder_is_named_after_the_run(finished, home):
    cwd, _ = finished
    done = run_py(config(), *SMALL, "--config.seed=3", cwd=cwd, cache=home)
    assert done.returncode == 0, done.stderr
    (folder,) = (cwd / "runs" / "zelda" / "gru").iterdir()
    assert folder.name.startswith("seed3-") and (folder / "result.json").exists()


def test_a_folder_of_another_config_is_refused(finished, home):
    cwd, _ = finished
    done = run_py(
        config(), "--workdir=run", *SMALL, "--config.seed=1", cwd=cwd, cache=home
    )
    assert_one_line_error(done, "belongs to another config", "seed is 0 there")


@pytest.mark.integration
@pytest.mark.parametrize(
    "name, recipe",
    [
        ("compat", "gru,protocol=compat"),
        ("options", "swa,head=autoregressive,dtype=bfloat16,ema_decay=0.9,remat=yes"),
    ],
)
def test_the_other_protocol_and_options_run_too(name, recipe, finished, home):
    cwd, _ = finished
    done = run_py(
        config(f"zelda.py:{recipe}"), f"--workdir={name}", *SMALL, cwd=cwd, cache=home
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((cwd / name / "result.json").read_text())
    assert result["status"] == "ok"
    assert result["best"]["metrics"]["loss"] > 0


def assert_one_line_error(done, *texts: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    for text in texts:
        assert text in errors[0], errors[0]


@pytest.mark.parametrize(
    "arguments, texts",
    [
        ([], ["--config is missing"]),
        (["--config=configs/none.py:s4"], ["configs/none.py"]),
        ([config("zelda.py:s5x")], ["no backbone is called 's5x'", "nearest: "]),
        ([config("zelda.py:mamba*2+")], ["expected a name", "character 9"]),
        ([config("zelda.py:gru/mou")], ["no channel mixer is called 'mou'", "moe"]),
        ([config("zelda.py:gru,options=heads=3")], ["no option 'heads'"]),
        ([config("zelda.py:swa,options=heads")], ["'heads' must be field=value"]),
        ([config("zelda.py:swa,options=heads=x")], ["heads='x'", "must be int"]),
        ([config(), "--config.model.widht=3"], ["widht", "width"]),
        ([config("zelda.py:gru,widht=3")], ["widht", "width"]),
        ([config(), "--config.model.width=wide"], ["width", "wide"]),
        ([config(), "--confg=3"], ["confg"]),
        ([config(), "more"], ["unexpected argument 'more'"]),
        ([config(), "--config.protocol=clen"], ["protocol='clen'", "clean"]),
        ([config(), "--config.train.batch_size=0"], ["train.batch_size=0"]),
        ([config(), "--config.model.dropout=1.5"], ["model.dropout=1.5"]),
        ([config(), "--config.xla.allocator=fast"], ["xla.allocator='fast'"]),
        ([config(), "--config.data.replays=nowhere"], ["nowhere"]),
        ([config(), "--config.data.character=zelad"], ["zelad", "zelda"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, texts, tmp_path, home):
    done = run_py(*arguments, cwd=tmp_path, cache=home)
    assert_one_line_error(done, *texts)
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def simulated(home: Path, count: int, folder: Path) -> Path:
    """A folder with the first `count` simulated replays."""
    found = sorted(home.rglob("simulated/**/*.slp"))[:count]
    assert len(found) == count
    folder.mkdir()
    for path in found:
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize(
    "count, flags, texts",
    [
        (0, (), ["no .slp"]),
        (1, (), ["two games"]),
        (3, ("--config.data.window=100000",), ["window"]),
        (3, ("--config.data.character=pichu",), ["zelda", "games", "frames"]),
        (3, ("--config.train.batch_size=10000000",), ["train.batch_size"]),
    ],
    ids=["no-replays", "one-game", "short", "nobody", "huge-batch"],
)
def test_unusable_replays_are_one_line(count, flags, texts, finished, home, tmp_path):
    replays = simulated(home, count, tmp_path / "replays")
    done = run_py(
        config(), *SMALL, f"--config.data.replays={replays}", *flags,
        cwd=tmp_path, cache=home,
    )  # fmt: skip
    assert_one_line_error(done, *texts)
    assert [p.name for p in tmp_path.iterdir()] == ["replays"]


def test_unreadable_replays_are_one_line(tmp_path, home):
    (tmp_path / "replays").mkdir()
    for name in ("a.slp", "b.slp"):
        (tmp_path / "replays" / name).write_bytes(b"not a replay")
    done = run_py(
        config(), *SMALL, f"--config.data.replays={tmp_path / 'replays'}",
        cwd=tmp_path, cache=home,
    )  # fmt: skip
    assert_one_line_error(done, "2")
    assert [p.name for p in tmp_path.iterdir()] == ["replays"]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(3_000, marks=pytest.mark.slow, id="metrics"),
        pytest.param(30_000, marks=[pytest.mark.integration], id="checkpoint"),
    ],
)
def test_a_full_disk_is_one_line_and_nothing_is_half_written(size, finished, home):
    """A limit on file sizes stands in for a full disk: writes fail part way."""
    cwd, _ = finished

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), config(), f"--workdir=full{size}",
         *SMALL],
        cwd=cwd, env=environment(home), capture_output=True, text=True,
        timeout=240, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 2
    assert "run.py: error: no space left on the disk" in done.stderr.splitlines()[-1]
    # Nor do the threads that were writing say anything.
    assert "Traceback" not in done.stderr
    assert not (cwd / f"full{size}" / "result.json").exists()
    whole = run_py(config(), f"--workdir=full{size}", *SMALL, cwd=cwd, cache=home)
    assert whole.returncode == 0, whole.stderr


def start(folder: str, cwd: Path, home: Path, *flags: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), config("zelda.py:gru"),
         f"--workdir={folder}", *SMALL, *flags],
        cwd=cwd, env=environment(home), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 800
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"never reached step {step}: {process.communicate()[1][-2000:]}")


LONG = ("--config.train.max_steps=120", "--config.train.checkpoint_every=20")


def numbers(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    return {k: result[k] for k in ("status", "steps", "best", "last", "floors")}


def test_sigterm_saves_and_ends_as_interrupted(finished, home):
    cwd, _ = finished
    steps = ("--config.train.max_steps=4000", "--config.train.evaluate_every=0")
    process = start("term", cwd, home, *steps)
    wait_for_step(cwd / "term", 16, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    result = json.loads((cwd / "term" / "result.json").read_text())
    assert result["status"] == "interrupted" and "SIGTERM" in result["reason"]
    saved = [p for p in (cwd / "term/checkpoints/last").iterdir() if p.name.isdigit()]
    assert max(int(p.name) for p in saved) == result["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "at", [24, pytest.param(60, marks=pytest.mark.integration), 92]
)
def test_kill_at_any_step_and_resume_gives_the_same_numbers(at, finished, home):
    cwd, _ = finished
    if not (cwd / "whole" / "result.json").exists():
        done = run_py(config(), "--workdir=whole", *SMALL, *LONG, cwd=cwd, cache=home)
        assert done.returncode == 0, done.stderr
    process = start(f"kill{at}", cwd, home, *LONG)
    wait_for_step(cwd / f"kill{at}", at, process)
    process.kill()
    process.communicate()
    assert not (cwd / f"kill{at}" / "result.json").exists()
    again = run_py(config(), f"--workdir=kill{at}", *SMALL, *LONG, cwd=cwd, cache=home)
    assert again.returncode == 0 and "going on from step" in again.stderr
    assert numbers(cwd / f"kill{at}") == numbers(cwd / "whole")
    metrics = [(cwd / f / "metrics.jsonl").read_text() for f in (f"kill{at}", "whole")]
    assert metrics[0] == metrics[1]


def test_list_names_every_backbone(tmp_path):
    done = jaxbench("list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {"s4", "s4d", "mamba", "lstm", "gru", "swa", "mlp"} <= names
    table = jaxbench("list", cwd=tmp_path)
    assert table.returncode == 0 and "arXiv:2111.00396" in table.stdout
    markdown = jaxbench("list", "--markdown", cwd=tmp_path)
    lines = [x for x in markdown.stdout.splitlines() if x.startswith("|")]
    assert len(lines) == 2 + len(names) and {line.count("|") for line in lines} == {9}


def test_prepare_parses_once_and_says_who_plays(finished, home, tmp_path):
    replays = simulated(home, 3, tmp_path / "replays")
    cache = f"--cache={tmp_path / 'cache'}"
    first = jaxbench("prepare", str(replays), cache, cwd=tmp_path)
    assert first.returncode == 0 and "zelda" in first.stdout, first.stderr
    again = jaxbench("prepare", str(replays), cache, cwd=tmp_path)
    assert again.returncode == 0 and "cached" in again.stdout + again.stderr
    missing = jaxbench("prepare", "nowhere", cwd=tmp_path)
    assert_one_line_error(missing, "nowhere")


@pytest.fixture(scope="session")
def copied(finished, tmp_path_factory) -> Path:
    """A folder with a copy of the finished run, for commands that write into it."""
    cwd = tmp_path_factory.mktemp("measured")
    shutil.copytree(finished[0] / "run", cwd / "run")
    return cwd


@pytest.mark.integration
@pytest.mark.parametrize(
    "command, flag, where",
    [
        ("latency", "--frames=50", ("latency", "step", "p99_ms")),
        ("throughput", "--repeats=1", ("throughput", "steady", "steps_per_s")),
    ],
)
def test_measuring_a_run_writes_into_its_result(command, flag, where, copied, home):
    done = jaxbench(command, "run", flag, cwd=copied, cache=home)
    assert done.returncode == 0, done.stderr
    assert "gru" in done.stdout and f"{command}: [1/1] gru" in done.stderr
    value = json.loads((copied / "run" / "result.json").read_text())
    for key in where:
        value = value[key]
    assert value > 0
    before = (copied / "run" / "result.json").read_bytes()
    again = jaxbench(command, "run", flag, cwd=copied, cache=home)
    assert again.returncode == 0 and f"{command}: [" not in again.stderr
    assert (copied / "run" / "result.json").read_bytes() == before


def test_a_run_whose_config_is_gone_fails_in_the_table(copied, tmp_path):
    (tmp_path / "only").mkdir()
    shutil.copy(copied / "run" / "result.json", tmp_path / "only")
    # Without what a measurement of `copied` may have written.
    result = json.loads((tmp_path / "only" / "result.json").read_text())
    (tmp_path / "only" / "result.json").write_text(
        json.dumps(result | {"latency": None})
    )
    done = jaxbench("latency", "only", cwd=tmp_path)
    assert done.returncode == 1 and "failed" in done.stdout
    assert "only its result was kept" in " ".join(done.stdout.split())


def test_the_leaderboard_of_one_run(copied, tmp_path):
    done = jaxbench("leaderboard", str(copied / "run"), "--out=board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "board").iterdir()}
    assert made == {f"leaderboard.{suffix}" for suffix in ("md", "csv", "html")}
    assert "gru" in (tmp_path / "board" / "leaderboard.md").read_text()


def test_the_page_of_a_backbone(tmp_path):
    done = jaxbench("list", "mamba_ssd", "--width=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Mamba-2\n") and "at width 64" in done.stdout


@pytest.mark.parametrize(
    "arguments, texts",
    [
        (["list", "mamba22"], ["no backbone is called 'mamba22'", "mamba2"]),
        (["list", "--width=0"], ["--width=0"]),
        (["latency", "nowhere"], ["nowhere is no folder"]),
        (["latency", "."], ["no run that ended ok"]),
        (["latency", ".", "--frames=0"], ["--frames=0"]),
        (["throughput", ".", "--repeats=0"], ["--repeats=0"]),
        (["leaderboard", "nowhere"], ["nowhere is not a folder"]),
        (["leaderboard", "."], ["no result.json"]),
        (["prepare", "nowhere", "--workers=-1"], ["--workers"]),
        (["lost"], ["invalid choice: 'lost'"]),
        (["latency"], ["required: folders"]),
    ],
    ids=" ".join,
)
def test_bad_input_of_the_other_commands(arguments, texts, tmp_path):
    done = jaxbench(*arguments, cwd=tmp_path)
    assert_one_line_error(done, *texts)
    assert list(tmp_path.iterdir()) == []


def test_help_teaches(tmp_path):
    for command in ("suite", "latency", "throughput", "leaderboard", "list", "prepare"):
        done = jaxbench(command, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "examples:" in done.stdout and "exit codes:" in done.stdout
