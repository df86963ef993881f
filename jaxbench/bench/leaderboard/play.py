"""How policies fought in the simulation, beside how well they predict.

A result's `play` holds one match and its terms. Matches under other terms say other
things, so a board shows those under the terms that most of its runs played under.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxbench.bench.leaderboard.board import Row, Section, median
from jaxbench.bench.leaderboard.column import Column, Value, plural, show
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.plots_scatter import Against, scatter
from jaxbench.bench.leaderboard.read import Run
from jaxbench.bench.statistics import interval


class Measure(NamedTuple):
    """One number of a match.

    Attributes:
      name: in a result's `play`.
      title, views, about, better: as of a `Column`.
      form: how it is printed.
    """

    name: str
    title: str
    form: str
    views: tuple[str, ...]
    about: str
    better: str = "high"


_BOTH, _OWN = ("overview", "play"), ("play",)
MEASURES = (
    Measure("stocks_difference", "stocks", "+.2f", _BOTH, "taken minus lost, a game"),
    Measure("damage_ratio", "dealt / taken", ".2f", _BOTH, "damage, of all games"),
    Measure("wins", "wins", ".2f", _OWN, "share of games won"),
    Measure("damage_dealt", "dealt", ".0f", _OWN, "per cent of damage, a game"),
    Measure("damage_taken", "taken", ".0f", _OWN, "per cent of damage, a game", "low"),
)
# Fewer rows have no order to speak of.
LEAST_ROWS = 3
_PERMUTATIONS = 9999
_MISSING = "No run has played; `jaxbench play` adds it."
_ABOUT_ENDS = (
    "in brackets 95 % over games; of two runs from the lower to the higher end; of "
    "three or more over seeds, of their median"
)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Whether rows that predict better also play better.

    Attributes:
      rho: Spearman's rank correlation, 1 where the score ranks rows as play does.
      p: two-sided, by permutation: exact up to seven rows.
      rows: how many.
    """

    rho: float
    p: float
    rows: int


def match_terms(run: Run) -> str:
    """The terms a run played under, as JSON; empty where it has not played."""
    found = run.get("play", "protocol")
    return json.dumps(found, sort_keys=True) if isinstance(found, dict) else ""


def shown_terms(section: Section) -> str:
    """The terms most runs of a section played under, empty where none has played."""
    counts = Counter(match_terms(run) for row in section.rows for run in row.scored)
    del counts[""]
    return max(counts, key=lambda terms: (counts[terms], terms), default="")


def columns(section: Section) -> list[Column]:
    """Stocks, damage and wins of the matches under the terms that are shown."""
    terms = shown_terms(section)
    return [column for measure in MEASURES for column in _columns(terms, measure)]


def _columns(terms: str, measure: Measure) -> list[Column]:
    """A value as people read it, and the ends of its interval for programs."""
    name, title, form = measure.name, measure.title, measure.form

    def told(row: Row) -> str:
        found, ends = value_of(row, terms, name), ends_of(row, terms, name)
        if found is None:
            return ""
        if ends is None:
            return f"{found:{form}}"
        return f"{found:{form}} ({ends[0]:{form}} to {ends[1]:{form}})"

    def end(which: int) -> Value:
        def value(row: Row) -> Any:
            ends = ends_of(row, terms, name)
            return None if ends is None else ends[which]

        return value

    return [
        Column(
            f"play_{name}",
            title,
            "score",
            lambda row: value_of(row, terms, name),
            measure.views,
            f"{measure.about}, in the simulation; {_ABOUT_ENDS}",
            measure.better,
            text=told,
        ),
        Column(f"play_{name}_low", f"{title}, low", "score", end(0)),
        Column(f"play_{name}_high", f"{title}, high", "score", end(1)),
    ]


def value_of(row: Row, terms: str, name: str) -> float | None:
    """Median over the runs of a row that played under `terms`."""
    return median(run.number("play", name, "value") for run in _played(row, terms))


def ends_of(row: Row, terms: str, name: str) -> tuple[float, float] | None:
    """An interval about `value_of`; see `_ABOUT_ENDS`."""
    runs = _played(row, terms)
    values = [v for run in runs if (v := run.number("play", name, "value")) is not None]
    if (over_seeds := interval(values)) is not None:
        return over_seeds
    lows, highs = (
        [v for run in runs if (v := run.number("play", name, end)) is not None]
        for end in ("low", "high")
    )
    return (min(lows), max(highs)) if lows and highs else None


def _played(row: Row, terms: str) -> list[Run]:
    return [run for run in row.scored if terms and match_terms(run) == terms]


def agreement(section: Section, name: str) -> Agreement | None:
    """Whether the validation score ranks rows as one measure of play does.

    None below `LEAST_ROWS` rows with both, or where all are equal in one of them.
    """
    terms = shown_terms(section)
    pairs = [
        (score, played)
        for row in section.rows
        if (score := row.score()) is not None
        and (played := value_of(row, terms, name)) is not None
    ]
    if len(pairs) < LEAST_ROWS:
        return None
    scores, values = (stats.rankdata(column) for column in zip(*pairs, strict=True))
    if np.ptp(scores) == 0 or np.ptp(values) == 0:
        return None
    good = scores if section.maximize else -scores
    rho = float(stats.pearsonr(good, values).statistic)
    # The correlation grows with this sum, and ranks do not change.
    found = stats.permutation_test(
        (good,),
        lambda ranks, axis: (ranks * values).sum(axis=axis),
        permutation_type="pairings",
        n_resamples=_PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return Agreement(rho, float(found.pvalue), len(pairs))


def notes(section: Section) -> list[str]:
    """Under which terms rows played, and whether the score says how they play."""
    terms = shown_terms(section)
    if not terms:
        return []
    runs = [run for row in section.rows for run in row.scored]
    count = sum(match_terms(run) == terms for run in runs)
    others = sum(bool(match_terms(run)) for run in runs) - count
    rows = sum(bool(_played(row, terms)) for row in section.rows)
    said = [
        f"Play: {plural(rows, 'row')}, {plural(count, 'run')}; {_in_words(terms)}. It "
        "is the simulation's game and not Melee. Ranks say nothing of it; rows whose "
        "intervals overlap may be equal."
    ]
    if others:
        said[0] += f" {plural(others, 'run')} played under other terms: not shown."
    return [*said, *_about_floors(runs, terms), _about_agreement(section)]


def _about_floors(runs: Sequence[Run], terms: str) -> list[str]:
    """What those who learned nothing made of the same games, where they played."""
    found: dict[str, str] = {}
    for run in runs:
        if match_terms(run) != terms:
            continue
        for name in run.get("play", "floors") or ():
            at = ("play", "floors", name)
            told = [
                f"{run.number(*at, measure, 'value'):{form}} {words}"
                for measure, form, words in (
                    ("stocks_difference", "+.2f", "stocks"),
                    ("damage_ratio", ".2f", "dealt / taken"),
                )
                if run.number(*at, measure, "value") is not None
            ]
            found.setdefault(name, f"{name.replace('_', ' ')} {', '.join(told)}")
    return [f"In the same games: {'; '.join(found.values())}."] if found else []


def _in_words(terms: str) -> str:
    found = json.loads(terms)
    who = found.get("character")
    return (
        f"{found.get('games')} games of {found.get('seconds')} s against "
        f"{found.get('opponent')}, as {'every character' if who == 'every' else who}, "
        f"{found.get('mode')} policies, temperature {found.get('temperature')}, "
        f"{found.get('weights')} weights, seed {found.get('seed')}"
    )


def _about_agreement(section: Section) -> str:
    measures = {"damage_ratio": "damage", "stocks_difference": "stocks"}
    found = {
        words: known
        for name, words in measures.items()
        if (known := agreement(section, name)) is not None
    }
    if not found:
        return (
            f"Whether the validation {section.metric_name} says how rows play needs "
            f"{LEAST_ROWS} rows or more that differ in both."
        )
    told = ", ".join(
        f"by {words} {known.rho:+.2f} (n = {known.rows} rows, p = {known.p:.2g})"
        for words, known in found.items()
    )
    open_ = all(known.p >= 0.05 for known in found.values())
    return (
        f"Does the validation {section.metric_name} say how rows play? Spearman's rank "
        f"correlation of the two, 1 where they rank rows alike: {told}."
        + (" That may be chance." if open_ else "")
    )


def against_play(section: Section, salt: str) -> list[Plot]:
    """Score over the damage ratio, of the rows that played under the terms shown."""
    terms = shown_terms(section)

    def ratio(row: Row) -> float | None:
        return value_of(row, terms, "damage_ratio")

    def caption(_: str, rows: Sequence[Row]) -> str:
        none = sum(ratio(row) == 0 for row in section.rows)
        left_out = f" {plural(none, 'row')} dealt no damage: not drawn." if none else ""
        ahead = sum((ratio(row) or 0) > 1 for row in rows)
        return (
            f"Medians; {ahead} of {len(rows)} dealt more damage than they took. "
            f"{_about_agreement(section)}{left_out}"
        )

    return scatter(
        section,
        salt,
        Against(
            title="Quality against play",
            label="damage dealt over damage taken in the simulation, more is better",
            value=ratio,
            told=lambda row: f"dealt / taken {show('rate', ratio(row))}",
            caption=caption,
            missing=_MISSING,
            place=None,
            mark=(1.0, "even"),
            better="high",
        ),
    )
