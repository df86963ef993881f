"""CPU-seconds from the command to the first training record, cold and warm.

Starts `run.py` as a process, in turn with an empty and with a filled compilation cache,
and reads the processor time that it has used (all threads) when the first record of
`metrics.jsonl` appears: what a loaded machine does not change much. Replays are parsed
before the first round, so both sides read them from their cache. Linux only.

    python benchmarks/start_up.py --config=configs/zelda.py:lstm,width=64,max_steps=20
    python benchmarks/start_up.py --config=configs/zelda.py:width=64 --rows=all
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jaxbench.models import zoo

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Times both sides in turn and prints seconds a row, median and worst."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/zelda.py:s4,width=64")
    parser.add_argument("--rows", default="", help="backbones to try, or all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--root", default=str(ROOT), help="another checkout to time")
    options, overrides = parser.parse_known_args()
    recipe, _, rest = options.config.partition(":")
    rows = list(zoo.ROWS) if options.rows == "all" else options.rows.split(",")
    cold, warm = {}, {}
    for row in rows:
        text = ",".join(part for part in (row, rest) if part)
        with tempfile.TemporaryDirectory() as scratch:
            cold[row], warm[row] = both(
                Path(options.root), f"{recipe}:{text}", overrides, options.rounds,
                Path(scratch),
            )  # fmt: skip
        print(f"{text:32} cold {cold[row]:6.1f}  warm {warm[row]:6.1f}", flush=True)
    for name, seconds in (("cold", cold), ("warm", warm)):
        worst = max(seconds, key=lambda row: seconds[row])
        middle = statistics.median(seconds.values())
        print(
            f"{name}: median of {len(seconds)} rows {middle:.1f} CPU-seconds, "
            f"worst {seconds[worst]:.1f} {worst}"
        )


def both(
    root: Path, config: str, overrides: list[str], rounds: int, folder: Path
) -> tuple[float, float]:
    """Medians over the rounds of one configuration."""
    command = [sys.executable, str(root / "run.py"), f"--config={config}", *overrides]
    environment = os.environ | {"PYTHONPATH": str(root)}
    cold, warm = [], []
    for k in range(rounds):
        cache = folder / f"cache{k}"
        for times, name in ((cold, "cold"), (warm, "warm")):
            workdir = folder / f"{name}{k}"
            times.append(first_record(command, workdir, cache, root, environment))
    return statistics.median(cold), statistics.median(warm)


def first_record(
    command: list[str], workdir: Path, cache: Path, root: Path, environment: dict
) -> float:
    """Runs `command` until its first training record; the CPU-seconds it took."""
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}", f"--config.xla.compilation_cache={cache}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=root,
        env=environment,
        text=True,
    )
    records = workdir / "metrics.jsonl"
    while process.poll() is None:
        if records.exists() and records.stat().st_size:
            seconds = used(process.pid)
            process.kill()
            process.wait()
            shutil.rmtree(workdir)
            return seconds
        time.sleep(0.01)
    sys.exit(f"the run failed:\n{process.stderr.read() if process.stderr else ''}")


def used(pid: int) -> float:
    """CPU-seconds of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
