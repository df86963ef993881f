"""A world model as a user trains it and rolls it out: files, tables, refusals."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import assert_one_line_error, jaxbench, run_py
from processes import config

ROLLOUT = ("--horizon=8", "--warm_up=4", "--windows=16")


@pytest.fixture(scope="module")
def trained(shared_runs, tmp_path_factory):
    """Copies of the session's run, one of them under another seed."""
    cwd = tmp_path_factory.mktemp("world")
    for name in ("run", "other"):
        shutil.copytree(shared_runs("world"), cwd / name)
    change(cwd / "other", "config.json", lambda c: c.update(seed=1))
    return cwd


def change(folder, name, edit):
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.integration
def test_a_run_tells_its_error_beside_the_floors(trained):
    result = json.loads((trained / "run" / "result.json").read_text())
    assert result["status"] == "ok" and result["task"] == "world"
    assert result["primary"] == {"metric": "state_error", "maximize": False}
    assert set(result["floors"]) == {"copy_last", "constant_velocity"}
    for floor in result["floors"].values():
        assert set(floor) < set(result["best"]["metrics"])


@pytest.mark.integration
def test_rollouts_of_an_ensemble_leave_a_table_a_figure_and_a_plan(trained):
    done = jaxbench(
        "rollout",
        *("--run=run", "--run=other", "--out=out", *ROLLOUT),
        *("--plan=cem", "--goal=0,20", "--samples=16", "--situations=2"),
        *("--plan_frames=8", "--games=2", "--seconds=1", "--every=8"),
        cwd=trained,
    )
    assert done.returncode == 0, done.stderr
    assert "constant velocity" in done.stdout and "plan" in done.stdout
    found = json.loads((trained / "out" / "rollout.json").read_text())
    assert found["steps"] == [1, 2, 4, 8] and found["windows"] == 16
    assert len(found["errors"]["position"]["model"]) == 4
    # The second member has the weights of the first.
    assert max(found["spread"]["spread"]) < 1e-3
    plans = found["plan"]["situations"]
    assert len(plans) == 2 and len(plans[0]["labels"]) == 8
    assert all(row["plan"] <= row["random"] for row in plans)
    assert "2 games of 1 s against scripted" in done.stdout
    played = found["play"]["players"]
    assert list(played) == ["plan", "scripted", "random", "copy_previous"]
    assert played["plan"]["each"]["frames"] == [60, 60]
    assert (trained / "out" / "rollout.png").read_bytes().startswith(b"\x89PNG")
    assert not list((trained / "out").glob("*.partial"))


@pytest.mark.integration
def test_a_leaderboard_of_world_models_is_made(trained):
    done = jaxbench("leaderboard", "run", "--out=board", cwd=trained)
    assert done.returncode == 0, done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    "arguments, edit, message",
    [
        (("--run=run", "--horizon=0"), None, "--horizon=0 must be 1 or more"),
        (("--run=run", "--warm_up=1"), None, "--warm_up=1 must be 2 or more"),
        (("--run=run", "--plan=magic"), None, "--plan='magic' is none of shooting"),
        (("--run=run", "--goal=win"), None, "--goal='win' is neither 'reward' nor"),
        (("--run=run", "--games=4"), None, "--games=4 carries out plans; say how to"),
        (
            ("--run=run", "--plan=cem", "--every=31"),
            None,
            "--every=31 is longer than a plan of 30 frames",
        ),
        (
            ("--run=run", "--plan=cem", "--games=2", "--seconds=0"),
            None,
            "seconds=0 must be 1 to 480",
        ),
        (("--run=nowhere",), None, "nowhere holds no result.json"),
        (("--run=run", "--run=run"), None, "run is named twice"),
        (
            ("--run=edited",),
            ("config.json", lambda c: c.update(task="zelda")),
            "is of the task 'zelda', which predicts no frames",
        ),
        (
            ("--run=run", "--run=edited"),
            ("result.json", lambda r: r["data"].update(fingerprint="abc")),
            "are of different data",
        ),
        (
            ("--run=run", "--run=edited"),
            ("config.json", lambda c: c["model"].update(residual=False)),
            "differ in model.residual (True and False)",
        ),
    ],
)
def test_what_cannot_be_rolled_out_is_one_line(
    trained, arguments, edit, message, tmp_path
):
    for name in ("run", "edited"):
        shutil.copytree(trained / "run", tmp_path / name)
    if edit:
        change(tmp_path / "edited", *edit)
    assert_one_line_error(jaxbench("rollout", *arguments, cwd=tmp_path), message)
    assert not list(tmp_path.rglob("rollout.*"))


def test_a_folder_without_games_is_refused(tmp_path):
    given = (config("world.py:gru"), f"--config.data.replays={tmp_path}")
    assert_one_line_error(run_py(*given, cwd=tmp_path), "no .slp")
