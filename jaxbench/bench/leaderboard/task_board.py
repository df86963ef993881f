"""What the boards of one task show, and how: the form of the table in `tasks`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from jaxbench.bench.leaderboard.board import Row, Section
from jaxbench.bench.leaderboard.column import Column, show
from jaxbench.bench.leaderboard.plot_parts import Plot
from jaxbench.bench.leaderboard.read import Run

Table = tuple[list[str], list[list[str]]]


@dataclasses.dataclass(frozen=True)
class View:
    """Some columns of a board, which are seen together.

    Attributes:
      key: one of `column.VIEWS`.
      heading: of its table in the Markdown.
      button: on the page; empty for the key itself.
      floors: whether floors have values in it.
    """

    key: str
    heading: str
    button: str = ""
    floors: bool = False


@dataclasses.dataclass(frozen=True)
class Shown:
    """How the column of one metric is shown.

    Attributes:
      title, kind, views, about, better: as of a `Column`.
    """

    title: str
    kind: str = "score"
    views: tuple[str, ...] = ()
    about: str = ""
    better: str = ""


@dataclasses.dataclass(frozen=True)
class SeedFact:
    """One cell of the tables that have a line for each seed."""

    title: str
    text: Callable[[Run], str]


@dataclasses.dataclass(frozen=True)
class PublishedTable:
    """Numbers that others published, beside ours.

    Attributes:
      table: header and lines.
      numbers: columns of the table that are set to the right.
      remarks: what must be known to compare them.
    """

    table: Table
    numbers: range
    remarks: tuple[str, ...]


def level(section: Section) -> str:
    """What stands beside the task's name in a heading: its level, where it has one."""
    return section.key.level


def none_published(section: Section) -> PublishedTable | None:
    """Nobody has published numbers that belong beside a section."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskBoard:
    """What the boards of one task show.

    Attributes:
      views: after the overview, in their order.
      metric: (section, name) -> how a metric besides the one that ranks is shown.
      columns: those about size, speed, memory and play.
      seed_facts: what a line of a seed says.
      plots: name -> (section, salt) -> figures, in the order of the page.
      data_notes: sentences about what the data can show.
      floor: the floor whose gain stands in the overview; empty for none.
      published: published numbers, or None where they do not belong.
      variant: which of the task's variants a section is of; empty for the only one.
    """

    views: Sequence[View]
    metric: Callable[[Section, str], Shown]
    columns: Callable[[Section], list[Column]]
    seed_facts: Sequence[SeedFact]
    plots: Mapping[str, Callable[[Section, str], list[Plot]]]
    data_notes: Callable[[Section], list[str]]
    floor: str = ""
    published: Callable[[Section], PublishedTable | None] = none_published
    variant: Callable[[Section], str] = level


QUALITY = View("quality", "Scores over seeds", floors=True)
SPEED = View("speed", "Speed")
MEMORY = View("memory", "Size and memory")


SEED_FACTS = (
    SeedFact("best", lambda run: show("score", run.score())),
    SeedFact("at step", lambda run: show("count", run.number("best", "step"))),
    SeedFact("last", lambda run: show("score", run.score("last"))),
    SeedFact("steps", lambda run: show("count", run.number("steps"))),
    SeedFact("examples", lambda run: show("count", run.number("examples"))),
    SeedFact(
        "steps/s", lambda run: show("rate", run.number("throughput", "steps_per_s"))
    ),
    SeedFact("train s", lambda run: show("rate", run.number("seconds", "train"))),
    SeedFact(
        "peak memory", lambda run: show("bytes", run.number("memory", "peak_bytes"))
    ),
)


def plain_metric(section: Section, name: str) -> Shown:
    """A metric that no task knows: a number, or a share where it is an accuracy."""
    if name.partition("/")[0] == "accuracy":
        return Shown(section.terms.name(name), "percent", better="high")
    if name not in section.heads():
        return Shown(section.terms.name(name))
    part = name.removeprefix(f"{section.metric}/")
    better = "high" if section.maximize else "low"
    return Shown(part, views=("heads",), better=better)


def score_or_status(row: Row | None) -> str:
    """Our best beside a published number, or why there is none."""
    if row is None:
        return "not on this board"
    return show("score", row.score()) or row.status
