"""From runs to sections: one ranking for each task, protocol, data and budget."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics as average
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from jaxbench.bench import statistics
from jaxbench.bench.leaderboard.budget import Budget
from jaxbench.bench.leaderboard.read import FAILURES, Run, numbers
from jaxbench.bench.terms import terms
from jaxbench.models.zoo import FAMILIES, ROWS
from jaxbench.tasks.entry import Terms

OTHER_FAMILY = "patterns"


@dataclasses.dataclass
class Row:
    """The runs of one recipe of one backbone.

    Attributes:
      name: unique in its section; the backbone, and what tells recipes apart.
      backbone: row of the zoo or pattern.
      title: name for people.
      family: of the zoo, or "patterns" for what users wrote.
      runs: counted runs, a seed once, by seed; sweep runs are not among them.
      place: its row of the ranking; None where no seed has a score.
    """

    name: str
    backbone: str
    title: str
    family: str
    runs: list[Run]
    place: Any = None

    @cached_property
    def scored(self) -> list[Run]:
        """Runs that ended well."""
        return [run for run in self.runs if run.ok]

    @cached_property
    def failed(self) -> list[Run]:
        """Runs that failed by themselves."""
        return [run for run in self.runs if run.status in FAILURES]

    @property
    def status(self) -> str:
        """The worst that happened: its first failure, or "ok"."""
        return next((run.status for run in self.runs if not run.ok), "ok")

    def median(self, *keys: str) -> float | None:
        """Median over the runs that ended well."""
        return median(run.number(*keys) for run in self.scored)

    def fact(self, *keys: str) -> float | None:
        """As `median`, from failed runs where no run ended well."""
        found = self.median(*keys)
        return (
            median(run.number(*keys) for run in self.runs) if found is None else found
        )

    def scores(self, which: str = "best") -> list[float]:
        """The metric that ranks, of every run that ended well, by seed."""
        found = (run.score(which) for run in self.scored)
        return [score for score in found if score is not None]

    def score(self, which: str = "best") -> float | None:
        """Median of `scores`, failed seeds counted as worse than any.

        None where they are the majority: such a median is no number.
        """
        scores = self.scores(which)
        if not scores:
            return None
        worst = -math.inf if self.scored[0].maximize else math.inf
        middle = average.median([*scores, *[worst] * len(self.failed)])
        return middle if math.isfinite(middle) else None

    @cached_property
    def device(self) -> str:
        """The device most of its runs computed on."""
        counts = Counter(run.device for run in self.scored or self.runs)
        return counts.most_common(1)[0][0] if counts else ""

    def speed(self, *keys: str) -> float | None:
        """Median over the runs that ended well on `device`."""
        here = [run for run in self.scored if run.device == self.device]
        return median(run.number(*keys) for run in here)

    def representative(self) -> Run | None:
        """The run whose score is nearest the median: a real run for curves."""
        if not self.scored:
            return None
        middle = average.median(self.scores())
        return min(self.scored, key=lambda run: abs((run.score() or 0.0) - middle))


@dataclasses.dataclass(frozen=True)
class Bound:
    """What rows are measured against: a floor or the ceiling.

    Attributes:
      kind: "floor", of a predictor that learns nothing; "ceiling", of the best one.
      name: of the predictor.
      metrics: that it reaches.
    """

    kind: str
    name: str
    metrics: dict[str, float]


@dataclasses.dataclass
class Section:
    """One ranking and everything around it.

    Attributes:
      key: what all its runs share.
      rows: ranked rows best first, then rows without a score.
      floors: metrics of predictors that learn nothing, by name.
      ceiling: metrics that no predictor can pass, where they are known.
      noise_sd: standard deviation between seeds, or None.
      sweeps: runs of the learning-rate search by backbone.
      left_out: runs of a seed that is there already, with what was kept.
      unreadable: files without a run in them.
      ranking_notes: what the numbers of seeds allow, in sentences.
    """

    key: Key
    metric: str
    maximize: bool
    rows: list[Row]
    runs: list[Run]
    floors: dict[str, dict[str, float]]
    ceiling: dict[str, float]
    noise_sd: float | None
    sweeps: dict[str, list[Run]]
    left_out: list[tuple[Run, str]]
    unreadable: list[Run]
    ranking_notes: list[str]

    @property
    def terms(self) -> Terms:
        """What its task calls things."""
        return terms(self.key.task)

    @property
    def metric_name(self) -> str:
        """The metric that ranks, for people."""
        return self.terms.name(self.metric)

    @property
    def failures(self) -> list[Run]:
        """Every run that is not ok, whatever its purpose, by backbone and seed."""
        bad = [run for run in (*self.runs, *self.unreadable) if not run.ok]
        return sorted(bad, key=lambda r: (r.backbone, r.seed or 0, r.shown))

    @property
    def devices(self) -> list[str]:
        """The devices of its runs, the commonest first."""
        counts = Counter(run.device for run in self.runs if run.device)
        return [name for name, _ in counts.most_common()]

    def data(self) -> dict[str, Any]:
        """What a run says about the data; empty where none knows."""
        return next((run.get("data") for run in self.runs if run.get("data")), {})

    def row_of(self, backbone: str) -> Row | None:
        """The first row of a backbone."""
        return next((row for row in self.rows if row.backbone == backbone), None)

    def heads(self) -> list[str]:
        """Parts of the metric that ranks ("loss/buttons", ...), as results order it."""
        prefix = f"{self.metric}/"
        found: dict[str, None] = {}
        for run in self.runs:
            found |= dict.fromkeys(n for n in run.metrics() if n.startswith(prefix))
        return list(found)

    def gain(self, row: Row, floor: str, metric: str = "") -> float | None:
        """How much of a floor's loss a row saves (or, maximised, adds), a fraction."""
        metric = metric or self.metric
        base = self.floors.get(floor, {}).get(metric)
        value = (
            row.score()
            if metric == self.metric
            else row.median("best", "metrics", metric)
        )
        if base is None or value is None or base == 0:
            return None
        change = (value - base) / abs(base)
        return change if self.maximize else -change

    def rescaled(self, score: float) -> float | None:
        """(score - floor) / (ceiling - floor), with the best floor; 0 below that.

        Below a floor there is nothing left to tell, and where a rule is almost right,
        as greedy knapsack is, one such task would outweigh all others. None where floor
        or ceiling is not known, or where nothing lies between them.
        """
        floors = [metrics.get(self.metric) for metrics in self.floors.values()]
        floor = max((value for value in floors if value is not None), default=None)
        top = self.ceiling.get(self.metric)
        if floor is None or top is None or floor >= top:
            return None
        return max(0.0, (score - floor) / (top - floor))

    def bounds(self) -> list[Bound]:
        """The ceiling, where it is known, and the floors."""
        floors = [Bound("floor", name, m) for name, m in self.floors.items()]
        top = Bound("ceiling", "best possible", self.ceiling)
        return [top, *floors] if self.ceiling else floors

    def lines(self) -> list[Row | Bound]:
        """Rows in their order and bounds, each at its place; the ceiling is on top."""
        lines: list[Row | Bound] = list(self.rows)
        for bound in self.bounds():
            value = bound.metrics.get(self.metric)
            if value is not None:
                top = bound.kind == "ceiling"
                lines.insert(0 if top else self._place_of(value, lines), bound)
        return lines

    def _place_of(self, floor: float, lines: Sequence[Row | Bound]) -> int:
        for i, line in enumerate(lines):
            score = (
                line.metrics.get(self.metric)
                if isinstance(line, Bound)
                else line.score()
            )
            if score is None or (score < floor if self.maximize else score > floor):
                return i
        return len(lines)

    def steady(self) -> bool:
        """Whether every row with a speed has a steady one, so that those compare."""
        known = [r for r in self.rows if r.speed("throughput", "steps_per_s")]
        found = [r for r in known if r.speed("throughput", "steady", "steps_per_s")]
        return bool(found) and len(found) == len(known)


@dataclasses.dataclass(frozen=True)
class Key:
    """What the runs of one ranking share.

    Attributes:
      task, protocol: as results name them.
      level: how hard a task's examples are, where it has levels.
      source: "replays", "simulated", ...
      fingerprint: digest of the data and of how examples are cut from it.
      options: how examples are cut, as JSON.
      budget: what each run had to train with, where the task holds that equal.
    """

    task: str
    protocol: str
    level: str
    source: str
    fingerprint: str
    options: str
    budget: Budget

    @classmethod
    def of(cls, run: Run) -> Key:
        """The key of a run, as far as it knows."""
        return cls(
            run.text("task"),
            run.text("protocol"),
            run.text("data", "level"),
            run.text("data", "source"),
            run.text("data", "fingerprint"),
            json.dumps(run.get("data", "options") or {}, sort_keys=True),
            Budget.of(run),
        )

    def data(self) -> tuple[str, str, str, str]:
        """What tells data apart."""
        return self.level, self.source, self.fingerprint, self.options


def sections(runs: Sequence[Run]) -> list[Section]:
    """Sorts runs into rankings; every run lands in exactly one of them.

    Runs that failed before they knew their data or took a step join a ranking that
    agrees with what they know, the one of their own folder first.
    """
    groups: dict[Key, list[Run]] = {}
    homeless = []
    for run in runs:
        if run.get("data") and Budget.of(run).whole:
            groups.setdefault(Key.of(run), []).append(run)
        else:
            homeless.append(run)
    for run in homeless:
        groups.setdefault(_home(run, groups), []).append(run)
    ordered = sorted(groups, key=lambda key: dataclasses.astuple(key))
    return [_section(key, groups[key]) for key in ordered]


def _home(run: Run, groups: dict[Key, list[Run]]) -> Key:
    """The ranking that a run belongs to which does not know all of its key."""

    def likeness(key: Key) -> tuple[int, int]:
        same_folder = sum(other.source == run.source for other in groups[key])
        return same_folder, len(groups[key])

    own = Key.of(run)
    fits = [
        key
        for key in groups
        if not run.content
        or (
            (key.task, key.protocol) == (own.task, own.protocol)
            and (not run.get("data") or key.data() == own.data())
            and own.budget.agrees(key.budget)
        )
    ]
    return max(fits, key=likeness) if fits else own


def _section(key: Key, runs: list[Run]) -> Section:
    unreadable = [run for run in runs if not run.content]
    readable = [run for run in runs if run.content]
    counted, left_out = _one_per_seed([run for run in readable if not run.is_sweep])
    rows = _rows([*counted, *unreadable])
    scored = [row for row in rows if row.scored]
    # Failed runs may not know what ranks.
    witness = next(
        (run for run in readable if run.ok), readable[0] if readable else None
    )
    metric = witness.metric if witness else "loss"
    maximize = bool(witness and witness.maximize)
    ranking = statistics.rank(
        {row.name: row.scores() for row in scored},
        maximize=maximize,
        failed={row.name: len(row.failed) for row in scored if row.failed},
    )
    by_name = {row.name: row for row in rows}
    for place in ranking.rows:
        by_name[place.name].place = place
    ordered = [by_name[place.name] for place in ranking.rows]
    ordered += sorted((r for r in rows if r.place is None), key=lambda r: r.name)
    sweeps: dict[str, list[Run]] = {}
    for run in sorted(readable, key=lambda r: (r.backbone, r.shown)):
        if run.is_sweep:
            sweeps.setdefault(run.backbone, []).append(run)
    return Section(
        key=key,
        metric=metric,
        maximize=maximize,
        rows=ordered,
        runs=readable,
        floors=_floors(readable),
        ceiling=next((found for run in readable if (found := _ceiling(run))), {}),
        noise_sd=ranking.noise_sd,
        sweeps=sweeps,
        left_out=left_out,
        unreadable=unreadable,
        ranking_notes=list(ranking.notes),
    )


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[tuple[Run, str]]]:
    """Each seed of a recipe once: copies would narrow intervals that are not theirs."""
    kept: dict[Any, Run] = {}
    left_out = []
    for run in sorted(runs, key=lambda run: (not run.ok, run.source, run.shown)):
        # A run that does not know its seed is nobody's copy.
        seed = (run.source, run.shown) if run.seed is None else run.seed
        key = (run.backbone, _recipe(run), seed)
        if key in kept:
            left_out.append((run, kept[key].shown))
        else:
            kept[key] = run
    return list(kept.values()), left_out


def _recipe(run: Run) -> str:
    """What tells recipes of a backbone apart; schema 1 did not say."""
    return run.text("group")


def _rows(runs: Sequence[Run]) -> list[Row]:
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.backbone, _recipe(run)), []).append(run)
    recipes = Counter(backbone for backbone, _ in groups)
    families = {name: family for family, rows in FAMILIES.items() for name in rows}
    rows = []
    for (backbone, recipe), members in sorted(groups.items()):
        name = backbone
        if recipes[backbone] > 1:
            name = f"{backbone} #{recipe[:6] or 'schema1'}"
        rows.append(
            Row(
                name=name,
                backbone=backbone,
                title=ROWS[backbone].title if backbone in ROWS else "",
                family=families.get(backbone, OTHER_FAMILY),
                runs=sorted(members, key=lambda run: (run.seed or 0, run.shown)),
            )
        )
    return rows


def _floors(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Of the first run that has them: they depend on the data alone."""
    for run in runs:
        floors = run.get("floors")
        if floors:
            return {str(name): numbers(values) for name, values in floors.items()}
    return {}


def _ceiling(run: Run) -> dict[str, float]:
    return numbers(run.get("ceiling"))


def median(values: Iterable[float | int | None]) -> float | None:
    """The median of what is there; None where nothing is."""
    found = [value for value in values if value is not None]
    return average.median(found) if found else None
