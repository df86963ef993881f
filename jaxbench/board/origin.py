"""How a board came about: searches, failures, data, versions, what was left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbench.board.read import REFUSED, UNREADABLE, Result, finite
from jaxbench.board.table import Table, best_rate, device
from jaxbench.tasks.columns import Column


def sweeps(table: Table) -> list[dict[str, Any]]:
    """The searches for rates: (rate, score) by rate, the best, and where it lies."""
    rows = {row.link: row for row in table.rows if row.rates}
    found = []
    for link, runs in table.sweeps.items():
        row = rows.get(link)
        points = []
        for run in runs:
            metric = run.text("primary.metric") or "loss"
            score = run.number(f"best.metrics.{metric}") if run.ok else None
            points.append([run.number("learning_rate"), score])
        found.append(
            {
                "backbone": row.name if row else runs[0].text("backbone"),
                "points": sorted(points, key=lambda point: point[0] or 0),
                "best": best_rate(runs),
                "edge": bool(row and row.edge),
            }
        )
    return sorted(found, key=lambda search: search["backbone"])


def failures(table: Table) -> list[dict[str, Any]]:
    return [
        {
            "name": result.text("backbone") or result.shown,
            "seed": result.get("seed"),
            "status": result.status,
            "reason": result.reason,
            "folder": result.shown,
            "log": result.get("log_tail") or [],
        }
        for result in table.results
        if not result.ok and result.status != "interrupted"
    ]


def refused(table: Table) -> list[str]:
    return [
        f"{r.shown} is not counted: {r.reason}."
        for r in table.results
        if r.status in (REFUSED, UNREADABLE)
    ]


def data(table: Table, witness: Result) -> list[str]:
    data = witness.get("data") or {}
    name = data.get("name")
    said = [f"{table.key.source or 'unknown'}{f' {name}' if name else ''}"]
    if table.key.fingerprint:
        said.append(f"fingerprint {table.key.fingerprint[:16]}")
    for source in dict.fromkeys(result.source for result in table.results):
        files = (read_manifest(Path(source) / "data.json") or {}).get("files")
        if isinstance(files, list):
            said.append(f"hashes and public origins of {len(files)} files: data.json")
    for key, found in json.loads(table.key.options).items():
        said.append(f"{key} {found}")
    return said


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest beside released results (benchmarks/data_manifest.py), if any."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def versions(table: Table) -> list[str]:
    found: dict[str, dict[str, None]] = {}
    for result in table.results:
        for package, version in (result.get("versions") or {}).items():
            found.setdefault(package, {})[str(version)] = None
        commit = result.get("git")
        if isinstance(commit, str):
            found.setdefault("git", {})[
                commit[:12] + ("+changes" if "+" in commit else "")
            ] = None
    return [f"{name} {' / '.join(versions)}" for name, versions in found.items()]


def splits(witness: Result, score: Column) -> str:
    splits = witness.get("data.splits") or {}
    parts = []
    for name, split in splits.items():
        if isinstance(split, Mapping):
            games = split.get("games")
            count = len(games) if isinstance(games, list) else games
            told = f"{count} games" if count else ""
            size = finite(split.get("examples"))
            more = f"{size:,.0f} examples" if size else ""
            parts.append(f"{name} {', '.join(filter(None, [told, more]))}")
        elif isinstance(split, list) and len(split) == 2:
            parts.append(f"{name} bytes {split[0]:,} to {split[1]:,}")
    by = witness.text("data.split_by")
    told = f"by {by}: " if by else ""
    scored = "test" if score.key.startswith("test ") else "validation"
    return (
        f"{told}{'; '.join(parts)}. Scored on {scored}."
        if parts
        else f"Scored on {scored}."
    )


def devices(table: Table) -> list[str]:
    """What the runs, and what their latency, were measured on."""
    found: dict[str, None] = {}
    for result in table.results:
        for part, words in (
            ("device", ""),
            ("latency.device", "latency: "),
            ("export.device", "export: "),
        ):
            name = device(result, part)
            if name:
                found[words + name] = None
    return list(found)
