"""From `--config=FILE.py:TEXT --config.key=value` to a plain nested dict."""

from __future__ import annotations

import ast
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from jaxbench.errors import InputError, nearest


def define_config(
    flag_values: flags.FlagValues = flags.FLAGS, arguments: list[str] | None = None
) -> flags.FlagHolder:
    """Defines `--config`, with all its fields as flags, in `flag_values`.

    Args:
      flag_values: where.
      arguments: what will be parsed; None for those of this process.
    """
    return config_flags.DEFINE_config_file(
        "config",
        help_string="Recipe, e.g. configs/zelda.py:s4",
        lock_config=True,
        flag_values=flag_values,
        sys_argv=arguments,
    )


def parse_flags(arguments: Sequence[str], flag_values: flags.FlagValues) -> None:
    """Parses `arguments`, the program's name first.

    Raises:
      InputError: an unknown flag or key, a value of another type, no such recipe.
    """
    for path in map(_recipe_file, arguments):
        if path is not None and not path.is_file():
            close = nearest(path.name, [p.name for p in path.parent.glob("*.py")])
            hint = f"nearest: {close}" if close else f"{path.parent} holds none"
            raise InputError(f"there is no recipe {path}; {hint}")
    try:
        rest = flag_values(list(arguments))[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_one_line(error)) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; options start with --")


def resolved(holder: flags.FlagHolder) -> dict[str, Any]:
    """The parsed config with every default in it.

    Raises:
      InputError: `--config` was not given, or its recipe cannot be loaded.
    """
    if holder.value is None:
        raise InputError("--config is missing, e.g. --config=configs/zelda.py:s4")
    try:
        return json.loads(holder.value.to_json())
    except (AttributeError, OSError) as error:
        raise InputError(_one_line(error)) from error


def read_recipe(arguments: Sequence[str]) -> dict[str, Any]:
    """Resolves `["--config=configs/zelda.py:width=64", "--config.train.epochs=1"]`.

    Raises:
      InputError: as `parse_flags` and `resolved`.
    """
    for argument in arguments:
        if path := _recipe_file(argument):
            # Recipes import what they share from the folder they lie in.
            above = path.absolute().parent.parent
            if str(above) not in sys.path:
                sys.path.insert(0, str(above))
    flag_values = flags.FlagValues()
    given = ["jaxbench", *arguments]
    holder = define_config(flag_values, given)
    parse_flags(given, flag_values)
    return resolved(holder)


def _recipe_file(argument: str) -> Path | None:
    """The file that `--config=FILE:TEXT` names; None for another argument."""
    name, _, value = argument.partition("=")
    return Path(value.partition(":")[0]) if name == "--config" and value else None


def _one_line(error: Exception) -> str:
    """What an error of the flag parser says; it wraps a recipe's in a traceback."""
    text = str(error)
    # A key that a config does not have comes as the text of a string.
    with contextlib.suppress(SyntaxError, ValueError):
        text = f"unknown setting {ast.literal_eval(text)}"
    recipes_own = text.rpartition(f"{InputError.__name__}: ")[2]
    return " ".join(recipes_own.split())
