"""The options of a layer: what a user may set, its value, and what it means."""

from __future__ import annotations

import inspect
import re
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
    text = inspect.getdoc(mixer) or ""
    _, _, attributes = text.partition("Attributes:\n")
    entries = re.split(r"^  (?=\w+: )", attributes, flags=re.MULTILINE)
    pairs = (entry.partition(": ") for entry in entries if entry.strip())
    return {name: " ".join(told.split()) for name, _, told in pairs}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
