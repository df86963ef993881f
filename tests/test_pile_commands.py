"""A language run as its user makes it: files, exit codes, what is said of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from processes import config, jaxbench, run_py

RECIPE = (
    "pile.py:gru,width=16,depth=1,window=32,batch_size=4,steps_per_dispatch=4,"
    "validation_bytes=500,evaluations=2,platform=cpu,compilation_cache="
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    """A corpus of 60,000 bytes in sentences of four words."""
    words = np.array(["to be ", "or not ", "that is ", "the question.\n"])
    drawn = np.random.default_rng(0).choice(words, 9000)
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_bytes("".join(drawn).encode()[:60_000])
    return path


@pytest.fixture(scope="module")
def finished(home, text, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("cwd")
    done = run_py(
        config(RECIPE + ",budget=30steps,learning_rate=1e-2"),
        f"--config.data.corpus={text}",
        "--workdir=run",
        cwd=cwd,
        cache=home,
    )
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_run_says_nats_bits_and_bytes(finished):
    cwd, done = finished
    result = json.loads((cwd / "run/result.json").read_text())
    assert result["status"] == "ok" and result["steps"] == 30
    assert result["budget"] == {"total": 30, "unit": "steps"}
    assert result["shape"] == {"width": 16, "depth": 1}
    metrics = result["last"]["metrics"]
    assert metrics["bytes"] == 500
    assert metrics["nats_per_byte"] < result["floors"]["uniform"]["nats_per_byte"] - 1
    assert [step for step, _ in result["curve"]["validation"]] == [15, 30]
    assert result["skips"] == {"count": 0, "first_step": None}
    assert result["seconds"]["first_steps"] > 0
    assert result["params"]["total"] == result["params"]["backbone"] + 256 * 16
    assert result["data"]["source"] == "corpus"
    assert result["data"]["name"] == "words.txt"
    for word in ("nats/byte", "bits/byte", "floor: unigram"):
        assert word in done.stdout


def test_a_run_of_seconds_on_pythons_own_sources(home, tmp_path):
    done = run_py(
        config(RECIPE + ",budget=2s"), "--workdir=run", cwd=tmp_path, cache=home
    )
    assert done.returncode == 0, done.stderr
    assert "Python's own sources" in done.stderr
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["data"]["source"] == "python"
    assert result["budget"] == {"total": 2.0, "unit": "seconds"}
    assert 1.9 < result["seconds"]["train"] < 10 and result["steps"] > 5


def test_a_prompt_is_continued_byte_for_byte(finished):
    cwd, _ = finished
    call = ("sample", "run", "--bytes=40", "--temperature=0", "--prompt=to be ")
    one = jaxbench(*call, cwd=cwd)
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith("to be ") and len(one.stdout) == 6 + 40 + 1
    assert "46" not in one.stdout and "47 bytes read or written" in one.stderr
    assert jaxbench(*call, cwd=cwd).stdout == one.stdout
    same = ("sample", "run", "--bytes=40", "--temperature=0", "--hex")
    assert jaxbench(*same, "--prompt=746f20626520", cwd=cwd).stdout == one.stdout


def test_scores_of_the_test_split_and_of_a_carried_state(finished):
    cwd, _ = finished
    for flags, name in (((), "test"), (("--carry",), "test_carried")):
        done = jaxbench("score", "run", *flags, cwd=cwd)
        assert done.returncode == 0, done.stderr
        result = json.loads((cwd / "run/result.json").read_text())
        assert result["scores"][name]["bytes"] == 500
    done = jaxbench("score", "run", "--split=validation", cwd=cwd)
    result = json.loads((cwd / "run/result.json").read_text())
    # The best weights on the split they were chosen on: what training said of them.
    again = result["scores"]["validation"]["nats_per_byte"]
    assert again == pytest.approx(result["best"]["metrics"]["nats_per_byte"], rel=1e-5)


def test_latency_of_a_language_run_is_its_decoding(finished):
    cwd, _ = finished
    done = jaxbench("latency", "run", "--frames=20", cwd=cwd)
    assert done.returncode == 0, done.stderr
    decode = json.loads((cwd / "run/result.json").read_text())["decode"]
    assert decode["bytes"] == 20 and decode["agrees"] < 1e-3
    assert decode["bytes_per_s"] == pytest.approx(1e3 / decode["p50_ms"])
    assert "bytes/s" in done.stdout


@pytest.mark.parametrize(
    "flags, message",
    [
        (("sample", "run", "--prompt=4g", "--hex"), "is not bytes in hexadecimal"),
        (("sample", "run", "--prompt_file=none"), "--prompt_file=none cannot be read"),
        (("sample", "nothing"), "holds no result.json"),
        (("score", "run", "--split=tset"), "the run's corpus has validation, test"),
    ],
)
def test_bad_input_to_sample_and_score_is_one_line(finished, flags, message):
    cwd, _ = finished
    done = jaxbench(*flags, cwd=cwd)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize(
    "text_after, flags, message",
    [
        ("budget=0s", (), "must be more than nothing"),
        ("budget=30steps", ("--config.data.corpus=absent",), "absent"),
        ("budget=30steps", ("--config.data.corpus=empty",), "empty"),
        ("budget=30steps", ("--config.data.corpus=short",), "window"),
        ("budget=30steps", ("--config.data.corpus=half.jsonl.zst",), "half.jsonl.zst"),
        (
            "budget=30steps",
            ("--config.data.corpus=words", "--config.data.splits=train=0:9M"),
            "splits",
        ),
    ],
)
def test_bad_input_to_a_run_is_one_line_and_leaves_nothing(
    text_after, flags, message, tmp_path, home, text
):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"too short for a window. " * 10)
    (tmp_path / "half.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfdgone")
    (tmp_path / "words").write_bytes(text.read_bytes())
    before = sorted(p.name for p in tmp_path.iterdir())
    done = run_py(
        config(f"{RECIPE},{text_after}"),
        "--workdir=run",
        *flags,
        cwd=tmp_path,
        cache=home,
    )
    assert done.returncode == 2, done.stderr
    errors = [x for x in done.stderr.splitlines() if x.startswith("run.py: error:")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_corpus_that_changed_is_noticed(finished, text):
    cwd, _ = finished
    whole = text.read_bytes()
    try:
        text.write_bytes(whole[:-1] + b"!")
        done = jaxbench("score", "run", cwd=cwd)
    finally:
        text.write_bytes(whole)
    assert done.returncode == 2 and "has changed" in done.stderr
