"""Describes byte-level language modelling: rules and words. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxbench.tasks.entry import Entry, Terms
from jaxbench.tasks.rules import not_negative, one_of, parse_budget, positive, within

if TYPE_CHECKING:
    from jaxbench.tasks.task import Task


def _build(config: Mapping[str, Any], width: int, say: Callable[[str], None]) -> Task:
    from jaxbench.data.corpus.read import open_corpus
    from jaxbench.tasks.pile import language

    data = config["data"]
    if not data["corpus"]:
        say("no data.corpus: reading Python's own sources (results will say so)")
    corpus = open_corpus(
        data["corpus"],
        splits=data["splits"],
        cache=Path(data["cache"]).expanduser() if data["cache"] else None,
        say=say,
    )
    limit = validation_limit(config)
    if limit != data["validation_bytes"]:
        say(
            f"validation scores {limit:,} bytes, in proportion to train.budget="
            f"{config['train']['budget']} (train.evaluation_share=0: "
            f"{data['validation_bytes'] or 'all'})"
        )
    return language.build(corpus, config, width, validation_bytes=limit)


# A mean over fewer bytes says little.
LEAST_BYTES = 100_000
# So many are scored for each second that validations may take: 2 MB for ten minutes.
BYTES_A_SECOND = 2_000_000 / (0.2 * 600)


def validation_limit(config: Mapping[str, Any]) -> int:
    """How many bytes a validation scores at most; 0 for the whole split.

    A function of the recipe alone, so that all backbones are scored on the same bytes:
    the part `train.evaluation_share` of a budget of seconds at a speed that is assumed,
    of one of bytes or steps by the cost of a pass, a third of an update's.
    """
    data, train = config["data"], config["train"]
    most, share = data["validation_bytes"], train["evaluation_share"]
    if not share:
        return most
    amount, unit = parse_budget(train["budget"])
    if unit == "seconds":
        limit = share * amount * BYTES_A_SECOND
    else:
        if unit == "steps":
            amount *= train["batch_size"] * data["window"]
        limit = 3 * share * amount / max(1, train["evaluations"])
    limit = max(LEAST_BYTES, int(limit))
    return min(limit, most) if most else limit


ENTRY = Entry(
    build=_build,
    rules={
        "data.window": positive,
        "data.sampler": one_of("random", "sequential"),
        "data.validation_bytes": not_negative,
        "train.evaluation_share": within("[0, 1]"),
    },
    emits="byte",
    data_path="corpus",
    terms=Terms(
        token="byte",
        rate=("tokens_per_s", "bytes/s"),
        rate_format=",.0f",
        equal_budgets=True,
    ),
)
