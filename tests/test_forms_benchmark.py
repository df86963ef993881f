"""The script that measures forms: what it prints, which rows it would write."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import forms as script

from jaxbench.ops import forms
from jaxbench.ops.diagonal import diagonal

SCRIPT = Path(script.__file__)


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        timeout=240,
    )


def row(primitive, backend, form, max_length=None):
    return {
        "primitive": primitive,
        "backend": backend,
        "max_length": max_length,
        "max_state": None,
        "form": form,
        "source": "here",
    }


@pytest.mark.integration
def test_a_dry_run_prints_ratios_and_rows_and_writes_nothing():
    before = forms.TABLE.read_bytes()
    done = run("--quick", "--dry-run", "--repeats=2", "--primitive=gru")
    assert done.returncode == 0, done.stderr
    assert forms.TABLE.read_bytes() == before
    for size in ("2, 6, 8", "2, 12, 8"):
        found = re.findall(
            rf"^gru +{size} +(\w+) +[\d.]+ +([\d.]+)$", done.stdout, re.M
        )
        assert {form for form, _ in found} == {"scan", "deferred"}
        assert min(float(ratio) for _, ratio in found) == 1
    rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    assert rows and rows[-1]["max_length"] is None
    for found in rows:
        assert found.keys() == forms.Row.__annotations__.keys()
        assert (found["primitive"], found["backend"]) == ("gru", "cpu")
        assert found["source"].startswith("python benchmarks/forms.py --primitive=gru")
        assert re.search(r", jax \d+\.\d+", found["source"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--primitive=grru",), "'grru' is none of"),
        (("--quick",), "add --dry-run"),
        (("--backend=gpu", "--dry-run"), "JAX runs on cpu"),
    ],
)
def test_wrong_arguments_end_before_anything_is_measured(
    arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["forms.py", *arguments])
    with pytest.raises(SystemExit) as end:
        script.main()
    out, err = capsys.readouterr()
    assert end.value.code not in (0, None) and message in f"{end.value.code}{err}"
    assert "ratio" not in out


def test_every_primitive_of_the_table_can_be_measured():
    assert {row["primitive"] for row in forms.rows()} <= script.PRIMITIVES.keys()


def test_blocks_longer_than_the_sequence_are_tried_once():
    primitive = script.PRIMITIVES["gated_linear"]
    assert primitive.candidates(30) == ["scan", "chunks:16", "chunks:32"]
    assert primitive.candidates(32) == ["scan", "chunks:16", "chunks:32"]
    assert primitive.candidates(512)[1:] == [f"chunks:{c}" for c in (16, 32, 64, 128)]


def test_new_rows_take_the_place_of_old_ones_and_others_stay():
    old = [
        row("a", "cpu", "x", 64),
        row("a", "cpu", "y"),
        row("a", "gpu", "z"),
        row("b", "cpu", "x"),
    ]
    new = [row("a", "cpu", "w"), row("c", "cpu", "v")]
    table = script.merged(old, new)
    assert table == [new[0], old[2], old[3], new[1]]
    assert json.loads(script.as_text(table)) == {"rows": table}


def test_the_table_is_already_in_the_form_it_is_written_in():
    assert script.as_text(forms.rows()) == forms.TABLE.read_text(encoding="utf-8")


def test_the_fastest_form_wins_and_noise_changes_nothing():
    seconds = {"x": 1.0, "y": 1.04, "z": float("inf")}
    assert script.pick(seconds, None) == "x"
    assert script.pick(seconds, "y") == "y"
    assert script.pick({**seconds, "y": 1.06}, "y") == "x"
    assert script.pick(seconds, "z") == "x"
    with pytest.raises(ValueError, match="no form needs less"):
        script.pick({"z": float("inf")}, None)


def test_equal_neighbours_become_one_row():
    short, long = script._rows("a", "cpu", [(64, "x"), (None, "y")])
    assert (short["form"], short["max_length"]) == ("x", 64)
    assert (long["form"], long["max_length"]) == ("y", None)
    (one,) = script._rows("a", "cpu", [(64, "x"), (None, "x")])
    assert one["max_length"] is None


def test_a_form_is_forced_only_inside():
    a, b = np.full((2, 1, 3, 1), 0.5, np.float32)
    chosen = forms.choose("diagonal", length=3, state_size=1)
    with (
        script.forced("diagonal", "no_such_form"),
        pytest.raises(ValueError, match="no_such_form"),
    ):
        diagonal(a, b)
    assert forms.choose("diagonal", length=3, state_size=1) == chosen
    np.testing.assert_allclose(diagonal(a, b)[0][0, :, 0], [0.5, 0.75, 0.875])


def test_a_form_with_another_result_is_found():
    def wrong(x):
        form = forms.choose("wrong", length=2, state_size=1)
        return x * (2.0 if form == "twice" else 1.0)

    primitive = script.Primitive(
        wrong, lambda shape, rng: (np.ones(shape[:3], np.float32),), ("once", "twice")
    )
    with pytest.raises(ValueError, match=r"wrong as twice.*first form"):
        script.measure(primitive, "wrong", script.QUICK_SHAPES[0], 1)
