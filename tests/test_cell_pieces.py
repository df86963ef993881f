"""A cell is computed in pieces, and is what the run computes."""

from __future__ import annotations

import pytest

from benchmarks import cell_pieces, every_cell
from jaxbench.bench.job import run_job
from jaxbench.training.records import read_metrics


@pytest.mark.integration
@pytest.mark.parametrize("task", ["word_problem", "pile"])
def test_a_cell_computes_what_the_run_does(task, tmp_path):
    cell = cell_pieces.run_cell("mlp*2", task)
    assert cell["status"] == "ok", cell["reason"]
    config = cell_pieces.config_of("mlp*2", task)
    config["train"]["steps_per_dispatch"] = 1
    result = run_job(config, tmp_path)
    assert result["status"] == "ok", result["reason"]
    records = read_metrics(tmp_path / "metrics.jsonl")
    losses = [r["total_loss"] for r in records if r["split"] == "train"]
    assert cell["loss"] == pytest.approx(losses, rel=1e-5)
    assert len(set(cell["loss"])) == cell_pieces.UPDATES


def test_a_cell_that_cannot_be_says_why():
    cell = cell_pieces.run_cell("zamba_attention", "word_problem")
    assert cell["status"] == "refused" and cell["reason"]


def test_tasks_and_recipes_are_the_same():
    assert set(every_cell.TASKS) == set(cell_pieces.RECIPES)
