"""What a task says of itself before jax is loaded or data is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jaxbench.tasks.rules import Rule

if TYPE_CHECKING:
    from jaxbench.tasks.task import Task

Config = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Terms:
    """What people call the things in a task's results, and what they compare.

    Attributes:
      token: what a model reads one after the other.
      rate: the speed of training to quote: its key in `throughput`, and its unit.
      rate_format: how that number is printed.
      equal_budgets: whether runs are only compared at one budget, of one unit; without
        it a board says how budgets differ and leaves the rest to its reader.
    """

    token: str = "token"
    rate: tuple[str, str] = ("steps_per_s", "steps/s")
    rate_format: str = ",.1f"
    equal_budgets: bool = False

    @property
    def counts_examples(self) -> bool:
        """Whether examples, not their tokens, are what people count."""
        return self.rate[0] != "tokens_per_s"

    def speed(self, throughput: Mapping[str, Any]) -> str:
        """The rate with its unit; empty where there is none."""
        key, unit = self.rate
        value = throughput.get(key)
        return f"{value:{self.rate_format}} {unit}" if value else ""


def _never(config: Config) -> bool:
    return False


def _window(config: Config) -> int:
    return config["data"]["window"]


def _anything(config: Config) -> None:
    del config


@dataclasses.dataclass(frozen=True)
class Entry:
    """A task's description; modules that define one import no jax.

    Attributes:
      build: `build(config, width, say) -> Task`: reads or makes the data. `config` is
        the resolved recipe as nested dicts, `width` the model's (the recipe may leave
        it to a number of parameters), `say` prints a line. Imports what needs jax when
        it is called. Raises InputError for data that cannot be used.
      rules: what each value of the recipe must be, by its dotted key, besides those
        that all recipes share (`bench.check`).
      check: raises InputError for values that do not go together.
      positions: `positions(config)`, tokens of the longest sequence of training.
      seed_chooses_data: whether runs that differ in their seed see other data, so that
        they cannot be copies of one program.
      emits: what a trained model gives step after step: "controller" (it can be played
        and exported), "byte" (it writes text, is exported, and is sized as a
        byte-level language model), "frame" (it is rolled out), or "" for nothing.
      data_path: the key of `config["data"]` that names a file or folder, "" for none.
      data_is: what must lie there.
      terms: the words of its results.
    """

    build: Callable[[Config, int, Callable[[str], None]], Task]
    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict)
    check: Callable[[Config], None] = _anything
    positions: Callable[[Config], int] = _window
    seed_chooses_data: Callable[[Config], bool] = _never
    emits: str = ""
    data_path: str = ""
    data_is: str = "file or folder"
    terms: Terms = Terms()
