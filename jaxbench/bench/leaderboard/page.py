"""A board as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from jaxbench.bench.leaderboard import across, facts
from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.column import VIEWS
from jaxbench.bench.leaderboard.columns import columns
from jaxbench.bench.leaderboard.notes import section_notes
from jaxbench.bench.leaderboard.page_parts import items, plain, reason
from jaxbench.bench.leaderboard.page_search import search
from jaxbench.bench.leaderboard.page_table import board_table
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.plots import plots
from jaxbench.bench.leaderboard.plots_across import heat_map
from jaxbench.bench.leaderboard.task_board import View
from jaxbench.bench.leaderboard.tasks import task_board


def page_text(sections: Sequence[Section], folders: Sequence[str]) -> str:
    """The whole page. Text from results is escaped; only the page's script may run."""
    script = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    tasks = " and ".join(dict.fromkeys(section.key.task for section in sections))
    body = [
        "<header><h1>Which sequence backbone?</h1>",
        f'<p class="by">A jaxbench leaderboard for {escape(tasks)}, made from result '
        "files alone.</p>",
        _contents(sections),
        "</header>",
        "<main>",
        *(_across(b, i) for i, b in enumerate(across.boards(sections), start=1)),
        *(_section(s, i, folders) for i, s in enumerate(sections, start=1)),
        "</main>",
        "<footer><p>Select a row for its seeds, its settings and its reasons. Sorting, "
        "filters and open rows are part of the address, so a view can be linked.</p>"
        "</footer>",
    ]
    return string.Template(_file("page.html")).substitute(
        title=f"jaxbench leaderboard: {escape(tasks)}",
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'",
        css=_file("page.css"),
        body="\n".join(body),
        script=script,
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) < 2:
        return ""
    items = "".join(
        f'<li><a href="#a{i}">{escape(board.title)}</a></li>'
        for i, board in enumerate(across.boards(sections), start=1)
    ) + "".join(
        f'<li><a href="#s{i}">{escape(facts.title(s))}</a> '
        '<span class="muted">'
        f"{escape(facts.tells_apart(s, 'data unknown'))}</span></li>"
        for i, s in enumerate(sections, start=1)
    )
    return (
        f"<nav><p>{len(sections)} rankings, because "
        f"{escape(facts.what_differs(sections))}:</p>"
        f"<ul>{items}</ul></nav>"
    )


def _across(board: across.Across, number: int) -> str:
    """Several tasks at once: what it says, a heat map, the same as a table."""
    header, lines = board.table()
    parts = [
        f'<section class="across" id="a{number}">',
        f"<h2>{escape(board.title)}</h2>",
        f'<div class="claims"><ul>{items(board.notes())}</ul></div>',
        *_figures([heat_map(board, f"a{number}-tasks")]),
        f'<div class="scroll">{plain(header, lines)}</div>',
        "</section>",
    ]
    return "\n".join(parts)


def _section(section: Section, number: int, folders: Sequence[str]) -> str:
    name = f"s{number}"
    devices = ", ".join(section.devices) or "device unknown"
    parts = [
        f'<section class="ranking" id="{name}">',
        f"<h2>{escape(facts.title(section))}</h2>",
        f'<p class="by">{escape(" · ".join(facts.summary(section)))} · '
        f"{escape(facts.which_data(section, 'data unknown'))} · {escape(devices)}</p>",
        f'<div class="claims"><ul>{items(section_notes(section))}</ul></div>',
        _controls(section, name),
        board_table(section, name),
        *_figures(plots(section, name)),
        *search(section),
        *_failures(section),
        *_published(section),
        "<h3>Data and origin</h3>",
        _facts([*facts.data_facts(section), *facts.origin_facts(section, folders)]),
        "</section>",
    ]
    return "\n".join(parts)


def _controls(section: Section, name: str) -> str:
    families = sorted({row.family for row in section.rows})
    statuses = sorted({run.status for row in section.rows for run in row.runs})
    found = columns(section)
    buttons = "".join(
        f'<button type="button" value="{view.key}">'
        f"{view.button or view.key.capitalize()}</button>"
        for view in (View("overview", ""), *task_board(section).views)
        if any(view.key in c.views and len(c.views) < len(VIEWS) for c in found)
    )
    return (
        '<div class="bar">'
        f'<input type="search" data-control="q" placeholder="Search" '
        f'aria-label="Search rows" id="{name}-q">'
        + _select("family", "All families", families)
        + _select("status", "Any status", statuses)
        + f'<div class="views" role="group" aria-label="Columns">{buttons}</div>'
        '<output data-control="count" aria-live="polite"></output></div>'
    )


def _select(name: str, every: str, values: Iterable[str]) -> str:
    options = "".join(
        f'<option value="{escape(v)}">{escape(v)}</option>' for v in values
    )
    return (
        f'<select data-control="{name}" aria-label="{every}">'
        f'<option value="">{every}</option>{options}</select>'
    )


def _figures(found: Sequence[Plot]) -> list[str]:
    drawn = [plot for plot in found if plot.svg]
    parts = ['<h3>Figures</h3><div class="plots">'] if drawn else []
    for number, plot in enumerate(drawn, start=1):
        wide = ' class="wide"' if plot.wide else ""
        parts.append(
            f'<figure{wide}><div class="frame">{plot.svg}</div>'
            f"<figcaption><b>Figure {number}. {escape(plot.title)}.</b> "
            f"{escape(plot.caption)}</figcaption></figure>"
        )
    if drawn:
        parts.append("</div>")
    missing = [plot for plot in found if not plot.svg]
    if missing:
        items = "".join(
            f"<li><b>{escape(p.title)}.</b> {escape(p.caption)}</li>" for p in missing
        )
        parts.append(f'<h3>Figures without data</h3><ul class="missing">{items}</ul>')
    return parts


def _failures(section: Section) -> list[str]:
    if not section.failures:
        return []
    parts = [f"<h3>Failures ({len(section.failures)})</h3>"]
    for run in section.failures:
        kind = ", learning-rate search" if run.is_sweep else ""
        parts.append(
            f'<div class="failure"><p><b>{escape(run.backbone)}</b>'
            f'<span class="chip">{escape(run.status)}</span>'
            f'<span class="muted">{kind} {escape(run.shown)}</span></p>'
            f"{reason(run)}</div>"
        )
    return parts


def _published(section: Section) -> list[str]:
    found = task_board(section).published(section)
    if found is None:
        return []
    header, lines = found.table
    return [
        "<h3>The published numbers beside ours</h3>",
        f'<div class="scroll">{plain(header, lines, numbers=found.numbers)}</div>',
        f"<ul>{items(found.remarks)}</ul>",
    ]


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f"<dt>{escape(name)}</dt><dd{' class=hash' if name == 'fingerprint' else ''}>"
        f"{escape(value)}</dd>"
        for name, value in pairs
    )
    return f"<dl>{items}</dl>"
