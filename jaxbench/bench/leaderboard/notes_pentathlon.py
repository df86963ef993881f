"""What a board of a synthetic task may claim and what it may not, in sentences."""

from __future__ import annotations

from math import comb

from jaxbench.bench.leaderboard import solving
from jaxbench.bench.leaderboard.board import Section
from jaxbench.bench.leaderboard.column import plural, show
from jaxbench.bench.leaderboard.splits import trained_length
from jaxbench.bench.statistics.pairwise import needed_seeds


def data_notes(section: Section) -> list[str]:
    """Which examples these are, what solved means, and what the seeds can show."""
    return [
        *_about_examples(section),
        *_about_the_ceiling(section),
        *_about_seeds(section),
        *_about_solving(section),
        *_about_times(section),
        *_about_excluded(section),
    ]


def _about_examples(section: Section) -> list[str]:
    data, key = section.data(), section.key
    if not key.level:
        return []
    parts = [f"Level {key.level} of version {data.get('version', 'unknown')}"]
    examples = data.get("examples")
    for name, count in examples.items() if isinstance(examples, dict) else ():
        if name in ("validation", "test") and isinstance(count, int):
            parts.append(f"{count:,} fixed {name} examples")
    length = trained_length(section)
    told = f"; trained at length {length}" if length else ""
    return [
        f"{', '.join(parts)}{told}. Test splits are scored once, with the best weights."
    ]


def _about_the_ceiling(section: Section) -> list[str]:
    top = section.ceiling.get(section.metric)
    if top is None or top >= 1:
        return []
    return [
        f"The best possible {section.metric_name} is {top:.4f}: what is read does not "
        "decide every answer."
    ]


def _about_seeds(section: Section) -> list[str]:
    ranked = [row for row in section.rows if row.scored]
    if len(ranked) < 2:
        return []
    seeds = [len(row.scored) + len(row.failed) for row in ranked]
    need = needed_seeds(comb(len(ranked), 2))
    if min(seeds) >= need:
        return []
    most = f" to {max(seeds)}" if max(seeds) > min(seeds) else ""
    return [
        f"Fewer seeds than a claim needs: {need} for each of {len(ranked)} backbones; "
        f"here {min(seeds)}{most}."
    ]


def _about_solving(section: Section) -> list[str]:
    runs = [run for run in section.runs if run.get("solved") and not run.is_sweep]
    if not runs:
        return []
    threshold = runs[0].number("solved", "threshold")
    in_a_row = runs[0].number("solved", "evaluations") or 3
    if threshold is None:
        return []
    streak = f"{in_a_row} validations in a row" if in_a_row > 1 else "one validation"
    said = (
        f"Solved: a validation {section.metric_name} of at least {threshold:.4g} in "
        f"{streak}, counted from the first. Runs that ended unsolved are censored "
        "where they ended; failed ones stay unsolved to the end of their budget."
    )
    stalled = [r for r in runs if r.ok and r.number("solved", "stalled") is not None]
    if stalled:
        said += (
            f" {plural(len(stalled), 'run')} gave up before the budget was spent, "
            "without a gain for long."
        )
    return [said]


def _about_times(section: Section, most: int = 6) -> list[str]:
    """What log-rank tests claim."""
    pairs = solving.told_apart(section)
    if not pairs:
        return []
    told = []
    for pair in pairs:
        if pair.sooner:
            later = pair.b if pair.sooner == pair.a else pair.a
            p = show("rate", pair.p_holm)
            told.append(f"{pair.sooner} before {later} (p {p})")
    test = f"Log-rank tests of the steps to solve (Holm, {plural(len(pairs), 'pair')})"
    if not told:
        return [f"{test} tell no backbones apart."]
    more = f"; and {len(told) - most} more" if len(told) > most else ""
    return [f"{test} claim: {'; '.join(told[:most])}{more}."]


def _about_excluded(section: Section) -> list[str]:
    """Splits that were not scored, with the rows and the reason."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in section.rows:
        for run in row.scored:
            splits_left = run.get("excluded")
            for split, why in splits_left.items() if splits_left else ():
                found.setdefault((split, str(why)), {})[row.name] = None
    return [
        f"Not scored on {split}: {', '.join(names)}; {why.rstrip('.')}."
        for (split, why), names in found.items()
    ]
