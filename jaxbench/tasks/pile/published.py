"""The numbers that the Elman ladder published for byte-level models, and what they are.

The repository `ekg/elman` of January 2026: about 100 million parameters, 10 minutes on
one GPU, one run each. What it lists are losses of training, not of held-out text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxbench.models.zoo import ROWS as ZOO
from jaxbench.tasks.columns import Published as PublishedTable


@dataclasses.dataclass(frozen=True)
class Published:
    """One model of the original listings; losses in nats/byte, of training.

    Attributes:
      name: the name it was published under.
      listed: of the listing of 14 January, mean of a run's last 10 steps.
      logged: from the committed logs of 15 January, mean of a run's last 100 steps.
      note: what else is known of those runs.
    """

    name: str
    listed: float | None = None
    logged: float | None = None
    note: str = ""


_SLOW = "its run of 15 January went at 3.4 kB/s"
_SCAN = "a scan over n by another script, last 100 steps: {}"

# Keys are our rows, the order is the listing of 14 January.
ROWS: dict[str, Published] = {
    "gated_deltanet": Published("FLA-GDN", 1.16, 1.515),
    "mamba2": Published("Mamba2", 1.23, 1.579, "slowed to 28 kB/s midway, 15 January"),
    "e68": Published("E68", 1.44, note=_SLOW),
    "e67": Published("E67", 1.52, 1.647),
    "e1": Published("E1", 1.58, note=_SLOW),
    "e42": Published("E42", 1.59),
    "e56": Published("E56", 1.63, note=_SLOW),
    "e65": Published("E65", 1.63, 1.704),
    "e64": Published("E64", 1.69, 1.814),
    "llama_legacy": Published(
        "Llama", 1.69, 1.743, "each layer added its normalised input once more"
    ),
    "e61": Published("E61", 1.76, 1.521),
    "e63": Published("E63", 1.77, 1.662),
    "e62": Published("E62", 1.78, 1.629),
    "e66": Published("E66", 1.85, 2.109),
    "e74_16": Published("E74, n = 16", note=_SCAN.format("1.815")),
    "e74_32": Published("E74, n = 32", note=_SCAN.format("1.667")),
    "e74_48": Published("E74, n = 48", note=_SCAN.format("1.667")),
    "e74_64": Published("E74, n = 64", note=_SCAN.format("1.689")),
    "e70": Published("E70", note="3.5 kB/s: about 130 steps in 10 minutes"),
    "e71": Published("E71", note="not a number in one run, 2.82 in another"),
    "e72": Published("E72", note="not a number in one run, 2.79 in another"),
    "e73": Published("E73", note="2.20 to 2.22 after 558 steps"),
    "e63m": Published("E63m", note="not a number before step 10"),
}

REMARKS = (
    "Their losses are of training, on a shard of the Pile; ours are of held-out text "
    "of another corpus, every byte counted once. Values cannot be compared, and orders "
    "only with the next remarks in mind.",
    "“14 January” is the mean of a run's last 10 steps, “15 January” of its last 100. "
    "A batch was 16 kB of consecutive text, so that the mean of 10 steps moves by 0.3 "
    "from one to the next: more than separates most of their rows. E61 is listed at "
    "1.76 and logged at 1.521.",
    "One run each, stopped after 600 s of the clock, compilation and start included. "
    "The learning rate oscillated with the step, so that a run's speed alone decided "
    "whether it stopped at a trough or at a peak.",
    "Documents were padded to the chunk, and the padding was predicted and counted.",
    "Their sizes were 84 to 115 million parameters; under compat ours are those with "
    "model.size=published.",
    "Rows of E74's diagonal variants are not listed: in the code that is kept their "
    "kernel has no backward pass, so cell and input projection did not train.",
)


def published_table(board: Mapping[str, Any]) -> PublishedTable | None:
    """The listings of the Elman ladder, ours beside them; under compat only."""
    if board["protocol"] != "compat":
        return None
    ours = {row["backbone"]: row for row in reversed(board["rows"])}
    lines = []
    for name, theirs in ROWS.items():
        row = ours.get(name)
        cells = row["cells"] if row else {}
        zoo = ZOO.get(name)
        size = zoo.published.parameters if zoo and zoo.published else None
        best = _shown(cells.get("nats_per_byte"), ".4f")
        lines.append(
            (
                name,
                theirs.name,
                _shown(theirs.listed, ".2f"),
                _shown(theirs.logged, ".3f"),
                _shown(cells.get("last_nats_per_byte"), ".4f"),
                best or (row["status"] if row else "not here"),
                _shown(size, ",.0f"),
                _shown(cells.get("params_total"), ",.0f"),
                _shown(cells.get("tokens_per_s"), ",.0f"),
                theirs.note,
            )
        )
    header: tuple[str, ...] = (
        "backbone",
        "their name",
        "14 January",
        "15 January",
        "our last",
    )
    header += (
        "our best",
        "their parameters",
        "our parameters",
        "our bytes/s",
        "remark",
    )
    return PublishedTable(header, tuple(lines), REMARKS)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
