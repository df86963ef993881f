"""Lists the runs of a suite: a function of what was asked and what is done."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxbench.bench.run_folder import folder_name
from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import resolve
from jaxbench.models.zoo import ORIGINAL, ROWS
from jaxbench.tasks.rules import seed
from jaxbench.training.budget import parse_budget

# The same for every backbone, half a decade apart. Short runs want higher rates: gru,
# mlp and snn at width 64 are best near 3e-3 after 648 updates.
SHORT_RATES, LONG_RATES = (1e-3, 3e-3, 1e-2), (3e-4, 1e-3, 3e-3)
SHORT_UPDATES = 5_000
# A best rate at the edge of the grid extends it by a step, at most so often each way.
MOST_EXTENSIONS = 2

# Sweeps have a seed of their own: the best of several rates on the seeds that are
# reported would be chosen by their luck.
SWEEP_SEED = 1_000_003

MOST_SEEDS = 1000

# What --only and --skip understand besides names: the rows of the original benchmarks.
GROUPS: dict[str, tuple[str, ...]] = {
    "original": tuple(dict.fromkeys(ORIGINAL.values())),
    "elman": tuple(name for name, row in ROWS.items() if row.published),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a suite.

    Attributes:
      backbone: a row's name, or a pattern.
      seed: of initialisation and data order.
      learning_rate: peak.
      purpose: "score", or "sweep" for a point of the learning-rate curve.
    """

    backbone: str
    seed: int
    learning_rate: float
    purpose: str = "score"

    def config(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The suite's config with this run's settings in it."""
        config = copy.deepcopy(dict(base))
        config["seed"] = self.seed
        config["purpose"] = self.purpose
        config["model"]["backbone"] = self.backbone
        config["train"]["learning_rate"] = self.learning_rate
        return config

    def folder(self, suite: Path) -> Path:
        """Where in the suite's folder the run lies."""
        kind = "sweep-" if self.purpose == "sweep" else ""
        name = f"{kind}lr{self.learning_rate:g}-seed{self.seed}"
        return suite / "runs" / folder_name(self.backbone) / name

    def beside(self, other: Cell) -> bool:
        """Whether the two can train as one program: only seed and rate differ."""
        return (self.backbone, self.purpose) == (other.backbone, other.purpose)

    def __str__(self) -> str:
        seed = "sweep" if self.purpose == "sweep" else f"seed {self.seed}"
        return f"{self.backbone}, {seed}, rate {self.learning_rate:g}"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a suite was asked for.

    Attributes:
      base: resolved config that all runs share.
      backbones: names or patterns.
      seeds: of the reported runs.
      learning_rates: the grid of a sweep; empty for none.
      side_by_side: whether the runs of a backbone train as one program: "on", "off",
        or "auto" for where that pays.
    """

    base: Mapping[str, Any]
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...] = ()
    side_by_side: str = "off"

    def cells(self, results: Mapping[Cell, Mapping[str, Any]]) -> list[Cell]:
        """All runs that are known to belong to the suite, in their order.

        Without a sweep that is every backbone with every seed, one seed of all before
        the next. With one, a backbone's curve grows while its best rate is at an edge,
        and its reported runs join once it is whole, at the rate that validated best; at
        the lowest if none ended well, so that the failure stands on the board.

        Args:
          results: of the runs that have ended.
        """
        if not self.learning_rates:
            rate = self.base["train"]["learning_rate"]
            return [Cell(b, s, rate) for s in self.seeds for b in self.backbones]
        curves = {b: self._curve(b, results) for b in self.backbones}
        cells = [cell for curve in curves.values() for cell in curve]
        chosen = {
            backbone: best_rate([results[c] for c in curve]) or curve[0].learning_rate
            for backbone, curve in curves.items()
            if all(c in results for c in curve)
        }
        return cells + [
            Cell(backbone, seed, rate)
            for seed in self.seeds
            for backbone, rate in chosen.items()
        ]

    def planned(self, results: Mapping[Cell, Mapping[str, Any]]) -> tuple[int, bool]:
        """How many runs the suite will have, and whether curves may still add some.

        The reported runs of a backbone count before its curve has said their rate.
        """
        cells = self.cells(results)
        if not self.learning_rates:
            return len(cells), False
        curves = [cell for cell in cells if cell.purpose == "sweep"]
        chosen = {cell.backbone for cell in cells if cell.purpose == "score"}
        total = len(curves) + len(self.backbones) * len(self.seeds)
        return total, len(chosen) < len(self.backbones)

    def _curve(
        self, backbone: str, results: Mapping[Cell, Mapping[str, Any]]
    ) -> list[Cell]:
        """The search of a backbone, by rate, as far as its results ask for it."""

        def cell(rate: float) -> Cell:
            return Cell(backbone, SWEEP_SEED, rate, "sweep")

        curve = [cell(rate) for rate in sorted(self.learning_rates)]
        below = above = 0
        while len(curve) > 1 and all(c in results for c in curve):
            best = best_rate([results[c] for c in curve])
            if best == curve[0].learning_rate and below < MOST_EXTENSIONS:
                curve.insert(0, cell(neighbour(best, up=False)))
                below += 1
            elif best == curve[-1].learning_rate and above < MOST_EXTENSIONS:
                curve.append(cell(neighbour(best, up=True)))
                above += 1
            else:
                break
        return curve


def neighbour(rate: float, *, up: bool) -> float:
    """Half a decade further: 1e-3, 3e-3, 1e-2, ...; other digits times or over 3."""
    text = f"{rate:.6e}"
    digit, exponent = text[0], int(text.partition("e")[2])
    if float(text.partition("e")[0]) == 1:
        return float(f"3e{exponent}") if up else float(f"3e{exponent - 1}")
    if digit == "3" and float(text.partition("e")[0]) == 3:
        return float(f"1e{exponent + 1}") if up else float(f"1e{exponent}")
    return float(f"{rate * 3 if up else rate / 3:.6g}")


def rates_for(base: Mapping[str, Any]) -> tuple[float, ...]:
    """The grid of a sweep that names none, by how many updates a run has.

    Runs whose updates depend on the data or the clock count as short where they go
    over the data at most ten times.
    """
    train = base["train"]
    updates = train.get("max_steps") or 0
    if "budget" in train:
        amount, unit = parse_budget(train["budget"])
        updates = amount if unit == "steps" else 0
    short = updates <= SHORT_UPDATES if updates else train.get("epochs", 99) <= 10
    return SHORT_RATES if short else LONG_RATES


def best_rate(results: Iterable[Mapping[str, Any]]) -> float | None:
    """The rate of the run that validated best; None if none ended ok.

    Of runs that validated alike, the one that reached its goal first.
    """
    scored = []
    for result in results:
        if result["status"] == "ok" and result["best"] and result["primary"]:
            sign = -1 if result["primary"]["maximize"] else 1
            value = sign * result["best"]["metrics"][result["primary"]["metric"]]
            if math.isfinite(value):
                step = (result.get("solved") or {}).get("step")
                solved = math.inf if step is None else step
                scored.append((value, solved, result["learning_rate"]))
    return min(scored)[2] if scored else None


def choose_backbones(only: str, skip: str) -> tuple[str, ...]:
    """The backbones of a suite.

    Args:
      only: names, patterns or groups with commas between; "" for every row.
      skip: the same, to leave out.

    Raises:
      InputError: a name that is no backbone, or nothing is left.
    """
    wanted = _names(only) if only else tuple(ROWS)
    unwanted = {resolve(name).name for name in _names(skip)}
    left = [name for name in wanted if resolve(name).name not in unwanted]
    if not left:
        raise InputError(f"--only={only!r} and --skip={skip!r} leave no backbone")
    # The first spelling of a backbone that is named twice.
    return tuple({resolve(name).name: name for name in reversed(left)}.values())[::-1]


def _names(text: str) -> list[str]:
    names: list[str] = []
    for item in (x.strip() for x in text.split(",")):
        if item:
            names.extend(GROUPS.get(item, (item,)))
    return names


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads "5" as seeds 0 to 4, "0,3,7" as these three and "0," as that one.

    Raises:
      InputError: anything else.
    """
    try:
        numbers = tuple(int(item) for item in text.removesuffix(",").split(","))
    except ValueError:
        numbers = ()
    if "," not in text and numbers:
        # More runs than that are a slip, and not to be listed.
        numbers = tuple(range(min(numbers[0], MOST_SEEDS + 1)))
        if len(numbers) > MOST_SEEDS:
            raise InputError(
                f"--seeds={text} must be at most {MOST_SEEDS:,} runs of a backbone; "
                f"{text}, with a comma behind it, is that seed alone"
            )
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError(
            f"--seeds={text!r} must be a number of seeds, 5 for seeds 0 to 4, or "
            "different seeds with a comma behind each, 0,3,7 or 0, for seed 0 alone"
        )
    for one in numbers:
        seed("--seeds", one)
    return numbers


def parse_rates(text: str | None, shared: tuple[float, ...]) -> tuple[float, ...]:
    """Reads a grid of learning rates; "" stands for `shared`, None for none.

    Raises:
      InputError: a rate that is no positive number, or given twice.
    """
    if text is None:
        return ()
    try:
        rates = tuple(float(x) for x in text.split(",")) if text else shared
    except ValueError:
        rates = ()
    good = all(math.isfinite(rate) and rate > 0 for rate in rates)
    if not rates or not good or len(set(rates)) < len(rates):
        raise InputError(
            f"--sweep={text!r} must be different positive learning rates with commas "
            "between, for example 1e-4,1e-3"
        )
    return tuple(sorted(rates))


UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def parse_duration(name: str, text: str) -> float:
    """Reads "90", "90s", "15m", "2h" as seconds; 0 for no limit.

    Raises:
      InputError: no number, an unknown unit, or less than nothing.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :] or "s"
    try:
        seconds = float(number) * UNITS[unit]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"{name}={text!r} must be a time such as 90s, 15m or 2h; units: "
            f"{nearest(unit, UNITS)}"
        ) from error
    if not 0 <= seconds < math.inf:
        raise InputError(f"{name}={text!r} must not be negative")
    return seconds


def parse_gigabytes(text: str) -> float:
    """Reads "8", "8GB" or "800MB" as 10^9 bytes.

    Raises:
      InputError: no positive number or an unknown unit.
    """
    units = {"": 1.0, "gb": 1.0, "g": 1.0, "mb": 1e-3, "m": 1e-3}
    number = text.strip().rstrip("abgmABGM")
    unit = text.strip()[len(number) :].lower()
    try:
        value = float(number) * units[unit]
    except (ValueError, KeyError) as error:
        raise InputError(
            f"--memory_limit={text!r} must be a size such as 8GB or 800MB"
        ) from error
    if not 0 < value < math.inf:
        raise InputError(f"--memory_limit={text!r} must be positive")
    return value


def parse_jobs(jobs: int, devices: Sequence[str]) -> int:
    """How many runs go at once: what was asked, or one for each device.

    Raises:
      InputError: less than one.
    """
    if jobs < 0:
        raise InputError(f"--jobs={jobs} must be at least 1 (0: one for each device)")
    return jobs or max(1, len(devices))
