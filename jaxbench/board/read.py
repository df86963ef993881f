"""Opens result files, and refuses those that cannot be true, each with a reason."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.errors import InputError

SCHEMAS = (1, 2)
STATUSES = ("ok", "diverged", "oom", "timeout", "crashed", "interrupted")
# The recipe's own doing: to leave such a seed out would flatter its row.
FAILURES = ("diverged", "oom", "timeout", "crashed")
# What files that cannot be counted get instead of a status.
UNREADABLE, REFUSED = "unreadable", "refused"

# Nothing that is measured here is larger; sums and squares of such numbers are finite.
LARGEST = 1e30
_MAX_LINES, _MAX_LENGTH = 30, 400
_SHARE = re.compile(r"(^|_)(accuracy|f1|change|place|within_\w+)(/|$)")
_NOT_SHARE = ("change/frames",)
_LOSS = re.compile(r"^(loss|nats_per_byte|bits_per_byte)(/|$)|^(state|relative)_error$")
# Parts of a result in which every number is an amount.
_AMOUNTS = (
    *("params", "steps", "examples", "throughput", "seconds", "memory", "step_flops"),
    *("state_bytes", "latency", "decode", "skips", "shape", "budget", "learning_rate"),
)
_OBJECTS = (
    "primary params shape budget skips solved best last floors ceiling curve "
    "throughput seconds memory latency play export decode speculative scores excluded "
    "data device versions config identity"
).split()


@dataclasses.dataclass(frozen=True)
class Result:
    """One result file.

    Attributes:
      shown: its folder, relative to the folder that was asked for.
      source: the folder that was asked for.
      status: one of `STATUSES`, "unreadable" or "refused".
      reason: why it is not ok; empty otherwise.
      content: the file's content; empty where it is unreadable.
    """

    shown: str
    source: str
    status: str
    reason: str
    content: Mapping[str, Any]

    def get(self, path: str) -> Any:
        """The value at a path with dots ("best.metrics.loss"), or None without one."""
        return at(self.content, path)

    def text(self, path: str) -> str:
        """As `get`, for texts only; empty where there is none."""
        value = self.get(path)
        return value if isinstance(value, str) else ""

    def number(self, path: str) -> float | None:
        """As `get`, for finite numbers only."""
        return finite(self.get(path))

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.status == "ok"

    @property
    def failed(self) -> bool:
        """Whether the run failed by itself, so that it is worse than any score."""
        return self.status in FAILURES


def at(content: Any, path: str) -> Any:
    """The value at a path with dots, or None where a part of it is missing."""
    for key in path.split("."):
        if not isinstance(content, Mapping):
            return None
        content = content.get(key)
    return content


def finite(value: Any) -> float | None:
    """The value if it is a finite number (no bool), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= LARGEST else None


def read_results(folders: Sequence[Path]) -> list[Result]:
    """Reads every `result.json` at or under the folders, each once.

    Raises:
      InputError: a folder is missing, no file among all can be read, or results of one
        task and protocol are of different versions of it.
    """
    results: list[Result] = []
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
            results.append(_read(path, clean(shown), clean(str(folder))))
    if not results:
        names = ", ".join(str(folder) for folder in folders) or "no folder"
        raise InputError(f"no result.json under {names}; run a suite there first")
    if all(not r.content for r in results):
        raise InputError(
            f"none of {len(results)} result.json can be read; the first, "
            f"{results[0].shown}: {results[0].reason}"
        )
    _check_versions(results)
    return results


def _check_versions(results: Sequence[Result]) -> None:
    """Refuses a board on which one name would stand for different examples."""
    found: dict[tuple[str, str], dict[Any, str]] = {}
    for result in results:
        version = result.get("data.version")
        if isinstance(version, int | str):
            key = result.text("task"), result.text("protocol")
            where = f"{result.source}/{result.shown}"
            found.setdefault(key, {}).setdefault(version, where)
    for (task, protocol), folders in found.items():
        if len(folders) > 1:
            ordered = sorted(folders.items(), key=lambda item: str(item[0]))
            told = ", ".join(f"version {v} in {folder}" for v, folder in ordered)
            raise InputError(
                f"a board over runs of different task versions: {task} ({protocol}) "
                f"has {told}; name folders of one version, or run the older again"
            )


def _read(path: Path, shown: str, source: str) -> Result:
    try:
        content = clean(json.loads(path.read_text(encoding="utf-8")))
        _check_form(content)
    except OSError as error:
        problem = f"cannot be opened: {error.strerror}"
    except (ValueError, RecursionError) as error:
        problem = str(error) or type(error).__name__
    else:
        problem = impossible(content)
        if problem:
            return Result(shown, source, REFUSED, clean(problem), content)
        return Result(
            shown, source, content["status"], content.get("reason") or "", content
        )
    return Result(shown, source, UNREADABLE, clean(f"result.json: {problem}"), {})


def _check_form(content: Any) -> None:
    """Raises ValueError with what is wrong, for what would mislead further on."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if content.get("schema") not in SCHEMAS:
        known = ", ".join(map(str, SCHEMAS))
        raise ValueError(f"schema {content.get('schema')!r:.40} is not one of {known}")
    for name in ("task", "protocol", "backbone", "status"):
        if not isinstance(content.get(name), str) or not content[name]:
            raise ValueError(f"{name} is {content.get(name)!r:.40}, not a text")
    if content["status"] not in STATUSES:
        raise ValueError(f"status {content['status']!r:.40} is unknown")
    if not isinstance(content.get("reason", ""), str | None):
        raise ValueError(f"reason is {content['reason']!r:.40}, not a text")
    for name in _OBJECTS:
        if not isinstance(content.get(name), dict | None):
            raise ValueError(f"{name} is {content[name]!r:.40}, not an object")


def impossible(content: Mapping[str, Any]) -> str:
    """Why a result cannot be true; empty for one that can.

    Checked for every run: numbers that no measurement gives. Checked for runs that say
    that they ended well: a score, at the best and at the last evaluation.
    """
    for path, value in _numbers(content, "", set()):
        if abs(value) > LARGEST:
            return f"{path} is {_brief(value)}, beyond {LARGEST:g}"
    for part in _AMOUNTS:
        for path, value in _numbers(content.get(part), part, {"agrees"}):
            if value < 0:
                return f"{path} is {value:g}, below 0"
    for which in ("best", "last", *(content.get("scores") or {})):
        where = f"{which}.metrics"
        metrics = at(content, where)
        if which not in ("best", "last"):
            where, metrics = f"scores.{which}", content["scores"][which]
        for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
            number = finite(value)
            if number is None:
                continue
            if _LOSS.search(name) and number < 0:
                return f"{where}.{name} is {number:g}, below 0"
            if _SHARE.search(name) and name not in _NOT_SHARE and not 0 <= number <= 1:
                return f"{where}.{name} is {number:g}, not a share from 0 to 1"
    if content["status"] != "ok":
        return ""
    return _without_score(content)


def _without_score(content: Mapping[str, Any]) -> str:
    metric = at(content, "primary.metric")
    metric = metric if isinstance(metric, str) and metric else "loss"
    for which in ("best", "last"):
        if not content.get(which):
            return f"ok, but it has no {which} evaluation"
        value = (at(content, f"{which}.metrics") or {}).get(metric)
        if finite(value) is None:
            return f"ok, but {which}.metrics.{metric} is {_brief(value)}, no number"
    best, steps = finite(at(content, "best.step")), finite(content.get("steps"))
    if best is not None and steps is not None and best > steps:
        return f"best.step is {best:g}, after the last of {steps:g} steps"
    return ""


def _brief(value: Any) -> str:
    """A value in a message: Python writes no number of thousands of digits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return f"about 10 to the {int(math.log10(abs(value)))}"
    return f"{value!r:.40}"


def _numbers(value: Any, path: str, skip: set[str]) -> Iterator[tuple[str, float]]:
    """All numbers in a nesting with their paths, infinite ones too, nan left out."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in skip:
                yield from _numbers(item, f"{path}.{key}" if path else key, skip)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, path, skip)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value == value and value not in (math.inf, -math.inf):
            yield path, value


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
