"""A board says what its result files say: no more, no less."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxbench.board.board import make_board
from jaxbench.board.read import impossible
from jaxbench.errors import InputError
from jaxbench.tasks.columns import declared
from jaxbench.tasks.table import TASKS

RATES = (1e-3, 3e-3, 1e-2)
FLOORS = {"copy_previous": {"loss": 1.42, "change/any": 0.0}, "marginal": {"loss": 4.3}}


def result(backbone: str = "gru", loss: float | None = 1.1, **changes: Any) -> dict:
    """The content of a result; `changes` replace its fields."""
    metrics = {"loss": loss, "change/any": 0.1, "accuracy/buttons_exact": 0.8}
    evaluated = None if loss is None else {"step": 600, "metrics": metrics}
    content = {
        "schema": 2,
        "task": "zelda",
        "protocol": "clean",
        "backbone": backbone,
        "seed": 0,
        "purpose": "score",
        "learning_rate": 3e-3,
        "group": "0",
        "primary": {"metric": "loss", "maximize": False},
        "status": "ok",
        "reason": "",
        "params": {"total": 145_000, "backbone": 50_000 + len(backbone)},
        "shape": {"width": 64, "depth": 2},
        "budget": {"unit": "steps", "total": 600},
        "steps": 600,
        "examples": 38_400,
        "best": evaluated,
        "last": evaluated,
        "floors": FLOORS,
        "curve": {"train": [], "validation": [[300, 1.5], [600, loss]]},
        "throughput": {"steps_per_s": 20.0, "tokens_per_s": 38_400.0},
        "seconds": {"train": 30.0, "compile": 20.0},
        "step_flops": 10,
        "state_bytes": 512,
        "data": {"source": "replays", "fingerprint": "f", "options": {"window": 30}},
        "device": {"platform": "cpu", "kind": "a cpu", "count": 1},
        "versions": {"jax": "0.10.2"},
        "git": "a36dfbf",
    }
    return content | changes


def write(folder: Path, content: Any) -> None:
    """A result file in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "result.json").write_text(text)


def suite(
    folder: Path,
    losses: dict[str, float],
    seeds: Sequence[int] = range(5),
    *,
    rates: Sequence[float] = RATES,
    best: float = 3e-3,
    **changes: Any,
) -> Path:
    """Results of rows whose scores spread by 0.01, after a search over `rates`."""
    rng = np.random.default_rng(0)
    for name, loss in losses.items():
        for rate in rates:
            off = 0.0 if rate == best else 0.1
            found = result(name, loss + off, learning_rate=rate, **changes)
            found |= {"seed": 1_000_003, "purpose": "sweep"}
            write(folder / name / f"sweep-{rate}", found)
        for seed in seeds:
            score = loss + 0.01 * rng.standard_normal()
            found = result(name, score, seed=seed, learning_rate=best, **changes)
            write(folder / name / f"seed{seed}", found)
    return folder


def rows(board: dict) -> dict[str, dict]:
    return {row["name"]: row for row in board["rows"]}


FAR = {"gru": 1.10, "lstm": 1.101, "mamba": 1.40}


def test_a_searched_board_answers_by_need(tmp_path):
    board = make_board([suite(tmp_path / "runs", FAR)])
    found = rows(board)
    assert [row["name"] for row in board["rows"]] in (
        ["gru", "lstm", "mamba"],
        ["lstm", "gru", "mamba"],
    )
    assert found["mamba"]["rank"] == [3, 3] and found["gru"]["rank"] == [1, 2]
    assert [found[name]["tier"] for name in FAR] == [1, 1, 2]
    need = board["needs"][0]
    assert need["known"] and set(need["leaders"]) == {"gru", "lstm"}
    assert (
        "lead and are not told apart (5 seeds, rates searched, 3 rows" in need["answer"]
    )
    score = found["gru"]["score"]
    values = [
        json.loads((tmp_path / "runs" / "gru" / f"seed{s}" / "result.json").read_text())
        for s in range(5)
    ]
    assert score["values"] == [v["best"]["metrics"]["loss"] for v in values]
    assert score["mean"] == pytest.approx(np.mean(score["values"]))
    assert score["low"] < score["mean"] < score["high"]
    assert found["gru"]["cells"]["loss"] == pytest.approx(score["mean"])
    assert [floor["name"] for floor in board["floors"]] == ["copy previous", "marginal"]
    assert board["floors"][0]["cells"]["change/any"] == 0.0
    json.dumps(board, allow_nan=False)


def test_no_claim_without_a_search_and_none_with_two_seeds(tmp_path):
    board = make_board([suite(tmp_path / "a", FAR, rates=())])
    assert not any(row["takes_part"] for row in board["rows"])
    assert {row["why_not"] for row in board["rows"]} == {
        "its learning rate was not chosen by a search"
    }
    assert not board["needs"][0]["known"] and board["needs"][0]["leaders"] == []
    assert "no learning rate was chosen by a search" in board["needs"][0]["answer"]
    assert all(row["rank"] is None and row["tier"] is None for row in board["rows"])
    board = make_board([suite(tmp_path / "b", FAR, range(2))])
    assert "it has 2 seeds, 3 are needed" in board["rows"][0]["why_not"]
    assert board["rows"][0]["score"]["low"] is None
    assert "1 seed more each would change that" in board["unknown"][0]
    board = make_board([suite(tmp_path / "c", FAR, rates=RATES[:2])])
    assert "its search tried 0.001, 0.003 only" in board["rows"][0]["why_not"]


def test_rates_have_to_be_chosen_alike(tmp_path):
    folder = suite(tmp_path / "runs", FAR)
    suite(folder, {"s4": 1.0}, rates=(1e-4, 3e-4, 1e-3), best=3e-4)
    suite(folder, {"s5": 1.0}, rates=(*RATES, 3e-2), best=3e-2)
    found = rows(make_board([folder]))
    assert "another grid" in found["s4"]["why_not"]
    # A grid that was extended holds the common one; a best rate at its edge is marked.
    assert found["s5"]["takes_part"] and found["s5"]["edge"]
    assert not found["gru"]["edge"]


def test_rows_are_named_by_what_differs_in_words(tmp_path):
    folder = suite(tmp_path / "runs", {"s4": 1.1}, rates=())
    suite(tmp_path / "runs" / "more", {"s4": 1.0}, rates=(), best=1e-3)
    suite(tmp_path / "runs" / "wide", {"s4": 0.9}, rates=(), shape={"width": 128})
    assert {row["name"] for row in make_board([folder])["rows"]} == {
        "s4, rate 0.001",
        "s4, rate 0.003, width 64",
        "s4, rate 0.003, width 128",
    }
    for k, dropout in enumerate((0.0, 0.3)):
        found = result(identity={"version": 1, "differs": {"model.dropout": dropout}})
        write(tmp_path / "new" / str(k), found)
    names = {row["name"] for row in make_board([tmp_path / "new"])["rows"]}
    assert names == {"gru, dropout 0.0", "gru, dropout 0.3"}
    # What a run had before it began is said where there is nothing to tell it from.
    differs = {"train.start_from": "mine", "train.extended": "20 steps"}
    found = result(identity={"version": 1, "differs": differs})
    write(tmp_path / "begun", found)
    (row,) = make_board([tmp_path / "begun"])["rows"]
    assert row["name"] == "gru, from the weights of mine, extended from 20 steps"


def test_untuned_runs_beside_a_search_are_left_out_and_counted(tmp_path):
    folder = suite(tmp_path / "runs", FAR)
    for seed in range(2):
        untuned = result("gru", 0.5, seed=seed, learning_rate=1e-3)
        write(folder / "untuned" / str(seed), untuned)
    board = make_board([folder])
    assert set(rows(board)) == set(FAR)
    (said,) = board["how"]["left_out"]
    assert said.startswith("gru: 2 untuned runs (rate 0.001) left out")
    assert (
        board["sweep"][0]["points"][0][0] == 1e-3 and board["sweep"][0]["best"] == 3e-3
    )


def test_heads_of_one_backbone_are_one_board(tmp_path):
    """Scored by what all of them have, where their own metrics differ."""
    for head in ("act", "diffusion"):
        data = {"source": "replays", "fingerprint": "f"}
        data["options"] = {"window": 30, "head": head}
        metrics = {
            "accuracy/all": 0.5,
            "accuracy/buttons_exact": 0.9,
            "change/any": 0.2,
        }
        evaluated = {"step": 600, "metrics": metrics}
        found = result(best=evaluated, last=evaluated, data=data)
        found["primary"] = {"metric": "accuracy/all", "maximize": True}
        write(tmp_path / head, found)
    write(tmp_path / "plain", result())
    board = make_board([tmp_path])
    assert board["parts"] == [] and board["score"] == "accuracy/buttons_exact"
    assert set(rows(board)) == {"gru", "gru, head act", "gru, head diffusion"}


def ok(**best: Any) -> dict[str, Any]:
    metrics = {"loss": 1.0} | best
    return result(
        best={"step": 1, "metrics": metrics}, last={"step": 1, "metrics": metrics}
    )


IMPOSSIBLE = {
    "best.metrics.loss is -5, below 0": ok(loss=-5.0),
    "best.metrics.accuracy/all is 1.5, not a share": ok(**{"accuracy/all": 1.5}),
    "best.metrics.change/any is -0.1, not a share": ok(**{"change/any": -0.1}),
    "latency.step.p99_ms is -1, below 0": result(latency={"step": {"p99_ms": -1}}),
    "seconds.train is -3, below 0": result(seconds={"train": -3}),
    "ok, but it has no last evaluation": result(last=None),
    "ok, but it has no best evaluation": result(best=None),
    "is about 10 to the 400, beyond 1e+30": ok(loss=10**400),
    "is 1e+308, beyond 1e+30": ok(loss=1e308),
    "ok, but best.metrics.loss is nan, no number": ok(loss=float("nan")),
    "best.step is 700, after the last of 600 steps": result(
        best={"step": 700, "metrics": {"loss": 1.0}}
    ),
}


@pytest.mark.parametrize("reason", IMPOSSIBLE)
def test_impossible_results_are_refused_with_a_reason(tmp_path, reason):
    folder = suite(tmp_path / "runs", FAR)
    write(folder / "bad", IMPOSSIBLE[reason] | {"backbone": "s4"})
    board = make_board([folder])
    found = rows(board)
    assert found["s4"]["status"] == "refused" and reason in found["s4"]["reason"]
    assert found["s4"]["score"] is None and not found["s4"]["takes_part"]
    assert set(board["needs"][0]["leaders"]) == {"gru", "lstm"}
    assert board["failures"][-1]["status"] == "refused"
    json.dumps(board, allow_nan=False)


def test_zeros_are_possible():
    assert impossible(ok(loss=0, **{"change/any": 0, "objective": -3.0})) == ""
    assert impossible(result(status="diverged", best=None, last=None)) == ""


BROKEN = {
    '{"schema": 2, "task"': "Expecting",
    "": "Expecting value",
    "[1, 2]": "not a JSON object",
    json.dumps(result(schema=9)): "schema 9 is not one of 1, 2",
    json.dumps(result(backbone="")): "backbone is '', not a text",
    json.dumps(result(status="fine")): "status 'fine' is unknown",
    json.dumps(result(params=[1])): "params is",
    "[" * 100_000: "recursion",
}


def test_a_broken_file_is_a_row_with_its_reason(tmp_path):
    suite(tmp_path, {"gru": 1.1})
    for i, text in enumerate(BROKEN):
        write(tmp_path / "lstm" / f"seed{i}", text)
    found = rows(make_board([tmp_path]))
    for i, reason in enumerate(BROKEN.values()):
        broken = found[f"lstm/seed{i}"]
        assert broken["status"] == "unreadable" and reason in broken["reason"]
    assert len(found) == 1 + len(BROKEN)


def test_nothing_to_show_is_one_clear_line(tmp_path):
    write(tmp_path / "broken", "{")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("empty", "no result.json under"),
        ("missing", "is not a folder"),
        ("broken", "none of 1 result.json can be read"),
    ):
        with pytest.raises(InputError, match=message) as error:
            make_board([tmp_path / name])
        assert "\n" not in str(error.value)
    for k in (1, 2):
        data = {"source": "synthetic", "version": k, "options": {}}
        write(tmp_path / "versions" / str(k), result(data=data))
    with pytest.raises(InputError, match="different task versions"):
        make_board([tmp_path / "versions"])


def test_plain_boards_claim_nothing_and_say_why(tmp_path):
    one = make_board([suite(tmp_path / "one", {"gru": 1.1})])
    assert "Only gru was measured" in one["needs"][0]["answer"]
    searched = suite(tmp_path / "searched", {"gru": 1.1, "lstm": 1.2}, seeds=())
    board = make_board([searched])
    assert board["rows"] == [] and len(board["sweep"]) == 2
    assert board["needs"][0]["answer"] == "No row has a score for it."


def test_two_files_of_one_run_that_disagree_are_named(tmp_path):
    folder = suite(tmp_path / "runs", {"gru": 1.1})
    same = json.loads((folder / "gru" / "seed0" / "result.json").read_text())
    write(folder / "zcopy", same)
    other = json.loads((folder / "gru" / "seed1" / "result.json").read_text())
    other["best"]["metrics"]["loss"] = 0.3
    write(folder / "zother", other)
    board = make_board([folder])
    assert rows(board)["gru"]["seeds"] == 5
    said = board["how"]["left_out"]
    assert any("zcopy is seed 0 of gru once more and says the same" in s for s in said)
    assert any("zother is seed 1 of gru once more and DISAGREES" in s for s in said)


def test_failures_never_vanish(tmp_path):
    folder = suite(tmp_path / "runs", FAR)
    lost = {"status": "diverged", "reason": "nan at step 3", "log_tail": ["last line"]}
    write(folder / "gru5", result("gru", None, seed=5, **lost))
    # One that never saw its data joins the board of its folder.
    bare = {"data": None, "floors": None, "steps": 0}
    write(folder / "kan", result("kan", None, learning_rate=3e-3, **lost, **bare))
    board = make_board([folder])
    found = rows(board)
    assert board["parts"] == [] and set(found) == {*FAR, "kan"}
    assert found["gru"]["status"] == found["kan"]["status"] == "diverged"
    assert found["gru"]["failed"] == 1 and found["gru"]["seeds"] == 5
    assert found["gru"]["score"]["low"] is None
    assert board["rows"][-1]["name"] == "kan" and found["kan"]["score"] is None
    assert [f["log"] for f in board["failures"]] == [["last line"]] * 2


def test_what_cannot_be_compared_is_a_part(tmp_path):
    first = suite(tmp_path / "first", FAR)
    others = (
        {"data": {"source": "replays", "fingerprint": "g", "options": {}}},
        {"protocol": "compat"},
        {"task": "unheard_of"},
    )
    for k, other in enumerate(others):
        second = suite(tmp_path / str(k), {"gru": 0.5}, **other)
        board = make_board([first, second])
        assert sorted(len(part["rows"]) for part in board["parts"]) == [1, 3]
        assert board["rows"] == [] and board["across"] is None
        assert len({part["title"] for part in board["parts"]}) == 2


def test_a_board_of_one_size_says_so(tmp_path):
    sized = {"config": {"model": {"parameters": "195k", "flops": ""}}}
    for name in ("gru", "s4"):
        write(tmp_path / name, result(name, **sized))
    board = make_board([tmp_path])
    assert board["title"].endswith(", backbones of 195k parameters")
    for view in board["views"]:
        assert {"params_backbone", "state_bytes"} <= set(view["columns"])
    write(tmp_path / "s5", result("s5"))
    assert "195k" not in make_board([tmp_path])["title"]


def test_pile_rows_are_compared_at_one_budget(tmp_path):
    metrics = {"nats_per_byte": 2.0, "bits_per_byte": 2.9}
    evaluated = {"step": 10, "metrics": metrics}
    for total in (600, 1200):
        found = result(task="pile", best=evaluated, last=evaluated)
        found["primary"] = {"metric": "nats_per_byte", "maximize": False}
        found["budget"] = {"unit": "steps", "total": total}
        write(tmp_path / str(total), found)
    assert len(make_board([tmp_path])["parts"]) == 2


def test_updates_to_a_stated_target_are_censored(tmp_path):
    folder = suite(tmp_path / "runs", {"gru": 1.1, "mlp": 1.6}, rates=())
    found = rows(make_board([folder]))
    # 1.42, the hardest floor that a run beats; validation was 1.5 at 300.
    assert found["gru"]["cells"]["steps_to_target"] == 600
    assert found["gru"]["cells"]["seconds_to_target"] == pytest.approx(30)
    assert found["gru"]["cells"]["flops_to_target"] == 6000
    assert found["mlp"]["cells"]["steps_to_target"] == "> 600"


def test_across_tasks(tmp_path):
    """Floor 0, ceiling 1; a mean for who is everywhere, holes for who is not."""
    for task, k in itertools.product(("mqar", "flip_flop"), range(4)):
        for name, score in (("gru", 0.6), ("lstm", 0.8)):
            if (task, name) == ("mqar", "lstm"):
                continue
            evaluated = {"step": 9, "metrics": {"accuracy": score}}
            found = result(name, task=task, seed=k, best=evaluated, last=evaluated)
            found["primary"] = {"metric": "accuracy", "maximize": True}
            found |= {
                "floors": {"mode": {"accuracy": 0.2}},
                "ceiling": {"accuracy": 1.0},
            }
            write(tmp_path / task / name / str(k), found)
    board = make_board([tmp_path])
    found = rows(board)
    assert found["gru"]["score"]["mean"] == pytest.approx(0.5)
    assert found["lstm"]["score"] is None
    cells = {k: v for k, v in found["lstm"]["cells"].items() if v is not None}
    assert list(cells.values()) == pytest.approx([0.75]) and len(board["parts"]) == 2
    profile = board["across"]["profiles"]
    at = profile["tau"].index(0.5)
    assert profile["rows"]["gru"]["mean"][at] in (0.0, 1.0)
    assert profile["rows"]["gru"]["mean"][0] == 1.0 and "lstm" not in profile["rows"]
    assert "3 of 4 cells are filled" in board["unknown"][0]


def test_every_task_declares_a_board():
    for task in TASKS:
        shows = declared(task)
        assert shows is not None
        keys = [column.key for column in shows.columns]
        assert len(set(keys)) == len(keys)
        assert set(shows.maximize) <= set(shows.scores) <= set(shows.labels)
    assert declared("unheard_of") is None


@pytest.mark.parametrize(
    "name",
    (
        *("closed_loop", "exports", "pentathlon", "pile_clean", "pile_faults"),
        "pile_faults_cured",
        *("policy_types", "zelda_clean"),
    ),
)
def test_released_boards_are_made_anew(name):
    board = make_board([Path(__file__).parents[1] / "results" / name])
    for part in [board, *board["parts"]]:
        json.dumps(part, allow_nan=False)
        names = [row["name"] for row in part["rows"]]
        assert len(set(names)) == len(names)
        assert not any("#" in row for row in names)
        if part["title"].startswith("zelda") and name != "closed_loop":
            files = "hashes and public origins of 49 files: data.json"
            assert files in part["how"]["data"]
        for row in part["rows"]:
            assert row["takes_part"] == (not row["why_not"])
            assert row["takes_part"] or row["rank"] is None
