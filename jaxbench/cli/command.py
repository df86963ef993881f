"""What the parsers of all subcommands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXIT_CODES = """exit codes: 0 all is well; 1 something that ran did not end ok;
2 unusable input, one line says what; 143 interrupted (the same command goes on)"""


def add_command(commands: Any, name: str, what: str, examples: str, run: Any) -> Any:
    """A subcommand whose --help ends with examples."""
    command = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"examples:\n{examples.rstrip()}\n\n{EXIT_CODES}",
        allow_abbrev=False,
    )
    command.set_defaults(command=run)
    return command


def as_the_run_was(folder: Path) -> None:
    """Exports what XLA reads when it starts, as the config of a run says.

    A folder without a config is left to the command, which says what is missing.

    Raises:
      InputError: the config is damaged.
    """
    from jaxbench.bench.environment import apply_environment, xla_environment
    from jaxbench.bench.run_folder import read_config

    if (folder / "config.json").exists():
        apply_environment(xla_environment(read_config(folder)["xla"]))
