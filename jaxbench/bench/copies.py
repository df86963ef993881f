"""Runs that differ in seed and learning rate alone, trained as one program.

Every run has the folder, the curve, the checkpoints and the result that it would have
had alone, but for its speed, which is that of all together.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.bench import build
from jaxbench.bench.beside import check_copies
from jaxbench.bench.check import check_finite, check_values
from jaxbench.bench.facts import Facts
from jaxbench.bench.finals import score_finals
from jaxbench.bench.heartbeat import Heartbeat
from jaxbench.bench.job import (
    BATCHES_PER_EVALUATION,
    OutOfMemoryError,
    describe_failure,
)
from jaxbench.bench.memory import Plan, memory_limit
from jaxbench.bench.result import FINISHED
from jaxbench.bench.run_folder import (
    check_owner,
    claim,
    held,
    read_json,
    write_json,
)
from jaxbench.bench.trained import one_device
from jaxbench.errors import InputError
from jaxbench.models.model import Model
from jaxbench.tasks.task import Order, Task
from jaxbench.training import loop
from jaxbench.training.budget import Budget
from jaxbench.training.checkpoint import Checkpoints, require_space, tree_bytes
from jaxbench.training.copies import (
    Copy,
    CopyPrograms,
    compile_copies,
    stack,
    take,
    train_copies,
)
from jaxbench.training.goal import EarlyStopping, Goal
from jaxbench.training.programs import (
    FirstState,
    Placement,
    Programs,
    first_batch,
    grouped_batches,
    trace_training,
)
from jaxbench.training.progress import TrainingProgress
from jaxbench.training.state import TrainState
from jaxbench.training.stop import StopSignals
from jaxbench.training.writers import MetricWriter

Config = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the runs.

    Attributes:
      config, folder: its own.
      facts: for its result.
      heartbeat: for its suite.
      orders: which rows make up which step, of each lesson.
      initialize: makes its first state.
    """

    config: Config
    folder: Path
    facts: Facts
    heartbeat: Heartbeat
    orders: Sequence[Order]
    initialize: FirstState


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all of them have in common.

    Attributes:
      train: the config's section.
      task, model, budget, goal, placement: as of a single run.
      single: what is known of one run before its first step.
    """

    train: Mapping[str, Any]
    task: Task
    model: Model
    budget: Budget
    goal: Goal | EarlyStopping | None
    placement: Placement
    single: Programs

    @property
    def steps(self) -> int:
        """Updates of a run."""
        assert self.budget.steps is not None
        return self.budget.steps


def run_copies(
    configs: Sequence[Config], folders: Sequence[Path]
) -> list[dict[str, Any]]:
    """Trains one backbone with several seeds and rates side by side.

    Args:
      configs: resolved, equal but for `VARIED`.
      folders: of the runs. Finished ones are left as they are; others go on from the
        last step that all of them have saved.

    Returns:
      What each run's `result.json` holds, in the order of `configs`.

    Raises:
      InputError: configs that cannot be one program, or as `job.run_job`.
    """
    check_copies(configs)
    for config, folder in zip(configs, folders, strict=True):
        check_values(config)
        check_owner(folder, config)
    results = [read_json(folder / "result.json") for folder in folders]
    todo = [
        i for i, r in enumerate(results) if r is None or r["status"] not in FINISHED
    ]
    facts = [Facts(configs[i]) for i in todo]
    own = [(configs[i], folders[i]) for i in todo]
    try:
        done = _run(own, facts) if todo else []
    except InputError:
        raise
    except Exception as error:
        done = []
        for (config, folder), fact in zip(own, facts, strict=True):
            claim(folder, config)
            done.append(fact.result(*describe_failure(error, fact), folder))
    for i, result in zip(todo, done, strict=True):
        write_json(folders[i] / "result.json", result)
        results[i] = result
    return [result for result in results if result is not None]


def _run(
    own: Sequence[tuple[Config, Path]], facts: Sequence[Facts]
) -> list[dict[str, Any]]:
    """Builds what is shared, then trains as many at a time as fit the memory."""
    config = own[0][0]
    hearts = [Heartbeat(folder) for _, folder in own]
    _tell(hearts, "data")
    backbone = build.build_backbone(config)
    task = build.build_task(config, _say)
    check_finite(task.arrays)
    orders = [
        [
            stage.order(batch_size=c["train"]["batch_size"], seed=c["seed"])
            for stage in task.stages
        ]
        for c, _ in own
    ]
    budget = build.build_budget(config, task, orders[0][-1])
    goal = build.build_goal(config, task, budget)
    for fact in facts:
        fact.prepared(task, orders[0][-1], budget, goal)
    _tell(hearts, "compile")
    began = time.perf_counter()
    # Where states begin and end; in between each device has some of them.
    placement = one_device()
    model = build.build_model(backbone, task)
    members = [
        Member(c, folder, fact, heart, order, _initializer(c, model, task, budget))
        for (c, folder), fact, heart, order in zip(
            own, facts, hearts, orders, strict=True
        )
    ]
    single = trace_training(
        model,
        task,
        build.build_optimizer(config, budget, lambda line: None),
        members[0].initialize,
        placement,
        batch_size=config["train"]["batch_size"],
        steps_per_dispatch=min(
            config["train"]["steps_per_dispatch"], budget.steps or 1
        ),
        batches_per_evaluation=BATCHES_PER_EVALUATION,
        ema_decay=config["train"]["ema_decay"],
        max_skips=config["train"]["max_skips"],
    )
    shared = Shared(config["train"], task, model, budget, goal, placement, single)
    programs_of = functools.cache(functools.partial(_compile, config, shared))
    plan, size = _fit(config, shared, programs_of, len(members))
    single = dataclasses.replace(single, compile_seconds=time.perf_counter() - began)
    for fact in facts:
        fact.plan = plan
        fact.compiled(model, single)
    if not size:
        raise OutOfMemoryError(plan.refusal())
    _say(describe_placement(size, programs_of(size).placement.devices))
    require_space(own[0][1], len(own) * tree_bytes(single.abstract_state))
    results = []
    with StopSignals() as signals:
        for start in range(0, len(members), size):
            group = members[start : start + size]
            results += _train(group, shared, programs_of, signals)
    return results


def describe_placement(copies: int, devices: int) -> str:
    """One line: how many train at a time, and on how much of the machine."""
    visible = jax.local_device_count()
    if copies == 1:
        return "one run at a time, as one program each, on one device"
    line = f"{copies} runs as one program"
    if visible == 1:
        return line
    if devices == visible:
        return f"{line}, {copies // devices} on each of {devices} devices"
    return (
        f"{line} on {devices} of {visible} devices: {copies} runs do not divide "
        "over more"
    )


def _tell(hearts: Sequence[Heartbeat], phase: str) -> None:
    for heart in hearts:
        heart.phase(phase)


def _initializer(config: Config, model: Model, task: Task, budget: Budget) -> Any:
    train = config["train"]
    return FirstState(
        model,
        task,
        build.build_optimizer(config, budget, lambda line: None),
        one_device(),
        seed=config["seed"],
        ema=train["ema_decay"] > 0,
        parameter_dtype=build.DTYPES[train["parameter_dtype"]],
    )


def _compile(config: Config, shared: Shared, copies: int) -> CopyPrograms:
    """The program of so many copies."""
    train = shared.train
    return compile_copies(
        shared.model,
        shared.task,
        build.build_optimizer(config, shared.budget, lambda line: None),
        shared.single.abstract_state,
        copies=copies,
        rows=first_batch(shared.task, train["batch_size"]),
        steps_per_dispatch=shared.single.steps_per_dispatch,
        batches_per_evaluation=BATCHES_PER_EVALUATION,
        ema_decay=train["ema_decay"],
        max_skips=train["max_skips"],
    )


def _fit(
    config: Config,
    shared: Shared,
    programs_of: Callable[[int], CopyPrograms],
    count: int,
) -> tuple[Plan, int]:
    """How many copies at a time fit the memory: all, or a half, a quarter, ...

    Returns:
      The plan, and that number; 0 where not even one fits.
    """
    limit, limit_is = memory_limit(config["xla"]["memory_limit"])
    tried: list[dict[str, Any]] = []
    size = count
    while True:
        predicted = programs_of(size).predicted_bytes
        tried.append(
            {
                "remat": shared.model.stack.remat,
                "micro_batches": 1,
                "copies": size,
                "predicted_bytes": predicted,
            }
        )
        plan = Plan(limit, limit_is, tuple(tried), shared.single)
        if limit is None or predicted <= limit:
            return plan, size
        if size == 1:
            return plan, 0
        size = -(-size // 2)


def _train(
    members: Sequence[Member],
    shared: Shared,
    programs_of: Callable[[int], CopyPrograms],
    signals: StopSignals,
) -> list[dict[str, Any]]:
    """Trains one group from where it was left, and gives their results.

    When half of the copies have ended, a smaller program takes the others further.
    """
    task, single = shared.task, shared.single
    with contextlib.ExitStack() as exits:
        for member in members:
            exits.enter_context(held(member.folder, "the run folder"))
            claim(member.folder, member.config)
        arrays = {
            name: jax.device_put(np.asarray(value), shared.placement.whole)
            for name, value in task.arrays.items()
        }
        copies, states = _restore(members, shared, arrays)
        steps_done = [c.outcome.step for c in copies if not c.ended]
        hearts = [member.heartbeat for member in members]

        def report(*values: Any) -> None:
            for heart in hearts:
                heart.step(*values)

        settings: dict[str, Any] = {
            "task": task,
            "lessons": [stage.name for stage in task.stages],
            "validations": [
                grouped_batches(
                    task.splits[stage.split],
                    BATCHES_PER_EVALUATION,
                    shared.train["batch_size"],
                )
                for stage in task.stages
            ],
            "steps": shared.steps,
            "steps_per_dispatch": single.steps_per_dispatch,
            "evaluate_every": int(
                build.evaluate_every(members[0].config, shared.budget)
            ),
            "checkpoint_every": shared.train["checkpoint_every"],
            "goal": shared.goal,
        }
        progress = TrainingProgress(
            shared.steps,
            start=min(steps_done, default=0),
            label=f"{members[0].config['model']['backbone']} x {len(members)}",
            report=report,
            report_phase=lambda phase: _tell(hearts, phase),
        )
        with progress:
            going = list(range(len(copies)))
            while going := [i for i in going if not copies[i].ended]:
                ended = train_copies(
                    stack([states[i] for i in going]),
                    [copies[i] for i in going],
                    arrays,
                    programs=programs_of(len(going)),
                    leave=len(going) // 2,
                    progress=progress,
                    stop=signals.reason,
                    **settings,
                )
                for place, i in enumerate(going):
                    states[i] = take(ended, place)
            for member, copy in zip(members, copies, strict=True):
                if copy.outcome.status == "ok" and task.finals:
                    state, _ = copy.checkpoints.restore(single.abstract_state, "best")
                    member.facts.scored(
                        score_finals(
                            *(shared.model, task, state),
                            batch_size=shared.train["batch_size"],
                            report=progress.evaluating,
                        )
                    )
        return [
            _close(member, copy, signals.number, len(members))
            for member, copy in zip(members, copies, strict=True)
        ]


def _restore(
    members: Sequence[Member], shared: Shared, arrays: Mapping[str, jax.Array]
) -> tuple[list[Copy], list[TrainState]]:
    """Each run's newest state; those that go on, at the last step all of them have."""
    placed = shared.placement.whole
    rows = jax.device_put(first_batch(shared.task, shared.train["batch_size"]), placed)
    keep = shared.train.get("keep_best", 1)
    kept = [Checkpoints(m.folder / "checkpoints", keep=keep) for m in members]
    saved = [
        None if c.latest_step() is None else loop.Outcome.resumed(*c.facts())
        for c in kept
    ]
    ended = [o is not None and _is_over(o, shared) for o in saved]
    common = min(
        (
            0 if o is None else o.step
            for o, e in zip(saved, ended, strict=True)
            if not e
        ),
        default=0,
    )
    copies, states = [], []
    for member, checkpoints, over in zip(members, kept, ended, strict=True):
        step = None if over else common
        outcome, resume = loop.Outcome(), None
        if over or common:
            state, facts = checkpoints.restore(shared.single.abstract_state, step=step)
            resume = int(jax.device_get(state.step))
            outcome = loop.Outcome.resumed(resume, facts)
        else:
            state = member.initialize(arrays, rows)
        member.facts.outcome = outcome
        member.facts.first_step_at(time.monotonic())
        writer = MetricWriter(member.folder, resume_step=resume)
        copies.append(Copy(member.orders, outcome, checkpoints, writer, over))
        states.append(state)
    if common:
        _say(f"going on from step {common}")
    return copies, states


def _is_over(outcome: loop.Outcome, shared: Shared) -> bool:
    reached = shared.goal is not None and shared.goal.reached(outcome.convergence)
    return reached or outcome.step >= shared.steps


def _close(member: Member, copy: Copy, signal: int, count: int) -> dict[str, Any]:
    outcome = copy.outcome
    copy.checkpoints.close()
    if outcome.status in FINISHED:
        final = outcome.best["metrics"] if outcome.best else {}
        copy.writer.hyperparameters(member.config, final)
    copy.writer.close()
    member.facts.signal = signal
    result = member.facts.result(outcome.status, outcome.reason, member.folder)
    # Seconds and rates would be those of all copies.
    return result | {"copies": count, "throughput": dict.fromkeys(result["throughput"])}


def _say(line: str) -> None:
    print(f"jaxbench: {line}", flush=True)
