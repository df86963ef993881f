"""A suite of language models: its command, and what it says while it runs."""

from __future__ import annotations

import csv
import json

import pytest
from commands import assert_one_line_error, jaxbench
from processes import config

from configs import pile
from jaxbench.bench.suite import plan
from jaxbench.bench.suite.plan import Request
from jaxbench.bench.suite.schedule import check_request
from jaxbench.bench.suite.view import budget_unit, doing_text, outcome_text
from jaxbench.errors import InputError
from jaxbench.models.zoo import ROWS

SMALL = "size=,width=16,depth=1,batch_size=4,window=32,validation_bytes=2000"
HEARTBEAT = {"step": 60, "total": 240, "loss": 1.5, "steps_per_s": 3.0}
HEARTBEAT["seconds_left"] = 60.0


def base(text: str) -> dict:
    return json.loads(pile.get_config(text).to_json())


def flags(text: str, *more: str) -> list[str]:
    return ["suite", config(f"pile.py:{SMALL},{text}"), "--only=min_gru,e61", *more]


@pytest.mark.integration
def test_the_command_makes_rows_and_a_board(shared_runs, tmp_path):
    """On Python's own sources: it works with no data."""
    recipe = config(shared_runs.recipe("text").partition(",corpus=")[0])
    given = ["suite", recipe, "--seeds=2", "--folder=s", "--side_by_side=off"]
    todo = jaxbench(*given, "--dry_run", cwd=tmp_path)
    assert todo.returncode == 0 and "2 runs, 2 to do" in todo.stdout, todo.stderr
    assert list(tmp_path.iterdir()) == []
    done = jaxbench(*given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "best nats/byte" in done.stderr and "bytes/s" in done.stderr
    with (tmp_path / "s" / "leaderboard.csv").open(newline="") as file:
        lines = {x["name"]: x for x in csv.DictReader(file)}
    assert lines["gru"]["status"] == "ok" and lines["gru"]["seeds"] == "2"
    assert float(lines["gru"]["seen_bytes"]) == 48 * 4 * 32
    assert 2 < float(lines["gru"]["score_mean"]) < 6
    assert float(lines["uniform"]["bits_per_byte"]) == 8
    board = (tmp_path / "s" / "leaderboard.md").read_text()
    assert "48 updates of 4 examples" in board
    again = jaxbench(*given, "--dry_run", cwd=tmp_path)
    assert "2 runs, 0 to do" in again.stdout


@pytest.mark.parametrize(
    "more, texts",
    [
        (["--epochs=2"], ["--epochs=2", "no train.epochs", "train.budget"]),
        (["--config.train.budget=10"], ["train.budget='10'", "needs a unit"]),
        (["--config.data.corpus=nowhere"], ["data.corpus='nowhere'", "no file"]),
    ],
    ids=lambda value: value[0],
)
def test_bad_input_of_the_command_is_one_line(more, texts, tmp_path):
    done = jaxbench(*flags("budget=20steps"), *more, "--dry_run", cwd=tmp_path)
    assert_one_line_error(done, *texts)
    assert list(tmp_path.iterdir()) == []


def test_the_ladder_is_a_group():
    names = plan.choose_backbones("elman", "")
    assert {"e1", "e61", "e70", "e74_32", "mamba2", "gated_deltanet"} <= set(names)
    assert all(ROWS[name].published for name in names)
    assert "gru" not in names and "e61" not in plan.choose_backbones("elman", "e61")


def test_a_missing_corpus_is_refused_before_anything_starts(tmp_path):
    given = base("budget=1MB")
    check_request(Request(given, ("min_gru",), (0,)))
    corpus = tmp_path / "text.gz"
    given["data"]["corpus"] = str(corpus)
    with pytest.raises(InputError, match=r"data\.corpus=.* is no file or folder"):
        check_request(Request(given, ("min_gru",), (0,)))
    corpus.write_bytes(b"")
    check_request(Request(given, ("min_gru",), (0,)))


@pytest.mark.parametrize(
    ("budget", "unit", "shown"),
    [
        ("10min", "seconds", "step 60/~240, loss 1.5000, 3.0 steps/s, 1:00 left"),
        ("50MB", "steps", "step 60/240, loss 1.5000, 3.0 steps/s, 1:00 left"),
        ("240steps", "steps", "step 60/240, loss 1.5000, 3.0 steps/s, 1:00 left"),
    ],
)
def test_the_end_of_a_time_budget_is_a_guess(budget, unit, shown):
    found = budget_unit(base(f"budget={budget}"))
    assert found == unit and doing_text(HEARTBEAT, found) == shown


def test_outcomes_are_told_in_bytes():
    result = {
        "status": "ok",
        "task": "pile",
        "primary": {"metric": "nats_per_byte", "maximize": False},
        "best": {"step": 1, "metrics": {"nats_per_byte": 1.25}},
        "throughput": {"steps_per_s": 5.0, "tokens_per_s": 81_920.4},
        "skips": {"count": 2, "first_step": 7},
        "memory": {"tried": [{}], "micro_batches": 1},
    }
    expected = "best nats/byte 1.2500, 81,920 bytes/s, 2 updates skipped"
    assert outcome_text(result) == expected
    old = {k: v for k, v in result.items() if k != "skips"} | {"task": "zelda"}
    assert outcome_text(old) == "best nats_per_byte 1.2500, 5.0 steps/s"
