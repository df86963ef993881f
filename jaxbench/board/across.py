"""Several boards as one: over tasks an interquartile mean, and profiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxbench.board.words import names

RESAMPLES = 2_000
FEWEST_SEEDS = 3
# Shares between floor and ceiling at which profiles are read off.
TAU = tuple(round(0.05 * k, 2) for k in range(21))


def together(parts: Sequence[dict[str, Any]], command: str) -> dict[str, Any]:
    """A board over boards: a row for each backbone, a column for each part.

    Scores are rescaled so that the best floor is 0 and the ceiling 1, which only tasks
    with a ceiling allow. The interquartile mean over all runs (Agarwal et al. 2021,
    arXiv:2108.13264) and its interval, a bootstrap over seeds within tasks, are for
    backbones without a hole.
    """
    _unique_titles(parts)
    for part in parts:
        # The default: said once, of all.
        part["title"] = part["title"].replace(", clean protocol", "")
    tasks = sorted({part["task"] for part in parts})
    protocols = Counter(part["protocol"] for part in parts)
    protocol = protocols.most_common(1)[0][0]
    alike = [part for part in parts if part["protocol"] == protocol]
    scaled = [_scaled(part) for part in alike]
    comparable = len({part["task"] for part in alike}) > 1 and None not in scaled
    board = {
        "title": ", ".join(tasks) + ", clean protocol" * ("clean" in protocols),
        "question": (
            "Which sequence backbone should I use?"
            if len(tasks) > 1
            else parts[0]["question"]
        ),
        "task": " + ".join(tasks),
        "protocol": " + ".join(sorted(protocols)),
        "task_version": None,
        "needs": [],
        "unknown": [],
        "columns": [],
        "score": "iqm",
        "rows": [],
        "floors": [],
        "views": [],
        "figures": [],
        "across": None,
        "parts": list(parts),
        "sweep": [],
        "failures": [],
        "published": None,
        "how": {
            "command": command,
            "data": [],
            "devices": _union(parts, "devices"),
            "versions": _union(parts, "versions"),
            "splits": "",
            "statistics": [],
            "left_out": [],
            "does_not_say": [],
        },
    }
    if comparable:
        board |= _compared(alike, [found for found in scaled if found is not None])
    else:
        board["unknown"] = [
            f"{len(parts)} boards that cannot be compared with each other: task, "
            "protocol, data or budget differ."
        ]
    return board


def _unique_titles(parts: Sequence[dict[str, Any]]) -> None:
    """Titles of boards that differ in their examples alone say in which."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        seen.setdefault(part["title"], []).append(part)
    for title, alike in seen.items():
        sizes = [part["examples"] for part in alike]
        for split in dict.fromkeys(name for found in sizes for name in found):
            if len({found.get(split) for found in sizes}) == len(alike) > 1:
                for part in alike:
                    told = f"{part['examples'].get(split, 0):,} {split} examples"
                    part["title"] = f"{title}, {told}"
                break
        else:
            for number, part in enumerate(alike[1:], 2):
                part["title"] = f"{title}, other examples ({number})"


def _union(parts: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(x for part in parts for x in part["how"][name]))


def _scaled(part: Mapping[str, Any]) -> dict[str, list[float]] | None:
    """Scores of each backbone, floor 0 and ceiling 1; None where not known."""
    top = next(
        (f["value"] for f in part["floors"] if f["name"] == "best possible"), None
    )
    floors = [f["value"] for f in part["floors"] if f["name"] != "best possible"]
    if top is None or not floors:
        return None
    column = next(c for c in part["columns"] if c["key"] == part["score"])
    floor = max(floors) if column["better"] == "high" else min(floors)
    if floor == top:
        return None
    found: dict[str, list[float]] = {}
    # Rows are sorted: of several recipes of a backbone the first counts.
    for row in part["rows"]:
        values = (row["score"] or {}).get("values") or []
        if values and row["backbone"] not in found:
            scores = [max(0.0, (v - floor) / (top - floor)) for v in values]
            found[row["backbone"]] = scores + [0.0] * row["failed"]
    return found


def _compared(
    parts: Sequence[Mapping[str, Any]], scaled: Sequence[Mapping[str, list[float]]]
) -> dict[str, Any]:
    titles = [part["title"] for part in parts]
    backbones = sorted({name for found in scaled for name in found})
    families = {
        r["backbone"]: (r["family"], r["title"]) for p in parts for r in p["rows"]
    }
    profiles, means, rows = {}, {}, []
    for name in backbones:
        strata = [np.sort(found[name]) for found in scaled if name in found]
        whole = len(strata) == len(parts)
        if whole:
            means[name], profiles[name] = _over_tasks(strata)
        rows.append(
            {
                "name": name,
                "backbone": name,
                "title": families[name][1],
                "family": families[name][0],
                "status": "ok",
                "reason": "",
                "verdict": "",
                "takes_part": False,
                "why_not": "" if whole else "it has no score on some of the tasks",
                "seeds": min(len(s) for s in strata),
                "failed": 0,
                "swept": False,
                "cells": {
                    "iqm": means[name]["mean"] if whole else None,
                    **{
                        title: float(np.mean(found[name])) if name in found else None
                        for title, found in zip(titles, scaled, strict=True)
                    },
                },
                "score": {**means[name], "values": []} if whole else None,
                "rank": None,
                "tier": None,
                "spread": {},
                "curve": [],
                "runs": [],
            }
        )
    rows.sort(
        key=lambda r: (
            r["score"] is None,
            -(r["score"] or {}).get("mean", 0),
            r["name"],
        )
    )
    holes = [row["name"] for row in rows if row["score"] is None]
    filled = sum(len(found) for found in scaled)
    cells = len(backbones) * len(parts)
    unknown = []
    if holes:
        unknown.append(
            f"{filled} of {cells} cells are filled: {len(holes)} of {len(backbones)} "
            f"backbones ({names(holes)}) have no score on some task, so that no mean "
            "over tasks compares them."
        )
    return {
        "columns": [
            {
                "key": key,
                "label": label,
                "unit": "%",
                "better": "high",
                "digits": 1,
                "group": "task",
                "explain": explain,
            }
            for key, label, explain in [
                (
                    "iqm",
                    "mean over tasks",
                    "interquartile mean of all runs, 0 the best "
                    "floor and 1 the ceiling of each task",
                ),
                *((t, t, "mean over seeds, floor 0, ceiling 1") for t in titles),
            ]
        ],
        "rows": rows,
        "views": [{"name": "tasks", "columns": ["iqm", *titles]}],
        "figures": (
            [
                {
                    "title": "share of runs above a score",
                    "kind": "profile",
                    "x": "tau",
                    "y": "iqm",
                    "log_x": False,
                    "note": None,
                }
            ]
            if profiles
            else []
        ),
        "unknown": unknown,
        "across": {
            "tasks": titles,
            "profiles": {"tau": list(TAU), "rows": profiles},
            "iqm": means,
            "notes": [
                "Scores of a task are rescaled: 0 is its best floor, 1 its ceiling.",
                "The mean leaves out the lowest and the highest quarter of all runs; "
                "its interval is a bootstrap over seeds within tasks (Agarwal et al. "
                f"2021), where every task has {FEWEST_SEEDS} seeds.",
                "The order of means over tasks claims nothing.",
            ],
        },
    }


def _over_tasks(
    strata: Sequence[np.ndarray],
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """Interquartile mean and profile over all runs, with a bootstrap within tasks."""
    runs = np.sort(np.concatenate(strata))
    tau = np.array(TAU)
    above = (runs[:, None] >= tau).mean(0)
    low = high = lows = highs = None
    if min(len(s) for s in strata) >= FEWEST_SEEDS:
        rng = np.random.default_rng(0)
        drawn = np.sort(
            np.concatenate(
                [s[rng.integers(0, len(s), (RESAMPLES, len(s)))] for s in strata],
                axis=1,
            ),
            axis=1,
        )
        low, high = (float(x) for x in np.percentile(_iqm(drawn), [2.5, 97.5]))
        share = (drawn[:, :, None] >= tau).mean(1)
        lows, highs = np.percentile(share, [2.5, 97.5], axis=0).tolist()
    mean = {"mean": float(_iqm(runs[None])[0]), "low": low, "high": high}
    return mean, {"mean": above.tolist(), "low": lows, "high": highs}


def _iqm(sorted_bn: np.ndarray) -> np.ndarray:
    """Mean without the lowest and the highest quarter, rounded down to whole scores."""
    cut = sorted_bn.shape[1] // 4
    return sorted_bn[:, cut : sorted_bn.shape[1] - cut].mean(1)
