"""`jaxbench speculate`: what it measures, where it writes it, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
import types
from pathlib import Path

import pytest
from commands import assert_one_line_error, jaxbench

from jaxbench.bench.trained import Run, open_run
from jaxbench.errors import InputError
from jaxbench.models.build import build_stack
from jaxbench.serving.speculate_command import (
    check_pair,
    counts,
    estimated_speed_up,
    measure_speculation,
    speculation_table,
    speeds,
    take_turns,
)
from jaxbench.serving.speculative import Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def home(shared_runs, tmp_path_factory) -> Path:
    """Copies of two language runs, `target` and `draft`, that know four phrases."""
    home = tmp_path_factory.mktemp("runs")
    for name, run in (("target", "text"), ("draft", "draft")):
        shutil.copytree(shared_runs(run), home / name)
    return home


@pytest.fixture(scope="module")
def opened(home) -> Run:
    return open_run(home / "target")


def test_a_language_run_prints_text_and_table_and_keeps_the_answer(home):
    before = json.loads((home / "target/result.json").read_text())
    assert before["speculative"] is None
    call = ("speculate", "target", "draft", "--prompt=to be ", "--tokens=60")
    flags = ("--lookahead=2", "--seed=3", "--temperature=0.3")
    done = jaxbench(*call, *flags, cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("to be ")
    after = json.loads((home / "target/result.json").read_text())
    assert list(after) == list(before)
    found = after["speculative"]
    assert {**after, "speculative": None} == before
    assert json.loads((home / "draft/result.json").read_text())["speculative"] is None
    assert sum(found["lengths"]) * 2 == found["proposed"] and len(found["lengths"]) == 3
    assert found["accepted"] + sum(found["lengths"]) >= 60
    assert found["acceptance_rate"] == found["accepted"] / found["proposed"]
    assert found["mode"] == "lossless" and found["threshold"] is None
    assert (found["lookahead"], found["seed"], found["tokens"]) == (2, 3, 60)
    assert found["draft"]["backbone"] == "gru" and found["speed_up"] > 0
    assert found["draft"]["parameters"] < before["params"]["total"]
    assert found["weights"]["step"] == before["best"]["step"]
    for line in ("acceptance rate", "tokens per target call", "rounds with 2 accepted"):
        assert line in done.stdout
    assert "drawing 60 tokens" in done.stderr

    # The same seed writes the same text; another mode is marked.
    again, text = measure_speculation(
        home / "target",
        home / "draft",
        Settings(lookahead=2, temperature=0.3),
        tokens=60,
        prompt=b"to be ",
        seed=3,
    )
    assert again["lengths"] == found["lengths"]
    assert done.stdout.startswith("to be " + text.decode())
    marked = again | {"mode": "threshold", "threshold": 0.8}
    assert "not the target's distribution" in str(speculation_table(marked).title)


@pytest.mark.parametrize(
    "flags, message",
    [
        (("target", "draft", "--lookahead=0"), "lookahead=0 must be from 1 to 32"),
        (("target", "absent"), "absent holds no result.json"),
    ],
)
def test_bad_input_to_the_command_is_one_line(home, flags, message):
    before = (home / "target/result.json").read_bytes()
    assert_one_line_error(jaxbench("speculate", *flags, cwd=home), message)
    assert (home / "target/result.json").read_bytes() == before


def test_runs_that_cannot_speculate_say_why(home, tmp_path):
    with pytest.raises(InputError, match="tokens=0 must be at least 1"):
        measure_speculation(home / "target", home / "draft", Settings(), tokens=0)
    draft = shutil.copytree(home / "draft", tmp_path / "draft")
    result = json.loads((draft / "result.json").read_text())
    result |= {"status": "interrupted", "reason": "SIGTERM"}
    (draft / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"is not finished \(interrupted: SIGTERM\)"):
        measure_speculation(home / "target", draft, Settings(), tokens=5)


def test_pairs_that_do_not_go_together_are_refused(opened):
    def refused(target, draft, message):
        with pytest.raises(InputError, match=message) as caught:
            check_pair(target, draft)
        assert "\n" not in str(caught.value)

    check_pair(opened, opened)
    zelda = dataclasses.replace(
        opened, task=dataclasses.replace(opened.task, name="zelda")
    )
    refused(opened, zelda, "task 'zelda'; only text is speculated")
    windows = dataclasses.replace(
        opened,
        model=opened.model.clone(stack=build_stack("fnet", width=24)),
        config={**opened.config, "model": {**opened.config["model"], "backbone": "x"}},
    )
    refused(opened, windows, "backbone 'x' of the run .* sees whole windows anew")
    refused(windows, opened, "sees whole windows anew")


def test_counts_leave_out_the_byte_after_the_kept_ones():
    assert counts([0, 4, 2, 2], 4) == {
        "proposed": 16,
        "accepted": 8,
        "acceptance_rate": 0.5,
        "tokens_per_call": 3,
        "lengths": [1, 0, 2, 0, 1],
    }
    assert counts([], 4)["acceptance_rate"] == counts([], 4)["tokens_per_call"] == 0


def test_the_estimate_is_the_specs():
    found = estimated_speed_up(0.5, 4, draft_seconds=9, target_seconds=24)
    assert found == pytest.approx(1.2)
    assert estimated_speed_up(0, 4, draft_seconds=0, target_seconds=1) == 1


class Fake:
    """A decoder of `size` tokens a call, each call `seconds` long."""

    def __init__(self, clock, size, seconds):
        self.clock, self.size, self.seconds = clock, size, seconds

    def __call__(self):
        self.clock.now += self.seconds
        self.clock.calls.append(self.size)
        return [self.size] * self.size


def test_decoders_take_turns_and_are_timed_alone():
    clock = types.SimpleNamespace(now=0.0, calls=[])
    decoders = {
        "speculation": Fake(clock, 3, 0.3),
        "target": Fake(clock, 5, 1.0),
        "draft": Fake(clock, 7, 0.07),
    }
    drawn, times = take_turns(decoders, 100, lambda: clock.now)
    assert len(drawn) >= 100 and set(drawn) == {3}
    assert {len(x) for x in times.values()} == {20}
    found = speeds(0.5, 2, times)
    assert found["tokens_per_s"] == pytest.approx(10)
    assert found["target_tokens_per_s"] == pytest.approx(5)
    assert found["draft_tokens_per_s"] == pytest.approx(100)
    assert found["speed_up"] == pytest.approx(2)
    # a = 1/2, K = 2: (2/2 + 1) 0.2 / (2 0.01 + 0.2)
    assert found["estimate"] == pytest.approx(0.4 / 0.22)
    # In each block everyone is called, none long before the others.
    order = [
        size
        for size, before in zip(clock.calls[1:], clock.calls, strict=False)
        if size != before
    ]
    assert order[:6] == [5, 7, 3, 5, 7, 3]
