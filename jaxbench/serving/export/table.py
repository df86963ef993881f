"""Tables of exported runs: times, quality, sizes. Imports no jax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

Row = tuple[str, Mapping[str, Any] | str]
_GROUPS = {
    "accuracy/buttons": "buttons",
    "accuracy/buttons_exact": "all 8",
    **{f"accuracy/{k}": k for k in ("main_x", "main_y", "c_x", "c_y", "shoulder")},
    "change/any": "changes",
}
_KINDS = {"jax": "jax", "onnx": "float32", "int8": "INT8"}


def export_table(rows: Sequence[Row]) -> Table:
    """A line for each run, the fastest first; those that failed last.

    Times are p50 / p99 in milliseconds. Accuracy is what the task's own loss comes to
    on the compared frames, jax first.
    """
    done = [(name, row) for name, row in rows if not isinstance(row, str)]
    failed = [(name, row) for name, row in rows if isinstance(row, str)]
    done.sort(key=lambda pair: _fastest(pair[1])["p99_ms"])
    frames = {row["frames"] for _, row in done}
    lines = [
        "p50 / p99 in ms, batch 1, one core, heads included, measured in turn: the "
        "compiled part alone. jaxbench latency times a frame's checks and features "
        "too, on all cores.",
        "Quality: accuracy of whole buttons and main stick for a policy, bits per byte "
        "for text; jax > INT8, carried state, on "
        f"{' or '.join(f'{n:,}' for n in sorted(frames)) or 'no'} validation frames.",
        "Same controller: share of those frames (bytes) for which INT8 chooses exactly "
        "what jax does; equal quality may hide other choices.",
        *(f"{name}: {why}" for name, why in failed),
    ]
    table = Table(
        title=f"{len(done)} of {len(rows)} exported",
        caption=escape("\n".join(lines)),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("backbone")
    for name in (
        *(f"step {kind}" for kind in _KINDS.values()),
        *(f"window {kind}" for kind in _KINDS.values()),
        *("quality", "same controller", "error", "drift INT8", "MB"),
        *("16.7 ms", "1 ms"),
    ):
        table.add_column(name, justify="right")
    for name, row in done:
        step = row["timing"]["step"]
        window = row["timing"].get("window", {})
        fastest = _fastest(row)
        table.add_row(
            escape(name),
            *(_times(step.get(kind)) for kind in _KINDS),
            *(_times(window.get(kind)) for kind in _KINDS),
            _quality(row["scores"]["step"]),
            _same(row),
            _error(row, ("onnx", "stablehlo")),
            _error(row, ("int8",)),
            _sizes(row["files"]),
            "yes" if fastest["makes_60fps"] else "no",
            "yes" if fastest["under_1ms"] else "no",
        )
    for name, _ in failed:
        table.add_row(escape(name), "failed")
    return table


def quality_table(rows: Sequence[Row]) -> Table:
    """Accuracy of each group of a controller, by jax and by each ONNX file.

    Carried: one game after the other from its first frame. Window: the run's window at
    frames spread over them, another sample, so only lines of one kind compare.
    """
    table = Table(title="accuracy by group", title_justify="left")
    for name in ("backbone", "frames", "by"):
        table.add_column(name)
    for name in _GROUPS.values():
        table.add_column(name, justify="right")
    for name, row in rows:
        if isinstance(row, str):
            continue
        for function, scores in row["scores"].items():
            for kind in (kind for kind in _KINDS if kind in scores):
                of = scores[kind]
                if "accuracy/main_x" not in of:
                    continue
                table.add_row(
                    escape(name),
                    "carried" if function == "step" else "window",
                    _KINDS[kind],
                    *(f"{of[key]:.1%}" for key in _GROUPS),
                )
    return table


def _fastest(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return min(row["timing"]["step"].values(), key=lambda times: times["p99_ms"])


def _times(times: Mapping[str, Any] | None) -> str:
    return "-" if times is None else f"{times['p50_ms']:.2f} / {times['p99_ms']:.2f}"


def _quality(scores: Mapping[str, Mapping[str, float]]) -> str:
    told = []
    for kind in ("jax", "int8"):
        if kind not in scores:
            continue
        of = scores[kind]
        if "bits_per_byte" in of:
            told.append(f"{of['bits_per_byte']:.4f}")
        else:
            stick = of["accuracy/main_x"]
            told.append(f"{of['accuracy/buttons_exact']:.1%}, {stick:.1%}")
    return " > ".join(told)


def _same(row: Mapping[str, Any]) -> str:
    """Share of steps at which the INT8 file chooses what jax does."""
    same = [
        row["parity"][name]["equal_labels"]
        for name, entry in row["files"].items()
        if (entry["kind"], entry["function"]) == ("int8", "step")
    ]
    return f"{same[0]:.1%}" if same else "-"


def _error(row: Mapping[str, Any], kinds: Sequence[str]) -> str:
    errors = [
        row["parity"][name]["largest"]
        for name, entry in row["files"].items()
        if entry["kind"] in kinds
    ]
    return f"{max(errors):.0e}" if errors else "-"


def _sizes(files: Mapping[str, Mapping[str, Any]]) -> str:
    sizes = [
        f"{entry['bytes'] / 1e6:.2f}"
        for kind in (*_KINDS, "stablehlo")
        for entry in files.values()
        if entry["kind"] == kind and entry["function"] == "step"
    ]
    return " > ".join(sizes)
