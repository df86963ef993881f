"""From a name or a pattern to the layers along depth. No jax in here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError, nearest
from jaxbench.models.row import CHANNELS, DEFAULT_DEPTH, STREAMS, Row
from jaxbench.models.zoo import PARTS, ROWS

_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*|[0-9]+|[+*()@/])")
_MAX_DEPTH = 512
# Suffixes that put a short convolution before a mixer, or take out the mixer's own.
SWITCHES = {"conv": True, "noconv": False}


@dataclasses.dataclass(frozen=True)
class Element:
    """One place of a pattern.

    Attributes:
      name: of a row, or an alias.
      shared: whether it shares its weights with the equal places of the stack.
      channel: the channel mixer instead of the row's; None keeps the row's.
      conv: a value of `SWITCHES`; None leaves the row as it is.
    """

    name: str
    shared: bool
    channel: str | None = None
    conv: bool | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """Everything that is needed to build one layer: a row without its prose.

    Attributes:
      name: the row's name.
      mixer, channel, norm, join, temporal, final_norm, norm_epsilon: as in `row.Row`.
      options: (field, value) pairs for the mixer.
      channel_options: (field, value) pairs for the channel mixer.
      shared: whether all layers of a stack that equal this one are one set of weights
        (each keeps its own state).
      conv: true with a short convolution before the mixer, false where the mixer's own
        sees one frame only (its option `taps` is 1 then), None as the row says.
    """

    name: str
    mixer: str
    channel: str
    norm: str
    join: str
    temporal: bool
    options: tuple[tuple[str, Any], ...] = ()
    channel_options: tuple[tuple[str, Any], ...] = ()
    shared: bool = False
    final_norm: str | None = None
    norm_epsilon: float = 1e-6
    conv: bool | None = None

    @property
    def norm_after(self) -> str:
        """Kind of the norm after a stack whose last layer this is."""
        return self.norm if self.final_norm is None else self.final_norm


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A resolved name or pattern.

    Attributes:
      name: canonical text: aliases replaced, spaces removed.
      elements: the pattern written out, at least one layer.
      default_depth: layers where no depth is asked for.
      causal: whether every layer is. Where one is not, the backbone still answers at
        t from frames up to t only, because it streams over a window.
      streams: the weakest of the layers', see `row.STREAMS`.
      window: frames a window holds where `streams` is "window", else 0.
      temporal: whether any layer moves information along time.
      learned_positions: whether any row of it asks for learned positions.
    """

    name: str
    elements: tuple[Layer, ...]
    default_depth: int
    causal: bool
    streams: str
    window: int
    temporal: bool
    learned_positions: bool

    def layers(self, depth: int | None = None) -> tuple[Layer, ...]:
        """Returns the layers from the input on: the pattern, cycled to `depth`.

        Raises:
          InputError: `depth` is not between 1 and 512.
        """
        count = self.default_depth if depth is None else depth
        if not 1 <= count <= _MAX_DEPTH:
            raise InputError(
                f"depth={count} for backbone {self.name!r} must be between 1 and "
                f"{_MAX_DEPTH}"
            )
        layers = tuple(self.elements[i % len(self.elements)] for i in range(count))
        if layers[-1].join == "next":
            raise InputError(
                f"backbone {self.name!r} of depth {count} ends in {layers[-1].name!r}, "
                "whose output only feeds the layer after it; end in another layer"
            )
        return layers


def parse(text: str) -> tuple[Element, ...]:
    """Reads a pattern: names joined by `+`, repeated by `*n`, grouped by `( )`.

    `mamba*2+swa` is two layers of Mamba, then one of attention; `(mamba*2+swa)*3` is
    that three times. `@swa` shares its weights with every other `@swa` of the stack:
    `(mamba*2+@swa)*3` has one attention layer, used three times. `swa/moe` has the
    channel mixer `moe` (a key of `row.CHANNELS`, or `none`) instead of the row's.
    `swa/conv` has a short convolution before the mixer, `mamba/noconv` is without the
    mixer's own; `swa/glu/conv` has both kinds of suffix, in either order.

    Raises:
      InputError: the text does not parse (the message shows where), or is longer than
        512 layers.
    """
    groups: list[list[tuple[Element, ...]]] = [[]]
    want_name, may_slash, position = True, False, 0
    while True:
        token, start, position = _next_token(text, position)
        if want_name and token == "(":
            groups.append([])
        elif want_name and (token == "@" or _is_name(token)):
            shared = token == "@"
            if shared:
                token, start, position = _next_token(text, position)
            if not _is_name(token):
                raise _syntax_error(text, start, token, "a name")
            groups[-1].append((Element(token, shared),))
            want_name, may_slash = False, True
            continue
        elif want_name:
            raise _syntax_error(text, start, token, "a name or '('")
        elif token == "/" and may_slash:
            token, start, position = _next_token(text, position)
            element = _with_suffix(groups[-1][-1][0], text, start, token)
            groups[-1][-1] = (element,)
            may_slash = element.channel is None or element.conv is None
            continue
        elif token == "+":
            want_name = True
        elif token == "*":
            token, start, position = _next_token(text, position)
            groups[-1][-1] *= _count(text, start, token)
        elif token == ")" and len(groups) > 1:
            group = _flat(groups.pop())
            groups[-1].append(group)
        elif token == "" and len(groups) == 1:
            break
        else:
            wanted = "'+', '*' or " + ("the end" if len(groups) == 1 else "')'")
            raise _syntax_error(text, start, token, wanted)
        may_slash = False
        if sum(map(len, groups[-1])) > _MAX_DEPTH:
            raise InputError(f"backbone {text!r} has more than {_MAX_DEPTH} layers")
    return _flat(groups[0])


def resolve(text: str, compat: bool = False) -> Backbone:
    """Finds the backbone a name, an alias or a pattern stands for.

    Args:
      text: name, alias or pattern.
      compat: rows that were published as byte-level language models are as they were
        published, faults included (`row.Published`).

    Raises:
      InputError: the text does not parse, names no row of the table, or takes the
        short convolution out of a row that has none.
    """
    elements = parse(text)
    # Suffixes leave a row as deep as it is; one that is repeated says how deep.
    bare = not set(text) & set("+*()@")
    layers: list[Layer] = []
    rows: list[Row] = []
    for element in elements:
        found = _expand(element, compat)
        layers += [
            with_options(layer, {"taps": 1}) if layer.conv is False else layer
            for layer, _ in found
        ]
        rows += [row for _, row in found]
    if len(layers) > _MAX_DEPTH:
        raise InputError(f"backbone {text!r} has more than {_MAX_DEPTH} layers")
    depth = len(layers)
    if bare:
        row = row_of(elements[0].name)
        depth = row.depth or (DEFAULT_DEPTH if row.mixer else depth)
    streams = max((row.streams for row in rows), key=STREAMS.index)
    return Backbone(
        name=_canonical_text(text),
        elements=tuple(layers),
        default_depth=depth,
        causal=all(row.causal for row in rows),
        streams=streams,
        window=max(row.window for row in rows) if streams == "window" else 0,
        temporal=any(is_temporal(layer) for layer in layers),
        learned_positions=any(row.learned_positions for row in rows),
    )


def is_temporal(layer: Layer) -> bool:
    """Whether a layer moves information along time, in any of its parts."""
    of_channel = layer.channel != "none" and CHANNELS[layer.channel].temporal
    return layer.temporal or of_channel or layer.conv is True


def with_options(layer: Layer, options: Mapping[str, Any]) -> Layer:
    """Adds options, replacing; those of the channel mixer are "channel.field"."""
    prefix = "channel."
    own = {key: value for key, value in options.items() if not key.startswith(prefix)}
    channel = {
        key.removeprefix(prefix): value
        for key, value in options.items()
        if key.startswith(prefix)
    }
    return dataclasses.replace(
        layer,
        options=tuple(sorted({**dict(layer.options), **own}.items())),
        channel_options=tuple(
            sorted({**dict(layer.channel_options), **channel}.items())
        ),
    )


def canonical(name: str) -> str:
    """Returns the name of the row, or of the part of patterns, that a name stands for.

    Raises:
      InputError: there is none; the message names the nearest.
    """
    if name in ROWS or name in PARTS:
        return name
    aliases = {alias: key for key, row in ROWS.items() for alias in row.aliases}
    if name not in aliases:
        raise InputError(
            f"no backbone is called {name!r}; nearest: "
            f"{nearest(name, [*ROWS, *PARTS, *aliases])}; "
            "`jaxbench list` prints them all"
        )
    return aliases[name]


def row_of(name: str) -> Row:
    """Returns what the table says of a name, an alias or a part of patterns.

    Raises:
      InputError: as `canonical`.
    """
    name = canonical(name)
    return PARTS[name] if name in PARTS else ROWS[name]


def table() -> list[dict[str, Any]]:
    """Returns the table as plain dicts, one per row, for printing or as JSON.

    Keys: name, title, pattern, channel, depth, causal, streams, window, temporal,
    aliases, paper, note. Facts of pattern rows are those of their elements.
    """
    rows = []
    for name, row in ROWS.items():
        backbone = resolve(name)
        channels = dict.fromkeys(layer.channel for layer in backbone.elements)
        rows.append(
            {
                "name": name,
                "title": row.title,
                "pattern": row.pattern or name,
                "channel": "+".join(channels),
                "depth": backbone.default_depth,
                "causal": backbone.causal,
                "streams": backbone.streams,
                "window": backbone.window,
                "temporal": backbone.temporal,
                "aliases": list(row.aliases),
                "paper": row.paper,
                "note": row.note,
            }
        )
    return rows


def _expand(element: Element, compat: bool) -> list[tuple[Layer, Row]]:
    name = canonical(element.name)
    row = row_of(name)
    if row.mixer:
        if element.conv is False and not _has_convolution(row):
            raise _no_convolution(name)
        layer = Layer(
            name=name,
            mixer=row.mixer,
            channel=row.channel or "none",
            norm=row.norm or "none",
            join=row.join,
            temporal=row.temporal,
            shared=element.shared,
            final_norm=row.final_norm,
            norm_epsilon=row.norm_epsilon,
            conv=element.conv,
        )
        layer = with_options(layer, row.options)
        if compat and row.published is not None:
            layer = with_options(layer, row.published.faults)
            norm = row.published.norm or layer.norm
            layer = dataclasses.replace(layer, norm=norm)
            layer = _with_channel(layer, row.published.channel)
        return [(_with_channel(layer, element.channel), row)]
    expanded = []
    for inner in parse(row.pattern):
        for layer, inner_row in _expand(inner, compat):
            prefix = f"{layer.name}."
            own = {
                key.removeprefix(prefix): value
                for key, value in row.options.items()
                if key.startswith(prefix)
            }
            layer = _with_channel(layer, row.channel if inner.channel is None else None)
            layer = _with_channel(with_options(layer, own), element.channel)
            layer = dataclasses.replace(
                layer,
                norm=row.norm or layer.norm,
                final_norm=row.final_norm or layer.final_norm,
                shared=element.shared or layer.shared,
            )
            expanded.append((layer, inner_row))
    return _switched(name, element.conv, expanded)


def _switched(
    name: str, conv: bool | None, expanded: list[tuple[Layer, Row]]
) -> list[tuple[Layer, Row]]:
    """Replaces the switches of a pattern row's layers by one for them all.

    `noconv` is for those that have a short convolution; one at least must.
    """
    if conv is None:
        return expanded
    if conv:
        return [(dataclasses.replace(x, conv=True), row) for x, row in expanded]
    having = [_has_convolution(row) for _, row in expanded]
    if not any(having):
        raise _no_convolution(name)
    return [
        (dataclasses.replace(layer, conv=False if has else None), row)
        for has, (layer, row) in zip(having, expanded, strict=True)
    ]


def _has_convolution(row: Row) -> bool:
    """Whether the mixer of a row has a short convolution of its own."""
    return "short_convolution" in row.primitives


def _no_convolution(name: str) -> InputError:
    known = ", ".join(key for key, row in ROWS.items() if _has_convolution(row))
    return InputError(
        f"backbone '{name}/noconv': {name!r} has no short convolution to take out; "
        f"these have one: {known}"
    )


def _with_channel(layer: Layer, channel: str | None) -> Layer:
    """Replaces the channel mixer, and with it the old one's options."""
    if channel is None or channel == layer.channel:
        return layer
    return dataclasses.replace(layer, channel=channel, channel_options=())


def _next_token(text: str, position: int) -> tuple[str, int, int]:
    """Returns the token after `position`, where it starts, and where it ends."""
    match = _TOKEN.match(text, position)
    if match:
        return match[1], match.start(1), match.end()
    rest = text[position:].lstrip()
    start = len(text) - len(rest)
    return rest[:1], start, start + 1


def _is_name(token: str) -> bool:
    match = _TOKEN.fullmatch(token)
    return bool(match) and (token[0].isalpha() or token[0] == "_")


def _count(text: str, start: int, token: str) -> int:
    if not token.isdigit() or not 1 <= int(token[:9]) <= _MAX_DEPTH or len(token) > 9:
        raise _syntax_error(text, start, token, f"a number from 1 to {_MAX_DEPTH}")
    return int(token)


def _with_suffix(element: Element, text: str, start: int, token: str) -> Element:
    """Adds what follows a slash; of each kind an element has one at most."""
    channels, switches = ["none", *CHANNELS], list(SWITCHES)
    if element.channel is None and token in channels:
        return dataclasses.replace(element, channel=token)
    if element.conv is None and token in switches:
        return dataclasses.replace(element, conv=SWITCHES[token])
    taken = (element.channel, element.conv) != (None, None)
    if taken or not _is_name(token):
        kinds = {
            "a channel mixer": element.channel is None,
            "'conv' or 'noconv'": element.conv is None,
        }
        wanted = ", ".join(kind for kind, free in kinds.items() if free)
        raise _syntax_error(text, start, token, wanted)
    raise InputError(
        f"backbone {text!r}: no channel mixer is called {token!r}, and no switch; "
        f"nearest: {nearest(token, [*channels, *switches])}"
    )


def _flat(terms: list[tuple[Element, ...]]) -> tuple[Element, ...]:
    return tuple(element for term in terms for element in term)


def _canonical_text(text: str) -> str:
    """Aliases resolved, no spaces, the switch of a name behind its channel mixer."""
    tokens: list[str] = []
    suffixes: list[str] = []
    position = 0
    while True:
        token, _, position = _next_token(text, position)
        if token == "/":
            suffix, _, position = _next_token(text, position)
            suffixes.append(suffix)
            continue
        tokens += [f"/{s}" for s in sorted(suffixes, key=SWITCHES.__contains__)]
        suffixes = []
        if not token:
            return "".join(tokens)
        tokens.append(canonical(token) if _is_name(token) else token)


def _syntax_error(text: str, start: int, token: str, wanted: str) -> InputError:
    found = repr(token) if token else "the end"
    return InputError(
        f"backbone {text!r}: expected {wanted} at character {start + 1}, found {found}"
    )
