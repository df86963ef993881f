"""What a row of the table of backbones says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

# What a stream gives next to a window that starts where the stream does: the same
# ("exact"), a function with a longer past than training showed ("unbounded": banded
# attention sees depth * (window - 1) frames back), or only a recomputed window.
STREAMS = ("exact", "unbounded", "window")

# Where the output f of a layer goes: "residual" x + f; "replace" f instead of x;
# "next" only into the layer above, through a projection of that layer, x stays.
JOINS = ("residual", "replace", "next")

# The original benchmark's depth for nearly all its backbones.
DEFAULT_DEPTH = 2

# Options of a GeGLU, as Griffin and xLSTM have it, instead of SwiGLU.
GEGLU = {"channel.activation": "gelu"}


class Size(NamedTuple):
    """A budget of parameters of a byte-level language model.

    Attributes:
      parameters: in all.
      depth: layers to prefer.
    """

    parameters: int
    depth: int


SIZES: dict[str, Size] = {
    "1m": Size(1_000_000, 4),
    "10m": Size(10_000_000, 8),
    "100m": Size(100_000_000, 20),
    "350m": Size(350_000_000, 24),
}
# The size each row was published in, see `Published`.
PUBLISHED = "published"


@dataclasses.dataclass(frozen=True)
class Channel:
    """A channel mixer.

    Attributes:
      mixer: "file:Class" under `jaxbench.mixers`.
      temporal: whether information moves along time in it after all.
    """

    mixer: str
    temporal: bool = False


CHANNELS: dict[str, Channel] = {
    "mlp": Channel("channel:MLP"),
    "glu": Channel("channel:GLU"),
    "kan": Channel("kan:KAN"),
    "moe": Channel("moe:MoE"),
    "rwkv6": Channel("rwkv6:ChannelMix", temporal=True),
    "rwkv7": Channel("rwkv7:ChannelMix", temporal=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """The model in which a row was published for byte-level language modelling.

    Attributes:
      width: D.
      parameters: exact count under `compat`: byte embedding tied with the output,
        layers, last norm.
      depth: layers.
      shape: fields of the mixer that set its size, under both protocols.
      faults: fields of the mixer that undo what was cured here, under `compat` only.
      norm: kind of the norms under `compat`; None is the row's.
      channel: channel mixer under `compat`; None is the row's.
    """

    width: int
    parameters: int
    depth: int = 20
    shape: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    faults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    norm: str | None = None
    channel: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One backbone.

    Attributes:
      title: name for people.
      paper: authors, year and arXiv id or venue of what is implemented.
      mixer: "file:Class" under `jaxbench.mixers`; empty in a pattern row.
      pattern: names of rows along depth, see `backbone.parse`; empty in a mixer row.
      channel: second half of the block, a key of `CHANNELS`, or "none". In a pattern
        row None keeps what its elements say.
      norm: kind of the norm before each branch and after the stack (`layers.norms`).
        In a pattern row None keeps what its elements say.
      final_norm: kind of the norm after a stack that ends in this row; None is `norm`.
      norm_epsilon: of these norms, the value of the published code. Pattern rows: as
        the elements say.
      join: one of `JOINS`. Pattern rows: as the elements say.
      temporal: whether information moves along time. Pattern rows: if any element's.
      learned_positions: whether it knows positions only where the task adds a learned
        vector for each.
      depth: layers by default; None is `DEFAULT_DEPTH`, or the length of the pattern.
      options: fields of the mixer that differ from its defaults; those of the channel
        mixer are called "channel.field". In a pattern row all begin with the name of
        the element they are for: {"mamba.state_size": 32}.
      causal: whether y_t depends on x_1..x_t only, inside a window.
      streams: one of `STREAMS`. Pattern rows: the weakest of their elements'.
      window: frames of the window of a row with streams="window".
      aliases: other names it answers to.
      note: what a reader of the table should know.
      about: three sentences for a newcomer: what it is, what it remembers and how, when
        to choose it.
      equation: what is computed, where the options of the row change what the docstring
        of the mixer says in its section "Equations".
      differences: sentences, each where this departs from the paper, besides those in
        the section "Differences" of the mixer's docstring.
      published: the byte-level language model it was published as, if it was.
      primitives: functions of `jaxbench.ops` the mixer calls; ":head" or ":key" follows
        where one has two kinds, a decay for each head or for each key channel. Pattern
        rows: empty.
    """

    title: str
    paper: str = ""
    mixer: str = ""
    pattern: str = ""
    channel: str | None = None
    norm: str | None = None
    final_norm: str | None = None
    norm_epsilon: float = 1e-6
    join: str = "residual"
    temporal: bool = True
    learned_positions: bool = False
    depth: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    causal: bool = True
    streams: str = "exact"
    window: int = 0
    aliases: tuple[str, ...] = ()
    note: str = ""
    about: str = ""
    equation: str = ""
    differences: tuple[str, ...] = ()
    primitives: tuple[str, ...] = ()
    published: Published | None = None

    def __post_init__(self) -> None:
        # Prose stands in the table over several lines.
        object.__setattr__(self, "about", " ".join(self.about.split()))
