"""Exports on a board: times, quality before and after INT8, what keeps a frame."""

from __future__ import annotations

import csv
import re

import boards

from jaxbench.bench.leaderboard import write_leaderboard


def exported(ms, *, loss=1.2, after=1.25, int8=True, error=2e-6):
    """What a result holds of an export; `ms` by kind is its p50, p99 is twice that."""
    kinds = ("jax", "onnx", "int8") if int8 else ("jax", "onnx")

    def metrics(value):
        return {
            "loss": value,
            "accuracy/buttons_exact": 1 - value / 4,
            "accuracy/main_x": 1 - value / 5,
            "change/any": 0.1,
        }

    def entry(kind, function, size):
        return {"kind": kind, "function": function, "bytes": size}

    return {
        "weights": {"which": "best", "step": 100},
        "device": {"platform": "cpu", "kind": "a small processor"},
        "frames": 1000,
        "files": {
            "step.onnx": entry("onnx", "step", 4096),
            "window.onnx": entry("onnx", "window", 8192),
            "step.int8.onnx": entry("int8", "step", 1024),
            "initial.npz": entry("state", "step", 64),
        },
        "parity": {
            "step.onnx": {"largest": error},
            "window.onnx": {"largest": 2 * error},
            "step.int8.onnx": {"largest": 0.03},
        },
        "scores": {
            "step": {k: metrics(after if k == "int8" else loss) for k in kinds},
            "window": {k: metrics(9.0) for k in kinds},
        },
        "timing": {
            "step": {
                k: {
                    "p50_ms": ms[k],
                    "p99_ms": 2 * ms[k],
                    "makes_60fps": 2 * ms[k] < 16.7,
                    "under_1ms": 2 * ms[k] < 1.0,
                }
                for k in kinds
            }
        },
    }


def board_of(folder, exports):
    for name, export in exports.items():
        boards.write(folder / name, boards.result(name, 1.1, export=export))
    write_leaderboard([folder], folder)
    lines = csv.DictReader((folder / "leaderboard.csv").open())
    rows = {line["backbone"]: line for line in lines if line["kind"] == "backbone"}
    return rows, (folder / "leaderboard.md").read_text()


def test_an_export_is_a_line_of_the_board(tmp_path):
    fast = exported({"jax": 0.3, "onnx": 0.05, "int8": 0.04})
    slow = exported({"jax": 9.0, "onnx": 3.0, "int8": 0.6}, after=1.9)
    rows, text = board_of(tmp_path, {"gru": fast, "mamba": slow, "mlp": None})
    gru, mamba = rows["gru"], rows["mamba"]
    assert float(gru["export_jax_p50_ms"]) == 0.3
    assert float(gru["export_onnx_p99_ms"]) == 0.1
    assert (float(gru["export_jax_loss"]), float(gru["export_int8_loss"])) == (
        1.2,
        1.25,
    )
    # The worse of step and window; sizes are the step's alone.
    assert float(gru["export_onnx_error"]) == 4e-6
    assert float(gru["export_int8_error"]) == 0.03
    assert float(gru["export_onnx_bytes"]) == 4096
    assert gru["export_under_1ms"] == "jax, float32, INT8"
    assert mamba["export_under_1ms"] == "none"
    assert mamba["export_makes_60fps"] == "float32, INT8"
    assert rows["mlp"]["export_jax_p50_ms"] == ""
    view = text.split("### Exported step")[1].split("###")[0]
    assert "| 0.3 / 0.6 | 0.05 / 0.1 | 0.04 / 0.08 | 1.2000 → 1.2500 |" in view
    assert "1.2000 → 1.9000" in view
    (told,) = (line for line in text.splitlines() if line.startswith("- Export:"))
    assert told.startswith("- Export: 2 rows; p99 of a step, batch 1, one thread")
    assert told.endswith(
        "in turn on a small processor: jax 1 under 16.7 ms, 1 under 1 ms of 2; "
        "float32 2 under 16.7 ms, 1 under 1 ms of 2; "
        "INT8 2 under 16.7 ms, 1 under 1 ms of 2."
    )


def test_a_plot_shows_what_each_implementation_takes(tmp_path):
    fast = exported({"jax": 0.3, "onnx": 0.05, "int8": 0.04})
    slow = exported({"jax": 9.0, "onnx": 3.0}, int8=False)
    board_of(tmp_path, {"mamba": slow, "gru": fast, "mlp": None})
    page = (tmp_path / "leaderboard.html").read_text()
    figure = page.split('aria-label="Exported step"')[1].split("</svg>")[0]
    tips = re.findall(r'data-tip="([^"]*)"', figure)
    # A mark for each implementation, the fastest row first.
    assert tips == 3 * [
        "gru\njax 0.6 ms\nfloat32 0.1 ms\nINT8 0.08 ms",
    ] + 2 * ["mamba\njax 18 ms\nfloat32 6 ms"]
    assert "on a small processor; dashed: 1 ms" in page


def test_without_int8_a_line_says_what_there_is(tmp_path):
    plain = exported({"jax": 0.3, "onnx": 0.05}, int8=False)
    del plain["files"]["step.int8.onnx"], plain["parity"]["step.int8.onnx"]
    rows, text = board_of(tmp_path, {"gru": plain})
    assert "INT8" not in text
    assert rows["gru"]["export_makes_60fps"] == "jax, float32"
    assert "export_int8_loss" not in rows["gru"]
    assert "| 0.3 / 0.6 | 0.05 / 0.1 | 1.2000 |" in text


def test_without_exports_a_board_says_so(tmp_path):
    _, text = board_of(tmp_path, {"gru": None})
    assert "Not measured." in text.split("### Exported step")[1].split("###")[0]
    assert "Export:" not in text
    assert "No run was exported" in (tmp_path / "leaderboard.html").read_text()
