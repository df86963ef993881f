"""The script that breaks runs finds nothing broken, and would find it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_broken_runs_end_as_unbroken_ones(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/chaos.py", "--quick"),
            *(f"--work={tmp_path / 'work'}", f"--out={tmp_path / 'out'}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    trials = json.loads((tmp_path / "out" / "chaos.json").read_text())["trials"]
    assert sum(len(t.get("kills", ())) for t in trials) >= 5
    assert [t for t in trials if t.get("differs") or t.get("examples")] == []


def test_a_field_or_a_record_that_differs_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from chaos_runs import differences

    def write(name: str, loss: float, record: float) -> Path:
        folder = tmp_path / name / "seed0"
        folder.mkdir(parents=True)
        result = {"best": {"metrics": {"loss": loss}}, "seconds": {"train": record}}
        (folder / "result.json").write_text(json.dumps(result))
        line = {"step": 1, "split": "train", "loss": record}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return folder.parent

    whole = write("whole", 1.0, 2.0)
    assert differences(whole, whole) == []
    assert differences(write("again", 1.0, 2.0), whole) == []
    (told,) = differences(write("field", 1.0000001, 2.0), whole)
    assert "best.metrics.loss 1.0000001 for 1.0" in told
    assert differences(tmp_path / "field", whole, 1e-6) == []
    (told,) = differences(write("record", 1.0, 2.1), whole)
    assert "metrics.jsonl" in told
    assert len(differences(tmp_path / "nothing", whole)) == 2
