"""The table of all backbones: data, not code, one file per family.

A row either names one mixer or is a pattern of other rows (`"mamba*2+swa"`), so a
hybrid is a row. A block that cannot stand alone is no row but one of `PARTS`. Rows are
resolved by `models.backbone`, which also reads patterns that users write. Nothing here
imports jax: printing the table is instant, and a mixer file is imported only when one
of its rows is used.

To add a backbone: write the mixer (see `jaxbench.mixers`), add its row to the file of
its family.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxbench.models.row import Row
from jaxbench.models.zoo import (
    attention,
    delta_rules,
    elman,
    elman_diagonal,
    elman_memories,
    frames,
    hybrids,
    linear_attention,
    recurrent,
    report,
    selective,
    state_spaces,
    windows,
)

# Rows of each family, in the order of the table.
FAMILIES: dict[str, dict[str, Row]] = {
    "time-invariant state spaces": state_spaces.ROWS,
    "selective state spaces": selective.ROWS,
    "linear attention": linear_attention.ROWS,
    "delta rules, fast weights": delta_rules.ROWS,
    "recurrent cells": recurrent.ROWS,
    "Elman ladder, vector states": elman.ROWS,
    "Elman ladder, matrix states": elman_memories.ROWS,
    "Elman ladder, diagonal rows of E74": elman_diagonal.ROWS,
    "softmax attention": attention.ROWS,
    "whole windows": windows.ROWS,
    "each frame alone": frames.ROWS,
    "hybrids": hybrids.ROWS,
    "pentathlon's first report": report.ROWS,
}

# Names for patterns that are no backbones by themselves.
PARTS: dict[str, Row] = hybrids.PARTS

# The 34 names of the original benchmark, in its order, and the rows that define them
# here as their papers do.
ORIGINAL: dict[str, str] = {
    "mlp": "mlp",
    "gated_ssm": "gated_ssm",
    "mamba": "mamba",
    "jamba": "jamba",
    "lstm": "lstm",
    "gru": "gru",
    "lstm_hybrid": "lstm_hybrid",
    "sliding_window": "swa",
    "zamba": "zamba",
    "mamba_ssd": "mamba2",
    "s5": "s5",
    "rwkv": "rwkv",
    "gla": "gla",
    "hgrn": "hgrn",
    "s4": "s4",
    "s4d": "s4d",
    "h3": "h3",
    "griffin": "griffin",
    "hawk": "hawk",
    "xlstm": "xlstm",
    "retnet": "retnet",
    "performer": "performer",
    "deltanet": "deltanet",
    "fnet": "fnet",
    "perceiver": "perceiver",
    "ttt": "ttt",
    "reservoir": "reservoir",
    "hopfield": "hopfield",
    "ntm": "ntm",
    "liquid": "liquid",
    "decision_transformer": "decision_transformer",
    "kan": "kan",
    "snn": "snn",
    "bayesian": "bayesian",
}


def merge(families: Mapping[str, Mapping[str, Row]]) -> dict[str, Row]:
    """Joins the families into one table, in their order.

    Raises:
      ValueError: two families give the same name; the message says which.
    """
    home: dict[str, str] = {}
    rows: dict[str, Row] = {}
    for family, members in families.items():
        for name, row in members.items():
            if name in rows:
                raise ValueError(
                    f"backbone {name!r} is in two families: {home[name]!r} and "
                    f"{family!r}"
                )
            home[name] = family
            rows[name] = row
    return rows


ROWS: dict[str, Row] = merge(FAMILIES)
