"""What a board says in sentences: who leads by each need, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxbench.board.claims import (
    FEWEST_OF_FEW_ROWS,
    FEWEST_OF_TWO_LEVELS,
    FEWEST_ROWS,
    FEWEST_SEEDS,
    Claims,
    detectable,
)
from jaxbench.board.table import FEWEST_RATES, Row
from jaxbench.tasks.columns import Column, Need

MOST_NAMES = 6
BEST_POSSIBLE = "best possible"
# Times of one row on a shared machine differ so much from one day to the next.
NEAR = 1.2
_SCALES = {
    "B": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
    "FLOP": ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")),
}


def shown(value: Any, column: Column) -> str:
    """A value as people read it, with its unit."""
    if value is None or isinstance(value, str):
        return value or ""
    if column.unit == "%":
        return f"{100 * value:.{column.digits if column.digits is not None else 1}f} %"
    for size, unit in _SCALES.get(column.unit, ()):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    if column.digits is not None:
        number = f"{value:,.{column.digits}f}"
    else:
        number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number} {column.unit}".strip()


def names(found: Sequence[str], most: int = MOST_NAMES) -> str:
    """ "a, b and c", or the first of them and how many more."""
    if len(found) > most:
        return f"{', '.join(found[:most])} and {len(found) - most} more"
    return " and ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))


def plural(count: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def lead(
    need: Need, column: Column, rows: Sequence[Row], claims: Claims
) -> dict[str, Any]:
    """Who leads by a column of scores: the first tier, or why that is not known."""
    taking = [k for k in range(len(rows)) if claims.takes_part[k]]
    measured = [k for k in range(len(rows)) if np.isfinite(claims.mean[k])]
    sign = -1 if column.better == "high" else 1
    first = min(measured, key=lambda k: sign * claims.mean[k], default=None)
    if len(taking) < 2:
        if first is None:
            answer = "No row has a score for it."
        elif len(measured) == 1:
            answer = (
                f"Only {rows[first].name} was measured: there is nothing to compare."
            )
        else:
            answer = (
                f"Not known: {_why_few(rows, measured)}. "
                f"{'Highest' if sign < 0 else 'Lowest'} so far {rows[first].name} "
                f"({shown(float(claims.mean[first]), column)}), which proves nothing."
            )
        return _need(need, column, [], answer, False)
    tier = sorted(
        (k for k in taking if claims.tier[k] == 1), key=lambda k: sign * claims.mean[k]
    )
    leaders = [rows[k].name for k in tier]
    evidence = _evidence(column, rows, claims, taking)
    out = len(measured) - len(taking)
    beside = f" {plural(out, 'row')} could not be compared." if out > 0 else ""
    if len(leaders) == len(taking):
        answer = f"None of {plural(len(taking), 'row')} is proven better than another"
    elif len(leaders) == 1:
        answer = f"{leaders[0]} is proven better than the other {len(taking) - 1}"
    else:
        answer = f"{names(leaders)} lead and are not told apart"
    return _need(need, column, leaders, f"{answer} ({evidence}).{beside}", True)


def verdict(
    value: float | None, column: Column, floors: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    """What a score beats among the floors, and what it does not.

    Args:
      floors: of a board, hardest first.

    Returns:
      A sentence, empty without floors, and the easiest floor that is not beaten.
    """
    sign = -1 if column.better == "high" else 1
    beaten, unbeaten, first = [], [], ""
    for floor in reversed(floors):
        if value is None or floor["name"] == BEST_POSSIBLE:
            continue
        told = shown(floor["value"], column)
        if sign * value < sign * floor["value"]:
            beaten.append(f"{floor['name']} ({told})")
        elif first:
            unbeaten.append(f"{floor['name']} ({told})")
        else:
            first = floor["name"]
            unbeaten.append(f"{first} ({told}: {floor['explain']})")
    said = [
        f"{verb} {names(found, len(found))}"
        for verb, found in (("does not beat", unbeaten), ("beats", beaten))
        if found
    ]
    if not said:
        return "", ""
    return f"{column.label} {shown(value, column)} {'; it '.join(said)}", first


def _need(
    need: Need, column: Column, leaders: list[str], answer: str, known: bool
) -> dict[str, Any]:
    return {
        "need": need.words,
        "column": column.key,
        "leaders": leaders,
        "answer": answer,
        "known": known,
    }


def _evidence(
    column: Column, rows: Sequence[Row], claims: Claims, taking: Sequence[int]
) -> str:
    seeds = sorted({rows[k].seeds for k in taking})
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = [f"{span} seeds"]
    if all(rows[k].rates for k in taking):
        parts.append("rates searched")
    parts.append(f"{plural(len(taking), 'row')} compared")
    noise = _noise(claims, rows, taking)
    if noise:
        gap = detectable(noise, seeds[0], len(taking))
        parts.append(f"a gap of {shown(gap, column)} would have shown")
    return ", ".join(parts)


def _noise(claims: Claims, rows: Sequence[Row], taking: Sequence[int]) -> float:
    """Median over rows of the standard deviation between seeds; 0 where unknown."""
    found = [float(claims.sd[k]) for k in taking if np.isfinite(claims.sd[k])]
    return float(np.median(found)) if found else 0.0


def _why_few(rows: Sequence[Row], measured: Sequence[int]) -> str:
    """Why fewer than two rows can be compared."""
    few = [rows[k] for k in measured if rows[k].seeds < FEWEST_SEEDS]
    untuned = [rows[k] for k in measured if rows[k].why_not]
    parts = []
    if few:
        parts.append(
            f"{len(few)} of {plural(len(measured), 'row')} "
            f"{'has' if len(few) == 1 else 'have'} fewer than {FEWEST_SEEDS} seeds"
        )
    if untuned:
        whose = (
            "no learning rate was"
            if len(untuned) == len(measured)
            else f"the learning rate of {plural(len(untuned), 'row')} was not"
        )
        parts.append(f"{whose} chosen by a search over {FEWEST_RATES} rates")
    return " and ".join(parts) or "too few rows have seeds of their own"


def within(need: Need, column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    """Who keeps a limit."""
    assert need.limit is not None
    found = _by_value(column, rows)
    if not found:
        return _need(need, column, [], "Not measured on this board.", False)
    high = column.better == "high"
    kept = [row for v, row in found if (v >= need.limit if high else v <= need.limit)]
    worst, slowest = found[-1]
    count = (
        f"all {len(found)}"
        if len(kept) == len(found)
        else f"{len(kept)} of {len(found)}"
    )
    answer = (
        f"{count.capitalize()} measured keep {need.limit_words}; "
        f"{slowest.name} comes last ({shown(worst, column)})"
    )
    return _need(
        need, column, [row.name for row in kept], answer + _missing(rows, found), True
    )


def least(need: Need, column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    """Who has the best value of what every seed has alike, such as a size."""
    found = _by_value(column, rows)
    if len(found) < 2:
        return _need(need, column, [], "Not measured on two rows or more.", False)
    best, worst = found[0][0], found[-1][0]
    first = [row.name for value, row in found if value == best]
    ratio = max(best, worst) / min(best, worst) if best and worst else 0
    told = f", 1/{ratio:,.0f} of {found[-1][1].name}" if ratio >= 2 else ""
    answer = f"{names(first)} ({shown(best, column)}{told})"
    return _need(need, column, first, answer + _missing(rows, found), True)


def timed(need: Need, column: Column, rows: Sequence[Row]) -> dict[str, Any]:
    """Who was fastest, of the rows that one kind of device measured; no proof."""
    measured = _by_value(column, rows)
    places = Counter(row.measured_on(column) for _, row in measured)
    place = places.most_common(1)[0][0] if places else ""
    found = [(v, row) for v, row in measured if row.measured_on(column) == place]
    if len(found) < 2:
        return _need(need, column, [], "Not measured on two rows or more.", False)
    best, worst = found[0][0], found[-1][0]
    near = [row.name for v, row in found if max(v, best) <= NEAR * min(v, best)]
    ratio = max(best, worst) / min(best, worst) if min(best, worst) else 0
    last = f"; the slowest, {found[-1][1].name}, {shown(worst, column)}"
    told = last if ratio else ""
    answer = (
        f"{names(near)} ({shown(best, column)}{told}), as measured on "
        f"{place or 'an unknown device'}; times are no proof, and within "
        f"{100 * (NEAR - 1):.0f} % the order may be chance"
    )
    return _need(need, column, near, answer + _missing(rows, found), True)


def _by_value(column: Column, rows: Sequence[Row]) -> list[tuple[float, Row]]:
    cells = ((row.cell(column), row) for row in rows)
    found = [(v, row) for v, row in cells if v is not None and not isinstance(v, str)]
    sign = -1 if column.better == "high" else 1
    return sorted(found, key=lambda pair: (sign * pair[0], pair[1].name))


def _missing(rows: Sequence[Row], found: Sequence[Any]) -> str:
    known = {row.name for _, row in found}
    missing = [row.name for row in rows if row.ok and row.name not in known]
    return f"; not measured: {names(missing)}." if missing else "."


def unknown(rows: Sequence[Row], claims: Claims, column: Column) -> list[str]:
    """What cannot be said, and how many seeds or rates would change that."""
    said = []
    scored = [row for row in rows if row.ok]
    few = [row for row in scored if row.seeds < FEWEST_SEEDS]
    if few:
        more = FEWEST_SEEDS - min(row.seeds for row in few)
        noise = _noise(claims, rows, range(len(rows)))
        gap = ""
        if noise and len(scored) > 1:
            first = FEWEST_OF_FEW_ROWS if len(scored) < FEWEST_ROWS else FEWEST_SEEDS
            told = shown(detectable(noise, first, len(scored)), column)
            twice = shown(detectable(noise, 2 * first, len(scored)), column)
            gap = (
                f"; with the noise of rows that have them, {first} seeds each would "
                f"show gaps of {told}, {2 * first} of {twice}"
            )
        said.append(
            f"{len(few)} of {plural(len(scored), 'row')} "
            f"{'has' if len(few) == 1 else 'have'} fewer than {FEWEST_SEEDS} seeds and "
            f"no part in any claim: {plural(more, 'seed')} more each would change "
            f"that{gap}."
        )
    short = [r for k, r in enumerate(rows) if claims.takes_part[k]]
    short = [row for row in short if row.seeds < claims.needs]
    if short and claims.takes_part.sum() > 1:
        why = f"on a board of fewer than {FEWEST_ROWS} rows"
        if claims.needs == FEWEST_OF_TWO_LEVELS:
            why = "where scores jump between two levels"
        said.append(
            f"{names([row.name for row in short])}: nothing is claimed with fewer than "
            f"{claims.needs} seeds {why}."
        )
    reasons: dict[str, list[str]] = {}
    for row in scored:
        if row.why_not:
            reasons.setdefault(row.why_not, []).append(row.name)
    for reason, members in reasons.items():
        who = "Every row" if len(members) == len(scored) else names(members)
        said.append(f"{who}: {reason}. Another rate may turn the order.")
    edges = [row for row in scored if row.edge]
    if edges:
        told = names([f"{row.name} ({row.facts['rate']:g})" for row in edges])
        said.append(f"The best rate lies at the edge of what was tried: {told}.")
    return said


def sizes(rows: Sequence[Row]) -> list[str]:
    """How unlike the rows are in parameters and state."""
    said = []
    for path, noun in (
        ("params.backbone", "parameters of backbones"),
        ("state_bytes", "states"),
    ):
        column = Column(noun, path, noun)
        found = [v for v, _ in _by_value(column, rows) if v > 0]
        if len(found) > 1 and max(found) > 1.1 * min(found):
            said.append(f"{noun} differ {max(found) / min(found):,.3g}-fold")
    return (
        [f"{' and '.join(said).capitalize()}: part of a difference may be size."]
        if said
        else []
    )


def statistics_in_words(claims: Claims, column: Column) -> list[str]:
    """How claims are made, for a reader who knows no statistics."""
    better = "higher" if column.better == "high" else "lower"
    return [
        f"Rows are sorted by their mean {column.label} over seeds ({better} is "
        "better). The order alone proves nothing.",
        f"A row is compared only if it has {FEWEST_SEEDS} seeds of its own, and a "
        f"search over at least {FEWEST_RATES} learning rates, from the same grid as "
        "the others, chose its rate on a seed that is not scored.",
        "One row is called better than another if two tests agree (over the seeds "
        "that both have, and over all seeds of each), allowing for the number of "
        "pairs, so that at most about one board in twenty claims anything false. On a "
        f"board of fewer than {FEWEST_ROWS} rows both need {FEWEST_OF_FEW_ROWS} seeds, "
        f"and {FEWEST_OF_TWO_LEVELS} where scores jump between two levels, since few "
        "seeds may all be on one of them.",
        "Rank is an interval: from 1 + the rows proven better to the number of rows "
        "less those proven worse. The first tier are all rows that are not proven "
        "worse than the first.",
        "An interval of a score covers its mean over all possible seeds in at least 93 "
        "of 100 cases, in 97 where noise is normal; in 3 of 4 where a row has three "
        "seeds and they jump between two levels. It is made of the row's own seeds; "
        "rows may lend it steadiness, never a smaller noise.",
        "A run that failed counts as worse than any score.",
    ]
