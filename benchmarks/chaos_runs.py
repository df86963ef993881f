"""The trials of `chaos.py`: runs that are killed, starved and continued."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.bench.environment import apply_environment, xla_environment
from jaxbench.bench.recipe import read_recipe
from jaxbench.bench.run_folder import is_held
from jaxbench.training.interrupt import INTERRUPTED, interruptible
from jaxbench.training.records import flatten, read_metrics

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "width=8,depth=1,batch_size=8,max_steps=60,evaluate_every=20,checkpoint_every=10,"
    "steps_per_dispatch=5,train_examples=0,test_examples=40,level=custom,pairs=2,"
    "tokens=12,vocabulary=16,ema_decay=0.5,dropout=0.1,warmup_fraction=0.1,stop=False"
)
TEXT = (
    "size=,width=8,depth=1,batch_size=4,window=32,steps_per_dispatch=8,budget=2s,"
    "evaluations=8,evaluation_share=0,validation_bytes=2000,checkpoint_every=0"
)
BACKBONES = ("gru", "min_gru")
# Fields of a result that two equal runs need not share.
FREE = ("seconds.", "throughput.", "memory.peak_bytes")
SIGNALS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
}
# A process that takes longer has hung.
LONGEST = 120.0

Body = Callable[[], int]


# --- processes -----------------------------------------------------------------


def prepare(work: Path) -> None:
    """Sets what processes inherit: the compiler's settings, and where modules are."""
    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    settings = config("mqar", BACKBONES[0], SMALL, work)["xla"]
    apply_environment(xla_environment(settings | {"platform": "cpu"}))


def config(
    task: str, backbone: str, text: str, work: Path, **more: Any
) -> dict[str, Any]:
    given = ",".join([text, *(f"{k}={v}" for k, v in more.items())])
    recipe = f"--config=configs/{task}.py:{backbone},{given}"
    return read_recipe([recipe, f"--config.xla.compilation_cache={work / 'xla'}"])


def forked(body: Body, log: Path | int) -> int:
    """Calls `body` in a process of its own, as a command does; returns its number.

    What it prints goes into a file, or to an open descriptor.
    """
    # Before any device is opened, so that a fork has no threads but its own.
    import jax._src.xla_bridge as bridge

    import jaxbench.bench.job  # noqa: F401

    assert not bridge.backends_are_initialized() and threading.active_count() == 1
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        os.setsid()
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = log if isinstance(log, int) else os.open(log, how)
        os.dup2(file, 1)
        os.dup2(file, 2)
        code = interruptible("run", body, leaves=True)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(number: int, seconds: float = LONGEST) -> int | None:
    """A process's code, below 0 for a signal; None: it hung, and was killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return None


def strike(number: int, name: str, gap: float) -> None:
    """Sends the signals of a kill to a process that may have ended."""
    for place, sent in enumerate(SIGNALS[name]):
        if place:
            time.sleep(gap)
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, sent)


def train(configs: Sequence[dict[str, Any]], folders: Sequence[Path]) -> Body:
    """What `run.py` does, or a suite's process of several runs side by side."""

    def body() -> int:
        from jaxbench.bench.job import run_jobs
        from jaxbench.errors import InputError

        try:
            results = run_jobs(configs, folders)
        except InputError as error:
            print(f"error: {error}", flush=True)
            return 2
        statuses = {result["status"] for result in results}
        if "interrupted" in statuses:
            return INTERRUPTED
        return 0 if statuses == {"ok"} else 1

    return body


def runs(
    work: Path, folder: Path, count: int
) -> tuple[list[dict[str, Any]], list[Path]]:
    """One small run, or several of other seeds, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    configs = [config("mqar", BACKBONES[0], SMALL, work, seed=s) for s in range(count)]
    return configs, [folder / f"seed{s}" for s in range(count)]


def twin(work: Path, count: int) -> tuple[Path, float]:
    """The folder of unbroken runs, and how long they take with all compiled."""
    folder = work / f"twin-{count}"
    if not (folder / "seconds").exists():
        for _ in range(2):
            shutil.rmtree(folder, ignore_errors=True)
            configs, folders = runs(work, folder, count)
            began = time.monotonic()
            assert ended(forked(train(configs, folders), folder / "log.txt")) == 0
            seconds = time.monotonic() - began
        (folder / "seconds").write_text(str(seconds))
    return folder, float((folder / "seconds").read_text())


def differences(folder: Path, other: Path, tolerance: float = 0.0) -> list[str]:
    """Fields in which the runs below two folders differ; [] where they are equal.

    With a tolerance numbers may differ by such a part, and programs by how many runs
    they are for.
    """

    def same(one: Any, two: Any) -> bool:
        if isinstance(one, float) and isinstance(two, float):
            return abs(one - two) <= tolerance * abs(two)
        if isinstance(one, list | dict) and type(one) is type(two):
            inside = one.values() if isinstance(one, dict) else one
            others = two.values() if isinstance(two, dict) else two
            equal = isinstance(one, list) or one.keys() == two.keys()
            return equal and len(one) == len(two) and all(map(same, inside, others))
        return one == two

    free = FREE + (("copies", "memory.") if tolerance else ())
    found = []
    names = sorted(p.parent.relative_to(other) for p in other.rglob("result.json"))
    for name in names:
        one, two = (
            flatten(json.loads((x / name / "result.json").read_text()))
            if (x / name / "result.json").exists()
            else {}
            for x in (folder, other)
        )
        found += [
            f"{name}: {key} {one.get(key)!r} for {two.get(key)!r}"[:200]
            for key in sorted({*one, *two})
            if not key.startswith(free) and not same(one.get(key), two.get(key))
        ]
        lines = [read_metrics(x / name / "metrics.jsonl") for x in (folder, other)]
        if not same(*lines):
            found.append(f"{name}: metrics.jsonl")
    return found[:5] if names else ["no twin"]


# --- trials --------------------------------------------------------------------


def broken(
    start: Callable[[], int],
    rng: np.random.Generator,
    kills: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Starts a process again until it was so often killed, and ended by itself."""
    made: list[dict[str, Any]] = []
    for _ in range(4 * kills + 1):
        number = start()
        if len(made) == kills:
            code = ended(number)
            made.append({"signal": "none", "code": code})
            if code == 0:
                return made
            break
        name = str(rng.choice(list(SIGNALS)))
        time.sleep(seconds * rng.random())
        strike(number, name, 0.3 * rng.random())
        code = ended(number)
        if code == 0:
            # It had ended before; the next one has nothing to do.
            return [*made, {"signal": "none", "code": 0}]
        made.append({"signal": name, "code": code})
    raise RuntimeError(f"the run does not go on: {made}")


def outcome(made: list[dict[str, Any]], apart: list[str]) -> dict[str, Any]:
    """What a trial says of itself."""
    return {"kills": [m for m in made if m["signal"] != "none"], "differs": apart}


def killed_runs(count: int) -> Callable[..., dict[str, Any]]:
    """Trials with one run, or with several side by side."""

    def trial(folder: Path, work: Path, rng: np.random.Generator, kills: int) -> Any:
        whole, seconds = twin(work, count)
        body = train(*runs(work, folder, count))
        made: list[dict[str, Any]] = []
        made = broken(lambda: forked(body, folder / "log.txt"), rng, kills, seconds)
        return outcome(made, differences(folder, whole, 1e-6 if count > 1 else 0.0))

    return trial


def killed_saves(folder: Path, work: Path, rng: np.random.Generator, kills: int) -> Any:
    """Kills inside `Checkpoints.save`: while orbax writes, renames, lists, deletes."""
    whole, _ = twin(work, 1)
    body = train(*runs(work, folder, 1))
    made: list[dict[str, Any]] = []
    for _ in range(8 * kills):
        if len(made) == kills:
            break
        name = str(rng.choice(list(SIGNALS)))
        place, delay, gap = (
            int(rng.integers(1, 5)),
            0.15 * rng.random(),
            0.1 * rng.random(),
        )
        saving = folder / "saving"
        saving.unlink(missing_ok=True)

        def armed(name=name, place=place, delay=delay, gap=gap, saving=saving) -> int:
            from jaxbench.training.checkpoint import Checkpoints

            save, calls = Checkpoints.save, iter(range(1, 100))

            def watched(*given: Any) -> None:
                if next(calls) == place:
                    blow = (os.getpid(), name, gap)
                    threading.Timer(delay, strike, blow).start()
                saving.touch()
                save(*given)
                saving.unlink()

            Checkpoints.save = watched
            return body()

        code = ended(forked(armed, folder / "log.txt"))
        if code == 0:
            break
        inside = saving.exists() or name != "SIGKILL"
        if inside:
            made.append({"signal": name, "code": code})
    code = ended(forked(body, folder / "log.txt"))
    apart = differences(folder, whole) if code == 0 else [f"ends with {code}"]
    return outcome(made, apart)


def killed_commands(
    folder: Path, work: Path, rng: np.random.Generator, kills: int
) -> Any:
    """`run.py` as a user starts it, from its first line on."""
    whole, seconds = twin(work, 1)
    _, (run,) = runs(work, folder, 1)
    command = [
        *(sys.executable, str(ROOT / "run.py")),
        f"--config=configs/mqar.py:{BACKBONES[0]},{SMALL},seed=0",
        *(f"--config.xla.compilation_cache={work / 'xla'}", f"--workdir={run}"),
    ]
    made = broken(lambda: _started(command, folder), rng, kills, seconds + 4)
    return outcome(made, differences(folder, whole))


def killed_suites(
    folder: Path, work: Path, rng: np.random.Generator, kills: int
) -> Any:
    """Two backbones; the suite is killed, and its runs with it."""
    whole = work / "twin-suite"

    def command(where: Path) -> list[str]:
        return [
            *(sys.executable, "-m", "jaxbench.cli", "suite", "--side_by_side=off"),
            *(f"--config=configs/mqar.py:{SMALL}", f"--only={','.join(BACKBONES)}"),
            *(f"--config.xla.compilation_cache={work / 'xla'}", f"--folder={where}"),
        ]

    if not (whole / "seconds").exists():
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        began = time.monotonic()
        code = ended(_started(command(whole / "suite"), whole))
        assert code == 0, f"see {whole / 'log.txt'}"
        (whole / "seconds").write_text(str(time.monotonic() - began))
    folder.mkdir()
    seconds = float((whole / "seconds").read_text())
    made = broken(
        lambda: _started(command(folder / "suite"), folder), rng, kills, seconds
    )
    return outcome(made, differences(folder / "suite", whole / "suite"))


def _started(command: Sequence[str], folder: Path) -> int:
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        ).pid


def between_saves(
    folder: Path, work: Path, rng: np.random.Generator, kills: int
) -> Any:
    """SIGKILL after the last state is saved and before or after the best one is."""
    folder.mkdir()
    text = work / "words.txt"
    if not text.exists():
        words = np.array(["to be ", "or not ", "that is ", "the question.\n"])
        drawn = np.random.default_rng(0).choice(words, 3000)
        text.write_bytes("".join(drawn).encode()[:20_000])
    given = config("pile", BACKBONES[0], TEXT, work, corpus=text, cache="")
    run, place = folder / "run", int(rng.integers(1, 5))
    first = bool(rng.integers(2))
    body = train([given], [run])

    def armed() -> int:
        from jaxbench.training.checkpoint import Checkpoints

        save, note, calls = Checkpoints.save, Checkpoints.note, iter(range(1, 1000))

        def watched(self: Any, which: str, *given: Any) -> None:
            if first and which == "best" and next(calls) >= place:
                os.kill(os.getpid(), signal.SIGKILL)
            save(self, which, *given)

        def noted(*given: Any) -> None:
            if not first and next(calls) == place:
                os.kill(os.getpid(), signal.SIGKILL)
            note(*given)

        Checkpoints.save, Checkpoints.note = watched, noted
        return body()

    def judge() -> int:
        """Scores the best weights: 0 where they have the score that is written."""
        import jax

        from jaxbench.bench.trained import one_device, open_run, restore_variables
        from jaxbench.training.step import make_evaluate_program

        run_ = open_run(run)
        variables, step = restore_variables(run_, "best", one_device())
        rows = run_.task.splits["validation"]
        evaluate = jax.jit(make_evaluate_program(run_.model, run_.task))
        ones = np.ones((1, len(rows)), np.float32)
        sums = jax.device_get(evaluate(variables, {}, rows[None], ones))
        best = run_.result["best"]
        metric = run_.task.primary
        found = run_.task.summarize(sums)[metric]
        print(f"best: {best['metrics'][metric]} at {best['step']}, found {found}", step)
        return int(
            step != best["step"] or abs(found / best["metrics"][metric] - 1) > 1e-5
        )

    log = folder / "log.txt"
    code = ended(forked(armed, log))
    made = [{"signal": "SIGKILL", "code": code}] if code else []
    apart = []
    if (code := ended(forked(body, log))) != 0:
        apart = [f"ends with {code}"]
    elif ended(forked(judge, log)) != 0:
        apart = ["the best weights have another score or step than is written"]
    return outcome(made, apart)


def full_disks(folder: Path, work: Path, rng: np.random.Generator, kills: int) -> Any:
    """From a random moment on no file may grow past some bytes, as on a full disk."""
    whole, seconds = twin(work, 1)
    body = train(*runs(work, folder, 1))
    moment, most = 0.8 * seconds * rng.random(), int(10 ** rng.uniform(1, 4.5))

    def limited() -> int:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

        threading.Timer(moment, limit).start()
        return body()

    # A pipe: a log would be one of the files that may not grow.
    source, target = os.pipe()
    code = ended(forked(limited, target))
    os.close(target)
    with open(source, errors="replace") as printed:
        lines = printed.read().splitlines()
    said = [x for x in lines if "no space left on the disk" in x]
    # 0: it was through, or wrote nothing so large.
    apart = (
        []
        if code == 0 or (code == 2 and said)
        else [f"a full disk: {code}, {lines[-1:]}"]
    )
    if (again := ended(forked(body, folder / "log.txt"))) != 0:
        apart.append(f"ends with {again}")
    found = outcome([], apart + differences(folder, whole))
    return {**found, "code": code, "bytes": most}


def two_processes(
    folder: Path, work: Path, rng: np.random.Generator, kills: int
) -> Any:
    """A second process in the folder of one that trains is refused, in one line."""
    whole, _ = twin(work, 1)
    configs, (run,) = runs(work, folder, 1)
    body = train(configs, [run])
    first = forked(body, folder / "log.txt")
    while not is_held(run):
        time.sleep(0.01)
    second = ended(forked(body, folder / "second.txt"))
    said = (folder / "second.txt").read_text(errors="replace")
    apart = (
        [] if second == 2 and "is held by process" in said else [f"second: {second}"]
    )
    if (code := ended(first)) != 0:
        apart.append(f"first: {code}")
    return outcome([], apart + differences(folder, whole))


TRIALS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "run": killed_runs(1),
    "side by side": killed_runs(2),
    "inside a save": killed_saves,
    "command": killed_commands,
    "suite": killed_suites,
    "between last and best": between_saves,
    "full disk": full_disks,
    "two processes": two_processes,
}
