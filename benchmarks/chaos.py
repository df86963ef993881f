"""What broken runs end with: kills, full disks, two processes, mutated files.

    python benchmarks/chaos.py --replays=FOLDER
    python benchmarks/chaos.py --quick --out=/tmp/chaos

100 kills (SIGKILL, SIGTERM, SIGINT twice) of runs, of runs side by side and of suites:
at random moments from their first line on, and inside saves; kills between the saves of
the last and the best state under a budget of seconds; disks that are full from some
moment on; two processes in one folder; and 10,000 mutants of replays and corpora. Every
broken run is continued by the same command and compared with one that was never broken,
in every field of `result.json` but times and the peak of memory, and in every line of
`metrics.jsonl`. A run under a budget of seconds has no twin: the weights that it calls
the best must have the score that it gives them.

Small runs (width 8) in processes forked after all is imported; what a command does
before that is killed too, in processes of its own. What is done is kept in --work, so
the script can be stopped and started again. Writes README.md and chaos.json into --out.
About 15 minutes on one core; --quick, one.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import chaos_runs
import numpy as np
from mutants import BATCH, originals, read_mutants

from jaxbench.training.records import read_metrics

ROOT = Path(__file__).resolve().parents[1]
# The kind of a trial: how many of them, and how many kills each has.
PLAN = {
    "run": (8, 4),
    "side by side": (6, 4),
    "inside a save": (6, 4),
    "command": (5, 2),
    "suite": (5, 2),
    "between last and best": (6, 1),
    "full disk": (20, 0),
    "two processes": (3, 0),
}
QUICK = {
    "run": (1, 2),
    "side by side": (1, 1),
    "inside a save": (1, 2),
    "between last and best": (1, 1),
    "full disk": (2, 0),
    "two processes": (1, 0),
}
MUTANTS, QUICK_MUTANTS = 10_000, 200


def main() -> None:
    """Makes the trials that are not done, and writes the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replays", type=Path, help="to mutate; none: simulated ones")
    parser.add_argument("--work", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "chaos")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Other sources may compute other numbers: their trials have other twins.
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    name = f"{'quick' if options.quick else 'full'}-{revision}"
    work = (options.work / name).resolve()
    work.mkdir(parents=True, exist_ok=True)
    replays = options.replays.resolve() if options.replays else None
    options.out = options.out.resolve()
    chaos_runs.prepare(work)

    kept = Kept(work / "trials.jsonl")
    plan = QUICK if options.quick else PLAN
    for kind, (count, kills) in plan.items():
        for number in range(3 * count):
            key = f"{kind} {number}"
            if kept.has(key):
                continue
            # A run may have ended before it was killed as often as it should.
            if number >= count and kept.kills(kind) >= count * kills:
                break
            rng = np.random.default_rng([options.seed, len(key), *key.encode()])
            folder = work / key.replace(" ", "-")
            shutil.rmtree(folder, ignore_errors=True)
            found = chaos_runs.TRIALS[kind](folder, work, rng, kills)
            kept.add({"key": key, "kind": kind, **found})
            print(f"chaos: {key}: {json.dumps(found)}", flush=True)
    count = QUICK_MUTANTS if options.quick else MUTANTS
    for number in range(count // BATCH):
        key = f"mutants {number}"
        if not kept.has(key):
            rng = np.random.default_rng([options.seed, number])
            seeds = originals(work, replays)
            found = read_mutants(
                work, seeds, rng, "corpus" if number % 5 == 1 else "replay"
            )
            kept.add({"key": key, "kind": "mutants", **found})
            print(f"chaos: {key}: {json.dumps(found)}", flush=True)
    write(options.out, kept.all(), options.quick)
    print(f"chaos: {options.out / 'README.md'}")


class Kept:
    """What trials have come to, a line each, with the CPU seconds they took."""

    def __init__(self, path: Path):
        self._path = path
        self._used = _cpu_seconds()

    def all(self) -> list[dict[str, Any]]:
        """Every trial that was made."""
        return read_metrics(self._path)

    def has(self, key: str) -> bool:
        """Whether a trial was made."""
        return any(trial["key"] == key for trial in self.all())

    def kills(self, kind: str) -> int:
        """How many kills the trials of a kind had."""
        return sum(len(t["kills"]) for t in self.all() if t["kind"] == kind)

    def add(self, trial: Mapping[str, Any]) -> None:
        """Keeps one."""
        now = _cpu_seconds()
        with self._path.open("a") as file:
            file.write(json.dumps({**trial, "cpu": now - self._used}) + "\n")
        self._used = now


def _cpu_seconds() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, who))


def write(out: Path, trials: Sequence[Mapping[str, Any]], quick: bool) -> None:
    """README.md and chaos.json."""
    from jaxbench.bench.facts import cpu_model, git_revision, versions

    revision, _ = git_revision()
    facts = {
        "git": revision,
        "machine": f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "versions": versions(),
        "cpu_minutes": round(sum(t["cpu"] for t in trials) / 60, 1),
        "quick": quick,
    }
    out.mkdir(parents=True, exist_ok=True)
    told = {**facts, "trials": list(trials)}
    (out / "chaos.json").write_text(json.dumps(told, indent=1) + "\n")
    lines = [
        "# What broken runs end with",
        "",
        f"`python benchmarks/chaos.py{' --quick' if quick else ''}`, commit "
        f"`{revision}`, {facts['machine']}, {facts['cpu_minutes']} CPU minutes. Every "
        "run was continued by the same command after each kill, and then compared with "
        "one that was never broken: `result.json` but for times and the peak of "
        "memory, and `metrics.jsonl`. Of runs side by side numbers may differ by 1e-6 "
        "of themselves: one that goes on alone is another program.",
        "",
        "| what was broken | runs | kills | SIGKILL | SIGTERM | SIGINT twice | "
        "exit codes | equal in every field |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for kind in PLAN:
        of_kind = [t for t in trials if t["kind"] == kind]
        if not of_kind:
            continue
        kills = [kill for t in of_kind for kill in t["kills"]]
        by = collections.Counter(kill["signal"] for kill in kills)
        codes = collections.Counter(
            str(x["code"]) for x in [*kills, *(t for t in of_kind if "code" in t)]
        )
        equal = sum(not t["differs"] for t in of_kind)
        counted = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
        lines.append(
            f"| {kind} | {len(of_kind)} | {len(kills)} | "
            + " | ".join(str(by[name]) for name in chaos_runs.SIGNALS)
            + f" | {counted} | {equal} of {len(of_kind)} |"
        )
    lines += [
        "",
        "Exit codes below 0 are signals that ended the process, 143 is interrupted and "
        "saved, 2 one line of error (a full disk), 0 a run that was through before the "
        "disk was full. Runs between last and best have a budget of seconds: equal "
        "means that the best weights have the score and the step that the result gives "
        "them.",
        "",
        "| mutants of | files | read | refused in one line | parser crashed, and was "
        "replaced | other exceptions | hangs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("replay", "corpus"):
        counts: collections.Counter[str] = collections.Counter()
        for t in trials:
            if t.get("of") == kind:
                counts.update(t["verdicts"])
        names = ("read", "refused", "parser crashed", "other exception", "hang")
        cells = " | ".join(f"{counts[name]:,}" for name in names)
        lines.append(f"| {kind} | {counts.total():,} | {cells} |")
    for trial in trials:
        lines += [f"\n{trial['key']}: {text}" for text in trial.get("differs", ())]
        lines += [
            f"\n{trial['key']}: {k}: {v}" for k, v in trial.get("examples", {}).items()
        ]
    (out / "README.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
