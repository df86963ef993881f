"""A language run as its user makes it: files, exit codes, what is said of bad input."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import assert_one_line_error, jaxbench, run_py
from processes import config

from jaxbench.serving.writing import measure_decode


@pytest.fixture(scope="module")
def finished(shared_runs, tmp_path_factory):
    """A folder with a copy of the session's run, `run`."""
    cwd = tmp_path_factory.mktemp("cwd")
    shutil.copytree(shared_runs("text"), cwd / "run")
    return cwd


def result_of(cwd) -> dict:
    return json.loads((cwd / "run/result.json").read_text())


def test_a_run_says_nats_bits_and_bytes(finished, shared_runs):
    result = result_of(finished)
    assert result["status"] == "ok" and result["steps"] == 48
    assert result["budget"] == {"total": 48, "unit": "steps"}
    assert result["shape"] == {"width": 16, "depth": 1}
    metrics = result["last"]["metrics"]
    assert metrics["bytes"] == 500
    assert metrics["nats_per_byte"] < result["floors"]["uniform"]["nats_per_byte"] - 1
    assert [step for step, _ in result["curve"]["validation"]] == [24, 48]
    assert result["skips"] == {"count": 0, "first_step": None}
    assert result["seconds"]["first_steps"] > 0
    assert result["params"]["total"] == result["params"]["backbone"] + 256 * 16
    assert result["data"]["source"] == "corpus"
    assert result["data"]["name"] == "words.txt"
    recipe = config(shared_runs.recipe("text"))
    done = run_py(recipe, "--workdir=run", cwd=finished)
    for word in ("nats/byte", "bits/byte", "floor: ", "gram"):
        assert word in done.stdout


@pytest.mark.integration
def test_a_run_of_seconds_on_pythons_own_sources(shared_runs, tmp_path):
    recipe = config(shared_runs.recipe("text").partition(",corpus=")[0])
    timed = "--config.train.budget=2s"
    done = run_py(recipe, timed, "--workdir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Python's own sources" in done.stderr
    result = result_of(tmp_path)
    assert result["data"]["source"] == "python"
    assert result["budget"] == {"total": 2.0, "unit": "seconds"}
    assert 1.9 < result["seconds"]["train"] < 10 and result["steps"] > 5


def test_a_prompt_is_continued_byte_for_byte(finished):
    call = ("sample", "run", "--bytes=40", "--temperature=0")
    one = jaxbench(*call, "--prompt=to be ", cwd=finished)
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith("to be ") and len(one.stdout) == 6 + 40 + 1
    assert "46" not in one.stdout and "47 bytes read or written" in one.stderr
    same = jaxbench(*call, "--hex", "--prompt=746f20626520", cwd=finished)
    assert same.stdout == one.stdout


def test_scores_of_the_test_split_and_of_a_carried_state(finished):
    for flags, name in (((), "test"), (("--carry",), "test_carried")):
        done = jaxbench("score", "run", *flags, cwd=finished)
        assert done.returncode == 0, done.stderr
        assert result_of(finished)["scores"][name]["bytes"] == 500
    jaxbench("score", "run", "--split=validation", cwd=finished)
    result = result_of(finished)
    # The best weights on the split they were chosen on: what training said of them.
    again = result["scores"]["validation"]["nats_per_byte"]
    assert again == pytest.approx(result["best"]["metrics"]["nats_per_byte"], rel=1e-5)


def test_latency_of_a_language_run_is_its_decoding(finished):
    measure_decode(finished / "run", count=20)
    decode = result_of(finished)["decode"]
    assert decode["bytes"] == 20 and decode["agrees"] < 1e-3
    assert decode["bytes_per_s"] == pytest.approx(1e3 / decode["p50_ms"])
    # It is measured, so it is only told.
    done = jaxbench("latency", "run", "--frames=20", cwd=finished)
    assert done.returncode == 0 and "bytes/s" in done.stdout, done.stderr


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
    done = jaxbench(*flags, cwd=finished)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize(
    "flags, message",
    [
        (("train.budget=0s",), "must be more than nothing"),
        (("data.corpus=absent",), "absent"),
        (("data.corpus=empty",), "empty"),
        (("data.corpus=short",), "window"),
        (("data.corpus=half.jsonl.zst",), "half.jsonl.zst"),
        (("data.corpus=words", "data.splits=train=0:9M"), "splits"),
    ],
)
def test_bad_input_to_a_run_is_one_line_and_leaves_nothing(
    flags, message, tmp_path, shared_runs
):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"too short for a window. " * 10)
    (tmp_path / "half.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfdgone")
    (tmp_path / "words").write_bytes(shared_runs.corpus().read_bytes())
    before = sorted(p.name for p in tmp_path.iterdir())
    given = [f"--config.{flag}" for flag in (*flags, "data.cache=")]
    recipe = config(shared_runs.recipe("text"))
    done = run_py(recipe, "--workdir=run", *given, cwd=tmp_path)
    assert_one_line_error(done, message)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_corpus_that_changed_is_noticed(finished, shared_runs, tmp_path):
    corpus = tmp_path / "words.txt"
    corpus.write_bytes(shared_runs.corpus().read_bytes()[:-1] + b"!")
    shutil.copytree(finished / "run", tmp_path / "run")
    path = tmp_path / "run/config.json"
    kept = json.loads(path.read_text())
    kept["data"]["corpus"] = str(corpus)
    path.write_text(json.dumps(kept))
    done = jaxbench("score", "run", cwd=tmp_path)
    assert done.returncode == 2 and "has changed" in done.stderr
