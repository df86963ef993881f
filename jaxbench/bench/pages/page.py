"""One page as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jaxbench.bench.backbones_table import Size
from jaxbench.bench.pages import forms, options
from jaxbench.bench.pages.board import (
    COST_COLUMNS,
    PLACE_COLUMNS,
    Line,
    committed_boards,
    costs,
    places,
)
from jaxbench.models.backbone import Backbone, Layer, canonical, parse, resolve, row_of
from jaxbench.models.block import GIVEN, field_names, mixer_class
from jaxbench.models.build import sizes
from jaxbench.models.row import Row
from jaxbench.models.zoo import FAMILIES, ORIGINAL, PARTS

NORMS = {
    "layer": "LayerNorm",
    "centered": "LayerNorm without a bias",
    "rms": "RMSNorm",
    "none": "none",
}


def page(
    name: str,
    *,
    width: int = 256,
    boards: Sequence[Line] | None = None,
    size: Size = None,
) -> str:
    """Writes what there is to know about a row of the zoo, or about a pattern.

    Args:
      name: of a row, or an alias; a pattern has no prose and stands on no board.
      width: model width of the sizes.
      boards: from `read_boards`; None reads those of the repository.
      size: from `size_of`, for those who have it; None computes it.

    Returns:
      Markdown. Links lead to the pages of the other rows in the same folder.

    Raises:
      InputError: no row and no part of patterns is called so, or the width does not
        fit its mixers.
    """
    if not name.isidentifier():
        return _pattern_page(name, width)
    name = canonical(name)
    row, backbone = row_of(name), resolve(name)
    boards = committed_boards() if boards is None else boards
    size = size_of(name, width) if size is None else size
    parts = [
        f"# {row.title}",
        _names(name, row),
        row.about,
        "## What it computes",
        *_computes(row, backbone),
        "## Paper",
        *_paper(row),
        "## Facts",
        table(("", f"at width {width}"), _facts(row, backbone, size)),
        "## How it streams",
        _streaming(backbone, size),
        "## Which form runs when",
        *_forms(backbone),
        "## Options",
        *_options(row, backbone),
        "## Cost",
        *_cost(name, row, boards),
        "## Place on boards",
        *_place(name, row, boards),
        "## Run it",
        *_commands(name, row, backbone),
        "[All backbones](README.md)",
    ]
    return "\n\n".join(parts) + "\n"


def _pattern_page(text: str, width: int) -> str:
    backbone = resolve(text)
    row, size = Row(title=backbone.name, pattern=backbone.name), sizes(text, width)
    parts = [
        f"# `{backbone.name}`",
        *_computes(row, backbone),
        "## Facts",
        table(("", f"at width {width}"), _facts(row, backbone, size)),
        "## How it streams",
        _streaming(backbone, size),
        "## Options",
        *_options(row, backbone),
        "## Run it",
        *_commands(backbone.name, row, backbone),
    ]
    return "\n\n".join(parts) + "\n"


def size_of(name: str, width: int) -> Size:
    """Parameters and state bytes; None for a part of patterns."""
    return None if name in PARTS else sizes(name, width)


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in line)} |"
                     for line in rows)  # fmt: skip


def link(name: str) -> str:
    """A link to the page of a row, from the page of another."""
    return f"[{name}]({name}.md)"


def family_of(name: str) -> str:
    """The family a row is listed under."""
    return next(family for family, rows in FAMILIES.items() if name in rows)


def elements(row: Row) -> list[str]:
    """Names of the rows a pattern row is made of, each once; none for other rows."""
    if not row.pattern:
        return []
    return list(dict.fromkeys(canonical(e.name) for e in parse(row.pattern)))


def _names(name: str, row: Row) -> str:
    part = "no backbone: a part of patterns"
    told = [f"`{name}`", part if name in PARTS else f"family: {family_of(name)}"]
    if row.aliases:
        told.append(f"also called {', '.join(f'`{alias}`' for alias in row.aliases)}")
    original = next((old for old, new in ORIGINAL.items() if new == name), "")
    if original:
        told.append(f"one of the {len(ORIGINAL)} of the original benchmark")
    if original not in ("", name):
        told[-1] += f", there `{original}`"
    return " · ".join(told)


def _computes(row: Row, backbone: Backbone) -> list[str]:
    if row.mixer:
        equation = row.equation or options.section(mixer_class(row.mixer), "Equations")
        return [f"```text\n{equation}\n```"]
    lines = [
        f"{place}. {link(layer.name)}{_around(layer)}"
        for place, layer in enumerate(backbone.elements, 1)
    ]
    return [
        f"The pattern `{row.pattern}`: these layers from the input on, the equations "
        "on their pages.",
        "\n".join(lines),
    ]


def _around(layer: Layer) -> str:
    told = [] if layer.channel == "none" else [f"then `{layer.channel}`"]
    told += ["weights shared with its equals"] if layer.shared else []
    return f", {', '.join(told)}" if told else ""


def _paper(row: Row) -> list[str]:
    parts = [_linked(row.paper) + "." if row.paper else "None: it is a baseline."]
    told = options.differences(mixer_class(row.mixer)) if row.mixer else []
    told += row.differences
    if told:
        parts.append("Where this version departs from it:" if row.paper else "Notes:")
        parts.append("\n".join(f"- {_linked(text)}" for text in told))
    elif row.paper:
        parts.append("No departures from it are known.")
    if row.pattern:
        others = ", ".join(link(name) for name in elements(row))
        parts.append(f"What its layers depart from is on their pages: {others}.")
    return parts


def _linked(text: str) -> str:
    return re.sub(
        r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text
    )


def _facts(row: Row, backbone: Backbone, size: Size) -> list[list[str]]:
    layers = backbone.elements
    streams = backbone.streams if backbone.temporal else "each frame alone"
    if backbone.window:
        streams = f"window of {backbone.window}"
    facts = [
        ["pattern", f"`{row.pattern or backbone.name}`"],
        ["layers by default", str(backbone.default_depth)],
        ["a layer", "; ".join(dict.fromkeys(map(_layer, layers)))],
        ["channel mixer", ", ".join(dict.fromkeys(f"`{x.channel}`" for x in layers))],
        ["norm", ", ".join(dict.fromkeys(NORMS[x.norm] for x in layers))],
        ["parameters", f"{size[0]:,}" if size else "those of the stack it is in"],
        ["state of one sequence", f"{size[1]:,} bytes" if size else "likewise"],
        ["causal", "yes" if backbone.causal else "no: in its window all see all"],
        ["streams", streams],
    ]
    return [*facts, ["note", row.note]] if row.note else facts


def _layer(layer: Layer) -> str:
    """What a layer does with its input x and the output of its halves."""
    inside = "x" if layer.norm == "none" else "norm(x)"
    if layer.join == "replace":
        return f"mixer({inside}) in the place of x"
    if layer.join == "next":
        return f"hands mixer({inside}) to the layer above, x stays"
    if layer.channel == "none":
        return f"x + mixer({inside})"
    return f"x + mixer({inside}), then x + channel({inside})"


def _streaming(backbone: Backbone, size: Size) -> str:
    carried = (
        f"{size[1]:,} bytes" if size else "the cache of each place it is called at"
    )
    if not backbone.temporal:
        return (
            "Each frame is answered by itself: nothing is carried from call to call, "
            "and there is nothing to reset."
        )
    if backbone.streams == "window":
        return (
            "It has no state to go on from: it keeps the last "
            f"{backbone.window - 1} frames as they are ({carried}) and computes a "
            "window anew for every frame. Whole, chunks and single steps agree, and "
            "each frame costs a window."
        )
    if backbone.streams == "unbounded":
        return (
            "Frame by frame, in chunks or whole, with the same answers. It carries "
            f"{carried}, which does not grow: each layer of attention keeps its last "
            "frames, and those have already been mixed with frames before them. So a "
            "stream reaches further back than one window of training does, and then "
            "differs from what that window alone would give."
        )
    return (
        "Exactly: frame by frame, in chunks or whole, it gives the same answers, and "
        f"all it carries between calls is {carried}, however long the episode."
    )


def _forms(backbone: Backbone) -> list[str]:
    names, parts = primitives(backbone), []
    if backbone.streams == "window":
        parts.append("The stack cuts the windows by one gather and runs on all.")
    if not names:
        return [*parts, "It calls no primitive: matrix products only."]
    if backbone.temporal and backbone.streams != "window":
        parts.append("A call with one frame is a single step. Longer calls:")
    lines = forms.form_table(names)
    if lines:
        parts.append(table(forms.COLUMNS, lines))
    told = [
        f"- `{name.partition(':')[0]}`: {forms.PRIMITIVES[name].computes}. "
        f"{forms.PRIMITIVES[name].rule}".rstrip()
        for name in names
    ]
    return [*parts, "\n".join(told)]


def primitives(backbone: Backbone) -> list[str]:
    """Keys of `forms.PRIMITIVES` that the layers of a backbone call, each once."""
    names: list[str] = []
    for layer in backbone.elements:
        names += row_of(layer.name).primitives
        names += forms.OF_CHANNELS.get(layer.channel, ())
    return list(dict.fromkeys(names))


def _options(row: Row, backbone: Backbone) -> list[str]:
    lines = []
    for layer in backbone.elements:
        for *line, told in options.option_table(layer):
            line = [*line, _linked(told)]
            line = [link(layer.name), *line] if row.pattern else line
            lines += [] if line in lines else [line]
    if backbone.window:
        told = "frames of the window the stack keeps."
        line = ["`window`", f"`{backbone.window}`", told]
        lines.append(["the stack", *line] if row.pattern else line)
    if not lines:
        return ["It has none."]
    if not row.pattern:
        return [table(options.COLUMNS, lines)]
    told = "Those of its layers. An option that is set goes to every layer that has it."
    return [told, table(("layer", *options.COLUMNS), lines)]


def _cost(name: str, row: Row, boards: Sequence[Line]) -> list[str]:
    if row.join == "next":
        return ["It is measured in the patterns that use it."]
    lines = costs(name, boards)
    if not lines:
        return [
            "No run is in the repository yet. `python benchmarks/backbones.py "
            f"--rows={name}` measures memory and time of a training step."
        ]
    told = "Medians over the seeds of a row; each board names its machines."
    return [told, table(COST_COLUMNS, lines)]


def _place(name: str, row: Row, boards: Sequence[Line]) -> list[str]:
    if row.join == "next":
        return ["It is a part of patterns and never compared alone."]
    lines = places(name, boards)
    if not lines:
        return ["On no board of `results` yet."]
    told = (
        "Places are intervals: from 1 + the rows proven better to the number of rows "
        "less those proven worse. A row that is not compared has fewer than three "
        "seeds, or a learning rate that no search chose; its board says which."
    )
    return [told, table(PLACE_COLUMNS, lines)]


def _commands(name: str, row: Row, backbone: Backbone) -> list[str]:
    text = f"mamba+@{name}+mamba" if row.join == "next" else name
    lines = [
        f"python run.py --config=configs/zelda.py:{text}",
        f"python run.py --config=configs/zelda.py:{text},width=128,epochs=1",
        f"python run.py --config=configs/pile.py:{text},size=1m,budget=10min",
    ]
    layer = backbone.elements[0]
    mixer = mixer_class(layer.mixer)
    own = [field for field in field_names(mixer) if field not in GIVEN]
    if own:
        value = dict(layer.options).get(own[0], getattr(mixer, own[0]))
        lines.append(f'{lines[0]} --config.model.options="{own[0]}={value}"')
    return ["```bash\n" + "\n".join(lines) + "\n```"]
