"""`jaxbench suite`: from the command line to a suite and its leaderboard."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxbench.bench.recipe import read_recipe
from jaxbench.bench.suite.devices import visible_gpus
from jaxbench.bench.suite.plan import (
    Request,
    choose_backbones,
    parse_duration,
    parse_gigabytes,
    parse_jobs,
    parse_rates,
    parse_seeds,
    rates_for,
)
from jaxbench.bench.suite.schedule import (
    Limits,
    SuiteOutcome,
    check_request,
    check_suite_owner,
    default_suite_folder,
    finished_results,
    run_suite,
)
from jaxbench.bench.suite.view import outcome_text
from jaxbench.errors import InputError
from jaxbench.training.interrupt import INTERRUPTED


def suite_command(options: argparse.Namespace) -> int:
    """Runs what the options ask for; returns the exit code.

    Several recipes are several suites, one after the other, each in a folder of its own
    inside one, and one board over all.

    Raises:
      InputError: an option, a value of the config, the data or the folder cannot be
        used.
    """
    requests = [_request(options, text) for text in options.config]
    folders = _folders(options.folder, [request.base for request in requests])
    limits = Limits(
        timeout=parse_duration("--timeout", options.timeout),
        hang=parse_duration("--hang", options.hang),
    )
    suites = []
    for request, folder in zip(requests, folders, strict=True):
        gpus = visible_gpus(request.base["xla"]["platform"])
        suites.append((request, folder, parse_jobs(options.jobs, gpus)))
        check_request(request)
        check_suite_owner(folder, request)
    if options.dry_run:
        for request, folder, jobs in suites:
            print_plan(request, folder, jobs=jobs, retry=options.retry)
        return 0
    outcomes: list[SuiteOutcome] = []
    for request, folder, jobs in suites:
        outcome = run_suite(
            request,
            folder,
            command=["jaxbench", *options.given],
            jobs=jobs,
            limits=limits,
            retry=options.retry,
        )
        print_outcome(outcome)
        outcomes.append(outcome)
        if outcome.interrupted:
            break
    if any(outcome.results for outcome in outcomes):
        make_board(folders[0] if len(folders) == 1 else folders[0].parent)
    if outcomes[-1].interrupted:
        return INTERRUPTED
    return 0 if all(outcome.all_ok() for outcome in outcomes) else 1


def _request(options: argparse.Namespace, text: str) -> Request:
    base = _base(options, text)
    return Request(
        base=base,
        backbones=choose_backbones(_only(options, text), options.skip),
        seeds=parse_seeds(options.seeds),
        learning_rates=parse_rates(options.sweep, rates_for(base)),
        side_by_side=options.side_by_side,
    )


def _folders(given: Path | None, bases: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Where each suite lies; several lie in one folder, named after their tasks."""
    own = [default_suite_folder(base) for base in bases]
    if len(bases) == 1:
        return [given or own[0]]
    names = [str(base["task"]) for base in bases]
    if len(set(names)) < len(names):
        # Two recipes of one task: the folder's digest tells them apart.
        names = [folder.name for folder in own]
    if len(set(names)) < len(names):
        raise InputError("--config names the same recipe twice")
    together = "-".join(dict.fromkeys(str(base["task"]) for base in bases))
    return [(given or own[0].with_name(together)) / name for name in names]


def _base(options: argparse.Namespace, text: str) -> dict[str, Any]:
    base = read_recipe([f"--config={text}", *options.overrides])
    if options.epochs is not None:
        if "epochs" not in base["train"]:
            raise InputError(
                f"--epochs={options.epochs}: {text.partition(':')[0]} has no "
                "train.epochs; say how long a run is by --config.train.budget=10min "
                "or 50MB"
            )
        base["train"]["epochs"] = options.epochs
    given = {key: getattr(options, key) for key in ("parameters", "flops")}
    if any(given.values()):
        base["model"] |= {"width": 0} | given
        base["model"] |= {"size": ""} if "size" in base["model"] else {}
    if options.memory_limit is not None:
        base["xla"]["memory_limit"] = parse_gigabytes(options.memory_limit)
    return base


def _only(options: argparse.Namespace, text: str) -> str:
    """--only, or the backbone that stands in the recipe's text after the colon."""
    first = text.partition(":")[2].split(",")[0].strip()
    named = first if first and "=" not in first else ""
    if named and options.only:
        raise InputError(
            f"--config names the backbone {named!r} and --only={options.only!r} does "
            "too; name them in one place"
        )
    return options.only or named


def print_plan(request: Request, folder: Path, *, jobs: int, retry: bool) -> None:
    """Prints every run of a suite and whether it is done; nothing is run."""
    console = _console()
    if request.base["model"]["parameters"] or request.base["model"]["flops"]:
        console.print(_widths(request))
    done = finished_results(request, folder, retry=retry)
    table = Table(title=f"suite {folder}, {jobs} at once", title_justify="left")
    for column in ("backbone", "purpose", "seed", "learning rate", "state"):
        table.add_column(column)
    cells = request.cells(done)
    for cell in cells:
        state = "to do"
        if cell in done:
            state = f"done: {done[cell]['status']}"
        table.add_row(
            Text(cell.backbone),
            cell.purpose,
            str(cell.seed) if cell.purpose == "score" else "",
            f"{cell.learning_rate:g}",
            state,
        )
    console.print(table)
    left = sum(cell not in done for cell in cells)
    count = request.planned(done)[0] - len(cells)
    later = f", then {count} at the rates the sweep finds" if count else ""
    console.print(f"{len(cells)} runs, {left} to do{later}", highlight=False)


def _widths(request: Request) -> Table:
    """The widths that bring the backbones to one size, or why none does."""
    # It imports jax, which a suite's own process otherwise does without.
    from jaxbench.bench.build import model_shape
    from jaxbench.models.sizes import OF_MATCH, Counter
    from jaxbench.tasks.table import find

    model, task = request.base["model"], request.base["task"]
    asked = model["parameters"] or model["flops"]
    unit = "parameters" if model["parameters"] else "FLOPs a token"
    table = Table(
        title=f"backbones of {asked} {unit}, within {OF_MATCH:.0%}",
        title_justify="left",
    )
    for column in ("backbone", "width", unit):
        table.add_column(column, justify="left" if column == "backbone" else "right")
    length = 0 if model["parameters"] else find(task).positions(request.base)
    for name in request.backbones:
        try:
            config = {**request.base, "model": {**model, "backbone": name}}
            width, depth, options = model_shape(config)
            count = Counter(name, options, length=length).exact(width, depth)
            table.add_row(Text(name), str(width), f"{count:,.0f}")
        except InputError as error:
            table.add_row(Text(name), "none", Text(str(error)))
    return table


def print_outcome(outcome: SuiteOutcome) -> None:
    """Prints how many runs ended how, and each that is not ok with its reason."""
    console = _console()
    counts = Counter(result["status"] for result in outcome.results.values())
    counted = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    console.print(f"{len(outcome.results)} runs: {counted or 'none'}", highlight=False)
    for cell, result in outcome.results.items():
        if result["status"] != "ok":
            line = f"{result['status']}: {cell}: {outcome_text(result)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def make_board(folder: Path) -> None:
    """Writes the leaderboard of a suite into its folder and prints where it is."""
    from jaxbench.board.command import answers, write_leaderboard

    print(answers(write_leaderboard([folder], folder)))
    print(f"leaderboard: {folder / 'leaderboard.html'}", flush=True)


def _console() -> Console:
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=140)
