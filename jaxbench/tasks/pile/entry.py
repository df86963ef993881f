"""Describes byte-level language modelling: rules and words. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxbench.tasks.entry import Entry, Terms
from jaxbench.tasks.rules import not_negative, one_of, positive

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
    return language.build(corpus, config, width)


ENTRY = Entry(
    build=_build,
    rules={
        "data.window": positive,
        "data.sampler": one_of("random", "sequential"),
        "data.validation_bytes": not_negative,
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
