"""What the committed boards say about a backbone, from their `leaderboard.csv`."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

from jaxbench.errors import InputError
from jaxbench.models.backbone import resolve

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "results"

Line = dict[str, str]
PLACE_COLUMNS = ("board", "row", "score", "seeds", "place")
COST_COLUMNS = (
    "board",
    "row",
    "updates a second",
    "memory, planned",
    "memory, peak",
    "a frame at play, p50",
    "p99",
)


def read_boards(folder: Path) -> tuple[Line, ...]:
    """Lines about rows of every `folder`/*/leaderboard.csv, with their "folder".

    Lines of boards over several tasks are left out: each task has its own.

    Raises:
      InputError: one of the files cannot be read.
    """
    found: list[Line] = []
    for path in sorted(folder.glob("*/leaderboard.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None
        about = {"folder": path.parent.name}
        rows = [line for line in lines if line.get("kind") == "row"]
        found += [line | about for line in rows if line.get("score") != "iqm"]
    return tuple(found)


@functools.cache
def committed_boards() -> tuple[Line, ...]:
    """Lines of the boards that lie in the repository; none where there is none."""
    return read_boards(RESULTS)


def lines_of(name: str, boards: Sequence[Line]) -> list[Line]:
    """Those about a backbone, by whichever of its names."""
    return [line for line in boards if _row_of(line["backbone"]) == name]


def folders(name: str, boards: Sequence[Line]) -> str:
    """Folders of the boards a backbone is on; "" for none."""
    return ", ".join(dict.fromkeys(line["folder"] for line in lines_of(name, boards)))


def places(name: str, boards: Sequence[Line]) -> list[list[str]]:
    """Rows of a table over `PLACE_COLUMNS`: a line for each row of it."""
    return [
        [_board(line), f"`{line['name']}`", _score(line), line["seeds"], _place(line)]
        for line in lines_of(name, boards)
    ]


def _board(line: Line) -> str:
    return f"`{line['folder']}`: {line['board']}"


def _score(line: Line) -> str:
    if not line["score_mean"]:
        return line["status"] if line["status"] != "ok" else "none"
    return f"{line['score']} {float(line['score_mean']):.4f}"


def _place(line: Line) -> str:
    if not line["rank_low"]:
        return "not compared"
    low, high = line["rank_low"], line["rank_high"]
    return low if low == high else f"{low} to {high}"


def costs(name: str, boards: Sequence[Line]) -> list[list[str]]:
    """Rows of a table over `COST_COLUMNS`, for runs that ended; medians over seeds."""
    return [
        [
            _board(line),
            f"`{line['name']}`",
            _shown(line, "steps_per_s", "{:,.3g}"),
            _shown(line, "predicted_bytes", "{:,.0f} MiB", 2**20),
            _shown(line, "peak_bytes", "{:,.0f} MiB", 2**20),
            *(_shown(line, f"latency_step_{k}", "{:,.2f} ms") for k in ("p50", "p99")),
        ]
        for line in lines_of(name, boards)
        if line.get("steps_per_s")
    ]


def _shown(line: Line, key: str, form: str, unit: float = 1.0) -> str:
    value = line.get(key)
    return form.format(float(value) / unit) if value else "-"


@functools.cache
def _row_of(text: str) -> str:
    try:
        return resolve(text).name
    except InputError:
        return text
