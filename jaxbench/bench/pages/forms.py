"""Which form of a primitive runs when, in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from jaxbench.ops.forms import Row, rows

BACKENDS = {"cpu": "CPU", "gpu": "GPU"}

# Names of forms in `forms.json`, a number N of frames after a colon, in words.
WORDS = {
    "scan": "scan over frames",
    "associative": "parallel prefix over frames",
    "fused": "scan over blocks of {} frames, recomputed backwards",
    "deferred": "scan over frames, gradient of the recurrent matrix in one product",
    "toeplitz": "one matrix product for each channel",
    "convolution": "convolution with the kernel, in blocks of at most 64 frames",
    "fft": "FFT",
    "chunks": "matrix products over chunks of {} frames",
    "doubling": "matrix products, frames joined two by two up to chunks of {}",
    "newton": "Newton's method, each sweep a parallel prefix over frames",
}


@dataclasses.dataclass(frozen=True)
class Primitive:
    """What a page says about a primitive of `jaxbench.ops`.

    Attributes:
      computes: in a line.
      key: its name in `forms.json`; "" where the shape alone decides.
      rule: what decides besides, a sentence or "".
      inside: primitives of `forms.json` that it asks for in turn.
    """

    computes: str
    key: str = ""
    rule: str = ""
    inside: tuple[str, ...] = ()


FRESH = (
    "The FFT is for sequences without resets that start afresh; else the convolution "
    "in blocks runs."
)
IN_BLOCKS = "Inside a block runs what `causal_convolution` has for its length."
_GATED = "S = e^g S + k v^T, read by q; g <= 0 for each {}"
_DELTA = "S = e^g S + b (a^T S) + k v^T, read by q; g <= 0 for each {}"
_MATRIX_CELL = (
    "A scan over blocks of 16 frames, recomputed backwards, on every device: no "
    "parallel form is exact."
)

PRIMITIVES: dict[str, Primitive] = {
    "diagonal": Primitive("h = a h + b, number by number", "diagonal"),
    "selective_scan": Primitive(
        "h = exp(dt A) h + dt B u, read by C", "selective_scan"
    ),
    "dplr_ssm": Primitive(
        "x' = (Λ - P P*) x + B u, read by C",
        "dplr_ssm",
        IN_BLOCKS,
        ("causal_convolution",),
    ),
    "diagonal_ssm": Primitive(
        "x' = A x + B u, A diagonal, read by C",
        "diagonal_ssm",
        f"{FRESH} {IN_BLOCKS}",
        ("causal_convolution",),
    ),
    "causal_convolution": Primitive(
        "a long filter along time",
        "causal_convolution",
        "With resets inside the call it is a sum over lags instead.",
    ),
    "short_convolution": Primitive(
        "a filter over the last few frames",
        rule="A sum of shifted products, on every device and at every length.",
    ),
    "gated_linear_attention:head": Primitive(_GATED.format("head"), "gated_linear"),
    "gated_linear_attention:key": Primitive(
        _GATED.format("key channel"), "gated_linear_keys"
    ),
    "delta_rule:head": Primitive(_DELTA.format("head"), "delta_rule"),
    "delta_rule:key": Primitive(_DELTA.format("key channel"), "delta_rule_keys"),
    "normalized_linear_attention": Primitive(
        "S = f S + i k v^T and n = f n + i k, their quotient read by q",
        rule="Matrix products over chunks of at most 64 frames, on every device.",
    ),
    "ttt_linear": Primitive(
        "gradient descent of a linear model along the sequence",
        rule="Matrix products over chunks as long as a mini-batch, on every device.",
    ),
    "lstm_scan": Primitive("the LSTM's recurrence", "lstm"),
    "gru_scan": Primitive("the GRU's recurrence", "gru"),
    "dense_linear": Primitive("h = h W + u, one W for all frames", "dense_linear"),
    "dense_cell": Primitive(
        "v = tanh(h K + x), h = v or a gated average of h and v", "dense_cell"
    ),
    "elementwise_cell": Primitive(
        "a cell that keeps channels apart, nonlinear in the state",
        "elementwise_cell",
        "Its gradient is the linear recurrence `diagonal`, in the form that one has.",
    ),
    "cell_scan": Primitive(
        "any cell, one frame after the other",
        rule="A scan over frames, on every device: no other form is exact.",
    ),
    "tanh_diagonal": Primitive(
        "h = tanh(a h + b), number by number",
        "elementwise_cell",
        "Its gradient is the linear recurrence `diagonal`, in the form that one has.",
    ),
    "tanh_delta": Primitive(
        "S = tanh(a S + k (v - S^T k)^T), read by q", rule=_MATRIX_CELL
    ),
    "tanh_memory": Primitive("S = tanh(z S + k v^T), read by q", rule=_MATRIX_CELL),
    "gated_memory": Primitive(
        "S = a S + k ((1 - a) g v)^T, read by q; a or g sees S^T k", rule=_MATRIX_CELL
    ),
    "slot_memory": Primitive(
        "S = a S + k ((1 - a) u)^T, read by q; u sees tanh(S^T k)", rule=_MATRIX_CELL
    ),
    "matrix_rnn": Primitive(
        "S = f S + (1 - f) tanh(S W + k v^T), read by q", rule=_MATRIX_CELL
    ),
    "banded_attention": Primitive(
        "softmax attention to the last frames, with a cache",
        rule="The full score matrix, or blocks that see themselves and the one before "
        "where those hold fewer scores; one frame reads its cache.",
    ),
    "attention": Primitive(
        "softmax attention to all that a mask lets through",
        rule="The full score matrix, on every device.",
    ),
    "cubic_spline_basis": Primitive(
        "the values of all B-splines at a point",
        rule="One formula, frame by frame, on every device.",
    ),
    "mix_experts": Primitive(
        "the weighted sum of the chosen experts",
        rule="Frames are grouped by expert, or all experts see all frames where that "
        "is as cheap.",
    ),
}

# Primitives of channel mixers, keys of `models.row.CHANNELS`.
OF_CHANNELS: dict[str, tuple[str, ...]] = {
    "kan": ("cubic_spline_basis",),
    "moe": ("mix_experts",),
}

COLUMNS = ("primitive", "device", "frames in a call", "form", "chosen by")


def form_table(names: Iterable[str]) -> list[list[str]]:
    """Rows of a table over `COLUMNS`: what `forms.json` says of these primitives."""
    table = []
    for name in names:
        for backend, title in BACKENDS.items():
            for frames, form, source in _ranges(PRIMITIVES[name].key, backend):
                function = name.partition(":")[0]
                chosen = "a guess, unmeasured" if source == "unmeasured" else source
                table.append([f"`{function}`", title, frames, in_words(form), chosen])
    return table


def in_words(form: str) -> str:
    """A form of `forms.json` for people."""
    name, _, number = form.partition(":")
    return WORDS[name].format(number)


def _ranges(key: str, backend: str) -> list[tuple[str, str, str]]:
    """(frames, form, source) of the lines that can win, equal neighbours joined."""
    kept: list[Row] = []
    for row in rows():
        if (row["primitive"], row["backend"]) != (key, backend):
            continue
        if kept and _said(kept[-1]) == _said(row):
            kept[-1] = row
        else:
            kept.append(row)
    ranges, below = [], 0
    for row in kept:
        top, state = row["max_length"], row["max_state"]
        if top is None:
            frames = f"above {below}" if below else "any"
        else:
            frames = f"{below + 1} to {top}" if below else f"up to {top}"
        if state is None:
            below = top or below
        else:
            frames += f", state up to {state:,} numbers"
        ranges.append((frames, row["form"], row["source"]))
    return ranges


def _said(row: Row) -> tuple[str, str, int | None]:
    return row["form"], row["source"], row["max_state"]
