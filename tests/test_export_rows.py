"""Backbones as ONNX: a step with its state, and a window, answer what jax answers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from benchmarks.export_rows import compare_row
from jaxbench.models.zoo import ORIGINAL

LIMIT = 1e-5
LENGTHS = (1, 10)


def check(name, length, **options):
    row = compare_row(name, length, width=16, depth=2, **options)
    assert np.isfinite(row["error"]) and row["error"] < LIMIT, row
    return row


def test_a_backbone_answers_alike():
    check("gru", 10)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "length"),
    [
        *(("gru", 1), ("swa", 1), ("swa", 10), ("lstm", 10), ("mamba", 1)),
        *(("mamba", 10), ("deltanet", 10), ("lru", 10), ("s5", 1), ("fnet", 10)),
    ],
)
def test_a_chosen_backbone_answers_alike(name, length):
    check(name, length)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", list(dict.fromkeys(ORIGINAL.values())))
def test_every_backbone_of_the_original_answers_alike(name, length):
    check(name, length)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "s4", "ntm", "snn", "slstm", "lstm"])
def test_loops_written_out_answer_as_scans_do(name):
    scans = check(name, 10, unroll=0)
    flat = check(name, 10, unroll=10**9)
    assert scans["loops"] > 0 == flat["loops"]
