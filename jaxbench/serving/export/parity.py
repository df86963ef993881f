"""Agreement of an exported file with jax, on real inputs, step after step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxbench.serving.decide import CHUNK
from jaxbench.serving.export.functions import LABELS, next_name
from jaxbench.serving.export.runtime import Call, Port, next_state

# Steps after which drift is told, where as many were made.
MARKS = (1, 3, 10, 30, 100, 200, 500, 1000, 2000)
# Largest error of a logit, or of a chunk's number, that is kept; the largest is 1.
LIMIT = 1e-3


@dataclasses.dataclass(frozen=True)
class Parity:
    """Differences between two implementations of the same function.

    Attributes:
      count: calls compared.
      largest: largest difference of a logit or a chunk's number, over the largest
        one of all calls.
      equal_labels: share of calls with the same whole answer (controller or byte).
      drift: largest error so far after so many steps of one sequence, by steps.
      state: largest difference of a number of the state, over the largest one of its
        array, at the end; None without a state.
    """

    count: int
    largest: float
    equal_labels: float
    drift: Mapping[str, float]
    state: float | None

    def facts(self) -> dict[str, Any]:
        """The fields as a dictionary for JSON."""
        return dataclasses.asdict(self)


def outputs_of(found: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of one call as one row, and the label or controller chosen by them."""
    said = [np.ravel(x) for k, x in found.items() if k.startswith(("logits", CHUNK))]
    row = np.concatenate(said).astype(np.float64)
    label = found[LABELS] if LABELS in found else np.argmax(row)
    return row, np.ravel(label)


def collect(
    call: Call,
    calls: Iterable[Mapping[str, Any]],
    initial: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Runs a function on a sequence of inputs, handing on its state.

    Args:
      call: a function of a run.
      calls: inputs of each, without the state.
      initial: where the state starts from, which is then handed on from call to call,
        so that what is rounded can grow; None for a function without a state.

    Returns:
      Logits and labels of each call; the last one has the state too.
    """
    found: list[dict[str, np.ndarray]] = []
    state = dict(initial or {})
    for inputs in calls:
        # Only the last state is kept: all of them would fill the memory.
        if found:
            last = found[-1].items()
            found[-1] = {k: v for k, v in last if not k.startswith("next/")}
        found.append(call({**inputs, **state}))
        state = next_state(found[-1], state)
    return found


def compare(
    reference: Sequence[Mapping[str, np.ndarray]],
    found: Sequence[Mapping[str, np.ndarray]],
    ports: Sequence[Port] = (),
) -> Parity:
    """Compares the outputs of the same calls.

    Args:
      reference: jax's.
      found: the exported file's.
      ports: the state's, for a step function; without them calls have no order and no
        drift is told.
    """
    rows = [outputs_of(x) for x in reference]
    others = [outputs_of(x) for x in found]
    pairs = list(zip(rows, others, strict=True))
    scale = max(float(np.abs(row).max()) for row, _ in rows) or 1.0
    error_n = np.array([np.abs(a - b).max() for (a, _), (b, _) in pairs]) / scale
    # Not a number anywhere is the largest error of all.
    error_n = np.where(np.isnan(error_n), np.inf, error_n)
    equal = [np.array_equal(a, b) for (_, a), (_, b) in pairs]
    drift = {str(n): float(error_n[:n].max()) for n in MARKS if n <= len(error_n)}
    ends = [
        _relative(reference[-1][next_name(port)], found[-1][next_name(port)])
        for port in ports
        if np.prod(port.shape)
    ]
    return Parity(
        count=len(pairs),
        largest=float(error_n.max()),
        equal_labels=float(np.mean(equal)),
        drift=drift if ports else {},
        state=max(ends) if ends else None,
    )


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.abs(a).max()) or 1.0
    error = float(np.abs(a - b).max()) / scale
    return error if np.isfinite(error) else float("inf")
