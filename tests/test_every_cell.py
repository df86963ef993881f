"""Every end of a cell is a record, and what is done is not done again."""

from __future__ import annotations

import json
import os
import signal

import pytest

from benchmarks import every_cell


@pytest.mark.integration
def test_a_process_that_dies_costs_one_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(every_cell, "work", dies_at_pile)
    path = tmp_path / "cells.jsonl"
    path.write_text(json.dumps(ok("gru", "zelda")) + '\n{"row": "gru", "tas')
    every_cell.Work(["gru", "mlp"], every_cell.TASKS, path).run(2, 60.0)
    again = every_cell.Work(["gru", "mlp"], every_cell.TASKS, path)
    cells = {(c["row"], c["task"]): c for c in again.cells()}
    assert len(cells) == 2 * len(every_cell.TASKS)
    for (_, task), cell in cells.items():
        assert cell["status"] == ("crashed" if task == "pile" else "ok")
    assert cells["mlp", "pile"]["reason"] == "the process ended with signal 9"
    every_cell.write(tmp_path, again.cells())
    page = (tmp_path / "README.md").read_text()
    assert "16 cells: 14 ok, 2 crashed (87.5 % ok)" in page
    assert "| `gru` | crashed | pile | the process ended with signal 9 |" in page
    assert "| `mlp` | + | **crashed** | + |" in page


def ok(row: str, task: str) -> dict:
    return {"row": row, "task": task, "status": "ok", "reason": "", "cpu_seconds": 1.0}


def dies_at_pile(pipe) -> None:
    """A worker that is killed at one task."""
    while (asked := pipe.recv()) is not None:
        row, tasks = asked
        for task in tasks:
            if task == "pile":
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send(ok(row, task))
        pipe.send({"full": False})
