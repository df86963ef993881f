"""A board as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from jaxbench.bench.leaderboard import across, facts
from jaxbench.bench.leaderboard.board import Bound, Section
from jaxbench.bench.leaderboard.column import VIEWS, Column, plural, show
from jaxbench.bench.leaderboard.columns import columns
from jaxbench.bench.leaderboard.notes import section_notes
from jaxbench.bench.leaderboard.task_board import Table
from jaxbench.bench.leaderboard.tasks import task_board

# Present in every CSV, so that programs can rely on them.
BASE = ("kind", "task", "protocol", "fingerprint", "rank", "backbone", "family")
ALWAYS = (*BASE, "status", "n", "failed", "best_median", "last_median", "reason")


def csv_text(sections: Sequence[Section]) -> str:
    """A line per row, floor and ceiling of every section, values as in the results."""
    names = dict.fromkeys(ALWAYS)
    if any(section.key.budget.unit for section in sections):
        names["budget"] = None
    records: list[dict[str, Any]] = []
    for section in sections:
        key = section.key
        shared = {
            "task": key.task,
            "protocol": key.protocol,
            "fingerprint": key.fingerprint,
        }
        if key.budget.unit:
            shared["budget"] = f"{key.budget.total:.10g} {key.budget.unit}"
        found = [c for c in columns(section) if c.kind != "interval"]
        names |= dict.fromkeys(column.key for column in found)
        for row in section.rows:
            values = {column.key: column.value(row) for column in found}
            records.append({"kind": "backbone", **shared, **values})
        for bound in section.bounds():
            values = {c.key: c.floor(bound.metrics) for c in found if c.floor}
            names_it = {"kind": bound.kind, **shared, "backbone": bound.name}
            records.append({**names_it, **values})
    for board in across.boards(sections):
        records += (rows := board.records())
        names |= dict.fromkeys(name for record in rows for name in record)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def markdown_text(sections: Sequence[Section], folders: Sequence[str]) -> str:
    """The whole board for people who read it as text."""
    parts = ["# Leaderboard", ""]
    if len(sections) > 1:
        parts += [
            f"{len(sections)} rankings, because {facts.what_differs(sections)}:",
            "",
            *(f"- {_cell(facts.title(s))}: {_apart(s)}" for s in sections),
            "",
        ]
    for board in across.boards(sections):
        parts += [f"## {_cell(board.title)}", "", *_bullets(board.notes()), ""]
        parts += [*_table(board.table()), ""]
    for section in sections:
        parts += _section(section, folders)
    return "\n".join(parts).rstrip() + "\n"


def _apart(section: Section) -> str:
    return _cell(facts.tells_apart(section, "unknown data"))


def _section(section: Section, folders: Sequence[str]) -> list[str]:
    found = columns(section)
    parts = [
        f"## {_cell(facts.title(section))}",
        "",
        f"{', '.join(facts.summary(section))}; "
        f"{_cell(facts.which_data(section, 'unknown data'))}; "
        f"{_cell(', '.join(section.devices))}.",
        "",
        *_bullets(section_notes(section)),
        "",
        "### Ranking",
        "",
        *_view(section, found, "overview", floors=True),
        "",
    ]
    for view in task_board(section).views:
        own = [c for c in found if view.key in c.views and len(c.views) < len(VIEWS)]
        parts += [f"### {view.heading}", ""]
        table = _view(section, found, view.key, view.floors)
        parts += [*(table if own else ["Not measured."]), ""]
    parts += ["### Every seed", "", *_table(facts.seeds_table(section)), ""]
    parts += _failures(section)
    if section.sweeps:
        parts += [
            "### Learning-rate search",
            "",
            f"Best validation {_cell(section.metric_name)} at each rate; * is the "
            "best. These runs are not part of the ranking.",
            "",
            *_table(facts.sweep_table(section)),
            "",
        ]
    published = task_board(section).published(section)
    if published:
        parts += [
            "### The published numbers",
            "",
            *_table(published.table),
            "",
            *_bullets(published.remarks),
            "",
        ]
    parts += ["### Data and origin", ""]
    origin = [*facts.data_facts(section), *facts.origin_facts(section, folders)]
    parts += [f"- {_cell(name)}: {_cell(value)}" for name, value in origin]
    return [*parts, ""]


def _view(
    section: Section, found: Sequence[Column], view: str, floors: bool
) -> list[str]:
    chosen = [column for column in found if view in column.views]
    if view == "overview":
        chosen += [c for c in found if c.key == "status"]
    lines = [
        _bound_cells(chosen, line)
        if isinstance(line, Bound)
        else [column.shown(line) for column in chosen]
        for line in (section.lines() if floors else section.rows)
    ]
    numeric = [column.kind != "text" for column in chosen]
    return _table(([column.title for column in chosen], lines), numeric)


def _bound_cells(chosen: Sequence[Column], bound: Bound) -> list[str]:
    """A floor or the ceiling among the rows, without a rank."""
    return [
        f"{bound.kind}: {bound.name}"
        if column.key == "backbone"
        else show(column.kind, column.floor(bound.metrics) if column.floor else None)
        for column in chosen
    ]


def _failures(section: Section) -> list[str]:
    if not section.failures:
        return ["### Failures", "", "None.", ""]
    parts = ["### Failures", "", plural(len(section.failures), "run") + " not ok:", ""]
    for run in section.failures:
        seed = "" if run.seed is None else f", seed {run.seed}"
        kind = ", learning-rate search" if run.is_sweep else ""
        parts.append(
            f"- **{_cell(run.backbone)}**{seed}{kind}: {run.status}. "
            f"{_cell(run.reason) or 'no reason was given'} ({_cell(run.shown)})"
        )
        # Indented code keeps any text as it is.
        tail = [f"      {line}" for line in run.log_tail()]
        parts += ["", *tail, ""] if tail else []
    return [*parts, ""]


def _table(table: Table, numeric: Sequence[bool] = ()) -> list[str]:
    header, lines = table
    marks = ["---:" if right else "---" for right in numeric] or ["---"] * len(header)
    rule = "| " + " | ".join(marks) + " |"
    return [_line(header), rule, *map(_line, lines)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _bullets(sentences: Iterable[str]) -> list[str]:
    return [f"- {_cell(sentence)}" for sentence in sentences]


def _cell(text: str) -> str:
    """Text of results as text: nothing in it starts a table cell, a tag or a link."""
    for mark in "\\|`*[]<>":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
