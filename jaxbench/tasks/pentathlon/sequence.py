"""Builds the task of any synthetic event: a generator in, `Task` out."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxbench.data.synthetic.event import Event, Examples
from jaxbench.data.synthetic.orders import (
    FixedSetOrder,
    OnlineOrder,
    draw_apart,
    rows,
)
from jaxbench.data.synthetic.streams import fingerprint, keys, stream
from jaxbench.tasks.pentathlon.curriculum import parse_levels
from jaxbench.tasks.pentathlon.loss import PRIMARY, answer_loss, summarize
from jaxbench.tasks.pentathlon.modules import (
    TokenEncoder,
    TokenHead,
    TokenTable,
    gather,
    learns_positions,
)
from jaxbench.tasks.task import Order, Stage, Task

# Examples that rules such as the most frequent answer are counted on.
COUNTED = 10_000
NOTHING = np.empty(0, np.uint64)


def build(event: Event, config: Mapping[str, Any], width: int) -> Task:
    """The task of answering what synthetic sequences ask.

    Validation and test examples are fixed by `data.seed`; those of training are drawn
    anew for every step from the run's own seed, or once where `data.train_examples`
    asks for a fixed set. No test sequence is ever trained on or validated with. Levels
    of a curriculum are padded on the right to the length of the last, so that one
    compiled program trains them all. With learned positions, splits of longer sequences
    are excluded.

    Args:
      event: what the examples are.
      config: the resolved recipe, such as configs/mqar.py, whose values were checked.
      width: of the encoder's output.

    Raises:
      InputError: a level that does not exist, or a value out of its range.
    """
    data, model = config["data"], config["model"]
    level, seed, train_examples = data["level"], data["seed"], data["train_examples"]
    positions = learns_positions(model)
    levels = parse_levels(level, event.levels)
    last = levels[-1]
    length = max(event.length(name) for name in levels)
    tests = _draw_tests(event, last, seed, data["test_examples"])
    held_out = np.sort(
        np.concatenate([keys(e.tokens_nt) for e in tests.values()] or [NOTHING])
    )
    validation = {
        name: draw_apart(
            event,
            name,
            event.validation_examples(name),
            stream(seed, event.name, "validation", name),
            held_out,
        )
        for name in levels
    }
    excluded = {
        name: f"its {e.tokens_nt.shape[1]} tokens are more than the {length} positions "
        "the model has learned"
        for name, e in tests.items()
        if positions and e.tokens_nt.shape[1] > length
    }
    scored = {name: e for name, e in tests.items() if name not in excluded}
    orders = {
        name: _order(
            event, event.training_law(name), length, held_out, seed, train_examples
        )
        for name in levels
    }
    splits = {_split(name, last): rows(e, length) for name, e in validation.items()}
    splits |= {name: rows(e) for name, e in scored.items()}
    answers: dict[int, int] = {}
    for split in splits.values():
        most = int((split[:, 1] >= 0).sum(axis=1).max())
        answers[split.shape[2]] = max(answers.get(split.shape[2], 1), most)
    of_levels = max(event.answers(name) for name in levels)
    answers[length] = max(answers[length], of_levels)
    table = TokenTable(event.vocabulary, width)
    primary = PRIMARY[event.scored]
    counted = event.draw(last, COUNTED, stream(seed, event.name, "floors", last))
    floors = event.floors(last, validation[last], counted)
    return Task(
        name=event.name,
        protocol="clean",
        encoder=TokenEncoder(
            table, length if positions else 0, dropout=model["dropout"]
        ),
        head=TokenHead(table, getattr(jnp, config["train"]["dtype"])),
        readout="all",
        arrays={},
        splits=splits,
        order=orders[last],
        gather=functools.partial(gather, answers),
        loss=functools.partial(answer_loss, event.values_v),
        summarize=summarize,
        primary=primary,
        maximize=True,
        tokens_per_example=length,
        floors={name: {primary: score} for name, score in floors.items()},
        ceiling={primary: event.ceiling},
        source=_source(event, level, seed, train_examples, validation, tests),
        level=last,
        curriculum=tuple(
            Stage(name, orders[name], _split(name, last)) for name in levels[:-1]
        ),
        finals=tuple(scored),
        excluded=excluded,
    )


def _split(level: str, last: str) -> str:
    return "validation" if level == last else f"validation_{level}"


def _draw_tests(event: Event, level: str, seed: int, most: int) -> dict[str, Examples]:
    """The test splits of a level."""
    drawn = {}
    for name, test in event.tests(level).items():
        count = min(test.examples, most or test.examples)
        generator = stream(seed, event.name, name, test.law)
        drawn[name] = event.draw(test.law, count, generator)
    return drawn


def _order(
    event: Event,
    law: str,
    length: int,
    held_out: np.ndarray,
    seed: int,
    train_examples: int,
) -> Any:
    """`Task.order` of one level."""
    if not train_examples:
        return functools.partial(
            OnlineOrder, event, law, length=length, held_out=held_out
        )

    # Drawn when it is first asked for: a curriculum may never come to its later levels.
    @functools.cache
    def fixed() -> np.ndarray:
        generator = stream(seed, event.name, "train", law)
        drawn = draw_apart(event, law, train_examples, generator, held_out)
        return rows(drawn, length)

    def order(*, batch_size: int, seed: int) -> Order:
        return FixedSetOrder(fixed(), batch_size=batch_size, seed=seed)

    return order


def _source(
    event: Event,
    level: str,
    seed: int,
    train_examples: int,
    validation: Mapping[str, Examples],
    tests: Mapping[str, Examples],
) -> dict[str, Any]:
    """What the examples were, for the result."""
    prints = {f"validation_{name}": fingerprint(e) for name, e in validation.items()}
    prints |= {name: fingerprint(e) for name, e in tests.items()}
    options: dict[str, Any] = dataclasses.asdict(event)  # type: ignore[call-overload]
    text = json.dumps([event.name, event.version, prints], sort_keys=True)
    return {
        "source": "synthetic",
        "level": level,
        "version": event.version,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16],
        "fingerprints": prints,
        "options": {
            **options,
            "seed": seed,
            "train": f"{train_examples:,} fixed examples"
            if train_examples
            else "online",
        },
    }
