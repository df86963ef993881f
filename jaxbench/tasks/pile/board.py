"""What boards of byte-level language models show: nats, context, speed, decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.tasks.columns import Column, Need, TaskBoard
from jaxbench.tasks.pile.published import published_table

_QUARTERS = tuple(f"nats_per_byte/quarter_{i}" for i in (1, 2, 3, 4))


def seen_bytes(result: Mapping[str, Any]) -> float | None:
    """Bytes of text a run was trained on; twice where a window was drawn twice."""
    window = ((result.get("data") or {}).get("options") or {}).get("window")
    examples = result.get("examples")
    return None if window is None or examples is None else examples * window


def context_gain(result: Mapping[str, Any]) -> float | None:
    """Nats/byte of the window's last quarter minus its first; below 0: context used."""
    metrics = (result.get("best") or {}).get("metrics") or {}
    first, last = metrics.get(_QUARTERS[0]), metrics.get(_QUARTERS[3])
    return None if first is None or last is None else last - first


COLUMNS = (
    Column(
        "bits_per_byte",
        "best.metrics.bits_per_byte",
        "bits/byte",
        "",
        "low",
        4,
        "score",
        "nats/byte over ln 2",
        "mean",
    ),
    Column(
        "accuracy",
        "best.metrics.accuracy",
        "right bytes",
        "%",
        "high",
        1,
        "score",
        "bytes whose likeliest value was right",
        "mean",
    ),
    Column(
        "last_nats_per_byte",
        "last.metrics.nats_per_byte",
        "nats/byte, last",
        "",
        "low",
        4,
        "parts",
        "of the last evaluation",
        "mean",
    ),
    *(
        Column(
            name,
            f"best.metrics.{name}",
            f"quarter {i}",
            "nats/byte",
            "low",
            4,
            "parts",
            f"in quarter {i} of the window",
            "mean",
        )
        for i, name in enumerate(_QUARTERS, start=1)
    ),
    Column(
        "context_gain",
        context_gain,
        "quarter 4 - 1",
        "nats/byte",
        "low",
        4,
        "parts",
        "below 0 where a row uses what it has read",
        "mean",
    ),
    Column(
        "scores/*",
        "scores.*.nats_per_byte",
        "*",
        "nats/byte",
        "low",
        4,
        "parts",
        "trained weights on another split, or with the state carried on",
        "mean",
    ),
    Column("seen_bytes", seen_bytes, "text read", "B", group="cost"),
    Column(
        "skips",
        "skips.count",
        "skipped",
        better="low",
        digits=0,
        group="cost",
        explain="updates left out over all seeds, because they were not finite",
        over_seeds="sum",
    ),
    Column("width", "shape.width", "width", digits=0, group="size"),
    Column("depth", "shape.depth", "depth", digits=0, group="size"),
    Column(
        "decode_bytes_per_s",
        "decode.bytes_per_s",
        "decoding",
        "bytes/s",
        better="high",
        group="speed",
        explain="one stream, byte after byte, each from the one before",
    ),
    *(
        Column(
            f"decode_{name}",
            f"decode.{name}_ms",
            f"decoding, {name}",
            "ms",
            "low",
            3,
            "speed",
            "one byte in, the next one out, batch 1",
            "max",
        )
        for name in ("p50", "p99", "max")
    ),
)


def says_not(result: Mapping[str, Any]) -> list[str]:
    """Which text it is, and how it is scored."""
    data = result.get("data") or {}
    options, said = data.get("options") or {}, []
    if data.get("source") == "python":
        said.append(
            "The text is the source code of Python's standard library: nothing here "
            "says how a row models text of books."
        )
    if options.get("window"):
        said.append(
            f"Every window of {options['window']} bytes starts from a zero state: "
            "nothing here says how a row does on longer contexts, and losses on other "
            "text do not compare."
        )
    return said


BOARD = TaskBoard(
    about="model bytes of text",
    scores=("nats_per_byte",),
    labels={
        "nats_per_byte": (
            "nats/byte",
            "",
            4,
            "of held-out text, every byte counted once",
        )
    },
    columns=COLUMNS,
    headlines=(
        "bits_per_byte",
        "accuracy",
        "context_gain",
        "state_bytes",
        "tokens_per_s",
    ),
    needs=(
        Need("predict the next byte", "score"),
        Need("read the most text a second", "tokens_per_s", timed=True),
        Need("write the most text a second", "decode_bytes_per_s", timed=True),
        Need("carry the least from byte to byte", "state_bytes", exact=True),
    ),
    equal_budget=True,
    floors={
        "uniform": "256 values alike",
        "unigram": "how often each byte occurs in the training text",
        "entropy of one byte": "the best that knows no context, on the scored text",
        "bigram": "counts 2 bytes in up to 1 MiB of the training text, interpolated",
        "trigram": "counts 3 bytes in up to 1 MiB of the training text, interpolated",
        "4-gram": "counts 4 bytes in up to 1 MiB of the training text, interpolated",
        "5-gram": "counts 5 bytes in up to 1 MiB of the training text, interpolated",
        "LZMA": "compresses the scored text after 128 KiB of the training text",
    },
    says_not=says_not,
    published=published_table,
)
