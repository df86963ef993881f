"""Seconds from the command to the first training step, cold and warm.

Starts `run.py` as a process, in turn with an empty and with a filled compilation cache,
and reads the time at which the first record of `metrics.jsonl` appears. Replays are
parsed before the first round, so both sides read them from their cache.

    python benchmarks/start_up.py --config=configs/zelda.py:s4 --rounds=3
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Times both sides in turn and prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/zelda.py:s4")
    parser.add_argument("--rounds", type=int, default=3)
    options, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [
            sys.executable, str(ROOT / "run.py"), f"--config={options.config}",
            "--config.train.max_steps=1", "--config.train.steps_per_dispatch=1",
            "--config.train.warmup_steps=0", *overrides,
        ]  # fmt: skip
        first_step(command, folder / "first", folder / "warm")
        cold, warm = [], []
        for k in range(options.rounds):
            cold.append(first_step(command, folder / f"c{k}", folder / f"cold{k}"))
            warm.append(first_step(command, folder / f"w{k}", folder / "warm"))
    print(
        f"{options.config}: seconds from command to first step, {options.rounds} rounds"
    )
    for name, seconds in (("cold compilation cache", cold), ("warm", warm)):
        print(
            f"  {name}: median {statistics.median(seconds):.1f} "
            f"({min(seconds):.1f}-{max(seconds):.1f})"
        )
    print(f"  cold over warm: {statistics.median(cold) / statistics.median(warm):.2f}")


def first_step(command: list[str], workdir: Path, cache: Path) -> float:
    """Runs `command` until its first training record; returns the seconds it took."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", f"--config.xla.compilation_cache={cache}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    )
    records = workdir / "metrics.jsonl"
    seconds = None
    while process.poll() is None:
        if seconds is None and records.exists() and records.stat().st_size:
            seconds = time.perf_counter() - start
        time.sleep(0.01)
    output = process.stdout.read() if process.stdout else ""
    if process.returncode or seconds is None:
        sys.exit(f"the run failed:\n{output}")
    shutil.rmtree(workdir)
    return seconds


if __name__ == "__main__":
    main()
