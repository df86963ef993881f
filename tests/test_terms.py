"""What results are told as: names, units, sizes, and the tables that use them."""

from __future__ import annotations

import boards
import pytest
from rich.console import Console

from jaxbench.bench.report import print_result
from jaxbench.bench.speed_tables import throughput_table
from jaxbench.bench.terms import data_name, seen_bytes, terms, text_size

BATCH, WINDOW = 32, 512


def language_result(**changes):
    """The content of a result of a language model, 3,000 updates in 600 seconds."""
    nats = {"nats_per_byte": 1.25, "bits_per_byte": 1.8, "nats_per_byte/quarter_4": 1.2}
    content = boards.result("e61", 1.0, steps=3000) | {
        "task": "pile",
        "primary": {"metric": "nats_per_byte", "maximize": False},
        "params": {"total": 100_000_000, "backbone": 99_800_000},
        "shape": {"width": 640, "depth": 20},
        "examples": 3000 * BATCH,
        "skips": {"count": 2, "first_step": 7},
        "best": {"step": 3000, "metrics": nats},
        "last": {"step": 3000, "metrics": nats},
        "floors": {
            "unigram": {"nats_per_byte": 3.1, "bits_per_byte": 4.5},
            "trigram": {"nats_per_byte": 1.1, "bits_per_byte": 1.6},
        },
        "throughput": {"steps_per_s": 2995 / 600, "tokens_per_s": 81_783.0},
        "data": {
            "source": "corpus",
            "name": "classics100.xz",
            "options": {"window": WINDOW},
        },
        "device": {"platform": "gpu", "kind": "H200", "count": 1, "processes": 1},
    }
    return content | changes


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (2560, "2.6 kB"), (49_987_584, "50.0 MB")],
)
def test_sizes_of_text_are_powers_of_ten(count, shown):
    assert text_size(count) == shown


def test_seen_bytes_are_examples_of_a_window():
    result = language_result()
    assert seen_bytes(result) == 3000 * BATCH * WINDOW
    for broken in ({"data": None}, {"data": {"options": {}}}, {"examples": None}):
        assert seen_bytes(result | broken) is None


def test_data_is_called_by_kind_and_name():
    assert data_name({"source": "corpus", "name": "a.xz"}) == "corpus a.xz"
    name = "Python 3.11.7 standard library"
    assert data_name({"source": "python", "name": name}) == name
    assert data_name({"source": "replays"}) == "replays" and data_name({}) == ""


def test_tasks_that_nobody_knows_have_plain_terms():
    assert terms("mqar").speed({"steps_per_s": 2.0}) == "2.0 steps/s"
    assert terms("pile").speed({"tokens_per_s": None}) == ""


def test_a_language_run_is_told_in_bytes(capsys, tmp_path):
    print_result(language_result(), tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "verdict: nats/byte 1.2500 does not beat trigram (1.1000: counts 3 bytes" in out
    )
    assert "; it beats unigram (3.1000)." in out
    assert "nats_per_byte" not in out and "floor: unigram" in out
    assert "3,000 steps, 49.2 MB of text, 100,000,000 parameters" in out
    assert "(width 640, depth 20), 2 updates skipped, the first at step 7" in out
    assert "81,783 bytes/s on H200, data: corpus classics100.xz" in out


def test_a_run_from_before_is_told_as_it_was(capsys, tmp_path):
    print_result(boards.result("gru", 1.1), tmp_path)
    out = " ".join(capsys.readouterr().out.split())
    assert "2,000 steps, 128,000 examples, 200,003 parameters, 40.0 steps/s" in out
    assert "data: replays" in out


def test_training_speed_of_text_is_in_bytes():
    steady = {
        "device": {"kind": "cpu"},
        "steps_per_s": 2.0,
        "examples_per_s": 64.0,
        "compile_seconds": 1.0,
        "flops_per_step": None,
        "flops_per_step_compiler": None,
        "bytes_per_step": None,
        "matmul_fraction": None,
        "bandwidth_fraction": None,
    }
    rows = [("old", steady), ("new", steady | {"tokens_per_s": 32_768.0})]
    console = Console(width=140, record=True, file=None, quiet=True)
    table = throughput_table(rows, rate=terms("pile").rate)
    headers = [column.header for column in table.columns]
    assert headers[:3] == ["backbone", "bytes/s", "steps/s"]
    console.print(table)
    assert list(table.columns[0].cells) == ["new", "old"]
    assert list(table.columns[1].cells) == ["32,768", "-"]
