"""Trains and evaluates one run: python run.py --config=configs/zelda.py:s4"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from jaxbench.bench.check import check_values
from jaxbench.bench.environment import apply_environment, xla_environment
from jaxbench.errors import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Recipe, e.g. configs/zelda.py:s4", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run folder; by default runs/TASK/BACKBONE/SEED-HASH"
)


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 ok, 1 the run failed, 2 unusable input."""
    try:
        config = read_config(arguments)
        check_values(config)
        apply_environment(xla_environment(config["xla"]))
        # Only now may anything import jax: its settings bind when it loads.
        from jaxbench.bench.job import run_job
        from jaxbench.bench.report import print_result
        from jaxbench.bench.run_folder import default_folder

        folder = Path(WORKDIR.value or default_folder(config))
        result = run_job(config, folder)
    except InputError as error:
        print(f"run.py: error: {error}", file=sys.stderr, flush=True)
        if error.__cause__ is not None and "jax" in sys.modules:
            # After a failed save, orbax's threads would go on to print tracebacks of
            # the same error while the interpreter shuts down.
            os._exit(2)
        return 2
    print_result(result, folder)
    if result["status"] == "interrupted":
        return 128 + signal.SIGTERM
    return 0 if result["status"] == "ok" else 1


def read_config(arguments: list[str]) -> dict:
    """Parses the flags into a plain nested dict with every default resolved.

    Raises:
      InputError: an unknown flag or key, a value of another type, no such recipe.
    """
    try:
        rest = flags.FLAGS(arguments)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(_one_line(error)) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; options start with --")
    if CONFIG.value is None:
        raise InputError("--config is missing, e.g. --config=configs/zelda.py:s4")
    try:
        return json.loads(CONFIG.value.to_json())
    except (AttributeError, OSError) as error:
        raise InputError(_one_line(error)) from error


def _one_line(error: Exception) -> str:
    """What an error of the flag parser says; it wraps a recipe's in a traceback."""
    text = str(error).replace("\\n", " ").replace("\\", "").strip("'\"")
    recipes_own = text.rpartition(f"{InputError.__name__}: ")[2]
    return " ".join(recipes_own.split())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
