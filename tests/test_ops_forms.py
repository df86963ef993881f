"""The table of execution forms: complete, well formed, and every form exists."""

from __future__ import annotations

import json

import pytest

from jaxbench.errors import InputError
from jaxbench.ops import forms

# The forms each primitive knows, block lengths left out.
KNOWN = {
    "diagonal": {"scan", "associative"},
    "selective_scan": {"scan", "fused", "associative"},
    "causal_convolution": {"toeplitz", "fft"},
    "diagonal_ssm": {"scan", "convolution", "fft"},
    "dplr_ssm": {"scan", "convolution"},
    "lstm": {"scan", "deferred"},
    "gru": {"scan", "deferred"},
    "dense_cell": {"scan", "deferred"},
    "dense_linear": {"scan", "doubling"},
    "elementwise_cell": {"scan", "newton"},
    "gated_linear": {"scan", "chunks"},
    "gated_linear_keys": {"scan", "chunks"},
    "delta_rule": {"scan", "chunks"},
    "delta_rule_keys": {"scan", "chunks"},
}


def test_rows_have_exactly_the_documented_fields():
    table = json.loads(forms.TABLE.read_text(encoding="utf-8"))
    for row in table["rows"]:
        assert row.keys() == forms.Row.__annotations__.keys()
        assert row["backend"] in ("cpu", "gpu")
        assert row["source"]


def test_every_form_named_exists():
    assert {row["primitive"] for row in forms.rows()} == set(KNOWN)
    for row in forms.rows():
        assert row["form"].partition(":")[0] in KNOWN[row["primitive"]]


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("primitive", sorted({r["primitive"] for r in forms.rows()}))
@pytest.mark.parametrize("length", [1, 64, 65, 10**6])
@pytest.mark.parametrize("size", [1, 10**9])
def test_every_shape_has_a_form(primitive, backend, length, size):
    assert forms.choose(primitive, length=length, state_size=size, backend=backend)


def test_bounds_are_inclusive_and_the_first_row_wins(monkeypatch, tmp_path):
    row = {"backend": "cpu", "primitive": "x", "source": "here"}
    rows = [
        {**row, "max_length": 8, "max_state": 100, "form": "small"},
        {**row, "max_length": 8, "max_state": None, "form": "short"},
        {**row, "max_length": None, "max_state": None, "form": "any"},
    ]
    table = tmp_path / "forms.json"
    table.write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(forms, "TABLE", table)
    forms.rows.cache_clear()
    forms._choose.cache_clear()

    def form(length, size):
        return forms.choose("x", length=length, state_size=size, backend="cpu")

    try:
        assert [form(8, 100), form(8, 101), form(9, 100)] == ["small", "short", "any"]
        with pytest.raises(InputError, match="no row for primitive 'x' on gpu"):
            forms.choose("x", length=1, state_size=1, backend="gpu")
    finally:
        forms.rows.cache_clear()
        forms._choose.cache_clear()


def test_unknown_primitive_names_the_nearest():
    with pytest.raises(InputError, match="diagonal"):
        forms.choose("diagonl", length=1, state_size=1)


def test_default_backend_is_the_running_one():
    cpu = forms.choose("diagonal", length=30, state_size=8, backend="cpu")
    assert forms.choose("diagonal", length=30, state_size=8) == cpu
