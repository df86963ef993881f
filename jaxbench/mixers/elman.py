"""The Elman ladder where channels of the state do not meet: E61, E62, E64 to E68.

All are moving averages of candidates v by a gate alpha, which says how much of the old
state stays: cells in a table. Where alpha and v see the input only (E61, E62) the
recurrence is linear and all frames are computed at once; where they see the old state
of their channel it is an elementwise cell.

Source: repository ekg/elman, 2026. Difference: gates, candidates and states are
float32, where the source stored them in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.ladder import Ladder
from jaxbench.ops.diagonal import diagonal
from jaxbench.ops.elementwise_cell import elementwise_cell


# The frames of a cell come with gate and candidate, (alpha, x) or what is left of them
# to compute once the old state h is known; weights are vectors, one number a channel.
def additive(h, frame, weights):
    """E64: alpha h + (1 - alpha) tanh(h + x); near h = 0 a state hardly fades."""
    del weights
    alpha, x = frame
    return alpha * h + (1 - alpha) * jnp.tanh(h + x)


def weighted(h, frame, weights):
    """E65: alpha h + (1 - alpha) tanh(d h + x)."""
    alpha, x = frame
    return alpha * h + (1 - alpha) * jnp.tanh(weights[0] * h + x)


def self_keeping(h, frame, weights):
    """E67: alpha h + (1 - alpha) v with alpha = sigmoid(a + d h)."""
    gate, v = frame
    alpha = nn.sigmoid(gate + weights[0] * h)
    return alpha * h + (1 - alpha) * v


def self_writing(h, frame, weights):
    """E68: alpha h + (1 - alpha) v sigmoid(d h + b)."""
    alpha, v = frame
    return alpha * h + (1 - alpha) * v * nn.sigmoid(weights[0] * h + weights[1])


class Cell(NamedTuple):
    """A gated average.

    Attributes:
      start: bias of the gate at the start; 2 keeps 0.88.
      frames: (gate, v) before their nonlinearities -> what the recurrence takes: factor
        and addition where there is no `step`, else the frames of it.
      step: (h, frame, weights) -> h; None where the recurrence is linear.
      weights: names and first values of the vectors that `step` takes.
    """

    start: float
    frames: Callable[[Any, Any], tuple]
    step: Callable[..., Any] | None = None
    weights: Mapping[str, float] = {}


def _alpha(gate, x):
    return nn.sigmoid(gate), x


CELLS = {
    # 1 - alpha as a sigmoid of its own: no digits are lost where alpha is near 1.
    "e61": Cell(2, lambda a, v: (nn.sigmoid(a), nn.sigmoid(-a) * v)),
    "e62": Cell(-2, lambda k, v: (nn.sigmoid(-k), nn.sigmoid(k) * jnp.tanh(v))),
    "e64": Cell(2, _alpha, additive),
    "e65": Cell(2, _alpha, weighted, {"recurrent_v": 0.5}),
    "e67": Cell(
        2, lambda a, x: (a, jnp.tanh(x)), self_keeping, {"recurrent_alpha": 0.1}
    ),
    "e68": Cell(
        2,
        lambda a, x: (nn.sigmoid(a), jnp.tanh(x)),
        self_writing,
        {"recurrent_g": 0.5, "bias_g": 0.0},
    ),
}


class LinearAverage(Ladder):
    """A gated average that is linear in its state: E61 or E62.

    Attributes:
      cell: "e61" or "e62", as the equations.
      expansion: width E of the state over model width.
    """

    cell: str = "e61"

    def recur(self, x_bte, h_be, reset_bt):
        cell = _cell(self, linear=True)
        return diagonal(*cell.frames(*self.gates(x_bte, cell.start)), h_be, reset_bt)


class Average(Ladder):
    """A gated average whose gate or candidate sees the old state of its channel.

    Attributes:
      cell: "e64", "e65", "e67" or "e68", as the equations.
      expansion: width E of the state over model width.
    """

    cell: str = "e64"

    def recur(self, x_bte, h_be, reset_bt):
        cell = _cell(self, linear=False)
        frames = cell.frames(*self.gates(x_bte, cell.start))
        weights = tuple(self.vector(*item) for item in cell.weights.items())
        return elementwise_cell(cell.step, frames, weights, h_be, reset_bt)


def _cell(mixer: Ladder, linear: bool) -> Cell:
    known = [name for name, cell in CELLS.items() if (cell.step is None) == linear]
    if mixer.cell not in known:
        raise InputError(f"cell={mixer.cell!r} must be one of {', '.join(known)}")
    return CELLS[mixer.cell]
