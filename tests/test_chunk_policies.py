"""Policies over chunks act as they were scored, frame by frame and as commands."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boards import result, write
from commands import jaxbench, measured_here, run_py
from drawn import draw
from processes import SMALL, config
from test_zelda_frames import make_game

from configs import zelda
from jaxbench.bench.check import check_values
from jaxbench.board.board import make_board
from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.models.model import Model
from jaxbench.serving.decide import act, first_memory
from jaxbench.serving.policy import Policy
from jaxbench.serving.weights import example_batch
from jaxbench.tasks.zelda import entry, frames, imitation, view, windows
from jaxbench.tasks.zelda.chunks import action, heads, targets

# Whole stacks, many of each: minutes together.
pytestmark = pytest.mark.integration

BEGIN = 123  # index of frame 0 in games by hand
OPTIONS = {
    "diffusion": {"horizon": 4, "steps": 3, "hidden": 16, "layers": 1},
    "act": {"horizon": 4, "latent": 4, "hidden": 16, "layers": 1, "heads": 2},
    "flow_matching": {
        "horizon": 4,
        "steps": 3,
        "hidden": 16,
        "layers": 1,
        "solver": "midpoint",
    },
}


@functools.cache
def make_model(head):
    """A small model and drawn variables."""
    encoder, output = imitation.modules(
        "clean", width=16, head=head, head_options=OPTIONS[head]
    )
    stack = build_stack("gru", width=16, depth=1)
    model = Model(encoder=encoder, stack=stack, head=output, readout="last")
    batch = example_batch(2)
    return model, jax.device_put(draw(model, batch))


@functools.cache
def make_policy(head, **settings):
    return Policy.of(*make_model(head), window=8, **settings)


def batch_actions(head, game, player):
    """What evaluation decodes at every frame of a game: chunks [T, H, 13]."""
    model, variables = make_model(head)
    arrays, perspectives = frames.store([game], [(0, player)], delay=0, drop_idle=False)
    length = perspectives[0].length
    gather = targets.with_chunks(
        windows.clean_gather(length, 0, "all"), 4, window=length, delay=0, readout="all"
    )

    def evaluate(arrays, examples):
        batch = dict(gather(arrays, examples))
        outputs, _ = model.clone(readout="all").apply(variables, batch)
        return outputs["action_bthc"][0]

    return np.asarray(jax.jit(evaluate)(arrays, np.array([[0, length - 1]], np.int32)))


def play(policy, games, times, state=None):
    """Labels [T, B, 6] of games side by side, and the state after them."""
    state, found = policy.initial_state(len(games)) if state is None else state, []
    for t in times:
        shown = [view.view_of_replay(game, 0, t) for game in games]
        together = view.joined(shown)
        state, labels = policy.step_views(state, together)
        found.append(labels)
    return np.array(found), state


@pytest.mark.parametrize("head", list(heads.POLICIES))
def test_decisions_of_a_stream_are_those_that_were_scored(head):
    """Frame by frame, and again after the game has begun anew."""
    game = make_game(1, count=150)
    chunks = batch_actions(head, game, 0)
    count = len(chunks)
    if head == "act":
        expected = []
        for t in range(count):
            made = range(max(0, t - 3), t + 1)
            weights = [np.exp(-0.01 * i) for i in range(len(made))]
            rows = [chunks[m, t - m] for m in made]
            expected.append(np.average(rows, axis=0, weights=weights))
        expected = np.array(expected)
    else:
        expected = chunks[:, 0]
    labels = np.asarray(action.decode(jnp.asarray(expected)))
    policy = make_policy(head)
    times = range(BEGIN, BEGIN + count)
    answers, state = play(policy, [game], times)
    # A number between two levels may round either way.
    assert (answers[:, 0] == labels).all(-1).mean() > 0.95
    assert len(np.unique(labels, axis=0)) > 3
    again, _ = play(policy, [game], times, state)
    np.testing.assert_array_equal(again, answers)


def test_games_side_by_side_start_anew_by_themselves():
    policy = make_policy("act")
    one, two = make_game(1, count=150), make_game(2, count=150)
    alone = play(policy, [one], range(BEGIN, BEGIN + 12))[0]
    # The second game of the batch is new where the first goes on.
    first, state = play(policy, [one, two], range(BEGIN, BEGIN + 6))
    later = []
    for t in range(6):
        shown = [
            view.view_of_replay(one, 0, BEGIN + 6 + t),
            view.view_of_replay(one, 0, BEGIN + t),
        ]
        together = view.joined(shown)
        state, labels = policy.step_views(state, together)
        later.append(labels)
    later = np.array(later)
    np.testing.assert_array_equal(first[:, 0], alone[:6, 0])
    np.testing.assert_array_equal(later[:, 0], alone[6:, 0])
    np.testing.assert_array_equal(later[:, 1], alone[:6, 0])


@pytest.mark.parametrize("head", ["act", "flow_matching"])
def test_the_temperature_scales_the_noise_and_the_seed_draws_it(head):
    game = make_game(1, count=150)
    times = range(BEGIN, BEGIN + 15)
    cold = play(make_policy(head), [game], times)[0]
    warm = play(make_policy(head, temperature=3.0), [game], times)[0]
    same = play(make_policy(head, temperature=3.0), [game], times)[0]
    other = play(make_policy(head, temperature=3.0, seed=1), [game], times)[0]
    np.testing.assert_array_equal(warm, same)
    assert (warm != cold).any() and (warm != other).any()


def test_a_skipped_frame_leaves_the_plan_as_it_was():
    policy, game = make_policy("act"), make_game(1, count=150)
    _, state = play(policy, [game], range(BEGIN, BEGIN + 5))
    seen = view.view_of_replay(game, 0, BEGIN + 4)  # answered already
    after, _ = policy.step_views(state, seen)
    assert after.skipped == 1
    for old, new in zip(
        jax.tree.leaves(state.memory["plan"]),
        jax.tree.leaves(after.memory["plan"]),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
    assert jax.tree.leaves(state.memory["plan"])


def test_a_policy_over_chunks_has_no_logits():
    policy, game = make_policy("diffusion"), make_game(1, count=150)
    with pytest.raises(InputError, match="a head over chunks has no logits"):
        policy.logits(policy.initial_state(), view.view_of_replay(game, 0, BEGIN))


def test_the_step_of_files_and_latency_is_what_is_played():
    policy, game = make_policy("act"), make_game(1, count=150)
    answers, _ = play(policy, [game], range(BEGIN, BEGIN + 8))
    model, variables = make_model("act")
    arrays, _ = frames.store([game], [(0, 0)], delay=0, drop_idle=False)
    gather = jax.jit(windows.clean_gather(1, 0, "last"))
    memory = first_memory(model, variables, 1)
    step = jax.jit(functools.partial(act, model, variables))
    for t in range(8):
        batch = gather(arrays, np.array([[0, t]], np.int32))
        batch = {**batch, "reset_bt": jnp.full((1, 1), t == 0)}
        frame = {k: v for k, v in batch.items() if k not in ("target_bta", "valid_bt")}
        labels, _, memory = step(frame, memory)
        np.testing.assert_array_equal(labels[0], answers[t, 0])


def test_a_board_compares_heads_by_a_metric_that_all_have(tmp_path):
    write(tmp_path / "gru", result("gru"))
    for seed, head in enumerate(("diffusion", "act"), start=2):
        base = result("gru", seed=seed)
        options = base["data"]["options"] | {"head": head, "horizon": 8}
        scored = {"step": 10, "metrics": {"accuracy/all": 0.8, "place/1": 0.9}}
        changes = {"data": base["data"] | {"options": options}, "best": scored}
        changes |= {"primary": {"metric": "accuracy/all", "maximize": True}}
        write(tmp_path / head, base | changes | {"last": scored})
    board = make_board([tmp_path])
    assert board["parts"] == [] and board["score"] == "accuracy/all"
    names = [row["name"] for row in board["rows"]]
    assert len(set(names)) == 3
    for head in ("diffusion", "act"):
        assert sum(head in name for name in names) == 1


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_a_run_is_trained_timed_and_played_by_commands(tmp_path):
    recipe = config(
        "zelda.py:gru,window=8,head=act,stride=16,"
        "head_options=horizon=3 hidden=16 heads=2 layers=1"
    )
    calls = {"cwd": tmp_path, "cache": tmp_path}
    made = run_py(recipe, "--workdir=run", *SMALL, **calls)
    assert made.returncode == 0, made.stderr
    assert "verdict: whole controller" in made.stdout
    assert "floor: copy previous" in made.stdout
    before = json.loads((tmp_path / "run/result.json").read_text())
    metrics = before["best"]["metrics"]
    assert before["primary"] == {"metric": "accuracy/all", "maximize": True}
    assert "loss" not in metrics and metrics["objective/kl"] >= 0
    floor = before["floors"]["copy_previous"]
    assert set(floor) == {n for n in metrics if not n.startswith("objective")}
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    learned = [
        row["objective"] for row in map(json.loads, lines) if row["split"] == "train"
    ]
    assert learned[-1] < learned[0]

    with measured_here():
        done = jaxbench("latency", "run", "--frames=20", **calls)
        assert done.returncode == 0, done.stderr
        done = jaxbench("play", "run", "--games=2", "--seconds=2", **calls)
        assert done.returncode == 0, done.stderr
        done = jaxbench("export", "run", "--frames=200", **calls)
    after = json.loads((tmp_path / "run/result.json").read_text())
    assert 0 <= after["latency"]["agrees"] < 1e-3
    assert after["latency"]["step"]["p50_ms"] > 0 and after["play"]
    assert done.returncode == 0 and "1 of 1 exported" in done.stdout, done.stderr
    assert "gru, act" in done.stdout
    assert (tmp_path / "run/export/step.onnx").exists()
    done = jaxbench("speculate", "run", "run", **calls)
    assert done.returncode == 2 and "only text is" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head=diffusion,head_options=horizon=0", "horizon=0 must be a whole number"),
        ("head=flow_matching,head_options=solver=rk5", "nearest: rk4"),
        ("head_options=horizon=4", "head=independent has no options"),
        ("head=act,protocol=compat", "model.head=act needs protocol=clean"),
        ("head=difusion", "nearest: diffusion"),
    ],
)
def test_a_command_refuses_what_cannot_be_before_any_data_is_read(text, message):
    recipe = json.loads(zelda.get_config(f"gru,{text}").to_json())
    with pytest.raises(InputError, match=message) as error:
        check_values(recipe)
    assert "\n" not in str(error.value)


def test_a_head_says_that_its_width_is_its_own(monkeypatch):
    said = []
    monkeypatch.setattr(imitation, "build", lambda *_: None)
    monkeypatch.setattr(entry, "open_games", lambda data, say: ([], {}))
    for text, line in {
        "gru,width=32,head=act": "head=act has a width of its own: hidden=128",
        "gru,width=64,head=diffusion,head_options=hidden=64": "",
        "gru,width=32": "",
    }.items():
        config = json.loads(zelda.get_config(text).to_json())
        entry.ENTRY.build(config, config["model"]["width"], said.append)
        assert line in "".join(said) and bool(line) == bool(said)
        said.clear()
