"""Runs of one backbone as one program against the same runs one after the other.

Four mixers, four learning rates, three seeds: 48 runs of a small recall task, 200
updates each, or of zelda at width 64. Both ways are timed in turn, mixer by mixer, as
the processes that a suite starts, from their start to their end. The compilation cache
is off; with --cached it is empty at first, and of runs one by one all but the first
find their programs in it, as in a suite. What they computed is compared too.

    python benchmarks/side_by_side.py
    python benchmarks/side_by_side.py --steps=20 --mixers=gru --rates=1e-3 --seeds=2
    python benchmarks/side_by_side.py --task=zelda --cached \
        --mixers=gru,mlp,s4,mamba2,deltanet,transformer --seeds=2

Prints, for each mixer, runs in an hour of one core's time of both ways, their ratio,
the same ratio by the clock, and how far they are apart: the largest relative difference
of the mean loss of the first 20 updates, and the largest difference of any validation
or test metric at the end. Both ways sum in another
order, and at a high rate training makes of that rounding what it makes of any other:
more with every update.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxbench.bench.environment import merged_environment, xla_environment
from jaxbench.bench.recipe import read_recipe
from jaxbench.bench.run_folder import claim
from jaxbench.training.records import read_metrics

ROOT = Path(__file__).resolve().parents[1]
MIXERS = "deltanet,transformer,mamba2,gru"
RATES = "1e-4,3e-4,1e-3,3e-3"
# A large epsilon: without it Adam's first steps turn rounding in a gradient that is
# almost zero into steps as large as any other, and no two programs agree.
RECIPES = {
    "mqar": "configs/mqar.py:{mixer},pairs=4,tokens=16,vocabulary=32,level=custom,"
    "width=32,"
    "train_examples=0,batch_size=32,max_steps={steps},evaluate_every={steps},"
    "checkpoint_every=0,steps_per_dispatch=20,test_examples=64,eps=1e-4,"
    "learning_rate={rate},seed={seed}",
    "zelda": "configs/zelda.py:{mixer},width=64,max_steps={steps},warmup_steps=10,"
    "simulated_games=4,checkpoint_every=0,steps_per_dispatch=20,eps=1e-4,dropout=0.0,"
    "learning_rate={rate},seed={seed}",
}


def main() -> None:
    """Times both ways and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=RECIPES, default="mqar")
    parser.add_argument("--cached", action="store_true", help="as in a suite")
    parser.add_argument("--mixers", default=MIXERS)
    parser.add_argument("--rates", default=RATES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print(
        f"{'mixer':14} {'runs':>5} {'one by one':>15} {'side by side':>15} "
        f"{'ratio':>6} {'clock':>6} {'at first':>9} {'at the end':>11}"
    )
    for mixer in options.mixers.split(","):
        configs = [
            config(options.task, mixer=mixer, steps=options.steps, rate=rate, seed=seed)
            for rate in options.rates.split(",")
            for seed in range(options.seeds)
        ]
        with tempfile.TemporaryDirectory() as scratch:
            alone = folders(Path(scratch) / "alone", configs, options.cached)
            beside = folders(Path(scratch) / "beside", configs, options.cached)
            each = [seconds([folder]) for folder in alone]
            one, one_clock = (sum(part) for part in zip(*each, strict=True))
            other, other_clock = seconds(beside)
            print(
                f"{mixer:14} {len(configs):5d} {3600 * len(configs) / one:9.1f} / h "
                f"{3600 * len(configs) / other:11.1f} / h {one / other:6.2f} "
                f"{one_clock / other_clock:6.2f} "
                f"{first_difference(alone, beside):9.1e} "
                f"{difference(alone, beside):11.1e}",
                flush=True,
            )


def config(task: str, **settings: Any) -> dict[str, Any]:
    """A run's config, from the recipe."""
    os.chdir(ROOT)
    return read_recipe([f"--config={RECIPES[task].format(**settings)}"])


def folders(
    parent: Path, configs: Sequence[dict[str, Any]], cached: bool
) -> list[Path]:
    """A folder for each run, with its config; all share a cache, or have none."""
    made = [parent / str(i) for i in range(len(configs))]
    for folder, content in zip(made, configs, strict=True):
        content["xla"]["compilation_cache"] = str(parent / "xla") if cached else ""
        claim(folder, content)
    return made


def seconds(together: Sequence[Path]) -> tuple[float, float]:
    """How long one process takes for these runs: its CPU time, and by the clock."""
    settings = json.loads((together[0] / "config.json").read_text())["xla"]
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [
            *(sys.executable, "-m", "jaxbench.bench.suite.child"),
            *(str(os.getpid()), *map(str, together)),
        ],
        cwd=ROOT,
        env=merged_environment(xla_environment(settings), os.environ),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - began


def difference(some: Sequence[Path], others: Sequence[Path]) -> float:
    """The largest difference of any metric of the last validation or of a test."""
    worst = 0.0
    for pair in zip(some, others, strict=True):
        one, other = (json.loads((f / "result.json").read_text()) for f in pair)
        assert one["steps"] == other["steps"] and one["solved"] == other["solved"]
        metrics = [(one["last"]["metrics"], other["last"]["metrics"])]
        metrics += [
            (m, other["scores"][name]) for name, m in (one["scores"] or {}).items()
        ]
        for mine, theirs in metrics:
            worst = max([worst] + [abs(mine[k] - theirs[k]) for k in mine])
    return worst


def first_difference(some: Sequence[Path], others: Sequence[Path]) -> float:
    """The largest relative difference of the loss in the first training record."""
    worst = 0.0
    for pair in zip(some, others, strict=True):
        one, other = (
            next(r for r in read_metrics(f / "metrics.jsonl") if r["split"] == "train")
            for f in pair
        )
        assert one["step"] == other["step"]
        worst = max(worst, abs(one["loss"] - other["loss"]) / abs(one["loss"]))
    return worst


if __name__ == "__main__":
    main()
