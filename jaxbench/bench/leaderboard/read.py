"""Result files of both schemas as one kind of record. A broken file is one too."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxbench.bench.result import STATUSES
from jaxbench.bench.terms import seen_bytes
from jaxbench.errors import InputError

SCHEMAS = (1, 2)
# Outcomes of the recipe itself: leaving such a seed out would flatter a backbone.
FAILURES = ("diverged", "oom", "timeout", "crashed")
UNREADABLE = "unreadable"

_OBJECTS = (
    "primary params shape budget skips solved best last floors ceiling curve "
    "throughput seconds memory latency play export decode speculative scores excluded "
    "data device versions"
).split()
_TEXTS = ("task", "protocol", "backbone", "status")
_MAX_LINES, _MAX_LENGTH = 30, 400


@dataclasses.dataclass(frozen=True)
class Run:
    """One result file.

    Attributes:
      shown: its folder, relative to the folder that was asked for.
      source: the folder that was asked for.
      status: one of `STATUSES`, or "unreadable".
      reason: why it is not ok; empty otherwise.
      content: the file's content, empty where it is unreadable.
    """

    shown: str
    source: str
    status: str
    reason: str
    content: Mapping[str, Any]

    @cached_property
    def ok(self) -> bool:
        """Whether it ended well and its score is a number."""
        return self.status == "ok" and self.score() is not None

    @property
    def backbone(self) -> str:
        """The row or pattern; for an unreadable file all that is known, its folder."""
        return self.text("backbone") or self.shown

    @property
    def is_sweep(self) -> bool:
        """Whether it is a point of a learning-rate curve, never part of a ranking."""
        return self.text("purpose") == "sweep"

    @property
    def seed(self) -> int | None:
        """Its seed."""
        seed = self.get("seed")
        return seed if isinstance(seed, int) else None

    @property
    def metric(self) -> str:
        """The metric that ranks; schema 1 knew only the loss."""
        return self.text("primary", "metric") or "loss"

    @property
    def maximize(self) -> bool:
        """Whether more of the metric is better."""
        return bool(self.get("primary", "maximize"))

    def get(self, *keys: str) -> Any:
        """The value under nested keys, or None where any of them is missing."""
        value: Any = self.content
        for key in keys:
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value

    def number(self, *keys: str) -> int | float | None:
        """As `get`, for finite numbers only."""
        return finite(self.get(*keys))

    def text(self, *keys: str) -> str:
        """As `get`, for text only; empty where there is none."""
        value = self.get(*keys)
        return value if isinstance(value, str) else ""

    def score(self, which: str = "best") -> float | None:
        """The metric that ranks, at the best or the last evaluation."""
        return self.number(which, "metrics", self.metric)

    def metrics(self, which: str = "best") -> dict[str, float]:
        """All finite metrics at the best or the last evaluation."""
        return numbers(self.get(which, "metrics"))

    @property
    def seen_bytes(self) -> int | None:
        """Bytes of text it was trained on; None for other data."""
        return seen_bytes(self.content)

    def log_tail(self) -> list[str]:
        """The last lines of the log of a run that failed."""
        lines = self.get("log_tail")
        return [str(line) for line in lines] if isinstance(lines, list) else []

    def curve(self, which: str) -> list[tuple[float, float]]:
        """(step, value) of "train" or "validation", the finite points only."""
        points = self.get("curve", which)
        found = []
        for point in points if isinstance(points, list) else []:
            if isinstance(point, list) and len(point) == 2:
                step, value = finite(point[0]), finite(point[1])
                if step is not None and value is not None:
                    found.append((float(step), float(value)))
        return found

    @cached_property
    def device(self) -> str:
        """What it computed on, in words; empty where it is not known."""
        if not self.get("device"):
            return ""
        count = self.number("device", "count") or 1
        kind = self.text("device", "kind") or self.text("device", "platform")
        platform = self.text("device", "platform")
        name = kind if platform in ("", kind) else f"{kind} ({platform})"
        return f"{count} x {name}" if count != 1 else name


def finite(value: Any) -> int | float | None:
    """The value if it is a finite number (no bool), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def numbers(values: Any) -> dict[str, float]:
    """The finite numbers of an object; empty for anything else."""
    if not isinstance(values, Mapping):
        return {}
    found = {str(key): finite(value) for key, value in values.items()}
    return {key: value for key, value in found.items() if value is not None}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads every `result.json` at or under the folders, each once.

    Raises:
      InputError: a folder is missing, no file among all can be read, or runs of one
        task and protocol are of different versions of it.
    """
    runs: list[Run] = []
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; name a suite or a run folder")
        for path in sorted(folder.rglob("result.json")):
            inside = path.parent.relative_to(folder)
            if "checkpoints" in inside.parts or path.resolve() in seen:
                continue
            seen.add(path.resolve())
            shown = folder.name if inside == Path() else inside.as_posix()
            runs.append(_read(path, clean(shown), clean(str(folder))))
    if not runs:
        names = ", ".join(str(folder) for folder in folders) or "no folder"
        raise InputError(f"no result.json under {names}; run a suite there first")
    if all(run.status == UNREADABLE for run in runs):
        raise InputError(
            f"none of {len(runs)} result.json can be read; the first, "
            f"{runs[0].shown}: {runs[0].reason}"
        )
    _check_versions(runs)
    return runs


def _check_versions(runs: Sequence[Run]) -> None:
    """Refuses a board on which one name would stand for different examples."""
    found: dict[tuple[str, str], dict[Any, str]] = {}
    for run in runs:
        version = run.get("data", "version")
        if isinstance(version, int | str):
            key = run.text("task"), run.text("protocol")
            found.setdefault(key, {}).setdefault(version, f"{run.source}/{run.shown}")
    for (task, protocol), folders in found.items():
        if len(folders) > 1:
            ordered = sorted(folders.items(), key=lambda item: str(item[0]))
            told = ", ".join(f"version {v} in {folder}" for v, folder in ordered)
            raise InputError(
                f"a board over runs of different task versions: {task} ({protocol}) "
                f"has {told}; name folders of one version, or run the older again"
            )


def _read(path: Path, shown: str, source: str) -> Run:
    try:
        content = clean(json.loads(path.read_text(encoding="utf-8")))
        _check(content)
    except OSError as error:
        problem = f"cannot be opened: {error.strerror}"
    except (ValueError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    else:
        status, reason = content["status"], content.get("reason")
        run = Run(shown, source, status, reason or "", content)
        if status == "ok" and run.score() is None:
            return dataclasses.replace(
                run, status="crashed", reason=f"no finite {run.metric} in best.metrics"
            )
        return run
    return Run(shown, source, UNREADABLE, clean(f"result.json: {problem}"), {})


def _check(content: Any) -> None:
    """Raises ValueError with what is wrong, for what would mislead further on."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if content.get("schema") not in SCHEMAS:
        known = ", ".join(map(str, SCHEMAS))
        raise ValueError(f"schema {content.get('schema')!r} is not one of {known}")
    for name in _TEXTS:
        if not isinstance(content.get(name), str) or not content[name]:
            raise ValueError(f"{name} is {content.get(name)!r}, not a text")
    if content["status"] not in STATUSES:
        raise ValueError(f"status {content['status']!r} is unknown")
    if not isinstance(content.get("reason", ""), str | None):
        raise ValueError(f"reason is {content['reason']!r}, not a text")
    for name in _OBJECTS:
        if not isinstance(content.get(name), dict | None):
            raise ValueError(f"{name} is {content[name]!r:.40}, not an object")


def clean(value: Any) -> Any:
    """Texts without control characters and of bounded length, in any nesting.

    Results hold text that other programs wrote (reasons, log lines); XML and terminals
    take some characters badly, and a page should not carry megabytes of a log.
    """
    if isinstance(value, str):
        if value.isprintable() and len(value) <= _MAX_LENGTH:
            return value
        kept = "".join(c if c.isprintable() else " " for c in value)
        return kept if len(kept) <= _MAX_LENGTH else kept[: _MAX_LENGTH - 1] + "…"
    if isinstance(value, dict):
        items = {clean(str(key)): clean(item) for key, item in value.items()}
        if isinstance(items.get("log_tail"), list):
            items["log_tail"] = items["log_tail"][-_MAX_LINES:]
        return items
    return [clean(item) for item in value] if isinstance(value, list) else value
