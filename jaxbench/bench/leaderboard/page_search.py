"""The learning-rate search of a page: a line per backbone, with its curve."""

from __future__ import annotations

from html import escape

from jaxbench.bench.leaderboard import facts
from jaxbench.bench.leaderboard.board import Section


def search(section: Section) -> list[str]:
    """The learning-rate search: a line per backbone, with its curve."""
    curves = facts.sweep_curves(section)
    if not curves:
        return []
    header, lines = facts.sweep_table(section)
    rows = []
    for line in lines:
        cells = "".join(
            f'<td class="num{" best" if cell.endswith(" *") else ""}">'
            f"{escape(cell.removesuffix(' *'))}</td>"
            for cell in line[1:]
        )
        curve = _spark(section, line[0])
        rows.append(f"<tr><td>{escape(line[0])}</td>{cells}<td>{curve}</td></tr>")
    heads = f"<th>{header[0]}</th>" + "".join(
        f'<th class="num">{escape(rate)}</th>' for rate in header[1:]
    )
    return [
        "<h3>Learning-rate search</h3>",
        f"<p>Best validation {escape(section.metric_name)} at each rate; the best is "
        "set in colour. These runs are not part of the ranking.</p>",
        f'<div class="scroll"><table class="plain"><thead><tr>{heads}'
        f"<th>curve</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>",
    ]


def _spark(section: Section, backbone: str) -> str:
    points = facts.sweep_curves(section)[backbone]
    scored = [(rate, score) for rate, score, _ in points if score is not None]
    if len(scored) < 2:
        return ""
    rates = sorted({rate for rate, _, _ in points})
    scores = [score for _, score in scored]
    low, high = min(scores), max(scores)

    def at(rate: float, score: float) -> tuple[float, float]:
        share = rates.index(rate) / max(1, len(rates) - 1)
        return 4 + 102 * share, 4 + 16 * (high - score) / (high - low or 1.0)

    places = [at(rate, score) for rate, score in scored]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    best = facts.best_rate(points, section.maximize)
    x, y = next(
        at(r, s) for r, s in sorted(scored, key=_goodness(section)) if r == best
    )
    return (
        '<svg class="spark" viewBox="0 0 110 24" aria-hidden="true">'
        f'<path d="M{path}" fill="none" stroke="var(--muted)"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="var(--accent)"/></svg>'
    )


def _goodness(section: Section):
    sign = -1 if section.maximize else 1
    return lambda pair: sign * pair[1]
