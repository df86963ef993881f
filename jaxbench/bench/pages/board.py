"""What the committed results say about a backbone."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxbench.errors import InputError
from jaxbench.models.backbone import resolve

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "results" / "zelda_clean"


@dataclasses.dataclass(frozen=True)
class Board:
    """Results and their ranking.

    Attributes:
      source: the folder, as a reader of the repository finds it.
      results: contents of every `result.json`.
      places: lines of `leaderboard.csv` that are about backbones.
    """

    source: str = ""
    results: tuple[dict[str, Any], ...] = ()
    places: tuple[dict[str, str], ...] = ()


def read_board(folder: Path) -> Board:
    """Reads `folder`/**/result.json and `folder`/leaderboard.csv, where they exist.

    Raises:
      InputError: one of the files cannot be read.
    """
    source = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    results = tuple(_json(path) for path in sorted(folder.rglob("result.json")))
    table = folder / "leaderboard.csv"
    places: tuple[dict[str, str], ...] = ()
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as lines:
            places = tuple(
                {key: text or "" for key, text in line.items() if key}
                for line in csv.DictReader(lines)
                if line.get("kind") != "floor"
            )
    return Board(source.as_posix(), results, places)


@functools.cache
def committed_board() -> Board:
    """The board that lies in the repository; empty where there is none."""
    return read_board(COMMITTED)


def place(name: str, board: Board) -> str:
    """A sentence or three: where `name` stands, or why it does not."""
    ranked = [line for line in board.places if line.get("rank")]
    line = next((p for p in ranked if _row_of(p.get("backbone", "")) == name), None)
    if line is None:
        return _unranked(name, board)
    ties = f"; tied with {line['tied_with']}" if line.get("tied_with") else ""
    told = f"Rank {line['rank']} of {len(ranked)} on the board `{board.source}`{ties}."
    if line.get("best_median"):
        seeds = line.get("n", "")
        of = f" of {seeds} seed{'s' * (seeds != '1')}" if seeds else ""
        score = float(line["best_median"])
        told += f" The median{of} of its best scores is {score:.4f}."
    return f"{told} Backbones that the noise does not separate share a rank."


def _unranked(name: str, board: Board) -> str:
    failed = [run for run in _runs_of(name, board) if run.get("status") != "ok"]
    if not failed:
        return "Not on the board yet."
    status, reason = failed[0].get("status"), _one_line(failed[0].get("reason") or "")
    return f"Not ranked: its run ended `{status}`{': ' * bool(reason)}{reason}."


def rank(name: str, board: Board) -> str:
    """The rank as text; "" where there is none."""
    found = (p for p in board.places if _row_of(p.get("backbone", "")) == name)
    return next((line.get("rank", "") for line in found), "")


def costs(name: str, board: Board) -> list[list[str]]:
    """Rows of a table: device, examples a step, step, memory, latency; medians of runs.

    Columns are those of `COST_COLUMNS`. One row for each kind of device.
    """
    runs = [run for run in _runs_of(name, board) if run.get("status") == "ok"]
    kinds = dict.fromkeys(_device(run) for run in runs)
    return [_cost(kind, [r for r in runs if _device(r) == kind]) for kind in kinds]


COST_COLUMNS = (
    "device",
    "examples a step",
    "train step",
    "memory, predicted",
    "memory, peak",
    "a frame at play, p50",
    "p99",
)


def _cost(kind: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    steps = _median(_number(r, "throughput", "steps_per_s") for r in runs)
    examples = _median(_number(r, "throughput", "examples_per_s") for r in runs)
    predicted = _median(_number(r, "memory", "predicted_bytes") for r in runs)
    peak = _median(_number(r, "memory", "peak_bytes") for r in runs)
    p50 = _median(_number(r, "latency", "step", "p50_ms") for r in runs)
    p99 = _median(_number(r, "latency", "step", "p99_ms") for r in runs)
    batch = examples / steps if examples and steps else None
    return [
        kind,
        "-" if batch is None else f"{batch:,.0f}",
        "-" if not steps else f"{1000 / steps:,.1f} ms",
        *("-" if b is None else f"{b / 2**20:,.0f} MiB" for b in (predicted, peak)),
        *("-" if ms is None else f"{ms:,.2f} ms" for ms in (p50, p99)),
    ]


def _runs_of(name: str, board: Board) -> list[dict[str, Any]]:
    return [
        run
        for run in board.results
        if _row_of(str(run.get("backbone", ""))) == name and _counts(run)
    ]


def _counts(run: dict[str, Any]) -> bool:
    """Whether a run is for the board: not a point of a search over learning rates."""
    return run.get("purpose", "score") == "score"


@functools.cache
def _row_of(text: str) -> str:
    try:
        return resolve(text).name
    except InputError:
        return text


def _device(run: dict[str, Any]) -> str:
    device = run.get("device") or {}
    kind, platform = str(device.get("kind", "")), str(device.get("platform", "unknown"))
    return kind if platform.lower() in kind.lower() else f"{platform} {kind}".strip()


def _number(run: dict[str, Any], *keys: str) -> float | None:
    value: Any = run
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _one_line(text: Any) -> str:
    return " ".join(str(text).split()).rstrip(".")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no result: it is no JSON object")
    return content
