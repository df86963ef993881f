"""A run that fails is a result with a reason, and its folder can be used again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy import toy_task

from configs import zelda
from jaxbench.bench import build, job
from jaxbench.bench.check import check_finite
from jaxbench.bench.run_folder import check_owner, config_hash, default_folder
from jaxbench.errors import InputError
from jaxbench.tasks.rules import parse_options


def resolved(text: str = "gru") -> dict:
    return json.loads(zelda.get_config(text).to_json())


@pytest.mark.parametrize(
    "error, status, text",
    [
        (RuntimeError("boom\nmore"), "crashed", "RuntimeError: boom at test_job.py:"),
        (MemoryError(), "oom", "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), "oom", "lower train.batch_size"),
    ],
)
def test_a_failure_is_a_result_with_a_reason(
    error, status, text, tmp_path, monkeypatch
):
    def fail(config, say):
        raise error

    monkeypatch.setattr(build, "build_task", fail)
    result = job.run_job(resolved(), tmp_path / "run")
    assert result["status"] == status and text in result["reason"]
    assert "\n" not in result["reason"]
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert "Traceback" in (tmp_path / "run/error.txt").read_text()
    check_owner(tmp_path / "run", resolved())  # the same command may go on in it


def test_input_errors_leave_nothing(tmp_path, monkeypatch):
    def fail(config, say):
        raise InputError("no such thing")

    monkeypatch.setattr(build, "build_task", fail)
    with pytest.raises(InputError, match="no such thing"):
        job.run_job(resolved(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        check_owner(tmp_path, resolved())
    with pytest.raises(InputError, match="is a file"):
        check_owner(tmp_path / "notes.txt", resolved())


def test_options_of_mixers_reach_the_backbone():
    config = resolved("swa/moe,options=window=4 channel.routing=soft qk_norm=True")
    layer = build.build_backbone(config).layers[0]
    assert dict(layer.options) == {"window": 4, "qk_norm": True}
    assert dict(layer.channel_options) == {"routing": "soft"}
    assert parse_options("dt_max=1e-2") == {"dt_max": 0.01}
    with pytest.raises(InputError, match="'window' is given twice"):
        parse_options("window=4 window=5")


def test_data_that_is_not_finite_is_refused_at_its_first_place(tmp_path, monkeypatch):
    signal = np.arange(200.0)
    signal[[30, 77]] = np.nan, np.inf
    task = toy_task(signal=signal)
    monkeypatch.setattr(build, "build_task", lambda config, say: task)
    with pytest.raises(InputError, match=r"holds nan at signal\[30\], the first of 2"):
        job.run_job(resolved(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_finite({"ids": np.arange(3), "frames": np.ones((2, 2))})
    with pytest.raises(InputError, match=r"-inf at frames\[1, 0\]"):
        check_finite({"frames": np.array([[0, 1], [-np.inf, 2]])})


def test_only_what_changes_results_changes_the_hash():
    base = config_hash(resolved())
    assert config_hash(resolved("gru,workers=3,platform=cpu")) == base
    assert config_hash(resolved("gru,seed=1")) != base
    assert default_folder(resolved("mamba*2+swa")).parts[2] == "mamba.2.swa"
