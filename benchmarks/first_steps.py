"""Does every backbone train? The first steps of each on the same task.

Each row of the zoo gets the same batches of `configs/zelda.py`, AdamW, and the largest
rate of the shared grid that works: 1e-3, else 3e-4, else 1e-4. A rate works if no loss
and no gradient is ever infinite or NaN and the loss ends below the marginal floor.
Losses are those of the same held-out windows after 0, a third of, and all steps.

    python benchmarks/first_steps.py --replays=FOLDER --character=falco

Rows already in `--out` are not run again, so the command can be stopped and repeated.
Exit code 1 if a row works at no rate.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RATES = (1e-3, 3e-4, 1e-4)
BATCHES_PER_EVALUATION = 16


def main() -> int:
    """Trains the rows asked for and prints one line for each."""
    from jaxbench.bench import build
    from jaxbench.errors import InputError
    from jaxbench.models.backbone import canonical
    from jaxbench.models.zoo import ROWS

    options = _parser().parse_args()
    out = Path(options.out)
    known = out.read_text().splitlines() if out.exists() else []
    done = {row["name"]: row for row in map(json.loads, known)}
    try:
        names = [canonical(name) for name in options.rows.split(",") if name]
        # One task for all rows: which backbone the config names does not matter to it.
        task = build.build_task(_config("gru", 1e-3, options), print)
    except InputError as error:
        print(f"first_steps: error: {error}", file=sys.stderr)
        return 2
    floor = task.floors["marginal"]["loss"]
    print(f"marginal floor {floor:.3f}", flush=True)
    names = names or list(ROWS)
    for name in names[options.part :: options.parts]:
        if name not in done:
            done[name] = train(name, task, floor, options)
            with out.open("a") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(_line(done[name]), flush=True)
    return 0 if all(row["works"] for row in done.values()) else 1


def train(
    name: str, task: Any, floor: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Tries the rates from the largest on; returns what the first good one gave."""
    row: dict[str, Any] = {"name": name}
    for rate in RATES:
        start = time.perf_counter()
        try:
            losses, failure = _losses(name, rate, task, options)
        except Exception as error:  # a row that fails is a row of the table
            text = str(error).splitlines()[0] if str(error) else ""
            losses, failure = [], f"{type(error).__name__}: {text}"
        works = not failure and math.isfinite(losses[-1]) and losses[-1] < floor
        row |= {
            "learning_rate": rate,
            "losses": losses,
            "failure": failure,
            "works": works,
            "seconds": time.perf_counter() - start,
        }
        if works:
            break
    return row


def _losses(
    name: str, rate: float, task: Any, options: argparse.Namespace
) -> tuple[list[float], str]:
    """Losses after 0, a third of, and all steps; and what went wrong, if it did."""
    import jax

    from jaxbench.bench import build
    from jaxbench.training import loop
    from jaxbench.training.budget import Budget
    from jaxbench.training.programs import (
        FirstState,
        Placement,
        compile_programs,
        evaluation_batches,
        first_batch,
        place_span,
    )
    from jaxbench.training.step import Update

    config = _config(name, rate, options)
    batch, third = options.batch, options.steps // 3
    model = build.build_model(build.build_backbone(config), task)
    optimizer = build.build_optimizer(config, Budget(options.steps), print)
    placement = Placement.over_all_devices(batch)
    update = Update(model, task, optimizer)
    initialize = FirstState(update, placement)
    programs = compile_programs(
        update,
        initialize,
        placement,
        batch_size=batch,
        steps_per_dispatch=options.steps,
        batches_per_evaluation=BATCHES_PER_EVALUATION,
    )
    arrays = {
        name: jax.device_put(v, placement.whole) for name, v in task.arrays.items()
    }
    first = jax.device_put(first_batch(task, batch), placement.whole)
    state = initialize(0, arrays, first)
    order = task.order(batch_size=batch, seed=0)
    examples = jax.device_put(
        order.steps(0, options.steps, options.steps),
        placement.batch,
    )
    # Held-out windows spread over all held-out games.
    held_out = task.splits["validation"]
    count = min(BATCHES_PER_EVALUATION * batch, len(held_out))
    chosen = held_out[np.linspace(0, len(held_out) - 1, count).astype(int)]
    validation = evaluation_batches(chosen, programs)

    losses = []
    for steps in (0, third, options.steps - third):
        if steps:
            span = place_span(placement, [steps], int(state.step), 1.0, options.steps)
            state, _ = programs.train(state, arrays, examples, span)
            examples = np.roll(np.asarray(examples), -steps, axis=0)
            examples = jax.device_put(examples, placement.batch)
        if int(state.broken_step) >= 0:
            return losses, f"not finite at step {int(state.broken_step)}"
        (scored,) = loop.score(state, arrays, programs, validation)
        losses.append(scored["loss"])
    return losses, ""


def _config(name: str, rate: float, options: argparse.Namespace) -> dict[str, Any]:
    from configs import zelda

    config = json.loads(zelda.get_config(name).to_json())
    config["data"] |= {"replays": options.replays, "character": options.character}
    config["data"]["cache"] = options.cache
    config["data"]["simulated_games"] = options.simulated_games
    config["model"]["width"] = options.width
    config["train"] |= {
        "batch_size": options.batch,
        "learning_rate": rate,
        "ssm_learning_rate": rate,
        "schedule": "constant",
        "warmup_steps": options.steps // 10,
    }
    return config


def _line(row: dict[str, Any]) -> str:
    losses = "  ".join(f"{loss:7.3f}" for loss in row["losses"])
    end = "works" if row["works"] else f"FAILED {row['failure']}"
    rate, seconds = row["learning_rate"], row["seconds"]
    return f"{row['name']:24s} {rate:.0e}  {losses}  {end} ({seconds:.0f} s)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replays", default="", help="folder; simulated games if none")
    parser.add_argument("--character", default="zelda")
    parser.add_argument("--simulated_games", type=int, default=12)
    parser.add_argument("--cache", default="~/.cache/jaxbench/replays")
    parser.add_argument("--rows", default="", help="names, comma between; all")
    parser.add_argument("--out", default="first_steps.jsonl")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--part", type=int, default=0, help="which part, of ...")
    parser.add_argument("--parts", type=int, default=1, help="... how many processes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
