"""What the docstring of a mixer says: equations, departures from the paper, options."""

from __future__ import annotations

import inspect
import itertools
import re
import textwrap
from typing import Any

from flax import linen as nn

from jaxbench.models.backbone import Layer
from jaxbench.models.block import GIVEN, field_names, mixer_class
from jaxbench.models.row import CHANNELS

COLUMNS = ("option", "default", "meaning")


def option_table(layer: Layer) -> list[list[str]]:
    """Rows of a table over `COLUMNS`, those of the channel mixer as "channel.field"."""
    table = _of_mixer(mixer_class(layer.mixer), dict(layer.options), "")
    if layer.channel != "none":
        channel = mixer_class(CHANNELS[layer.channel].mixer)
        table += _of_mixer(channel, dict(layer.channel_options), "channel.")
    return table


def _of_mixer(
    mixer: type[nn.Module], own: dict[str, Any], prefix: str
) -> list[list[str]]:
    told = meanings(mixer)
    return [
        [f"`{prefix}{name}`", f"`{_text(own.get(name, getattr(mixer, name)))}`",
         told[name]]
        for name in field_names(mixer)
        if name not in GIVEN
    ]  # fmt: skip


def meanings(mixer: type[nn.Module]) -> dict[str, str]:
    """What the section "Attributes" of a mixer's docstring says of each field."""
    entries = re.split(r"^(?=\w+: )", section(mixer, "Attributes"), flags=re.MULTILINE)
    pairs = (entry.partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(told.split()) for name, _, told in pairs}


def differences(mixer: type[nn.Module]) -> list[str]:
    """The sentences of a mixer's section "Differences": where it leaves the paper."""
    entries = re.split(r"^- ", section(mixer, "Differences"), flags=re.MULTILINE)
    return [" ".join(told.split()) for told in entries if told.strip()]


def section(mixer: type[nn.Module], title: str) -> str:
    """The indented lines below "title:" in a docstring; "" where there are none."""
    _, _, after = f"\n{inspect.getdoc(mixer) or ''}".partition(f"\n{title}:\n")
    lines = itertools.takewhile(lambda x: x.startswith("  "), after.split("\n"))
    return textwrap.dedent("\n".join(lines))


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
