"""The words in which results are told: of each task, of its data, of sizes of text.

Imports no jax.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError
from jaxbench.tasks.entry import Terms
from jaxbench.tasks.table import find


def terms(task: str) -> Terms:
    """The words of a task; plain ones for a result of a task that is not installed."""
    try:
        return find(task).terms
    except InputError:
        return Terms()


def seen_bytes(result: Mapping[str, Any]) -> int | None:
    """Bytes of text a language model was trained on; None where that is not known.

    A window that was drawn twice counts twice.
    """
    options = (result.get("data") or {}).get("options") or {}
    examples, window = result.get("examples"), options.get("window")
    if not (isinstance(examples, int) and isinstance(window, int)):
        return None
    return examples * window


def data_name(data: Mapping[str, Any]) -> str:
    """What the data is called: its kind, and its name where it has one."""
    source, name = str(data.get("source") or ""), data.get("name")
    if not isinstance(name, str):
        return source
    return name if name.lower().startswith(source.lower()) else f"{source} {name}"


def text_size(count: float) -> str:
    """Bytes of text as budgets name them, in powers of ten: 50.0 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"
