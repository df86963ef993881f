"""Trains 1..n runs: configs in, folders out. Boards read nothing but `result.json`.

Several runs are those of one backbone that differ in seed and learning rate. Each has
the folder, the curve, the checkpoints and the result that it would have had alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.bench import build
from jaxbench.bench.beside import check_copies
from jaxbench.bench.check import check_finite, check_values
from jaxbench.bench.extend import check_longer, check_start, copy_run, describe_start
from jaxbench.bench.facts import Facts
from jaxbench.bench.finals import score_finals
from jaxbench.bench.heartbeat import Heartbeat
from jaxbench.bench.memory import fit
from jaxbench.bench.result import FINISHED, read_result
from jaxbench.bench.run_folder import check_owner, check_place, claim, held
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.task import Task
from jaxbench.training import loop
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints, require_space, tree_bytes
from jaxbench.training.compiling import Compilation
from jaxbench.training.disk import disk_is_full, full_disk_message
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.outcome import Outcome, TrainingRun, go_on
from jaxbench.training.programs import (
    FirstState,
    Placement,
    Programs,
    compile_programs,
    evaluation_batches,
    first_batch,
)
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState
from jaxbench.training.stop import StoppedError, StopSignals
from jaxbench.training.weights import start_from
from jaxbench.training.writers import MetricWriter

# Validation batches of one dispatch.
BATCHES_PER_EVALUATION = 16
# Updates that a budget leaves out: the device warms up.
FIRST_STEPS = 5

Config = Mapping[str, Any]


class OutOfMemoryError(Exception):
    """No way of computing the runs fits the memory; known before they start."""


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all of the runs have in common.

    Attributes:
      config: the first run's; those of the others differ in seed and rate.
      task, model, budget, goal: built from it.
      home: where states begin and end; several runs may lie elsewhere in between.
      first_state: learning rate -> what makes first states.
      programs_of: number of runs -> their programs, compiled once.
      size: how many runs train at a time.
      heartbeat, compilation: who is told what goes on.
    """

    config: Config
    task: Task
    model: Model
    budget: Budget
    goal: Goal | EarlyStopping | None
    home: Placement
    first_state: Callable[[float], FirstState]
    programs_of: Callable[[int], Programs]
    size: int
    heartbeat: Heartbeat
    compilation: Compilation


def run_job(
    config: Config, folder: Path, *, extend: Path | None = None
) -> dict[str, Any]:
    """Trains and evaluates one run: `run_jobs` of one."""
    return run_jobs([config], [folder], extend=extend)[0]


def run_jobs(
    configs: Sequence[Config], folders: Sequence[Path], *, extend: Path | None = None
) -> list[dict[str, Any]]:
    """Trains and evaluates one backbone on one task; resumes what was begun.

    Args:
      configs: resolved, as plain nested dicts (see `configs/`). Those of several runs,
        which train as one program, are equal but for `beside.VARIED`.
      folders: the run folders. One that already holds its config's finished run is left
        as it is. Those with a checkpoint are gone on with, several from the last step
        that all of them have saved.
      extend: the finished run that a single one goes on with, see `extend.extended`.

    Returns:
      What each `result.json` holds. Its `status` is "ok", "diverged", "oom",
      "interrupted" or "crashed"; anything but "ok" has a `reason`.

    Raises:
      InputError: the configs, the data, a folder or the disk cannot be used. Nothing
        was written, or what was written are checkpoints to go on from.
    """
    if len(configs) > 1:
        check_copies(configs)
    for config, folder in zip(configs, folders, strict=True):
        check_values(config)
        check_place(folder, "--workdir")
        check_start(config, folder)
        check_owner(folder, config)
    results = [read_result(folder) for folder in folders]
    todo = []
    for i, (result, folder) in enumerate(zip(results, folders, strict=True)):
        if result is not None and result["status"] in FINISHED:
            done = f"{folder} holds a finished run ({result['status']})"
            _say(f"{done}; nothing to do")
        else:
            todo.append(i)
    jobs = [Facts(configs[i], folders[i], len(todo)) for i in todo]
    try:
        if jobs:
            _run(jobs, extend)
    except InputError:
        raise
    except Exception as error:
        if disk_is_full(error):
            raise InputError(full_disk_message(jobs[0].folder)) from error
        for job in jobs:
            if job.result is None:
                claim(job.folder, job.config)
                (job.folder / "error.txt").write_text(traceback.format_exc())
                job.ends(*describe_failure(error, job.predicted_bytes))
    for i, job in zip(todo, jobs, strict=True):
        results[i] = job.result
    return [result for result in results if result is not None]


def _run(jobs: Sequence[Facts], extend: Path | None) -> None:
    """Builds what is shared, then trains as many at a time as fit the memory."""
    shared = _prepare(jobs)
    with contextlib.ExitStack() as exits:
        for job in jobs:
            exits.enter_context(held(job.folder, "the run folder"))
            claim(job.folder, job.config)
            if extend is not None:
                copy_run(extend, job.folder)
        arrays = {
            name: jax.device_put(np.asarray(value), shared.home.whole)
            for name, value in shared.task.arrays.items()
        }
        signals = exits.enter_context(StopSignals())
        for start in range(0, len(jobs), shared.size):
            group = jobs[start : start + shared.size]
            going = _begin(group, shared, arrays)
            if start == 0:
                for job in jobs:
                    job.starts()
            _train(group, going, shared, arrays, signals)


def _prepare(jobs: Sequence[Facts]) -> Shared:
    """Builds everything, and compiles it so that it fits the memory."""
    config = jobs[0].config
    train = config["train"]
    heartbeat = Heartbeat([job.folder for job in jobs])
    heartbeat.phase("data")
    # Before the data, so that a wrong option is refused in seconds.
    stack = build.build_backbone(config)
    task = build.build_task(config, _say)
    check_finite(task.arrays)
    order = task.order(batch_size=train["batch_size"], seed=config["seed"])
    budget = build.build_budget(config, task, order)
    check_longer(config, budget)
    goal = build.build_goal(config, task, budget)
    for job in jobs:
        job.prepared(task, order, budget, goal)
    home = Placement.of_runs(1)
    if len(jobs) == 1:
        home = Placement.over_all_devices(train["batch_size"])
    heartbeat.phase("compile")
    compilation = Compilation(_kind(config, len(jobs)), _say)
    model = build.build_model(stack, task)

    @functools.cache
    def first_state(rate: float) -> FirstState:
        own = {**config, "train": {**train, "learning_rate": rate}}
        say = _say if rate == train["learning_rate"] else lambda line: None
        update = build.build_update(own, model, task, budget, say)
        return build.build_first_state(config, update, home)

    @functools.cache
    def compile_at(runs: int, remat: bool, micro_batches: int) -> Programs:
        first = first_state(train["learning_rate"])
        return compile_programs(
            dataclasses.replace(
                first.update,
                model=build.build_model(stack.clone(remat=remat), task),
                micro_batches=micro_batches,
            ),
            first,
            home if len(jobs) == 1 else Placement.of_runs(runs),
            batch_size=train["batch_size"],
            steps_per_dispatch=min(
                train["steps_per_dispatch"], budget.steps or sys.maxsize
            ),
            batches_per_evaluation=BATCHES_PER_EVALUATION,
            watch=compilation.program,
        )

    with compilation.reported():
        plan = fit(
            compile_at,
            runs=len(jobs),
            remat=stack.remat,
            batch_size=train["batch_size"],
            devices=home.mesh.size,
            limit_gb=config["xla"]["memory_limit"],
        )
    for job in jobs:
        job.plan = plan
    if plan.programs is None:
        raise OutOfMemoryError(plan.refusal())
    remat, parts = plan.tried[-1]["remat"], plan.tried[-1]["micro_batches"]
    if remat > stack.remat or parts > 1:
        _say(
            f"memory: remat and {parts} micro-batches, so that {plan.limit_is} suffices"
        )
    for job in jobs:
        job.compiled(model, plan.programs)
    placement = plan.programs.placement
    if len(jobs) > 1:
        _say(describe_placement(placement.runs, placement.mesh.size))
    require_space(
        jobs[0].folder,
        len(jobs) * tree_bytes(plan.programs.abstract_state),
        keep=train.get("keep_best", 1),
    )
    return Shared(
        *(config, task, model, budget, goal, home, first_state),
        *(lambda runs: compile_at(runs, remat, parts), placement.runs),
        *(heartbeat, compilation),
    )


def _begin(
    jobs: Sequence[Facts], shared: Shared, arrays: Mapping[str, jax.Array]
) -> list[tuple[TrainingRun, TrainState]]:
    """Each run where it was left; those that go on, at the last step all have saved."""
    train, compilation = shared.config["train"], shared.compilation
    size = train["batch_size"]
    kept = [
        Checkpoints(job.folder / "checkpoints", keep=train.get("keep_best", 1))
        for job in jobs
    ]
    newest = [checkpoints.latest_step() for checkpoints in kept]
    over = [
        step is not None
        and Outcome.resumed(step, checkpoints.facts(step)).is_over(
            shared.budget, shared.goal
        )
        for checkpoints, step in zip(kept, newest, strict=True)
    ]
    saved = [c.steps() for c, ended in zip(kept, over, strict=True) if not ended]
    common = max(set.intersection(*saved), default=0) if saved else 0
    begun = []
    for job, checkpoints, ended, last in zip(jobs, kept, over, newest, strict=True):
        seed, rate = job.config["seed"], job.config["train"]["learning_rate"]
        step = (last if ended else common) or 0
        if step:
            abstract = shared.programs_of(shared.size).abstract_state
            state, facts = checkpoints.restore(abstract, step=step)
            outcome = go_on(checkpoints, step, facts)
            writer = MetricWriter(job.folder, resume_step=step, due=outcome.due)
        else:
            checkpoints.forget_after(0)
            rows = jax.device_put(first_batch(shared.task, size), shared.home.whole)
            with compilation.reported(), compilation.program("initial values"):
                state = shared.first_state(rate)(seed, arrays, rows)
            outcome, writer = Outcome(), MetricWriter(job.folder)
            if given := train["start_from"]:
                state, at = start_from(state, Path(given).expanduser())
                outcome.started_from = describe_start(job.config, at)
                _say(f"starting from the weights of {given}, step {at}")
        job.outcome, job.copies = outcome, len(jobs)
        orders = [
            stage.order(batch_size=size, seed=seed) for stage in shared.task.stages
        ]
        begun.append((TrainingRun(orders, outcome, checkpoints, writer), state))
    if common or all(over):
        _say(f"going on from step {common or begun[0][0].outcome.step}")
    return begun


def _train(
    jobs: Sequence[Facts],
    going: list[tuple[TrainingRun, TrainState]],
    shared: Shared,
    arrays: Mapping[str, jax.Array],
    signals: StopSignals,
) -> None:
    """Trains one group from where it was left, scores it, and writes its results.

    When half of the runs have ended, a smaller program takes the others further.
    """
    task, train, runs = shared.task, shared.config["train"], [run for run, _ in going]
    label = shared.config["model"]["backbone"]
    first_steps = FIRST_STEPS if "budget" in train else 0
    progress = TrainingProgress(
        shared.budget.steps or 0,
        start=min(run.outcome.step for run in runs),
        label=label if len(jobs) == 1 else f"{label} x {len(jobs)}",
        report=shared.heartbeat.step,
        report_phase=shared.heartbeat.phase,
    )
    with progress:
        while going:
            with shared.compilation.reported():
                programs = shared.programs_of(len(going))
            placement = programs.placement
            together = [run for run, _ in going]
            states = placement.stack([state for _, state in going])
            # Single states are given away or copied: nothing may hold them any longer.
            going.clear()
            placed = jax.device_put(dict(arrays), placement.whole)
            states = loop.train(
                states,
                together,
                placed,
                programs=programs,
                lessons=[
                    loop.Lesson(
                        stage.name,
                        evaluation_batches(task.splits[stage.split], programs),
                    )
                    for stage in task.stages
                ],
                budget=shared.budget,
                evaluate_every=build.evaluate_every(shared.config, shared.budget, task),
                evaluation_share=train.get("evaluation_share", 0.0),
                checkpoint_every=train["checkpoint_every"],
                progress=progress,
                stop=signals.reason,
                goal=shared.goal,
                first_steps=first_steps,
                leave=len(together) // 2,
            )
            going = [
                (run, placement.take(states, index))
                for index, run in enumerate(together)
                if not run.ended
            ]
            first_steps = 0

        def check() -> None:
            """Between batches of a test split, which may be long."""
            progress.evaluating()
            signals.check()

        scored = [
            (job, run)
            for job, run in zip(jobs, runs, strict=True)
            if task.finals and run.outcome.status == "ok"
        ]
        try:
            for job, run in scored:
                shared.heartbeat.phase("test")
                best, _ = run.checkpoints.restore(programs.abstract_state, "best")
                job.scored(score_finals(best, placed, programs, check))
        except StoppedError as stopped:
            # All is saved: they go on, together, with the test splits.
            for _, run in scored:
                run.outcome.status, run.outcome.reason = "interrupted", str(stopped)
    for job, run in zip(jobs, runs, strict=True):
        run.checkpoints.close()
        if run.outcome.status in FINISHED:
            final = run.outcome.best["metrics"] if run.outcome.best else {}
            run.writer.hyperparameters(job.config, final)
        run.writer.close()
        job.ends(run.outcome.status, run.outcome.reason)


def describe_placement(runs: int, devices: int) -> str:
    """One line: how many train at a time, and on how much of the machine."""
    visible = jax.local_device_count()
    if runs == 1:
        return "one run at a time, as one program each, on one device"
    line = f"{runs} runs as one program"
    if visible == 1:
        return line
    if devices == visible:
        return f"{line}, {runs // devices} on each of {devices} devices"
    return (
        f"{line} on {devices} of {visible} devices: {runs} runs do not divide over more"
    )


def _kind(config: Config, runs: int) -> str:
    """What runs have in common that take as long to compile, in words."""
    model = config["model"]
    size = model["width"] or model.get("size") or model.get("parameters")
    several = f" x {runs}" if runs > 1 else ""
    return f"{config['task']} {config['protocol']} {model['backbone']} {size}{several}"


def describe_failure(error: Exception, predicted: int | None) -> tuple[str, str]:
    """Maps an exception to a status and a reason of one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OutOfMemoryError):
        return "oom", text
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        known = f"; predicted {predicted / 1e9:.2f} GB" if predicted else ""
        return "oom", (
            f"out of memory: {text[:200]}{known}; lower train.batch_size or "
            "model.width, or set model.remat=true"
        )
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return "crashed", (
        f"{type(error).__name__}: {text[:300]}{where}; the traceback is in error.txt"
    )


def _say(line: str) -> None:
    print(f"jaxbench: {line}", file=sys.stderr, flush=True)
