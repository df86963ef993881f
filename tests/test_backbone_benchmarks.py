"""The scripts over all backbones, as processes: what they print, write and refuse."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
    )


TINY = ("--width=8", "--batch=2", "--length=3", "--steps=1")


@pytest.mark.integration
def test_costs_are_a_table_and_a_file(tmp_path):
    done = run("backbones", "--rows=gru,mlp", *TINY, "--json=a.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    gru, mlp = json.loads((tmp_path / "a.json").read_text())
    assert gru["state_bytes"] == 2 * 8 * 4 and mlp["state_bytes"] == 0
    # Two layers of the cell, their norms, the last norm.
    assert gru["parameters"] == 2 * (8 * 24 + 24 + 8 * 24 + 8 + 16) + 16
    assert gru["predicted_bytes"] > 3 * 4 * gru["parameters"]
    assert gru["step_seconds"] > 0
    table = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table] == ["| backbone", "| gru", "| mlp"]


@pytest.mark.integration
def test_a_step_above_the_limit_and_a_row_that_fails_are_said(tmp_path):
    done = run("backbones", "--rows=mlp", *TINY, "--limit_gb=1e-6", cwd=tmp_path)
    assert done.returncode == 1 and "| mlp |" in done.stdout
    done = run("backbones", "--rows=swa,mlp", *TINY, "--width=6", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"swa +FAILED InputError: heads=4 does not divide", done.stdout)
    assert "| mlp | 2 |" in done.stdout


@pytest.mark.parametrize("script", ["backbones", "delayed_copy", "first_steps"])
def test_an_unknown_row_is_one_line(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--rows=gruu"])
    assert importlib.import_module(f"benchmarks.{script}").main() == 2
    assert list(tmp_path.iterdir()) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{script}: error: no backbone is called 'gruu'; nearest")


@pytest.mark.integration
def test_delayed_copy_says_who_beats_the_floor(tmp_path):
    tiny = ("--width=8", "--delay=2", "--steps=40")
    done = run("delayed_copy", "--rows=s4,gru", *tiny, cwd=tmp_path)
    found = dict(re.findall(r"^(\w+) +([\d.]+)", done.stdout, re.M))
    beaten = all(float(error) < 0.97 for error in found.values())
    assert set(found) == {"s4", "gru"} and done.returncode == (0 if beaten else 1)
    assert ("does not beat" in done.stdout) is not beaten


@pytest.mark.slow
def test_first_steps_are_told_and_not_repeated(tmp_path):
    arguments = (
        "--rows=mlp", "--width=8", "--batch=16", "--steps=30",
        "--simulated_games=3", "--cache=cache", "--out=out.jsonl",
    )  # fmt: skip
    done = run("first_steps", *arguments, cwd=tmp_path)
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert row["name"] == "mlp" and len(row["losses"]) == 3
    assert done.returncode == (0 if row["works"] else 1), done.stderr
    assert row["works"] or row["learning_rate"] == 1e-4
    again = run("first_steps", *arguments, cwd=tmp_path)
    assert again.returncode == done.returncode
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
    assert done.stdout.splitlines()[-1] == again.stdout.splitlines()[-1]
