"""The table of all backbones: data, not code.

A row either names one mixer or is a pattern of other rows (`"mamba*2+swa"`), so a
hybrid is a row. Rows are resolved by `models.backbone`, which also reads patterns that
users write. Nothing here imports jax: printing the table is instant, and a mixer file
is imported only when one of its rows is used.

To add a backbone: write the mixer (see `jaxbench.mixers`), add its row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# What a stream gives next to a window that starts where the stream does: the same
# ("exact"), a function with a longer past than training showed ("unbounded": banded
# attention sees depth * (window - 1) frames back), or only a recomputed window.
STREAMS = ("exact", "unbounded", "window")

# The original benchmark's depth for nearly all its backbones.
DEFAULT_DEPTH = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One backbone.

    Attributes:
      title: name for people.
      paper: authors, year and arXiv id or venue of what is implemented.
      mixer: "file:Class" under `jaxbench.mixers`; empty in a pattern row.
      pattern: names of rows along depth, see `backbone.parse`; empty in a mixer row.
      channel: position-wise half of the block, a key of `block.CHANNELS`, or "none".
        In a pattern row None keeps what its elements say.
      norm: kind of the norm before each branch and after the stack (`layers.norms`).
        In a pattern row None keeps what its elements say.
      residual: whether x is added to the branches. Pattern rows: as the elements say.
      temporal: whether information moves along time. Pattern rows: if any element's.
      depth: layers by default; None is `DEFAULT_DEPTH`, or the length of the pattern.
      options: fields of the mixer that differ from its defaults. In a pattern row the
        keys are "row.field": {"mamba.state_size": 32}.
      causal: whether y_t depends on x_1..x_t only.
      streams: one of `STREAMS`. Pattern rows: the weakest of their elements'.
      aliases: other names it answers to.
      note: what a reader of the table should know.
    """

    title: str
    paper: str = ""
    mixer: str = ""
    pattern: str = ""
    channel: str | None = None
    norm: str | None = None
    residual: bool = True
    temporal: bool = True
    depth: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    causal: bool = True
    streams: str = "exact"
    aliases: tuple[str, ...] = ()
    note: str = ""


ROWS: dict[str, Row] = {
    "s4": Row(
        title="S4",
        paper="Gu et al. 2021, arXiv:2111.00396",
        mixer="s4:S4",
        channel="mlp",
        norm="layer",
    ),
    "s4d": Row(
        title="S4D",
        paper="Gu et al. 2022, arXiv:2206.11893",
        mixer="s4:S4D",
        channel="mlp",
        norm="layer",
        note="S4D-Lin by default; option spectrum=inv or legs",
    ),
    "mamba": Row(
        title="Mamba",
        paper="Gu & Dao 2023, arXiv:2312.00752",
        mixer="mamba:Mamba",
        channel="none",
        norm="rms",
    ),
    "lstm": Row(
        title="LSTM",
        paper="Hochreiter & Schmidhuber 1997",
        mixer="recurrent:LSTM",
        channel="none",
        norm="layer",
    ),
    "gru": Row(
        title="GRU",
        paper="Cho et al. 2014, arXiv:1406.1078",
        mixer="recurrent:GRU",
        channel="none",
        norm="layer",
        note="reset gate after the recurrent product",
    ),
    "swa": Row(
        title="Sliding-window attention",
        paper="Beltagy et al. 2020, arXiv:2004.05150",
        mixer="attention:SlidingWindowAttention",
        channel="mlp",
        norm="layer",
        streams="unbounded",
        aliases=("attention", "sliding_window"),
        note="rotary positions; causal attention where the window covers the sequence",
    ),
    "mlp": Row(
        title="MLP",
        mixer="feedforward:FrameMLP",
        channel="none",
        norm="layer",
        temporal=False,
        note="each frame by itself: the honest floor",
    ),
    "last_frame_mlp": Row(
        title="Last-frame MLP",
        mixer="feedforward:LastFrameMLP",
        channel="none",
        norm="none",
        residual=False,
        temporal=False,
        depth=1,
        note="what the original benchmark ran as SNN, NTM and Bayesian",
    ),
}
