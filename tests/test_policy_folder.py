"""A finished run becomes a policy without its data; the examples run as a user's do."""

from __future__ import annotations

import json
import shutil
import sys
from unittest import mock

import jax
import numpy as np
import pytest
from commands import example
from test_zelda_frames import make_game

from jaxbench.bench.trained import one_device, open_run, restore_variables
from jaxbench.errors import InputError
from jaxbench.serving.policy import BadFrame, Policy
from jaxbench.serving.weights import load_trained_policy
from jaxbench.tasks.zelda import view

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def run(shared_runs):
    """The session's run, which keeps an average of its weights."""
    return shared_runs("policy")


@pytest.fixture(scope="module")
def replay(shared_runs):
    return sorted(shared_runs.replays().glob("*.slp"))[0]


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_weights_are_those_that_measurements_use(run, which):
    expected, step = restore_variables(open_run(run), which, one_device())
    trained = load_trained_policy(run, which)
    same(trained.variables["params"], expected["params"])
    same(trained.variables["constants"], expected["constants"])
    assert trained.step == step == 8


def test_a_policy_needs_neither_data_nor_cache(run, tmp_path):
    """The folder alone, moved elsewhere, of data that is gone."""
    folder = shutil.copytree(run, tmp_path / "moved")
    config = json.loads((folder / "config.json").read_text())
    config["data"] |= {"replays": str(tmp_path / "gone"), "cache": "", "window": 8}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is gone"):
        open_run(folder)
    before = sorted(path for path in folder.rglob("*"))
    policy = Policy.load(str(folder), any_character=True)
    assert (policy.window, policy.delay, policy.character) == (8, 1, "zelda")
    assert policy.step_of_weights == 8
    state = policy.initial_state()
    state, held = policy.step(state, view.view_of_replay(make_game(1), 0, 130))
    assert -1 <= held.main_x <= 1 and state.skipped == 0
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_run_plays_whom_it_imitates_and_nobody_else(run):
    game = make_game(1, count=150)
    seen = view.view_of_replay(game, 0, 123)
    for who, name in ((19, None), (7, None), (1, "fox")):  # Zelda, Sheik, Fox
        seen.own.post["character"] = np.array([who], np.uint8)
        policy = Policy.load(run)
        state, _ = policy.step(policy.initial_state(), seen)
        assert state.skipped == (name is not None)
        if name:
            assert f"the own fighter is {name} and the policy imitates zelda" in (
                state.reason
            )
            with pytest.raises(BadFrame, match="any_character=True plays on"):
                policy.step(policy.initial_state(), seen, strict=True)
    policy = Policy.load(run, any_character=True)
    assert policy.step(policy.initial_state(), seen, strict=True)[0].skipped == 0


def test_runs_that_cannot_play_say_why(run, shared_runs, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    result = json.loads((folder / "result.json").read_text())
    config = json.loads((folder / "config.json").read_text())

    def refused(text, **arguments):
        with pytest.raises(InputError, match=text) as caught:
            Policy.load(folder, **arguments)
        assert "\n" not in str(caught.value)

    def rewrite(changes=None, **tops):
        new = {**config, **tops}
        for path, value in (changes or {}).items():
            part, name = path.split(".")
            new[part] = {**new[part], name: value}
        (folder / "config.json").write_text(json.dumps(new))

    refused("which='mean' is neither", which="mean")
    refused("mode='fast' is none of", mode="fast")
    refused("hold=2 must be between 0 and .* trained with, 1", hold=2)
    rewrite({"model.width": 32})
    refused(r"do not fit this model: params/\S+ is \(.*\) there and")
    rewrite({"model.head": "independent"})
    refused("do not fit this model")
    with pytest.raises(InputError, match="of the task 'pile', which has no controller"):
        Policy.load(shared_runs("text"))
    rewrite(protocol="compat")
    refused("reads the state after the frame whose input it predicts")
    rewrite()
    (folder / "result.json").write_text(json.dumps({**result, "schema": 1}))
    refused("was made by another version")
    stopped = {**result, "status": "interrupted", "reason": "SIGTERM"}
    (folder / "result.json").write_text(json.dumps(stopped))
    refused(r"is not finished \(interrupted: SIGTERM\)")
    (folder / "result.json").write_text(json.dumps(result))
    shutil.rmtree(folder / "checkpoints" / "best")
    refused("has no checkpoint under .*best")
    assert Policy.load(folder, which="last").step_of_weights == 8
    damaged = next((folder / "checkpoints" / "last").glob("*")) / "state"
    for path in damaged.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused("is damaged: .* is missing", which="last")
    folder = tmp_path / "nothing"
    refused("holds no result.json")


def test_weights_that_are_not_finite_are_refused(run, monkeypatch):
    from jaxbench.serving import weights

    restore = weights.read_weights

    def broken(*arguments):
        variables, step = restore(*arguments)
        params = jax.tree.map(lambda x: x.at[...].set(np.nan), variables["params"])
        return {**variables, "params": params}, step

    monkeypatch.setattr(weights, "read_weights", broken)
    with pytest.raises(InputError, match=r"best weights of the run .* are not finite"):
        Policy.load(run)


def test_the_replay_example_prints_agreement_and_times(run, replay, tmp_path):
    given = (f"--run={run}", f"--replay={replay}", "--frames=120")
    done = example("play_replay.py", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "119 frames of zelda" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:9]}
    assert list(rows) == [
        *("buttons", "main_x", "main_y", "c_x", "c_y", "shoulder", "all"),
    ]
    assert all(0 <= float(row[0].rstrip("%")) <= 100 for row in rows.values())
    assert "stateful:" in lines[9] and "ms a frame at p50" in lines[9]
    assert len(lines) == 10  # nothing was skipped


def test_examples_refuse_bad_input_with_one_line(run, replay, tmp_path):
    for arguments, text in (
        ((f"--run={tmp_path}", f"--replay={replay}"), "holds no result.json"),
        ((f"--run={run}", f"--replay={tmp_path / 'no.slp'}"), "No such file"),
        ((f"--run={run}", f"--replay={replay}", "--port=3"), "nobody in port 3"),
        ((f"--run={run}", f"--replay={replay}", "--frames=0"), "no frame to answer"),
    ):
        done = example("play_replay.py", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and text in done.stderr
        assert done.stderr.startswith("play_replay: ") and done.stderr.count("\n") == 1


MELEE = ("--dolphin=nowhere", "--iso=melee.iso")


def test_the_melee_example_says_what_to_install(run, tmp_path):
    with mock.patch.dict(sys.modules, {"melee": None}):
        done = example("play_melee.py", f"--run={run}", *MELEE, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "play_melee: libmelee is not installed; pip install melee (Python 3.11 or 3.12)"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--character=MARTH",), "imitates zelda and never saw MARTH play"),
        (("--character=MARTJ",), "is no Character of libmelee; nearest: MARTH"),
        (("--stage=BATTLEFELD",), "is no Stage of libmelee; nearest: BATTLEFIELD"),
        ((), "there is no game melee.iso"),
        (("--iso=game.iso",), "libmelee cannot use nowhere"),
        (("--iso=game.iso", "--dolphin=empty"), "libmelee cannot use empty"),
    ],
)
def test_the_melee_example_refuses_bad_input_in_one_line(
    run, tmp_path, arguments, text
):
    pytest.importorskip("melee", reason="libmelee is not installed")
    (tmp_path / "game.iso").touch()
    (tmp_path / "empty").mkdir()
    given = (f"--run={run}", *MELEE, *arguments)
    done = example("play_melee.py", *given, cwd=tmp_path)
    assert done.returncode == 2 and text in done.stderr, done.stderr
    assert done.stderr.startswith("play_melee: ") and done.stderr.count("\n") == 1
