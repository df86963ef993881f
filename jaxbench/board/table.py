"""One tidy table: a line for each result, sorted into boards and into their rows.

Results are compared on one board if they share task, protocol, data and, where the task
holds it equal, the budget. Results of a board are one row if they differ in nothing but
the seed. Two rows of one backbone are named by what differs between them, in words.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from jaxbench.board.read import Result, finite
from jaxbench.models.zoo import FAMILIES, ROWS
from jaxbench.tasks.columns import Column, TaskBoard, declared

OTHER_FAMILY = "patterns"
# What a sweep has to try before rows may be compared: fewer have no best inside.
FEWEST_RATES = 3
# Settings that are in a board's key, in a row's own columns, or change no number.
_NOT_A_RECIPE = (
    *("seed", "purpose", "task", "protocol", "model.backbone", "data.", "xla."),
)
_RATE = "train.learning_rate"
_WORDS = {
    "rate": "rate {:g}",
    "width": "width {:.0f}",
    "depth": "depth {:.0f}",
    "parameters": "{:,.0f} parameters",
    "updates": "{:,.0f} updates",
    "seconds": "{:,.0f} s",
    "train.start_from": "from the weights of {}",
    "train.extended": "extended from {}",
}
# Every row with one of them says so: it had more training than its length tells.
_ANCESTORS = ("train.start_from", "train.extended")


@dataclasses.dataclass(frozen=True)
class Key:
    """What all results of a board share.

    Attributes:
      task, protocol: as results name them.
      level: how hard the examples are, where a task has levels.
      source: "replays", "simulated", ...
      fingerprint: digest of the data.
      options: how examples are cut, as JSON, without what rows may differ in.
      budget: "78 updates of 512 B" or "600 s on a device", where it has to be equal.
    """

    task: str
    protocol: str
    level: str
    source: str
    fingerprint: str
    options: str
    budget: str

    @property
    def shows(self) -> TaskBoard:
        """What boards of this task show; a plain board where the task is not known."""
        return declared(self.task) or TaskBoard(about=f"do {self.task}", scores=())


def key_of(result: Result) -> Key:
    """The board that a result belongs to, as far as it knows."""
    task = result.text("task")
    shows = declared(task)
    rows = shows.row_options if shows else ()
    options = result.get("data.options") or {}
    kept = {k: v for k, v in options.items() if k not in rows}
    return Key(
        task,
        result.text("protocol"),
        result.text("data.level"),
        result.text("data.source"),
        result.text("data.fingerprint"),
        json.dumps(kept, sort_keys=True),
        _budget(result) if shows and shows.equal_budget else "",
    )


def _budget(result: Result) -> str:
    unit, total = result.text("budget.unit"), result.number("budget.total")
    if not unit or total is None:
        return ""
    if unit == "seconds":
        return f"{total:,.10g} s on {device(result) or 'an unknown device'}"
    steps, examples = result.number("steps"), result.number("examples")
    size = f" of {examples / steps:,.0f} examples" if steps and examples else ""
    return f"{total:,.0f} updates{size}"


def device(result: Result, part: str = "device") -> str:
    """What a result was computed on, in words; empty where it is not known."""
    found = result.get(part)
    if not isinstance(found, Mapping):
        return ""
    kind, platform = found.get("kind") or "", found.get("platform") or ""
    name = f"{kind} ({platform})" if kind and kind != platform else platform or kind
    count = finite(found.get("count")) or 1
    return name if count == 1 else f"{count:.0f} x {name}"


def by_board(results: Sequence[Result]) -> dict[Key, list[Result]]:
    """Sorts results into boards; every one lands on exactly one of them.

    Runs that failed before they knew their data, and files that cannot be read, join
    the board that agrees with what they know, the one of their own folder first.
    """
    groups: dict[Key, list[Result]] = {}
    homeless = []
    for result in results:
        if result.get("data") and (result.get("steps") or result.ok):
            groups.setdefault(key_of(result), []).append(result)
        else:
            homeless.append(result)
    for result in homeless:
        groups.setdefault(_home(result, groups), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: dataclasses.astuple(item[0])))


def _home(result: Result, groups: Mapping[Key, list[Result]]) -> Key:
    own = key_of(result)

    def fits(key: Key) -> bool:
        if not result.content:
            return True
        named = (key.task, key.protocol) == (own.task, own.protocol)
        data = not result.get("data") or (
            dataclasses.replace(own, budget="") == dataclasses.replace(key, budget="")
        )
        return named and data

    def likeness(key: Key) -> tuple[int, int]:
        same = sum(other.source == result.source for other in groups[key])
        return same, len(groups[key])

    found = [key for key in groups if fits(key)]
    return max(found, key=likeness) if found else own


@dataclasses.dataclass
class Row:
    """The runs of one recipe of one backbone, a seed once.

    Attributes:
      name: unique on its board.
      backbone: row of the zoo or pattern.
      facts: what tells it from other rows of the backbone: name -> value.
      link: what it shares with the runs that searched for its rate.
      runs: by seed.
      rates: that a search tried; empty without one.
      edge: whether the best of them has no neighbour on one side.
      why_not: why it takes part in no claim; empty where it does.
    """

    name: str
    backbone: str
    facts: dict[str, Any]
    link: str
    runs: list[Result]
    rates: tuple[float, ...] = ()
    edge: bool = False
    why_not: str = ""

    @cached_property
    def ok(self) -> list[Result]:
        """Runs that ended well."""
        return [run for run in self.runs if run.ok]

    @cached_property
    def failed(self) -> list[Result]:
        """Runs that failed by themselves."""
        return [run for run in self.runs if run.failed]

    @property
    def seeds(self) -> int:
        """Runs that say something: those that ended well and those that failed."""
        return len(self.ok) + len(self.failed)

    @property
    def status(self) -> str:
        """The worst that happened: its first failure, or "ok"."""
        return next((run.status for run in self.runs if not run.ok), "ok")

    @property
    def reason(self) -> str:
        """Why its runs are not ok, each once."""
        told = [f"{r.status}: {r.reason}" for r in self.runs if not r.ok and r.reason]
        return "; ".join(dict.fromkeys(told))

    @property
    def title(self) -> str:
        """Name for people; empty for a pattern."""
        return ROWS[self.backbone].title if self.backbone in ROWS else ""

    @property
    def family(self) -> str:
        """Of the zoo, or "patterns" for what users wrote."""
        for family, rows in FAMILIES.items():
            if self.backbone in rows:
                return family
        return OTHER_FAMILY

    @cached_property
    def device(self) -> str:
        """What most of its runs computed on."""
        counts = Counter(device(run) for run in self.ok or self.runs)
        return counts.most_common(1)[0][0] if counts else ""

    def measured_on(self, column: Column) -> str:
        """The device of a column's values: of training, or of a later measurement."""
        part = column.path.partition(".")[0] if isinstance(column.path, str) else ""
        found = (device(run, f"{part}.device") for run in self.ok)
        return next(filter(None, found), self.device)

    def cell(self, column: Column) -> Any:
        """The value of a column over the row's runs."""
        runs = self.ok or self.runs
        if column.over_seeds in ("share", "censored"):
            runs = self.ok + self.failed
        if column.group == "cost":
            runs = [run for run in runs if device(run) == self.device]
        found = [v for run in runs if (v := value(run, column)) is not None]
        numbers = [v for v in found if not isinstance(v, str)]
        if column.over_seeds == "censored" and found:
            # Half of the runs are there by then, or half are still not.
            ordered = [*sorted(numbers), *(v for v in found if isinstance(v, str))]
            return ordered[(len(ordered) - 1) // 2]
        if not numbers:
            return "; ".join(dict.fromkeys(found)) or None
        return _OVER[column.over_seeds](numbers)


_OVER: dict[str, Callable[[list[float]], float]] = {
    "median": statistics.median,
    "mean": statistics.fmean,
    "max": max,
    "sum": sum,
    "share": lambda found: sum(found) / len(found),
}


def value(result: Result, column: Column) -> Any:
    """What one result says in a column: a finite number, a text, or None."""
    if isinstance(column.path, str):
        found = result.get(column.path)
    else:
        found = column.path(result.content)
    if isinstance(found, bool):
        return float(found)
    return found or None if isinstance(found, str) else finite(found)


def expanded(columns: Iterable[Column], results: Sequence[Result]) -> list[Column]:
    """The columns with every "*" replaced by the names that results hold there."""
    found: dict[str, Column] = {}
    for column in columns:
        if not isinstance(column.path, str) or "*" not in column.path:
            found.setdefault(column.key, column)
            continue
        before, after = column.path.split("*")
        names: dict[str, None] = {}
        for result in results:
            inside = result.get(before.rstrip("."))
            names |= dict.fromkeys(inside if isinstance(inside, Mapping) else ())
        for name in names:
            if "." in name:
                continue
            own = dataclasses.replace(
                column,
                key=column.key.replace("*", name),
                path=f"{before}{name}{after}",
                label=column.label.replace("*", name.replace("_", " ")),
            )
            found.setdefault(own.key, own)
    return list(found.values())


@dataclasses.dataclass
class Table:
    """A board's rows, and what was not counted.

    Attributes:
      key: what all of its results share.
      rows: in no order.
      results: all of them, sweep runs too.
      sweeps: link of a row -> runs that searched for its rate.
      left_out: what is not on the board, in sentences.
    """

    key: Key
    rows: list[Row]
    results: list[Result]
    sweeps: dict[str, list[Result]]
    left_out: list[str]


def make_table(key: Key, results: Sequence[Result]) -> Table:
    """Sorts a board's results into rows, and leaves out what would mislead."""
    left_out: list[str] = []
    scored: list[Result] = []
    sweeps: dict[str, list[Result]] = {}
    for result in results:
        if result.text("purpose") == "sweep":
            sweeps.setdefault(_link(key, result), []).append(result)
        elif result.status == "interrupted":
            left_out.append(f"{result.shown} was interrupted and is not counted.")
        else:
            scored.append(result)
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in scored:
        groups.setdefault((_link(key, result), _rest(result)), []).append(result)
    rows = [
        Row(
            "",
            _backbone(runs[0]),
            _facts(key, runs[0]),
            link,
            _one_a_seed(runs, left_out),
        )
        for (link, _), runs in groups.items()
    ]
    rows = _tuned(rows, sweeps, left_out)
    _name(rows)
    _check_rates(rows)
    return Table(key, rows, list(results), sweeps, left_out)


def _backbone(result: Result) -> str:
    """The row or pattern; for a file that cannot be read its folder is all we know."""
    return result.text("backbone") or result.shown


def _settings(result: Result) -> dict[str, Any]:
    """What differs from the recipe's defaults and makes a row; {} where unknown."""
    differs = result.get("identity.differs") or {}
    return {k: v for k, v in differs.items() if not k.startswith(_NOT_A_RECIPE)}


def _facts(key: Key, result: Result) -> dict[str, Any]:
    """What may tell a result's row from others of its backbone, first things first."""
    options = result.get("data.options") or {}
    facts: dict[str, Any] = {
        name: options[name] for name in key.shows.row_options if name in options
    }
    facts["rate"] = result.number("learning_rate")
    facts |= {name: result.number(f"shape.{name}") for name in ("width", "depth")}
    unit = result.text("budget.unit")
    if unit:
        name = "seconds" if unit == "seconds" else "updates"
        facts[name] = result.number("budget.total")
    facts |= {k: v for k, v in _settings(result).items() if k != _RATE}
    facts["folder"] = result.shown.rpartition("/")[0] or result.shown
    return facts


def _link(key: Key, result: Result) -> str:
    """Backbone and recipe without the rate: what a search and its row share."""
    facts = {
        k: v for k, v in _facts(key, result).items() if k not in ("rate", "folder")
    }
    return json.dumps([_backbone(result), facts], sort_keys=True, default=str)


def _rest(result: Result) -> str:
    """The rate and, where no settings are known, the digest that stands for them."""
    rest = "" if result.get("identity") else result.text("group")
    return json.dumps([result.number("learning_rate"), rest])


def seed_of(result: Result) -> str:
    """What runs of different rows share: the seed, and the split where it varies."""
    split = result.get("data.split")
    split = "" if split is None else f" split {json.dumps(split)}"
    seed = result.get("seed")
    return (
        f"{seed}{split}" if isinstance(seed, int) else f"{result.source}/{result.shown}"
    )


def _one_a_seed(runs: Sequence[Result], left_out: list[str]) -> list[Result]:
    """Each seed once: copies would narrow intervals that are not theirs."""
    kept: dict[str, Result] = {}
    for run in sorted(runs, key=lambda run: (not run.ok, run.source, run.shown)):
        seed = seed_of(run)
        first = kept.setdefault(seed, run)
        if first is run:
            continue
        same = (run.status, run.get("best")) == (first.status, first.get("best"))
        said = "says the same" if same else "DISAGREES with it"
        left_out.append(
            f"{run.shown} is seed {seed} of {_backbone(run)} once more and {said}; "
            f"{first.shown} is counted."
        )
    return sorted(kept.values(), key=lambda run: (run.get("seed") or 0, run.shown))


def best_rate(runs: Iterable[Result]) -> float | None:
    """The rate that validated best; of equal ones the first to reach its goal."""
    scored = []
    for run in runs:
        metric = run.text("primary.metric") or "loss"
        score, rate = run.number(f"best.metrics.{metric}"), run.number("learning_rate")
        if run.ok and score is not None and rate is not None:
            solved = run.number("solved.step")
            first = float("inf") if solved is None else solved
            scored.append(
                (-score if run.get("primary.maximize") else score, first, rate)
            )
    return min(scored)[2] if scored else None


def _tuned(
    rows: list[Row], sweeps: Mapping[str, list[Result]], left_out: list[str]
) -> list[Row]:
    """Marks rows whose rate a search chose; leaves out the untuned ones beside them."""
    kept = []
    for row in rows:
        sweep = sweeps.get(row.link, [])
        best = best_rate(sweep)
        tuned = any(r.link == row.link and r.facts["rate"] == best for r in rows)
        if best is None or not tuned:
            kept.append(row)
        elif row.facts["rate"] != best:
            count = len(row.runs)
            left_out.append(
                f"{row.backbone}: {count} untuned run{'s' * (count > 1)} (rate "
                f"{row.facts['rate']:g}) left out: its search chose {best:g}."
            )
        else:
            rates = {rate for run in sweep if (rate := run.number("learning_rate"))}
            row.rates = tuple(sorted(rates))
            row.edge = best in (row.rates[0], row.rates[-1])
            kept.append(row)
    return kept


def _name(rows: Sequence[Row]) -> None:
    """Names rows of one backbone by the facts in which they differ."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        had = [n for n in _ANCESTORS if n in row.facts]
        words = (_WORDS[n].format(row.facts[n]) for n in had)
        row.name = ", ".join([row.backbone, *words])
        families.setdefault(row.backbone, []).append(row)
    for alike in families.values():
        for name in dict.fromkeys(name for row in alike for name in row.facts):
            counts = Counter(row.name for row in alike)
            same = [row for row in alike if counts[row.name] > 1]
            told = {id(row): _words(name, row.facts.get(name), same) for row in same}
            if len(set(told.values())) > 1:
                for row in same:
                    row.name = ", ".join(filter(None, [row.name, told[id(row)]]))
        seen: Counter[str] = Counter()
        for row in alike:
            seen[row.name] += 1
            if seen[row.name] > 1:
                row.name += f", once more ({seen[row.name]})"


def _words(name: str, found: Any, rows: Sequence[Row]) -> str:
    """A fact as a name says it; of a folder the parts that rows do not share."""
    if found is None:
        return ""
    if name == "folder":
        shared = set.intersection(*(set(row.facts[name].split("/")) for row in rows))
        own = [part for part in found.split("/") if part not in shared]
        return f"folder {'/'.join(own)}" if own else ""
    if name in _WORDS:
        return _WORDS[name].format(found)
    return f"{name.removeprefix('model.').removeprefix('train.')} {found}"


def _check_rates(rows: Sequence[Row]) -> None:
    """Says of each row whether its rate was chosen as those of the others were."""
    grids = [set(row.rates) for row in rows if len(row.rates) >= FEWEST_RATES]
    # Grids are extended where the best is at the edge; what most have in common counts.
    common = max(
        grids, key=lambda g: (sum(o >= g for o in grids), len(g)), default=set()
    )
    for row in rows:
        if not row.rates:
            row.why_not = "its learning rate was not chosen by a search"
        elif len(row.rates) < FEWEST_RATES:
            told = ", ".join(f"{rate:g}" for rate in row.rates)
            row.why_not = (
                f"its search tried {told} only; {FEWEST_RATES} rates are needed"
            )
        elif not set(row.rates) >= common:
            row.why_not = (
                "its rate was chosen from another grid than those of the others"
            )
