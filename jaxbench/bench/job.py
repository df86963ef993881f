"""One run: config in, folder out. Boards read nothing but its `result.json`."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.bench import build
from jaxbench.bench.check import check_finite, check_values
from jaxbench.bench.facts import Facts
from jaxbench.bench.finals import score_finals
from jaxbench.bench.heartbeat import Heartbeat
from jaxbench.bench.memory import Plan, fit
from jaxbench.bench.result import FINISHED
from jaxbench.bench.run_folder import (
    check_owner,
    claim,
    held,
    read_json,
    write_json,
)
from jaxbench.errors import InputError
from jaxbench.models.stack import Stack
from jaxbench.tasks.task import Task
from jaxbench.training import loop
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints, require_space, tree_bytes
from jaxbench.training.compiling import Compilation
from jaxbench.training.disk import disk_is_full, full_disk_message
from jaxbench.training.programs import (
    FirstState,
    Placement,
    Programs,
    compile_programs,
    evaluation_batches,
    first_batch,
)
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.stop import StopSignals
from jaxbench.training.writers import MetricWriter

# Validation batches of one dispatch.
BATCHES_PER_EVALUATION = 16
# Updates that a budget leaves out: the device warms up.
FIRST_STEPS = 5


class OutOfMemoryError(Exception):
    """No way of computing the run fits the memory; known before it starts."""


def run_job(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Trains and evaluates one backbone on one task; resumes what was begun.

    Args:
      config: the resolved config as plain nested dicts (see `configs/`).
      folder: the run folder. One that already holds this config's finished run is
        left as it is; one with a checkpoint is gone on with.

    Returns:
      What `result.json` holds. Its `status` is "ok", "diverged", "oom",
      "interrupted" or "crashed"; anything but "ok" has a `reason`.

    Raises:
      InputError: the config, the data, the folder or the disk cannot be used. Nothing
        was written, or what was written is a checkpoint to go on from.
    """
    check_values(config)
    check_owner(folder, config)
    finished = read_json(folder / "result.json")
    if finished is not None and finished["status"] in FINISHED:
        _say(f"{folder} holds a finished run ({finished['status']}); nothing to do")
        return finished
    facts = Facts(config)
    try:
        result = _run(config, folder, facts)
    except InputError:
        raise
    except Exception as error:
        if disk_is_full(error):
            raise InputError(full_disk_message(folder)) from error
        status, reason = describe_failure(error, facts)
        claim(folder, config)
        (folder / "error.txt").write_text(traceback.format_exc())
        result = facts.result(status, reason, folder)
    write_json(folder / "result.json", result)
    return result


def _run(config: Mapping[str, Any], folder: Path, facts: Facts) -> dict[str, Any]:
    train = config["train"]
    heartbeat = Heartbeat(folder)
    heartbeat.phase("data")
    # Before the data, so that a wrong option is refused in seconds.
    stack = build.build_backbone(config)
    task = build.build_task(config, _say)
    check_finite(task.arrays)
    orders = [
        stage.order(batch_size=train["batch_size"], seed=config["seed"])
        for stage in task.stages
    ]
    order = orders[-1]
    budget = build.build_budget(config, task, order)
    goal = build.build_goal(config, task, budget)
    facts.prepared(task, order, budget, goal)
    placement = Placement.over_all_devices(train["batch_size"])

    heartbeat.phase("compile")
    compilation = Compilation(_kind(config), _say)
    with compilation.reported():
        plan, initialize = _compile(config, stack, task, placement, budget, compilation)
    facts.plan = plan
    if plan.programs is None:
        raise OutOfMemoryError(plan.refusal())
    programs = plan.programs
    facts.compiled(build.build_model(stack, task), programs)
    keep = train.get("keep_best", 1)
    require_space(folder, tree_bytes(programs.abstract_state), keep=keep)

    with held(folder, "the run folder"):
        claim(folder, config)
        arrays = {
            name: jax.device_put(np.asarray(value), placement.whole)
            for name, value in task.arrays.items()
        }
        checkpoints = Checkpoints(folder / "checkpoints", keep=keep)
        if checkpoints.latest_step() is None:
            start_rows = jax.device_put(
                first_batch(task, train["batch_size"]), placement.whole
            )
            with compilation.reported(), compilation.program("initial values"):
                state = initialize(arrays, start_rows)
            outcome = loop.Outcome()
            writer = MetricWriter(folder)
        else:
            state, saved = checkpoints.restore(programs.abstract_state)
            outcome = loop.Outcome.resumed(int(jax.device_get(state.step)), saved)
            writer = MetricWriter(folder, resume_step=outcome.step)
            _say(f"going on from step {outcome.step}")
        facts.outcome = outcome
        facts.first_step_at(time.monotonic())

        progress = TrainingProgress(
            budget.steps or 0,
            start=outcome.step,
            label=config["model"]["backbone"],
            report=heartbeat.step,
            report_phase=heartbeat.phase,
        )
        with StopSignals() as signals, progress:
            state, outcome = loop.train(
                state,
                arrays,
                task=task,
                programs=programs,
                placement=placement,
                lessons=[
                    loop.Lesson(
                        stage.name,
                        order,
                        evaluation_batches(
                            task.splits[stage.split], programs, placement
                        ),
                    )
                    for stage, order in zip(task.stages, orders, strict=True)
                ],
                budget=budget,
                evaluate_every=build.evaluate_every(config, budget),
                checkpoint_every=train["checkpoint_every"],
                checkpoints=checkpoints,
                writer=writer,
                progress=progress,
                outcome=outcome,
                stop=signals.reason,
                goal=goal,
                first_steps=FIRST_STEPS if "budget" in train else 0,
            )
            if outcome.status == "ok" and task.finals:
                heartbeat.phase("test")
                facts.scored(
                    score_finals(
                        build.build_model(stack, task),
                        task,
                        checkpoints.restore(programs.abstract_state, "best")[0],
                        batch_size=programs.evaluation_batch_size,
                        report=progress.evaluating,
                    )
                )
        checkpoints.close()
        facts.signal = signals.number
        if outcome.status in FINISHED:
            final = outcome.best["metrics"] if outcome.best else {}
            writer.hyperparameters(config, final)
        writer.close()
        return facts.result(outcome.status, outcome.reason, folder)


def _compile(
    config: Mapping[str, Any],
    stack: Stack,
    task: Task,
    placement: Placement,
    budget: Budget,
    compilation: Compilation,
) -> tuple[Plan, FirstState]:
    """Compiles the run so that it fits, and gives what makes its first state."""
    train = config["train"]
    optimizer = build.build_optimizer(config, budget, _say)
    initialize = FirstState(
        build.build_model(stack, task),
        task,
        optimizer,
        placement,
        seed=config["seed"],
        ema=train["ema_decay"] > 0,
        parameter_dtype=build.DTYPES[train["parameter_dtype"]],
    )

    def compile_at(remat: bool, micro_batches: int) -> Programs:
        return compile_programs(
            build.build_model(stack.clone(remat=remat), task),
            task,
            optimizer,
            initialize,
            placement,
            batch_size=train["batch_size"],
            steps_per_dispatch=min(
                train["steps_per_dispatch"], budget.steps or sys.maxsize
            ),
            batches_per_evaluation=BATCHES_PER_EVALUATION,
            ema_decay=train["ema_decay"],
            micro_batches=micro_batches,
            max_skips=train["max_skips"],
            watch=compilation.program,
        )

    plan = fit(
        compile_at,
        remat=stack.remat,
        batch_size=train["batch_size"],
        devices=jax.device_count(),
        limit_gb=config["xla"]["memory_limit"],
    )
    chosen = plan.tried[-1]
    if plan.programs is not None and len(plan.tried) > 1:
        _say(
            f"memory: remat and {chosen['micro_batches']} micro-batches, so that "
            f"{plan.limit_is} suffices"
        )
    return plan, initialize


def _kind(config: Mapping[str, Any]) -> str:
    """What runs have in common that take as long to compile, in words."""
    model = config["model"]
    size = model["width"] or model.get("size") or model.get("parameters")
    return f"{config['task']} {config['protocol']} {model['backbone']} {size}"


def describe_failure(error: Exception, facts: Facts) -> tuple[str, str]:
    """Maps an exception to a status and a reason of one line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, OutOfMemoryError):
        return "oom", text
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        predicted = facts.predicted_bytes
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
