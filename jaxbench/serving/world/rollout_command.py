"""`jaxbench rollout`: errors of world models by frames ahead, and plans."""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from jaxbench.bench.run_folder import write_json
from jaxbench.bench.trained import read_finished
from jaxbench.errors import InputError, nearest
from jaxbench.serving.bar import counting
from jaxbench.serving.each_run import wide_console
from jaxbench.serving.match import Schedule, require, schedule
from jaxbench.serving.play_command import play_table, simulated
from jaxbench.serving.policy import controllers
from jaxbench.serving.world import horizon, planning, show
from jaxbench.serving.world.members import World, load
from jaxbench.serving.world.planner import carry_out, planner
from jaxbench.serving.world.rollout import Place, warm_up
from jaxbench.tasks import rules
from jaxbench.tasks.task import Task
from jaxbench.tasks.world import states
from jaxbench.tasks.zelda import controller

# Of a plan: reward that is far off counts less.
DISCOUNT = 0.99
# Controllers that say what is played.
PLAYED = 50_000


def rollout_command(options: argparse.Namespace) -> int:
    """Rolls runs out, writes `rollout.json` and `rollout.png`, prints tables.

    Raises:
      InputError: see `members.load`; a number out of its range, an unknown goal or
        planner, games without a planner, no held-out stretch, or a place that cannot
        be written to.
    """
    _check(options)
    goal = planning.parse_goal(options.goal, DISCOUNT)
    world, run = load(options.run, options.which)
    games = _schedule(options, run.config["data"]["character"])
    held = horizon.held_out(
        run.task,
        warm_up=options.warm_up,
        horizon=options.horizon,
        count=options.windows,
    )
    steps = horizon.steps_to(options.horizon)
    with counting(len(held), "rollout") as advance:
        said = horizon.roll_out(world, held, advance)
    several = world.members > 1
    results = [read_finished(folder)[1] for folder in options.run]
    found: dict[str, Any] = {
        "runs": show.names_of(results),
        "data": {k: run.task.source[k] for k in ("source", "fingerprint")},
        "weights": options.which,
        "warm_up": options.warm_up,
        "windows": len(held),
        "games": len(set(held.game_n.tolist())),
        "steps": steps,
        "errors": horizon.errors(said, held, steps),
        "spread": horizon.disagreement(said, held, steps) if several else None,
        "plan": None,
        "play": None,
    }
    if options.plan:
        found["plan"] = _plans(options, world, run.task, held, goal)
    if games is not None:
        found["play"] = _games(options, world, run.task, goal, games)
    folder = options.out or options.run[0]
    folder.mkdir(parents=True, exist_ok=True)
    show.draw_errors(folder / "rollout.png", found)
    write_json(folder / "rollout.json", found)
    console = wide_console(120)
    console.print(show.error_table(found))
    if options.plan:
        console.print(show.plan_table(found))
    if found["play"]:
        console.print(_games_table(found["play"]))
    print(f"written: {folder / 'rollout.json'}, {folder / 'rollout.png'}")
    return os.EX_OK


def _check(options: argparse.Namespace) -> None:
    for flag in ("horizon", "windows", "situations", "plan_frames", "every"):
        require(f"--{flag}", getattr(options, flag), 1)
    require("--warm_up", options.warm_up, 2)
    require("--samples", options.samples, 16)
    require("--games", options.games, 0)
    rules.seed("--seed", options.seed)
    if options.plan and options.plan not in planning.METHODS:
        raise InputError(
            f"--plan={options.plan!r} is none of {', '.join(planning.METHODS)}; "
            f"nearest: {nearest(options.plan, planning.METHODS, 1)}"
        )
    if options.games and not options.plan:
        raise InputError(
            f"--games={options.games} carries out plans; say how to plan: "
            f"--plan={' or --plan='.join(planning.METHODS)}"
        )
    if options.every > options.plan_frames:
        raise InputError(
            f"--every={options.every} is longer than a plan of {options.plan_frames} "
            "frames; lower it, or raise --plan_frames"
        )
    if options.out and options.out.exists() and not options.out.is_dir():
        raise InputError(f"--out={options.out} is no folder; name another")


def _plans(
    options: argparse.Namespace,
    world: World,
    task: Task,
    held: horizon.HeldOut,
    goal: planning.Goal,
) -> dict[str, Any]:
    """Plans for some stretches, and predicted costs of other controllers there."""
    search = planning.Search(horizon=options.plan_frames, samples=options.samples)
    prior = planning.as_played(_played(task), 1, search)
    last = held.warm_up - 1
    idle = jnp.tile(jnp.asarray(controller.NEUTRAL, jnp.int32), (search.horizon, 1))

    @jax.jit
    def answer(place: Place, held_ba: Any, own_bha: Any, key: Any) -> Any:
        cost = planning.predicted_cost(world, place, held_ba, goal)
        best = planning.PLANNERS[options.plan](key, cost, prior, search)
        others = jnp.stack([own_bha, idle[None]], axis=1)
        return best, cost(others)[0]

    start = jax.jit(functools.partial(warm_up, world))
    count = min(options.situations, len(held))
    rows = np.linspace(0, len(held) - 1, count).round().astype(int)
    keys = jax.random.split(jax.random.key(options.seed), count)
    situations = []
    with counting(count, "plan") as advance:
        for index, row in enumerate(rows):
            part = held.part(np.array([row]))
            sent = jnp.asarray(part.controllers_ntna)
            past = jax.tree.map(lambda x: jnp.asarray(x[:, : last + 1]), part.frames)
            place = start(past, sent)
            own = sent[:, last:, 0][:, : search.horizon]
            short = search.horizon - own.shape[1]
            own = jnp.pad(own, ((0, 0), (0, max(0, short)), (0, 0)), mode="edge")
            best, others = jax.device_get(
                answer(place, sent[:, last - 1, 1], own, keys[index])
            )
            situations.append(
                {
                    "plan": float(best.cost_b[0]),
                    "recorded": float(others[0]),
                    "neutral": float(others[1]),
                    "random": float(best.first_b[0]),
                    "first": _told(best.labels_bha[0, 0]),
                    "labels": best.labels_bha[0].tolist(),
                }
            )
            advance(index + 1)
    return {
        "method": options.plan,
        "goal": options.goal,
        "frames": search.horizon,
        "hold": search.hold,
        "samples": search.samples,
        "seed": options.seed,
        "situations": situations,
    }


def _schedule(options: argparse.Namespace, character: str) -> Schedule | None:
    """The games that plans are carried out in, None where none are asked for."""
    if not options.games:
        return None
    return schedule(
        games=options.games,
        seconds=options.seconds,
        seed=options.seed,
        character=simulated(character),
    )


def _games(
    options: argparse.Namespace,
    world: World,
    task: Task,
    goal: planning.Goal,
    games: Schedule,
) -> dict[str, Any]:
    """Results of plans carried out in simulated games, and of the floors."""
    search = planning.Search(horizon=options.plan_frames, samples=options.samples)
    player = planner(
        world,
        method=options.plan,
        goal=goal,
        search=search,
        prior=planning.as_played(_played(task), 1, search),
        every=options.every,
        seed=options.seed,
    )
    return {
        "method": options.plan,
        "goal": options.goal,
        "frames": search.horizon,
        "samples": search.samples,
        "every": options.every,
        "games": options.games,
        "seconds": options.seconds,
        "seed": options.seed,
        "players": carry_out(player, games),
    }


def _games_table(found: Mapping[str, Any]) -> Table:
    title = (
        f"{found['games']} games of {found['seconds']} s against scripted: a plan of "
        f"{found['frames']} frames every {found['every']}, goal {found['goal']}"
    )
    return play_table(list(found["players"].items()), title, found["games"])


def _played(task: Task) -> np.ndarray:
    """An even sample of the controllers of the training games, uint8 [N, 6]."""
    table = task.arrays["perspective"]
    chosen = np.unique(task.splits["train"][:, 0])
    spans = [table[p, [states.OWN, states.LENGTH]].tolist() for p in chosen]
    sent = [task.arrays["controller"][first : first + n] for first, n in spans]
    labels = np.concatenate(sent)
    return labels[:: max(1, len(labels) // PLAYED)]


def _told(labels_a: np.ndarray) -> str:
    """A controller in words."""
    (held,) = controllers(labels_a[None])
    stick = f"stick {held.main_x:+.2f} {held.main_y:+.2f}"
    pressed = " ".join(held.buttons)
    return f"{stick}, {pressed}" if pressed else stick
