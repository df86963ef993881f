"""From a name or a pattern to the layers along depth. No jax in here."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError, nearest
from jaxbench.models.row import CHANNELS, DEFAULT_DEPTH, STREAMS, Row
from jaxbench.models.zoo import ROWS

_TOKEN = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.-]*|[0-9]+|[+*()@/])")
_MAX_DEPTH = 512


@dataclasses.dataclass(frozen=True)
class Element:
    """One place of a pattern.

    Attributes:
      name: of a row, or an alias.
      shared: whether it shares its weights with the equal places of the stack.
      channel: the channel mixer instead of the row's; None keeps the row's.
    """

    name: str
    shared: bool
    channel: str | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """Everything that is needed to build one layer: a row without its prose.

    Attributes:
      name: the row's name.
      mixer, channel, norm, join, temporal: as in `row.Row`.
      options: (field, value) pairs for the mixer.
      channel_options: (field, value) pairs for the channel mixer.
      shared: whether all layers of a stack that equal this one are one set of weights
        (each keeps its own state).
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
    """

    name: str
    elements: tuple[Layer, ...]
    default_depth: int
    causal: bool
    streams: str
    window: int
    temporal: bool

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
            groups[-1][-1] = (
                dataclasses.replace(
                    groups[-1][-1][0], channel=_channel(text, start, token)
                ),
            )
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
      InputError: the text does not parse, or names no row of the table.
    """
    elements = parse(text)
    bare = _is_name(text.strip())
    layers: list[Layer] = []
    rows: list[Row] = []
    for element in elements:
        found = _expand(element, compat)
        layers += [layer for layer, _ in found]
        rows += [row for _, row in found]
    if len(layers) > _MAX_DEPTH:
        raise InputError(f"backbone {text!r} has more than {_MAX_DEPTH} layers")
    depth = len(layers)
    if bare:
        row = ROWS[canonical(elements[0].name)]
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
    )


def is_temporal(layer: Layer) -> bool:
    """Whether a layer moves information along time, in either of its halves."""
    of_channel = layer.channel != "none" and CHANNELS[layer.channel].temporal
    return layer.temporal or of_channel


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
    """Returns the row a name or an alias stands for.

    Raises:
      InputError: there is none; the message names the nearest.
    """
    if name in ROWS:
        return name
    aliases = {alias: key for key, row in ROWS.items() for alias in row.aliases}
    if name not in aliases:
        raise InputError(
            f"no backbone is called {name!r}; nearest: "
            f"{nearest(name, [*ROWS, *aliases])}; `jaxbench list` prints them all"
        )
    return aliases[name]


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
    row = ROWS[name]
    if row.mixer:
        layer = Layer(
            name=name,
            mixer=row.mixer,
            channel=row.channel or "none",
            norm=row.norm or "none",
            join=row.join,
            temporal=row.temporal,
            shared=element.shared,
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
                shared=element.shared or layer.shared,
            )
            expanded.append((layer, inner_row))
    return expanded


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


def _channel(text: str, start: int, token: str) -> str:
    if not _is_name(token):
        raise _syntax_error(text, start, token, "a channel mixer")
    if token not in {"none", *CHANNELS}:
        raise InputError(
            f"backbone {text!r}: no channel mixer is called {token!r}; nearest: "
            f"{nearest(token, ['none', *CHANNELS])}"
        )
    return token


def _flat(terms: list[tuple[Element, ...]]) -> tuple[Element, ...]:
    return tuple(element for term in terms for element in term)


def _canonical_text(text: str) -> str:
    tokens: list[str] = []
    position = 0
    while True:
        token, _, position = _next_token(text, position)
        if not token:
            return "".join(tokens)
        channel = bool(tokens) and tokens[-1] == "/"
        tokens.append(canonical(token) if _is_name(token) and not channel else token)


def _syntax_error(text: str, start: int, token: str, wanted: str) -> InputError:
    found = repr(token) if token else "the end"
    return InputError(
        f"backbone {text!r}: expected {wanted} at character {start + 1}, found {found}"
    )
