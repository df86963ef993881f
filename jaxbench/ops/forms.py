"""The one place that picks which form of a primitive runs.

The choice is data, not code: `forms.json` beside this file holds one row per
(primitive, backend, range of lengths, range of state sizes), each with the form and
where the number behind it comes from. The first row that matches wins.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import jax

from jaxbench.errors import InputError, nearest

TABLE = Path(__file__).with_name("forms.json")

_BACKEND: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "backend", default=None
)


class Row(TypedDict):
    """One line of the table. Bounds are inclusive; null is no bound."""

    primitive: str
    backend: str
    max_length: int | None
    max_state: int | None
    form: str
    source: str


@functools.cache
def rows() -> tuple[Row, ...]:
    """Reads the table once. Rows are in order of preference."""
    return tuple(json.loads(TABLE.read_text(encoding="utf-8"))["rows"])


def choose(
    primitive: str, *, length: int, state_size: int, backend: str | None = None
) -> str:
    """Names the form of `primitive` to run for this shape on this backend.

    Args:
      primitive: e.g. "diagonal", "selective_scan", "gru".
      length: T, the number of frames in the call.
      state_size: floats of state per sequence.
      backend: "cpu", "gpu" or "tpu"; by default the one JAX runs on. Backends
        without rows of their own use those of "gpu", the other parallel machine.
        Inside `forms_of` the default is the backend named there.

    Returns:
      The form, with a block length after a colon where it has one ("fused:10").

    Raises:
      InputError: the table has no row for this primitive.
    """
    backend = backend or _BACKEND.get() or jax.default_backend()
    return _choose(primitive, length, state_size, backend)


@contextlib.contextmanager
def forms_of(backend: str) -> Iterator[None]:
    """Inside, what is traced has the forms of a backend, whichever JAX runs on.

    For counts that must not depend on the device they are made on.
    """
    token = _BACKEND.set(backend)
    try:
        yield
    finally:
        _BACKEND.reset(token)


@functools.cache
def _choose(primitive: str, length: int, state_size: int, backend: str) -> str:
    known = [row for row in rows() if row["primitive"] == primitive]
    if not known:
        names = {row["primitive"] for row in rows()}
        raise InputError(
            f"no execution form for primitive '{primitive}' in {TABLE.name}; "
            f"nearest: {nearest(primitive, names)}"
        )
    family = "cpu" if backend == "cpu" else "gpu"
    for row in known:
        if row["backend"] != family:
            continue
        if length <= (row["max_length"] or length) and state_size <= (
            row["max_state"] or state_size
        ):
            return row["form"]
    raise InputError(
        f"{TABLE.name} has no row for primitive '{primitive}' on {family} at "
        f"length {length}, state {state_size}; add one without upper bounds"
    )
