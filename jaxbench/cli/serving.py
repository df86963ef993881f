"""Commands that use trained runs: play, rollout, speculate, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxbench.cli.command import add_command, as_the_run_was

PLAY = """\
  jaxbench play runs/suites/zelda-clean-1a2b3c4d --baselines
      every policy of a suite against the scripted players, and what doing nothing,
      pressing anything and a script are worth
  jaxbench play runs/zelda/gru/seed0-1a2b3c4d --picture=gru.gif
      the same for one run, and twenty seconds of its first game to look at
  jaxbench play runs/zelda/gru/seed0-1a2b3c4d --opponent=runs/zelda/s4/seed0-5e6f7a8b
      one policy against another
"""

ROLLOUT = """\
  jaxbench rollout --run=runs/world/gru/seed0-1a2b3c4d
      how far off predicted frames come to be, 1 to 60 frames ahead, beside the floors
  jaxbench rollout --run=runs/world/gru/seed0-1a2b3c4d \\
      --run=runs/world/gru/seed1-5e6f7a8b
      two members of an ensemble: their mean, and whether they know when they err
  jaxbench rollout --run=runs/world/gru/seed0-1a2b3c4d --plan=cem --goal=0,20
      controllers that the model says bring the player to the middle, in the air
  jaxbench rollout --run=runs/world/gru/seed0-1a2b3c4d --plan=cem --plan_frames=16 \\
      --games=16 --seconds=20
      plans carried out in games against scripted players, beside the floors
"""

SPECULATE = """\
  jaxbench speculate runs/pile/mamba2/seed0-1a2b3c4d runs/pile/gru/seed0-5e6f7a8b \\
      --prompt="It was a dark and"
      text of the first run, which the second, smaller one proposes
"""

EXPORT = """\
  jaxbench export runs/zelda/mamba/seed0-1a2b3c4d --int8
      ONNX files of the step and of the window, float32 and INT8, compared with jax
  jaxbench export runs/suites/zelda-clean-1a2b3c4d --out=exported
      every run of a suite, and one table of their times
  jaxbench export runs/zelda/mamba/seed0-1a2b3c4d --int8 --exclude='*/dt_*'
      INT8 but for the products of weights with such names
  jaxbench export runs/pile/gru/seed0-1a2b3c4d --format=onnx,stablehlo
      a language model, also as a program for jax on a CPU or on CUDA
"""


def add(commands: Any) -> None:
    """Adds `play`, `rollout`, `speculate` and `export`."""
    _add_play(commands)
    _add_rollout(commands)
    _add_speculate(commands)
    _add_export(commands)


def _add_play(commands: Any) -> None:
    play = add_command(
        commands,
        "play",
        "let policies fight in the simulation: how well do they play",
        PLAY,
        _play,
    )
    play.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders, or folders of them",
    )
    play.add_argument("--games", type=int, default=64, help="default: %(default)s")
    play.add_argument(
        "--seconds", type=int, default=60, help="of each game (default: %(default)s)"
    )
    play.add_argument("--seed", type=int, default=0, help="of the games, of draws")
    play.add_argument(
        "--opponent",
        default="scripted",
        help="scripted, random, copy_previous or a run's folder (default: %(default)s)",
    )
    play.add_argument(
        "--mode",
        choices=("stateful", "window"),
        default="stateful",
        help="carry the state, or see the run's window anew (default: %(default)s)",
    )
    play.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help="0: the likeliest controller, else drawn (default: %(default)s)",
    )
    play.add_argument(
        "--which",
        choices=("best", "last"),
        default="best",
        help="weights (default: %(default)s)",
    )
    play.add_argument(
        "--baselines",
        action="store_true",
        help="play scripted, random and copy_previous too",
    )
    play.add_argument(
        "--picture", type=Path, metavar="FILE.gif", help="of one run's first game"
    )
    play.add_argument(
        "--picture_seconds", type=int, default=20, help="default: %(default)s"
    )
    play.add_argument(
        "--again",
        action="store_true",
        help="play anew what played under these terms; a result keeps its last match",
    )


def _play(options: argparse.Namespace) -> int:
    from jaxbench.serving.play_command import play_command

    return play_command(options)


def _add_rollout(commands: Any) -> None:
    rollout = add_command(
        commands,
        "rollout",
        "let world models predict frame after frame: how far do they see",
        ROLLOUT,
        _rollout,
    )
    rollout.add_argument(
        "--run",
        type=Path,
        action="append",
        required=True,
        metavar="RUN",
        help="folder of a finished run of world; several, of other seeds: an ensemble",
    )
    for flag, default, what in (
        ("horizon", 60, "frames predicted"),
        ("warm_up", 30, "frames read before the first prediction"),
        ("windows", 256, "stretches of held-out games"),
        ("situations", 8, "with --plan: stretches a plan is made for"),
        ("plan_frames", 30, "with --plan: frames a plan is long"),
        ("samples", 256, "with --plan: sequences tried for each"),
        ("games", 0, "with --plan: carry plans out in so many simulated games"),
        ("seconds", 20, "with --games: of each"),
        ("every", 4, "with --games: frames of a plan held before the next"),
        ("seed", 0, "with --plan: of the draws, of the games"),
    ):
        rollout.add_argument(
            f"--{flag}", type=int, default=default, help=f"{what} (default: {default})"
        )
    rollout.add_argument(
        "--plan", default="", help="shooting or cem: plan, and show it"
    )
    rollout.add_argument(
        "--goal",
        default="reward",
        help="with --plan: reward, or a place X,Y in units (default: %(default)s)",
    )
    rollout.add_argument("--which", default="best", help="best or last weights")
    rollout.add_argument(
        "--out", type=Path, help="where to write (default: the first run's folder)"
    )


def _rollout(options: argparse.Namespace) -> int:
    as_the_run_was(options.run[0])
    from jaxbench.serving.world.rollout_command import rollout_command

    return rollout_command(options)


def _add_speculate(commands: Any) -> None:
    speculate = add_command(
        commands,
        "speculate",
        "write text with a small run's proposals: how much faster is the large one",
        SPECULATE,
        _speculate,
    )
    speculate.add_argument(
        "target", type=Path, help="folder of the finished run that decides"
    )
    speculate.add_argument(
        "draft", type=Path, help="folder of the finished run that proposes"
    )
    speculate.add_argument(
        "--lookahead",
        type=int,
        default=4,
        help="tokens proposed a round (default: %(default)s)",
    )
    speculate.add_argument(
        "--temperature", type=float, default=1.0, help="of both; 0: likeliest"
    )
    speculate.add_argument(
        "--mode",
        default="lossless",
        help="lossless, or threshold, which changes the distribution",
    )
    speculate.add_argument(
        "--threshold",
        type=float,
        default=0.8,
        help="of that mode: keep while p/q is not below it (default: %(default)s)",
    )
    speculate.add_argument("--tokens", type=int, default=2000, help="bytes drawn")
    speculate.add_argument("--prompt", default="", help="text to continue")
    speculate.add_argument("--seed", type=int, default=0, help="of the draws")
    speculate.add_argument("--which", default="best", help="best or last weights")


def _speculate(options: argparse.Namespace) -> int:
    as_the_run_was(options.target)
    from jaxbench.serving.speculate_command import speculate_command

    return speculate_command(options)


def _add_export(commands: Any) -> None:
    export = add_command(
        commands,
        "export",
        "turn trained runs into ONNX, INT8 or StableHLO files, checked and timed",
        EXPORT,
        _export,
    )
    export.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders, or folders of them",
    )
    export.add_argument(
        "--format",
        default="onnx",
        help="onnx, stablehlo, or both with a comma (default: %(default)s)",
    )
    export.add_argument(
        "--int8", action="store_true", help="ONNX with the weights of products in INT8"
    )
    export.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="with --int8: products of this name stay float32 (* and ?), once or often",
    )
    export.add_argument(
        "--out", type=Path, help="where to write (default: export in the run's folder)"
    )
    export.add_argument(
        "--which",
        choices=("best", "last"),
        default="best",
        help="weights (default: %(default)s)",
    )
    export.add_argument(
        "--frames",
        type=int,
        default=1000,
        help="compared and scored, in a row (default: %(default)s)",
    )


def _export(options: argparse.Namespace) -> int:
    from jaxbench.serving.export.export_command import export_command

    return export_command(options)
