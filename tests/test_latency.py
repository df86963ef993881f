"""Latency: what is timed is the trained policy, streamed as it would play."""

from __future__ import annotations

import dataclasses
import functools
import gc
import io
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from rich.console import Console
from small_run import small_config

from jaxbench.bench.build import build_backbone, build_model, build_task
from jaxbench.bench.speed_tables import latency_table
from jaxbench.bench.trained import one_device, open_run, restore_variables
from jaxbench.data import slippi
from jaxbench.errors import InputError
from jaxbench.serving.latency import (
    BUDGET_MS,
    check_agreement,
    comparable,
    measure_latency,
    played_frames,
    stream_caller,
    summarize,
)
from jaxbench.serving.timing import (
    time_in_turn,
)
from jaxbench.tasks.zelda.stream import INPUTS, open_stream, play_order


@pytest.fixture(scope="module")
def run(shared_runs):
    """The session's run; tests that write take a copy."""
    return shared_runs("policy")


def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


class Clock:
    """Seconds that go by only when asked: each reading is `step` after the last."""

    def __init__(self, step):
        self.now, self.step, self.readings = 0.0, step, 0

    def __call__(self):
        self.readings += 1
        self.now += self.step
        return self.now


@pytest.mark.integration
def test_the_answer_and_where_it_is_written(run, tmp_path):
    folder = copied(run, tmp_path)
    before = json.loads((folder / "result.json").read_text())
    measured = measure_latency(folder, frames=40)
    after = json.loads((folder / "result.json").read_text())
    assert after["latency"] == measured
    assert list(after) == list(before)
    assert {**after, "latency": None} == before
    assert not list(folder.glob("*.partial"))

    assert measured["frames"] == 40 and measured["budget_ms"] == 1000 / 60
    assert measured["weights"]["which"] == "best"
    assert measured["weights"]["step"] == before["best"]["step"]
    assert measured["device"]["platform"] == "cpu"
    assert 0 <= measured["agrees"] < 1e-4
    assert measured["window"]["length"] == 8
    parts = measured["step"]["parts"]
    names = ("checks", "features", "encoder", "backbone", "head", "rest")
    assert tuple(parts) == names and min(parts.values()) >= 0 and parts["features"] > 0
    for mode in (measured["step"], measured["window"]):
        assert 0 < mode["p50_ms"] <= mode["p99_ms"] <= mode["max_ms"]
        assert mode["share_of_frame"] == mode["p99_ms"] / BUDGET_MS
        assert mode["makes_60fps"] is (mode["p99_ms"] < BUDGET_MS)


@pytest.mark.integration
def test_the_verdict_follows_the_clock(run, tmp_path):
    clock = Clock(0.02)
    measured = measure_latency(
        copied(run, tmp_path), frames=25, which="last", window=False, clock=clock
    )
    assert clock.readings == 2 * 25  # so many calls, each read before and after
    assert (
        measured["step"]["makes_60fps"] is False
        and summarize(np.full(25, 4.0))["makes_60fps"]
    )
    assert measured["step"]["p99_ms"] == pytest.approx(20)
    assert measured["window"] is None and measured["weights"]["which"] == "last"


def test_a_slow_call_in_a_hundred_is_seen():
    # 15 of 1000 calls take longer than a frame: beyond the 99th percentile's share.
    assert not summarize(np.array([1.0] * 985 + [40.0] * 15))["makes_60fps"]
    rare = summarize(np.array([1.0] * 995 + [40.0] * 5))
    assert rare["makes_60fps"] and rare["max_ms"] == 40 and rare["p50_ms"] == 1


def test_calls_are_timed_in_turn_without_garbage_collection():
    seen = []
    clock = Clock(0.001)

    def taking(name, seconds):
        def call(n):
            seen.append((name, n, gc.isenabled()))
            clock.now += seconds * n

        return call

    calls = {"slow": taking("slow", 1), "fast": taking("fast", 0)}
    times = time_in_turn(calls, 3, 1, clock)
    assert seen[:2] == [("slow", 0, True), ("fast", 0, True)]  # to warm up
    assert seen[2:] == [(x, n, False) for n in range(3) for x in ("slow", "fast")]
    np.testing.assert_allclose(times["slow"], [1, 1001, 2001], rtol=1e-9)
    np.testing.assert_allclose(times["fast"], [1, 1, 1], rtol=1e-9)
    assert gc.isenabled()

    def fail(n):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        time_in_turn({"one": fail}, 1, 0, clock)
    assert gc.isenabled()


@pytest.fixture(scope="module")
def tasks(shared_runs):
    """Tasks by the text of their recipe, with its config and the arrays placed."""

    @functools.cache
    def task_of(text):
        config = small_config(shared_runs.folder, text)
        task = build_task(config, lambda line: None)
        place = SingleDeviceSharding(jax.devices()[0])
        return config, task, jax.device_put(dict(task.arrays), place)

    return task_of


@pytest.mark.integration
@pytest.mark.parametrize("protocol", ["clean", "compat"])
def test_a_stream_shows_what_training_shows(tasks, protocol):
    _, task, arrays = tasks(f"gru,window=8,protocol={protocol},validation_fraction=0.5")
    stream = open_stream(task, arrays, "validation", 10**9)
    assert stream.start_n[0] and stream.start_n.sum() >= 2
    games = len(task.source["splits"]["validation"]["games"])
    assert stream.start_n.sum() >= games
    # All scored examples of the split are met, in the split's own order.
    order = {tuple(np.atleast_1d(row)): n for n, row in enumerate(stream.examples)}
    places = [order[tuple(np.atleast_1d(row))] for row in task.splits["validation"]]
    assert places == sorted(places)
    some = np.linspace(0, len(places) - 1, 50).astype(int)
    index = np.array(places)[some]
    if protocol == "compat":  # training's windows reach into the game before
        index = index[index - stream.first_n[index] >= 7]
    batch = jax.device_get(jax.jit(task.gather)(arrays, stream.examples[index]))
    for row, n in enumerate(index):
        window, frame = stream.window(n, 8), stream.frame(n)
        for name in INPUTS[protocol]:
            np.testing.assert_array_equal(window[name][0], batch[name][row])
            np.testing.assert_array_equal(frame[name][0, 0], batch[name][row, -1])
        np.testing.assert_array_equal(window["reset_bt"][0], batch["reset_bt"][row])


@pytest.mark.integration
def test_the_stream_of_the_clean_protocol_has_no_gaps(tasks):
    _, task, _ = tasks("gru,window=8,protocol=clean,validation_fraction=0.5")
    examples, start_n = play_order(task, "validation")
    np.testing.assert_array_equal(start_n, examples[:, 1] == 0)
    steps = np.diff(examples, axis=0)
    inside = ~start_n[1:]
    assert (steps[inside] == [0, 1]).all()


@pytest.mark.integration
def test_a_short_stream_begins_with_the_first_frames(tasks):
    _, task, arrays = tasks("gru,window=8,protocol=clean,validation_fraction=0.5")
    few = open_stream(task, arrays, "validation", 300)
    many = open_stream(task, arrays, "validation", 700)
    assert len(few) == 300 and len(many) == 700
    for name, frames in few.frames.items():
        np.testing.assert_array_equal(frames, many.frames[name][:300])


CASES = (
    "gru,window=8,depth=1,protocol=clean,head=autoregressive,readout=all",
    "s4,window=8,depth=1,protocol=compat,validation_fraction=0.5",
    pytest.param("swa+fnet,window=8,protocol=clean", marks=pytest.mark.slow),
    pytest.param("mamba/moe,window=8,protocol=clean", marks=pytest.mark.slow),
)


def run_of(tasks, text):
    """What `check_agreement` reads of an untrained run, its weights and arrays."""
    config, task, arrays = tasks(text)
    model = build_model(build_backbone(config), task)
    examples = jnp.asarray(task.splits["train"][:1])
    variables = jax.jit(
        lambda: model.init(jax.random.key(0), dict(task.gather(arrays, examples)))
    )()
    return types.SimpleNamespace(config=config, task=task, model=model), (
        variables,
        arrays,
    )


@pytest.mark.integration
@pytest.mark.parametrize("text", CASES)
def test_step_and_window_agree(tasks, text):
    run, (variables, arrays) = run_of(tasks, text)
    stream = open_stream(run.task, arrays, "validation", 200)
    assert len(comparable(stream, 8, run.task.protocol)) == (
        8 if run.task.protocol == "clean" else 1
    )
    assert check_agreement(run, variables, arrays, stream) < 1e-4

    # Both modes answer the same wherever a window holds all that was seen.
    step = stream_caller(run, variables, stream, 0)
    whole = stream_caller(run, variables, stream, 8)
    answers = [(step(n), whole(n)) for n in range(8)]
    for streamed, windowed in answers:
        assert streamed.shape == (1, 6) and streamed.dtype == np.int32
        np.testing.assert_array_equal(streamed, windowed)
    # Around the stream's end the next frame is the first, which is a reset.
    again = stream_caller(run, variables, stream, 0)
    for n in range(len(stream) - 3, len(stream) + 8):
        answer = again(n)
        if n >= len(stream):
            np.testing.assert_array_equal(answer, answers[n - len(stream)][0])


@pytest.mark.integration
def test_a_stream_of_other_frames_is_an_error(run):
    opened, placement = open_run(run), one_device()
    variables, _ = restore_variables(opened, "best", placement)
    arrays = jax.device_put(dict(opened.task.arrays), placement.whole)
    stream = open_stream(opened.task, arrays, "validation", 50)
    loud = jax.tree.map(lambda x: 3 * x, variables)
    assert check_agreement(opened, loud, arrays, stream) < 1e-2
    rolled = {name: np.roll(x, 3, axis=0) for name, x in stream.frames.items()}
    wrong = dataclasses.replace(stream, frames=rolled)
    with pytest.raises(ValueError, match="streamed logits differ"):
        check_agreement(opened, loud, arrays, wrong)
    few = open_stream(opened.task, arrays, "validation", 5)
    compat = dataclasses.replace(opened.task, protocol="compat")
    opened = dataclasses.replace(opened, task=compat)
    assert check_agreement(opened, variables, arrays, few) is None  # nothing to compare


@pytest.mark.integration
def test_frames_are_those_of_the_validation_replays_or_simulated(run, shared_runs):
    """Real ones of the split's games, from the timer's start on, game after game."""
    opened = open_run(run)
    simulated = played_frames(opened, 30)
    assert [int(view.frame_b[0]) for view in simulated] == list(range(30))
    folder = shared_runs.replays()
    path = sorted(folder.glob("*.slp"))[0]
    data = {**opened.config["data"], "replays": str(folder), "character": "any"}
    splits = {"validation": {"games": [path.name] * 2}}
    source = {**opened.task.source, "splits": splits}
    opened = dataclasses.replace(
        opened,
        config={**opened.config, "data": data},
        task=dataclasses.replace(opened.task, source=source),
    )
    game = slippi.parse(path)
    first, begin = int((game.frame_t >= 0).sum()), int((game.frame_t < 0).sum())
    seen = played_frames(opened, first + 5)
    assert len(seen) == first + 5
    ids = [int(view.frame_b[0]) for view in seen]
    assert ids == [*game.frame_t[begin:].tolist(), *range(5)]
    x = game.players[0].leader.post["position_x"][begin + 3]
    assert seen[3].own.post["position_x"][0] == x


@pytest.mark.integration
def test_folders_that_cannot_be_measured_say_why(run, tmp_path):
    def refused(text, **arguments):
        with pytest.raises(InputError, match=text) as caught:
            measure_latency(folder, frames=5, **arguments)
        assert "\n" not in str(caught.value)

    folder = tmp_path / "nothing"
    refused("holds no result.json")
    folder = copied(run, tmp_path)
    refused("which='mean' is neither", which="mean")
    with pytest.raises(InputError, match="frames=0 must be at least 1"):
        measure_latency(folder, frames=0)

    result = json.loads((folder / "result.json").read_text())
    config = json.loads((folder / "config.json").read_text())

    def rewrite(result_changes=None, data_changes=None):
        changed = {**result, **(result_changes or {})}
        data = {**config["data"], **(data_changes or {})}
        (folder / "result.json").write_text(json.dumps(changed))
        (folder / "config.json").write_text(json.dumps({**config, "data": data}))

    rewrite({"status": "interrupted", "reason": "SIGTERM"})
    refused(r"is not finished \(interrupted: SIGTERM\)")
    rewrite({"schema": 1})
    refused("was made by another version .schema 1")
    rewrite({"data": {**result["data"], "fingerprint": "0" * 64}})
    refused("the data of the run .* has changed: its fingerprint was 000000000000")
    rewrite(None, {"replays": str(tmp_path / "moved")})
    refused("the data of the run .* is gone: there is no .*moved")
    (tmp_path / "moved").mkdir()
    refused("cannot be read again: .*no .slp replays")
    rewrite()
    shutil.rmtree(folder / "checkpoints" / "best")
    refused("has no checkpoint under .*best")
    assert not (folder / "checkpoints" / "best").exists()
    shutil.rmtree(folder / "checkpoints")
    refused("has no checkpoint", which="last")
    assert json.loads((folder / "result.json").read_text()) == result


def test_the_table_sorts_counts_and_keeps_failures():
    def found(p99):
        mode = summarize(np.full(10, p99))
        return {"device": {"kind": "cpu"}, "step": mode, "window": None}

    quick = found(2.0)
    names = ("checks", "features", "encoder", "backbone", "head", "rest")
    quick["step"]["parts"] = dict(
        zip(names, (0.1, 0.4, 0.2, 1.0, 0.2, 0.1), strict=True)
    )
    quick |= {"window": summarize(np.full(3, 7.25)) | {"length": 30}}
    table = latency_table(
        [("slow", found(20.0)), ("odd[1]", "no checkpoint [x]"), ("quick", quick)]
    )
    console = Console(width=150, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    lines = [line for line in text.splitlines() if "│" in line]
    assert text.startswith("1 of 2 answer within a frame (16.7 ms) at p99")
    cells = [[c.strip() for c in line.strip("│").split("│")] for line in lines]
    assert cells == [
        ["quick", "2.00", "2.00", "2.00", "12.0%", "yes", "7.25", "5/20/10/50/10/5"],
        ["slow", "20.00", "20.00", "20.00", "120.0%", "no", "-", "-"],
        ["odd[1]", "failed", "", "", "", "", "", ""],
    ]
    assert "odd[1]: no checkpoint [x]" in text and "on cpu" in text
