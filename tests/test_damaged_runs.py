"""Files of a run that were cut off, emptied or written by something else."""

from __future__ import annotations

import copy
import json

import pytest
from commands import assert_one_line_error, jaxbench, run_py
from processes import config

from configs import zelda
from jaxbench.bench.result import blank_result, read_result
from jaxbench.bench.run_folder import claim, read_config, write_json
from jaxbench.errors import InputError
from jaxbench.serving.policy import Policy

TEXT = "gru,width=16"
DAMAGED = {
    "empty": b"",
    "cut": b'{"schema": 2, "task": "ze',
    "list": b"[]",
    "null": b"null",
    "number": b"5",
    "no-text": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "nothing": b"{}",
}


@pytest.fixture
def run(tmp_path):
    """A folder as a finished run leaves it, but for checkpoints."""
    settings = json.loads(zelda.get_config(TEXT).to_json())
    metrics = {"loss": 1.0, "change/any": 0.5}
    best = {"step": 8, "metrics": metrics}
    known = {
        "primary": {"metric": "loss", "maximize": False},
        "params": {"total": 100, "backbone": 50},
        "shape": {"width": 16, "depth": 1},
        "floors": {"marginal": metrics},
        "data": {"source": "simulated", "options": {}},
        "device": {"platform": "cpu", "kind": "a CPU", "count": 1, "processes": 1},
    }
    claim(tmp_path / "run", settings)
    result = blank_result(settings, "ok", "") | known | {"best": best, "last": best}
    write_json(tmp_path / "run" / "result.json", result)
    return tmp_path / "run"


@pytest.mark.parametrize("name", ["result.json", "config.json"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_line_and_exit_code_2(name, kind, run):
    (run / name).write_bytes(DAMAGED[kind])
    cwd = run.parent
    done = run_py(config(f"zelda.py:{TEXT}"), "--workdir=run", cwd=cwd)
    assert_one_line_error(done, name, "is damaged")
    for command in ("latency", "export", "play", "throughput"):
        assert_one_line_error(jaxbench(command, "run", cwd=cwd), name, "is damaged")
    with pytest.raises(InputError, match=rf"{name} is damaged: [^\n]+$"):
        Policy.load(run)
    assert (run / name).read_bytes() == DAMAGED[kind]


def paths(content, above=()):
    for name, value in content.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from paths(value, (*above, name))


WRONG = ("words", 5, -0.5, True, None, [], [1], {}, {"a": "b"})


def test_wrong_types_are_refused_and_never_a_traceback(run):
    """Every field with values of every type: it is read as it was, or refused."""
    for name, read in (("config.json", read_config), ("result.json", read_result)):
        whole = json.loads((run / name).read_text())
        refused = 0
        for path in paths(whole):
            for value in WRONG:
                broken = copy.deepcopy(whole)
                inside = broken
                for part in path[:-1]:
                    inside = inside[part]
                inside[path[-1]] = value
                (run / name).write_text(json.dumps(broken))
                try:
                    read(run)
                except InputError as error:
                    refused += 1
                    assert "\n" not in str(error)
        assert refused > 3 * len(WRONG) * (6 if name == "result.json" else 10)
        (run / name).write_text(json.dumps(whole))


@pytest.mark.parametrize(
    "key, value",
    [
        ("status", ["ok"]),
        ("status", "fine"),
        ("best", "3"),
        ("best", {"step": 8, "metrics": [1, 2]}),
        ("best", {"step": 8, "metrics": {"loss": "low"}}),
        ("primary", {"metric": 3, "maximize": False}),
        ("params", {"total": "many"}),
        ("floors", {"marginal": 3}),
        ("throughput", 12.5),
        ("device", ["cpu"]),
        ("steps", "8"),
    ],
)
def test_wrong_types_of_a_result_are_found_before_it_is_printed(key, value, run):
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    done = run_py(config(f"zelda.py:{TEXT}"), "--workdir=run", cwd=run.parent)
    assert_one_line_error(done, "result.json is damaged", key)


def test_a_whole_result_is_printed_again(run):
    done = run_py(config(f"zelda.py:{TEXT}"), "--workdir=run", cwd=run.parent)
    assert done.returncode == 0 and "nothing to do" in done.stderr
