"""Every command: exit codes, files, what it says on bad input; and what ends it."""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import boards
import pytest
from commands import assert_one_line_error, jaxbench, measured_here, run_py
from processes import ROOT, SMALL, config, environment
from rich.console import Console

from jaxbench.bench import build, run_folder
from jaxbench.bench.run_folder import default_folder
from jaxbench.serving import each_run, measure_command

RESULT_FIELDS = (
    "schema task protocol backbone seed purpose learning_rate group primary status "
    "reason log_tail compiler_options params shape budget steps examples skips copies "
    "extended started_from solved best last floors ceiling curve throughput seconds "
    "memory state_bytes latency play export "
    "decode speculative scores excluded step_flops data device versions git "
    "difference command identity config config_hash"
).split()


# --- unusable input -----------------------------------------------------------


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
        ([config(), "--config.train.learning_rate=nan"], ["learning_rate=nan"]),
        ([config(), "--config.train.clip_norm=inf"], ["clip_norm=inf", "finite"]),
        ([config(), "--config.train.b1=2"], ["train.b1=2.0", "in [0, 1)"]),
        ([config(), f"--config.data.window={10**30}"], ["data.window=1000", "at most"]),
        ([config(), f"--config.seed={2**32 + 5}"], ["seed=4294967301", "from 0 to"]),
        ([config(), f"--config.seed={2**70}"], ["seed=", "from 0 to"]),
        ([config(), f"--config.data.split_seed={2**32}"], ["data.split_seed=4"]),
        ([config(), "--config.data.mirror=2"], ["data.mirror=2.0", "in [0, 1]"]),
        ([config(), "--config.xla.allocator=fast"], ["xla.allocator='fast'"]),
        ([config(), "--config.data.replays=nowhere"], ["nowhere"]),
        ([config(), "--config.data.character=zelad"], ["zelad", "zelda"]),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, texts, tmp_path):
    assert_one_line_error(run_py(*arguments, cwd=tmp_path), *texts)
    assert list(tmp_path.iterdir()) == [], "something was left behind"


@pytest.mark.parametrize(
    "count, flags, texts",
    [
        (0, (), ["no .slp"]),
        (1, (), ["two games"]),
        (3, ("--config.data.window=100000",), ["window"]),
        (3, ("--config.data.character=pichu",), ["zelda", "games", "frames"]),
        (3, ("--config.train.batch_size=10000000",), ["train.batch_size"]),
        (-2, (), ["2"]),
    ],
    ids=["no-replays", "one-game", "short", "nobody", "huge-batch", "unreadable"],
)
def test_unusable_replays_are_one_line(count, flags, texts, shared_runs, tmp_path):
    (tmp_path / "replays").mkdir()
    for path in sorted(shared_runs.replays().glob("*.slp"))[: max(count, 0)]:
        shutil.copy(path, tmp_path / "replays")
    for broken in range(-count):
        (tmp_path / "replays" / f"{broken}.slp").write_bytes(b"not a replay")
    given = (*SMALL, f"--config.data.replays={tmp_path / 'replays'}", *flags)
    done = run_py(config(), *given, cwd=tmp_path, cache=tmp_path)
    assert_one_line_error(done, *texts)
    assert {p.name for p in tmp_path.iterdir()} <= {"replays", ".cache"}


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
        (["prepare", "nowhere"], ["nowhere"]),
        (["prepare", "nowhere", "--workers=-1"], ["--workers"]),
        (["lost"], ["invalid choice: 'lost'"]),
        (["latency"], ["required: folders"]),
    ],
    ids=" ".join,
)
def test_bad_input_of_the_other_commands(arguments, texts, tmp_path):
    assert_one_line_error(jaxbench(*arguments, cwd=tmp_path), *texts)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_refused_before_jax_is_imported(tmp_path):
    """In a process that has imported nothing else; the console script calls main."""
    for call in (
        "from jaxbench.cli import main; code = main(['latency', 'nowhere'])",
        f"import run; code = run.main(['run.py', {config('zelda.py:s5x')!r}])",
    ):
        code = f"import sys; {call}; assert 'jax' not in sys.modules; sys.exit(code)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment() | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert_one_line_error(done)


@pytest.mark.parametrize(
    "folder, text",
    [("a" * 300, "File name too long"), ("/proc/none", "cannot be written")],
    ids=["long", "read-only"],
)
def test_a_folder_that_cannot_be_written_is_found_before_data_is_read(
    folder, text, tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "build_task", None)
    done = run_py(config(), f"--workdir={folder}", cwd=tmp_path)
    assert_one_line_error(done, "--workdir", text)
    done = jaxbench("suite", f"--folder={folder}", config(), cwd=tmp_path)
    assert_one_line_error(done, "--folder", text)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_found_before_data_is_read(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "build_task", None)
    monkeypatch.setattr(run_folder.os, "fsync", full)
    done = run_py(config(), "--workdir=run", cwd=tmp_path)
    assert_one_line_error(done, "no space left on the disk of run")
    assert list(tmp_path.iterdir()) == []


def test_a_typo_of_the_character_is_found_before_replays_are_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(build, "build_task", None)
    done = run_py(config("zelda.py:gru,character=zelad"), cwd=tmp_path)
    assert_one_line_error(done, "character='zelad'", "nearest: zelda")


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([config("zleda.py")], "configs/zleda.py; nearest: zelda.py"),
        ([config(), "--config.model.widht=3"], "unknown setting 'widht'"),
        ([config(), "--config.model.width=wide"], "'wide'"),
        ([config("zelda.py:gru,preset=nix")], "preset='nix' is unknown"),
        ([config(), "--confg=3"], "flag 'confg'"),
    ],
)
def test_messages_keep_their_quotes(arguments, text, tmp_path):
    done = run_py(*arguments, cwd=tmp_path)
    assert_one_line_error(done, text)
    assert done.stderr.count("'") % 2 == done.stderr.count('"') % 2 == 0


def test_names_with_control_characters_stay_on_one_line(tmp_path):
    name = "two\nlines\x1b[2J"
    done = jaxbench("latency", name, cwd=tmp_path)
    assert_one_line_error(done, "two?lines?[2J is no folder")
    (tmp_path / name).mkdir()
    (tmp_path / name / "a\nb.jsonl").write_text("no json")
    (tmp_path / name / "c.jsonl").write_text('{"text": "' + "words " * 200 + '"}\n')
    done = jaxbench("prepare", name, "--cache=cache", cwd=tmp_path)
    assert done.returncode == 0 and "skipped a?b.jsonl: line 1" in done.stderr
    assert "two?lines" in done.stdout and "\x1b" not in done.stdout + done.stderr


# --- what is printed ----------------------------------------------------------


def test_list_names_every_backbone(tmp_path):
    names = {
        row["name"]
        for row in json.loads(jaxbench("list", "--json", cwd=tmp_path).stdout)
    }
    assert {"s4", "s4d", "mamba", "lstm", "gru", "swa", "mlp"} <= names
    table = jaxbench("list", cwd=tmp_path)
    assert table.returncode == 0 and "arXiv:2111.00396" in table.stdout
    markdown = jaxbench("list", "--markdown", cwd=tmp_path)
    lines = [x for x in markdown.stdout.splitlines() if x.startswith("|")]
    assert len(lines) == 2 + len(names) and {line.count("|") for line in lines} == {9}


def test_the_page_of_a_backbone(tmp_path):
    done = jaxbench("list", "mamba_ssd", "--width=64", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Mamba-2\n") and "at width 64" in done.stdout


def test_the_page_of_a_pattern(tmp_path):
    done = jaxbench("list", "mamba * 2+swa", "--width=32", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.startswith("# `mamba*2+swa`\n") and "| parameters |" in done.stdout
    )
    assert "--config=configs/zelda.py:mamba*2+swa" in done.stdout
    done = jaxbench("list", "mamba*2+swaa", cwd=tmp_path)
    assert_one_line_error(done, "no backbone is called 'swaa'")


@pytest.mark.parametrize("arguments", [["list"], ["list", "presets"]])
def test_lists_at_80_columns_are_cards(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "80")
    shown = jaxbench(*arguments, cwd=tmp_path).stdout.splitlines()
    assert max(map(len, shown)) <= 80 and not any("│" in line for line in shown)
    monkeypatch.setenv("COLUMNS", "300")
    table = jaxbench(*arguments, cwd=tmp_path).stdout.splitlines()
    assert sum("│" in line for line in table) > 15


def test_help_of_run_py(tmp_path):
    done = run_py("--help", cwd=tmp_path)
    assert done.returncode == 0 and "--workdir=FOLDER" in done.stdout
    assert "exit codes: 0" in done.stdout and "mqar, pile" in done.stdout
    done = run_py(config("pile.py:gru"), "--help", cwd=tmp_path)
    assert "--config.train.budget=" in done.stdout and done.returncode == 0
    assert_one_line_error(run_py("--help", config("none.py"), cwd=tmp_path), "none.py")


def test_help_teaches(tmp_path):
    for command in ("suite", "latency", "throughput", "leaderboard", "list", "prepare"):
        done = jaxbench(command, "--help", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "examples:" in done.stdout and "exit codes:" in done.stdout


def test_the_leaderboard_of_one_run(tmp_path):
    boards.write(tmp_path / "run", boards.result())
    done = jaxbench("leaderboard", "run", "--out=board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "there is nothing to compare" in done.stdout
    made = {path.name for path in (tmp_path / "board").iterdir()}
    assert made == {f"leaderboard.{s}" for s in ("md", "csv", "html", "png")}
    assert "gru" in (tmp_path / "board" / "leaderboard.md").read_text()
    done = jaxbench("leaderboard", "run", "--json", cwd=tmp_path)
    assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["gru"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]


def test_prepare_parses_once_and_says_who_plays(shared_runs, tmp_path):
    replays, cache = str(shared_runs.replays()), f"--cache={tmp_path / 'cache'}"
    first = jaxbench("prepare", replays, cache, cwd=tmp_path)
    assert first.returncode == 0 and "zelda" in first.stdout, first.stderr
    again = jaxbench("prepare", replays, cache, cwd=tmp_path)
    assert again.returncode == 0 and "cached" in again.stdout + again.stderr


def test_a_run_whose_config_is_gone_fails_in_the_table(tmp_path):
    boards.write(tmp_path / "only", boards.result())
    (tmp_path / "only" / "config.json").unlink(missing_ok=True)
    done = jaxbench("latency", "only", cwd=tmp_path)
    assert done.returncode == 1 and "failed" in done.stdout
    assert "only its result was kept" in " ".join(done.stdout.split())


# --- a run and its folder -----------------------------------------------------


@pytest.mark.integration
def test_a_run_leaves_what_the_design_names(shared_runs):
    folder = shared_runs("policy")
    result = json.loads((folder / "result.json").read_text())
    assert list(result) == RESULT_FIELDS
    assert result["status"] == "ok" and result["reason"] == ""
    assert result["steps"] == 8 and result["examples"] == 8 * 16
    assert result["data"]["source"] == "simulated"
    assert result["best"]["metrics"]["loss"] > 0
    assert result["floors"]["marginal"]["loss"] > 0
    assert result["floors"]["copy_previous"]["change/any"] == 0
    assert result["params"]["total"] > result["params"]["backbone"] > 0
    assert result["state_bytes"] == 16 * 4  # a GRU layer of width 16
    memory = result["memory"]
    assert memory["predicted_bytes"] > 0 and memory["micro_batches"] == 1
    assert memory["tried"][-1]["predicted_bytes"] == memory["predicted_bytes"]
    assert result["primary"] == {"metric": "loss", "maximize": False}
    assert [step for step, _ in result["curve"]["train"]] == [4, 8]
    assert json.loads((folder / "progress.json").read_text())["step"] == 8
    assert result["device"]["platform"] == "cpu"
    resolved = json.loads((folder / "config.json").read_text())
    assert resolved["train"]["steps_per_dispatch"] == 4
    assert resolved["config_hash"] == result["config_hash"]
    assert (folder / "checkpoints" / "last" / "8").is_dir()
    assert (folder / "checkpoints" / "best").is_dir()
    assert list(folder.glob("events.out.tfevents.*"))
    assert not list(folder.glob("*.partial"))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    terms = {"buttons", "main_x", "main_y", "c_x", "c_y", "shoulder"}
    for record in map(json.loads, lines):
        assert all(f"loss/{term}" in record for term in terms)


def test_a_finished_run_is_not_repeated(shared_runs, tmp_path):
    recipe = config(shared_runs.recipe("text"))
    folder = tmp_path / default_folder(shared_runs.config("text"))
    shutil.copytree(shared_runs("text"), folder)
    before = (folder / "result.json").read_bytes()
    done = run_py(recipe, cwd=tmp_path)
    assert done.returncode == 0 and "nothing to do" in done.stderr
    assert (folder / "result.json").read_bytes() == before
    hardest = min(
        json.loads(before)["floors"].items(), key=lambda f: f[1]["nats_per_byte"]
    )[0]
    hardest = hardest.replace("_", " ")
    assert f"floor: {hardest}" in done.stdout and "run folder: runs/pile" in done.stdout
    other = run_py(recipe, "--config.seed=1", f"--workdir={folder}", cwd=tmp_path)
    assert_one_line_error(other, "belongs to another config", "seed is 0 there")


@pytest.mark.integration
@pytest.mark.parametrize(
    "recipe",
    [
        "gru,depth=1,protocol=compat",
        pytest.param(
            "swa,head=autoregressive,dtype=bfloat16,ema_decay=0.9,remat=yes",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["compat", "options"],
)
def test_the_other_protocol_and_options_run_too(recipe, shared_runs, tmp_path):
    cache = f"--config.data.cache={shared_runs.folder / 'cache'}"
    recipe = config(f"zelda.py:{recipe}")
    done = run_py(recipe, "--workdir=run", *SMALL, cache, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "ok" and result["best"]["metrics"]["loss"] > 0


@pytest.mark.integration
def test_measuring_a_run_writes_into_its_result(shared_runs, tmp_path):
    """Latency in a process of its own, as always; throughput in this one."""
    shutil.copytree(shared_runs("policy"), tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    for command, flag, where in (
        ("latency", "--frames=50", ("latency", "step", "p99_ms")),
        ("throughput", "--repeats=1", ("throughput", "steady", "steps_per_s")),
    ):
        here = measured_here() if command == "throughput" else contextlib.nullcontext()
        with here:
            done = jaxbench(command, "run", flag, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "gru" in done.stdout and f"{command}: [1/1] gru" in done.stderr
        assert measure_command.lookup(json.loads(path.read_text()), where) > 0
        before = path.read_bytes()
        again = jaxbench(command, "run", flag, cwd=tmp_path)
        assert again.returncode == 0 and f"{command}: [" not in again.stderr
        assert path.read_bytes() == before


def test_a_run_whose_process_is_killed_is_a_row_that_names_the_signal(monkeypatch):
    done = subprocess.CompletedProcess([], -signal.SIGKILL, stdout="")
    monkeypatch.setattr(each_run.subprocess, "run", lambda *_, **__: done)
    found = each_run.in_a_process("jaxbench.serving.measure_command", None, {})
    assert found == "ended by the signal SIGKILL"


# --- ends of a process --------------------------------------------------------


def start(folder: str, cwd: Path, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), f"--workdir={folder}", *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 800
    while time.monotonic() < deadline and process.poll() is None:
        path = folder / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    pytest.fail(f"never reached step {step}: {process.communicate()[1][-2000:]}")


def numbers(folder: Path) -> dict:
    result = json.loads((folder / "result.json").read_text())
    return {k: result[k] for k in ("status", "steps", "best", "last", "floors")}


@pytest.mark.integration
def test_a_full_disk_is_one_line_and_nothing_is_half_written(shared_runs, tmp_path):
    """A limit on file sizes stands in for a full disk: writes fail part way."""
    recipe = config(shared_runs.recipe("text"))
    shared_runs("text")  # its programs are compiled, and the limit is not theirs

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    process = start("run", tmp_path, recipe, preexec_fn=limit)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 2, stderr
    assert "run.py: error: no space left on the disk" in stderr.splitlines()[-1]
    # Nor do the threads that were writing say anything.
    assert "Traceback" not in stderr
    assert not (tmp_path / "run" / "result.json").exists()
    whole = run_py(recipe, "--workdir=run", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert numbers(tmp_path / "run") == numbers(shared_runs("text"))


@pytest.mark.integration
def test_sigterm_saves_and_ends_as_interrupted(shared_runs, tmp_path):
    endless = ("--config.train.budget=100000steps", "--config.train.evaluations=1")
    process = start("run", tmp_path, config(shared_runs.recipe("text")), *endless)
    wait_for_step(tmp_path / "run", 16, process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "interrupted" and "SIGTERM" in result["reason"]
    last = tmp_path / "run/checkpoints/last"
    saved = [int(p.name) for p in last.iterdir() if p.name.isdigit()]
    assert max(saved) == result["steps"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "at", [160, *(pytest.param(at, marks=pytest.mark.slow) for at in (60, 305))]
)
def test_kill_at_any_step_and_resume_gives_the_same_numbers(at, shared_runs, tmp_path):
    recipe = config(shared_runs.recipe("recall"))
    given = (
        recipe,
        "--config.train.max_steps=400",
        "--config.train.checkpoint_every=45",
        "--config.train.evaluate_every=200",
        "--config.goal.solved=1.0",
    )
    whole = run_py("--workdir=whole", *given, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = start("killed", tmp_path, *given)
    wait_for_step(tmp_path / "killed", at, process)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "result.json").exists()
    again = run_py("--workdir=killed", *given, cwd=tmp_path)
    assert again.returncode == 0 and "going on from step" in again.stderr
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "whole")
    metrics = [tmp_path / name / "metrics.jsonl" for name in ("killed", "whole")]
    assert metrics[0].read_text() == metrics[1].read_text()
