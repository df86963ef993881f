"""Commands on many runs: suite, latency, throughput, leaderboard."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxbench.cli.command import add_command

SUITE = """\
  jaxbench suite --config=configs/zelda.py
      every backbone on the built-in simulation
  jaxbench suite --config=configs/zelda.py:width=64,stride=8 --only=s4,gru,mamba \\
      --seeds=5 --epochs=1 --config.data.replays=~/replays \\
      --config.data.character=falco
      three backbones, five seeds each, on your replays
  jaxbench suite --config=configs/zelda.py --only=original --sweep --jobs=2
      first a shared grid of learning rates, then the best of each
  jaxbench suite --config=configs/pile.py:size=10m,budget=10min --only=elman \\
      --config.data.corpus=classics100.xz
      byte-level language models, equal time for each; budget=50MB: equal text
  jaxbench suite --config=configs/mqar.py:level=L1 --config=configs/flip_flop.py \\
      --only=deltanet,deltanet/noconv,transformer,transformer/conv \\
      --seeds=6 --side_by_side
      several tasks, one board; the seeds of a backbone as one program
  jaxbench suite --config=configs/zelda.py --only=original --parameters=200k
      backbones of one size
  jaxbench suite --config=configs/zelda.py --dry_run
      what would run, and what is done
"""
LATENCY = """\
  jaxbench latency runs/suites/zelda-clean-1a2b3c4d
      every trained policy of a suite, one process after the other
  jaxbench latency runs/zelda/s4/seed0-1a2b3c4d --frames=10000
"""
THROUGHPUT = """\
  jaxbench throughput runs/suites/zelda-clean-1a2b3c4d
"""
LEADERBOARD = """\
  jaxbench leaderboard runs/suites/zelda-clean-1a2b3c4d
  jaxbench leaderboard mine theirs --out=both
  jaxbench leaderboard runs/suites/zelda-clean-1a2b3c4d --json | jq .needs
"""


def add(commands: Any) -> None:
    """Adds `suite`, `latency`, `throughput` and `leaderboard`."""
    _add_suite(commands)
    _add_measure(commands)
    _add_leaderboard(commands)


def _add_suite(commands: Any) -> None:
    suite = add_command(
        commands,
        "suite",
        "run many backbones, each in its own process, and make their leaderboard",
        SUITE,
        _suite,
    )
    suite.add_argument(
        "--config",
        required=True,
        action="append",
        metavar="FILE[:TEXT]",
        help="recipe, once or several times; any of its fields as --config.KEY=VALUE "
        "too",
    )
    suite.add_argument("--folder", type=Path, help="default: runs/suites/TASK-...")
    suite.add_argument(
        "--only",
        default="",
        help="names, patterns or groups, with commas; groups: original (the 34 of "
        "zelda's benchmark), elman (the byte-level models of pile's)",
    )
    suite.add_argument("--skip", default="", help="the same, to leave out")
    suite.add_argument(
        "--seeds",
        default="1",
        help="how many: 5 for 0 to 4; or which, with commas: 0,3,7, and 7, for that "
        "one (default: 1, seed 0)",
    )
    suite.add_argument("--epochs", type=int, help="the same as --config.train.epochs")
    suite.add_argument(
        "--parameters",
        default="",
        metavar="COUNT",
        help="backbones of one size, within 5 %%: 200k finds each one's width (see "
        "--dry_run); the same as parameters=200k in the recipe's text",
    )
    suite.add_argument(
        "--flops",
        default="",
        metavar="COUNT",
        help="the same by operations a token, forward: 400k",
    )
    suite.add_argument(
        "--jobs", type=int, default=0, help="runs at once (0: one for each GPU, or 1)"
    )
    suite.add_argument(
        "--timeout", default="0", help="stop a run after 90s, 30m, 2h (0: never)"
    )
    suite.add_argument(
        "--hang",
        default="20m",
        help="stop a run that shows no sign of progress for so long (default: 20m)",
    )
    suite.add_argument(
        "--memory_limit",
        help="fit each run to 8GB, 800MB (default: what the device has)",
    )
    suite.add_argument(
        "--sweep",
        nargs="?",
        const="",
        metavar="RATES",
        help="first find each backbone's learning rate on one shared grid",
    )
    suite.add_argument(
        "--side_by_side",
        nargs="?",
        const="on",
        default="auto",
        choices=("auto", "on", "off"),
        help="train the seeds and rates of a backbone as one program (default: where "
        "that pays; such runs have no updates/s, and their seconds are shares)",
    )
    suite.add_argument(
        "--retry", action="store_true", help="run again what did not end ok"
    )
    suite.add_argument(
        "--dry_run", action="store_true", help="say what would run, and run nothing"
    )


def _add_measure(commands: Any) -> None:
    latency = add_command(
        commands,
        "latency",
        "time trained policies frame by frame: do they make 60 frames a second",
        LATENCY,
        _measure,
    )
    throughput = add_command(
        commands,
        "throughput",
        "time training steps, and say how much of the device they use",
        THROUGHPUT,
        _measure,
    )
    for command in (latency, throughput):
        command.add_argument(
            "folders", nargs="+", type=Path, help="run folders, or folders of them"
        )
        command.add_argument(
            "--again", action="store_true", help="measure anew what is measured"
        )
    latency.add_argument(
        "--frames", type=int, default=2000, help="calls timed (default: %(default)s)"
    )
    throughput.add_argument(
        "--repeats", type=int, default=5, help="groups timed (default: %(default)s)"
    )


def _add_leaderboard(commands: Any) -> None:
    board = add_command(
        commands,
        "leaderboard",
        "what finished runs say: answers, Markdown, CSV, picture, one HTML page",
        LEADERBOARD,
        _leaderboard,
    )
    board.add_argument(
        "folders", nargs="+", type=Path, help="run folders, or folders of them"
    )
    board.add_argument(
        "--out", type=Path, help="where to write (default: the first folder)"
    )
    board.add_argument(
        "--json", action="store_true", help="print the board as JSON, write nothing"
    )


def _suite(options: argparse.Namespace) -> int:
    from jaxbench.bench.suite.command import suite_command

    return suite_command(options)


def _measure(options: argparse.Namespace) -> int:
    from jaxbench.serving.measure_command import measure_command

    return measure_command(options)


def _leaderboard(options: argparse.Namespace) -> int:
    from jaxbench.board.command import leaderboard_command

    return leaderboard_command(options)
