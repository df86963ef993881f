"""Trains and evaluates one run: python run.py --config=configs/zelda.py:s4

options:
  --config=RECIPE[:TEXT]   a file of configs/; TEXT is a backbone, then key=value with
                           commas between: zelda.py:mamba*2+swa,width=128,epochs=1
  --config.KEY=VALUE       any setting of the recipe: --config.train.learning_rate=3e-4
  --workdir=FOLDER         the run's folder (default: runs/TASK/BACKBONE/SEED-HASH)
  --extend=RUN             train that finished run longer, in a folder of its own; its
                           config but for a longer length, whose schedule it follows
  --help                   this; after a --config also all its settings
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from absl import flags

from jaxbench.bench.check import check_values
from jaxbench.bench.environment import apply_environment, xla_environment
from jaxbench.bench.extend import extended
from jaxbench.bench.recipe import define_config, parse_flags, resolved
from jaxbench.cli.command import EXIT_CODES
from jaxbench.errors import InputError, printable
from jaxbench.training.interrupt import INTERRUPTED, interruptible
from jaxbench.training.records import flatten


def main(arguments: list[str], *, leaves: bool = False) -> int:
    """Returns the exit code: 0 ok, 1 failed, 2 unusable input, 143 interrupted.

    Args:
      arguments: the program's name first.
      leaves: whether the process ends when this returns.
    """
    return interruptible("run.py", lambda: _main(arguments, leaves), leaves=leaves)


def _main(arguments: list[str], leaves: bool) -> int:
    if asked := {"--help", "-h"} & set(arguments):
        return _help([text for text in arguments if text not in asked])
    given = flags.FlagValues()
    recipe = define_config(given, arguments)
    workdir = flags.DEFINE_string(
        "workdir",
        None,
        "Run folder; by default runs/TASK/BACKBONE/SEED-HASH",
        flag_values=given,
    )
    extend = flags.DEFINE_string(
        "extend",
        None,
        "Folder of a finished run to train longer",
        flag_values=given,
    )
    try:
        parse_flags(arguments, given)
        config = resolved(recipe)
        check_values(config)
        base = Path(extend.value).expanduser() if extend.value else None
        if base is not None:
            config = extended(config, base)
        apply_environment(xla_environment(config["xla"]))
        # Only now may anything import jax: its settings bind when it loads.
        from jaxbench.bench.job import run_job
        from jaxbench.bench.report import print_result
        from jaxbench.bench.run_folder import default_folder

        folder = Path(workdir.value or default_folder(config))
        result = run_job(config, folder, extend=base)
    except InputError as error:
        print(f"run.py: error: {printable(str(error))}", file=sys.stderr, flush=True)
        if leaves and "jax" in sys.modules:
            # After a failed save, orbax's threads would go on to print tracebacks of
            # the same error while the interpreter shuts down.
            os._exit(2)
        return 2
    print_result(result, folder)
    if result["status"] == "interrupted":
        return INTERRUPTED
    return 0 if result["status"] == "ok" else 1


def _help(arguments: list[str]) -> int:
    """Prints the options, exit codes, and the settings of a recipe that is named."""
    print(f"{__doc__.strip()}\n\n{EXIT_CODES}")
    if any(text.startswith("--config") for text in arguments):
        given = flags.FlagValues()
        recipe = define_config(given, arguments)
        try:
            parse_flags(arguments, given)
            settings = flatten(resolved(recipe))
        except InputError as error:
            print(f"run.py: error: {printable(str(error))}", file=sys.stderr)
            return 2
        print("\nsettings:")
        for key, value in settings.items():
            print(f"  --config.{key}={value}")
    else:
        files = sorted(Path(__file__).parent.glob("configs/*.py"))
        names = [x.stem for x in files if "def get_config(" in x.read_text()]
        print(f"\nrecipes: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv, leaves=True))
