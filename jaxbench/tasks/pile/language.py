"""Builds the language-modelling task: a corpus in, `Task` out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.data.corpus.read import Corpus
from jaxbench.data.corpus.windows import (
    RandomWindows,
    SequentialChunks,
    byte_counts,
    consecutive_windows,
    unigram_nats,
)
from jaxbench.tasks.pile import ngrams
from jaxbench.tasks.pile.loss import byte_loss, summarize
from jaxbench.tasks.pile.modules import BYTES, ByteEncoder, ByteHead, ByteTable
from jaxbench.tasks.task import Batch, Order, Task

SAMPLERS: dict[str, Callable[..., Order]] = {
    "random": RandomWindows,
    "sequential": SequentialChunks,
}


def build(
    corpus: Corpus, config: Mapping[str, Any], width: int, *, validation_bytes: int
) -> Task:
    """The task of predicting each byte of a text from those before it.

    Training windows are `data.window` + 1 bytes, inputs and targets one apart, from a
    zero state. Validation cuts the start of the held-out split into windows; of each,
    the byte before it is the first input, so every byte is a target once and no state
    is carried. The first `data.validation_bytes` (0: all) of the test split, cut alike,
    are for `jaxbench score`. The protocol is a name: the recipe sets what differs.

    Args:
      corpus: bytes and splits.
      config: the resolved recipe, configs/pile.py, whose values were checked.
      width: of the encoder's output.
      validation_bytes: how many are scored; 0 for the whole split.

    Raises:
      InputError: a split shorter than a window.
    """
    data, protocol = config["data"], config["protocol"]
    window, sampler = data["window"], data["sampler"]
    splits = {
        name: consecutive_windows(
            corpus.bytes_n,
            where,
            window=window,
            limit=validation_bytes
            if name == "validation"
            else data["validation_bytes"],
        )
        for name, where in corpus.splits.items()
        if name != "train"
    }
    rows = splits["validation"]
    table = ByteTable(width)
    return Task(
        name="pile",
        protocol=protocol,
        encoder=ByteEncoder(table),
        head=ByteHead(table, getattr(jnp, config["train"]["dtype"])),
        readout="all",
        arrays={},
        splits=splits,
        order=functools.partial(
            SAMPLERS[sampler], corpus.bytes_n, corpus.splits["train"], window=window
        ),
        gather=gather,
        loss=byte_loss,
        summarize=summarize,
        primary="nats_per_byte",
        maximize=False,
        tokens_per_example=window,
        floors=floors(corpus, rows),
        source={
            **corpus.source,
            "protocol": protocol,
            "options": {
                "window": window,
                "sampler": sampler,
                "validation_bytes": int(np.count_nonzero(rows[:, 1:] >= 0)),
            },
        },
    )


def gather(arrays: Mapping[str, jax.Array], examples_bt: jax.Array) -> Batch:
    """Inputs and targets of rows of bytes; -1 is padding, and only a target."""
    del arrays
    rows_bt = examples_bt.astype(jnp.int32)
    return {
        "bytes_bt": jnp.maximum(rows_bt[:, :-1], 0),
        "target_bt": rows_bt[:, 1:],
    }


def floors(corpus: Corpus, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """What a model must beat on the scored bytes.

    "uniform" gives all bytes the same probability; "unigram" that of the training
    split, counted with one added to each byte; n-grams and LZMA know a part of the
    training split (see `ngrams`).
    """
    train = byte_counts(corpus.bytes_n, corpus.splits["train"]) + 1.0
    targets = rows[:, 1:]
    scored = np.bincount(targets[targets >= 0], minlength=BYTES)
    share = scored / scored.sum()
    unigram = float(-np.sum(share * np.log(train / train.sum())))
    best = float(unigram_nats(scored))
    slices = ngrams.text_of(corpus.bytes_n, corpus.splits["train"])
    counted = ngrams.ngram_nats(slices, rows)
    counted["LZMA"] = ngrams.lzma_nats(slices, rows)
    return {
        "uniform": _both(math.log(BYTES)),
        "unigram": _both(unigram) | {"accuracy": float(share[train.argmax()])},
        "entropy of one byte": _both(best),
        **{name: _both(nats) for name, nats in counted.items()},
    }


def _both(nats: float) -> dict[str, float]:
    return {"nats_per_byte": nats, "bits_per_byte": nats / math.log(2)}
