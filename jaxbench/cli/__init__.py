"""The `jaxbench` command: what surrounds single runs (`run.py` makes those)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jaxbench import __version__
from jaxbench.cli import backbones, data, runs, serving, text
from jaxbench.cli.command import EXIT_CODES
from jaxbench.errors import InputError, printable
from jaxbench.training.interrupt import interruptible


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, see `command.EXIT_CODES`.

    Args:
      arguments: without the program's name; None takes this process's, which then ends
        with the command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    leaves = arguments is None
    return interruptible("jaxbench", lambda: _main(given), leaves=leaves)


def _main(given: list[str]) -> int:
    parser = _parser()
    options, rest = parser.parse_known_args(given)
    overrides = [a for a in rest if a.startswith("--config.")]
    if rest != (overrides if options.name == "suite" else []):
        unknown = [a for a in rest if options.name != "suite" or a not in overrides]
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.overrides, options.given = overrides, given
    try:
        return options.command(options)
    except InputError as error:
        line = f"jaxbench {options.name}: error: {printable(str(error))}"
        print(line, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxbench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for room in (backbones, data, runs, serving, text):
        room.add(commands)
    return parser
