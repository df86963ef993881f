"""The table of a page: rows, floors, drawn intervals and what unfolds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jaxbench.bench.leaderboard import facts
from jaxbench.bench.leaderboard.board import Bound, Row, Section
from jaxbench.bench.leaderboard.column import Column, show
from jaxbench.bench.leaderboard.columns import columns
from jaxbench.bench.leaderboard.page_parts import plain, reason
from jaxbench.bench.leaderboard.plot_parts import score_range
from jaxbench.bench.leaderboard.read import UNREADABLE


def board_table(section: Section, name: str) -> str:
    """The whole table; `name` is the id of the section on the page."""
    found = [column for column in columns(section) if column.views]
    heads = "".join(_head(column) for column in found)
    scale = score_range(section)[:2]
    places = {row.name: i for i, row in enumerate(section.rows)}
    body = "\n".join(
        _bound(line, found)
        if isinstance(line, Bound)
        else _row(section, line, places[line.name], found, scale, name)
        for line in section.lines()
    )
    return (
        f'<div class="scroll tall"><table class="board" data-view="overview">'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
        '<p class="none">No row fits the search.</p></div>'
    )


def _head(column: Column) -> str:
    kind = "text" if column.kind == "text" else "number"
    classes = _classes(column)
    return (
        f'<th scope="col" class="{classes}" data-key="{escape(column.key)}" '
        f'data-kind="{kind}" data-better="{column.better}">'
        f'<button type="button" title="{escape(column.about)}">'
        f"{escape(column.title)}</button></th>"
    )


def _classes(column: Column) -> str:
    views = " ".join(f"v-{view}" for view in column.views)
    kind = "" if column.kind in ("text", "interval") else "num "
    return f"c {kind}{views}" + (" rank" if column.key == "rank" else "")


def _row(
    section: Section,
    row: Row,
    index: int,
    found: Sequence[Column],
    scale: tuple[float, float],
    name: str,
) -> str:
    search = f"{row.name} {row.title} {row.family} {row.status}".lower()
    statuses = " ".join(sorted({run.status for run in row.runs}))
    cells = []
    for column in found:
        if column.key == "backbone":
            cells.append(_name_cell(row, index, name, column))
        elif column.kind == "interval":
            drawn = _spread(section, row, scale)
            value = "" if row.score() is None else repr(row.score())
            cells.append(
                f'<td class="{_classes(column)}" data-v="{value}">{drawn}</td>'
            )
        else:
            cells.append(_cell(column, column.value(row), column.shown(row)))
    bad = "" if row.scored else " bad"
    return (
        f'<tr class="row{bad}" data-row="{index}" data-family="{escape(row.family)}" '
        f'data-status="{escape(statuses)}" data-search="{escape(search)}">'
        + "".join(cells)
        + f'</tr>\n<tr class="detail" id="{name}-detail-{index}" hidden>'
        f'<td colspan="{len(found)}">{_detail(section, row)}</td></tr>'
    )


def _cell(column: Column, value: object, shown: str) -> str:
    text = escape(shown)
    raw = "" if value is None else escape(str(value))
    if column.key == "makes_60fps" and value:
        text = f'<span class="{text}">{text}</span>'
    if column.key == "rank":
        text = f"<span>{text}</span>"
    return f'<td class="{_classes(column)}" data-v="{raw}">{text}</td>'


def _name_cell(row: Row, index: int, name: str, column: Column) -> str:
    chip = ""
    bad = [run for run in row.runs if not run.ok]
    if bad:
        count = f"{len(bad)} of {len(row.runs)} " if len(row.runs) > 1 else ""
        chip = f'<span class="chip">{count}{escape(row.status)}</span>'
    title = "" if row.title.lower() == row.name.lower() else row.title
    small = f" <small>{escape(title)}</small>" if title else ""
    return (
        f'<td class="{_classes(column)} name" data-v="{escape(row.name)}">'
        f'<button type="button" aria-expanded="false" '
        f'aria-controls="{name}-detail-{index}">{escape(row.name)}</button>'
        f"{chip}{small}</td>"
    )


def _bound(bound: Bound, found: Sequence[Column]) -> str:
    cells, name = [], bound.name
    for column in found:
        if column.key == "backbone":
            text = escape(name.replace("_", "-"))
            cells.append(
                f'<td class="{_classes(column)} name" data-v="{text}">'
                f"{text} <small>{bound.kind}</small></td>"
            )
        else:
            value = column.floor(bound.metrics) if column.floor else None
            cells.append(_cell(column, value, show(column.kind, value)))
    search = f"{name} {name.replace('_', '-')} {bound.kind}".lower()
    return f'<tr class="floor" data-search="{escape(search)}">{"".join(cells)}</tr>'


def _spread(section: Section, row: Row, scale: tuple[float, float]) -> str:
    """Seeds, interval and median of a row on one small line."""
    low, high = scale
    scores, median = row.scores(), row.score()
    if median is None:
        return ""

    def x(value: float) -> float:
        share = (value - low) / (high - low)
        return round(3 + 126 * min(1.0, max(0.0, share)), 1)

    parts = ['<path d="M3 9H129" stroke="var(--rule)"/>']
    place = row.place
    text = f"median {median:.4f}"
    if place and place.low is not None:
        a, b = x(place.low), x(place.high)
        parts.append(
            f'<path d="M{a} 9H{b}" stroke="var(--accent)" stroke-width="5" '
            'stroke-opacity=".32" stroke-linecap="round"/>'
        )
        text += f", 95 % interval {place.low:.4f} to {place.high:.4f}"
    if len(scores) > 1:
        ticks = "".join(f"M{x(score)} 5.5V12.5" for score in scores)
        parts.append(f'<path d="{ticks}" stroke="var(--muted)" stroke-opacity=".7"/>')
    parts.append(f'<circle cx="{x(median)}" cy="9" r="3.6" fill="var(--accent)"/>')
    return (
        f'<svg class="spread" viewBox="0 0 132 18" role="img" aria-label="{text}">'
        f"<title>{text}</title>{''.join(parts)}</svg>"
    )


def _detail(section: Section, row: Row) -> str:
    if row.status == UNREADABLE:
        return f"<p>{escape(row.runs[0].reason)}</p>"
    lines = [
        [
            show("count", run.seed),
            run.status,
            *facts.seed_cells(section, run),
            run.shown,
        ]
        for run in row.runs
    ]
    parts = [plain(["seed", "status", *facts.seed_titles(section), "folder"], lines)]
    if row.place:
        tied = ", ".join(row.place.tied_with)
        text = f"Not told apart from: {tied}." if tied else "Told apart from every row."
        parts.append(f"<p>{escape(text)} Method: {escape(row.place.method)}.</p>")
    settings = []
    for label, value in (
        ("learning rate", show("rate", row.fact("learning_rate"))),
        ("family", row.family),
        ("device", row.device),
        ("recipe", next((run.text("group") for run in row.runs), "")),
    ):
        if value:
            settings.append(f"{label} {value}")
    parts.append(f'<p class="muted">{escape("; ".join(settings))}.</p>')
    plan = next((text for run in row.runs if (text := facts.memory_plan(run))), "")
    if plan:
        parts.append(f'<p class="muted">Memory plans tried: {escape(plan)}.</p>')
    parts += [reason(run) for run in row.runs if not run.ok]
    return "".join(parts)
