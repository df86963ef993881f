"""Commands on language runs: sample, score."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jaxbench.cli.command import add_command, as_the_run_was

SAMPLE = """\
  jaxbench sample runs/pile/mamba2/seed0-1a2b3c4d --prompt="It was a dark and"
  jaxbench sample runs/pile/e61/seed0-1a2b3c4d --prompt=1e23 --hex --temperature=0
"""
SCORE = """\
  jaxbench score runs/pile/mamba2/seed0-1a2b3c4d          the test split
  jaxbench score runs/pile/e61/seed0-1a2b3c4d --carry     the state goes on
"""


def add(commands: Any) -> None:
    """Adds `sample` and `score`."""
    sample = add_command(
        commands, "sample", "continue a prompt with a language run", SAMPLE, _sample
    )
    sample.add_argument("folder", type=Path, help="of a finished run of pile")
    sample.add_argument("--prompt", default="", help="text, or bytes with --hex")
    sample.add_argument("--prompt_file", type=Path, help="read the prompt from it")
    sample.add_argument("--hex", action="store_true", help="prompt is hexadecimal")
    sample.add_argument("--bytes", type=int, default=500, help="default: %(default)s")
    sample.add_argument("--temperature", type=float, default=0.8, help="0: likeliest")
    sample.add_argument("--seed", type=int, default=0, help="of the draws")
    score = add_command(
        commands, "score", "score language runs on held-out text", SCORE, _score
    )
    score.add_argument("folders", nargs="+", type=Path, help="of finished runs of pile")
    score.add_argument("--split", default="test", help="default: %(default)s")
    score.add_argument(
        "--carry", action="store_true", help="carry the state from window to window"
    )
    for command in (sample, score):
        command.add_argument("--which", default="best", help="best or last weights")


def _sample(options: argparse.Namespace) -> int:
    as_the_run_was(options.folder)
    from jaxbench.serving.writing import sample_command

    return sample_command(options)


def _score(options: argparse.Namespace) -> int:
    as_the_run_was(options.folders[0])
    from jaxbench.bench.score import score_command

    return score_command(options)
