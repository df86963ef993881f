"""P5: recurrences nonlinear in the state that keep channels apart.

h_t = f(h_{t-1}, x_t; w), and channel d of h_t depends on channel d of h_{t-1} only, so
the Jacobian a_t = df / dh_{t-1} is diagonal. Two things follow. Given all states, the
gradient is a linear recurrence run backwards, lambda_t = g_t + a_{t+1} lambda_{t+1},
between two passes that see all frames at once, and only h and the inputs are kept. And
the states are the root of T equations that Newton's method solves by a few diagonal
recurrences (Lim et al. 2023, DEER, arXiv 2309.12252; diagonal Jacobians: Gonzalez et
al. 2024, arXiv 2407.19115).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.diagonal import diagonal_associative, diagonal_backwards
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    before,
    float32,
    restart,
    run,
    scan_frames,
    zeros_unless,
)

Cell = Callable[[Array, Any, Any], Array]

# Newton's method squares its error: a last change this small, relative to states of at
# least 1, leaves nothing but rounding.
TOLERANCE = 1e-5
# Sweeps after which the scan takes over. Contracting cells need 3 to 8.
MOST_SWEEPS = 16


class Given(NamedTuple):
    """What a recurrence is made of, besides its cell.

    Attributes:
      inputs: Tree of arrays [B, T, D]; in a step [B, D].
      weights: Tree of arrays [D].
      h_bd: State.
    """

    inputs: Any
    weights: Any
    h_bd: Array
    reset_bt: Resets


def elementwise_cell_reference(
    inputs_bt: Any,
    h_bd: Start,
    reset_bt: Resets,
    *,
    cell: Cell,
    weights: Any = (),
) -> Result:
    """h_t = cell(h_{t-1}, x_t, w), one frame after the other.

    Args:
      inputs_bt: Tree of arrays [B, T, D].
      cell: `cell(h, inputs, weights) -> h`, made of elementwise operations only. It is
        called with trees of one rank ([B, D] or [B, T, D]; weights have ones before D),
        and compared by identity: define it at the top of a module.
      weights: Tree of arrays [D].

    Returns:
      All states h_btd and the last one h_bd, float32. O(T) depth.
    """
    fixed = {"cell": cell, "weights": weights}
    start = zeros_unless(h_bd, jax.tree.leaves(inputs_bt)[0][:, 0].shape)
    return scan_frames(elementwise_cell_step, (inputs_bt,), start, reset_bt, **fixed)


def elementwise_cell_step(
    inputs_b: Any,
    h_bd: Start,
    reset_b: Resets,
    *,
    cell: Cell,
    weights: Any = (),
) -> Result:
    """One frame of `elementwise_cell_reference`, inputs [B, D]. Returns h_bd twice."""
    h_bd = zeros_unless(h_bd, jax.tree.leaves(inputs_b)[0].shape)
    h_bd = cell(restart(reset_b, h_bd), float32(inputs_b), _wide(weights, 2))
    return h_bd, h_bd


def elementwise_cell_scan(
    inputs_bt: Any,
    h_bd: Start,
    reset_bt: Resets,
    *,
    cell: Cell,
    weights: Any = (),
) -> Result:
    """`elementwise_cell_reference`, keeping states and inputs for the backward pass.

    Automatic differentiation would keep every intermediate result of the cell. Here the
    cell is computed once more, for all frames at once.
    """
    h_btd = _states(cell, "scan", _given(inputs_bt, weights, h_bd, reset_bt))
    return h_btd, h_btd[:, -1]


def elementwise_cell_newton(
    inputs_bt: Any,
    h_bd: Start,
    reset_bt: Resets,
    *,
    cell: Cell,
    weights: Any = (),
) -> Result:
    """`elementwise_cell_reference` by Newton's method, O(log T) depth a sweep.

    A sweep linearises the cell at the states it has and solves
    h_t = a_t h_{t-1} + b_t for all frames by a parallel prefix. It ends when a sweep
    changes nothing; where `MOST_SWEEPS` of them do not get there, or numbers overflow
    on the way, the scan runs instead, so the result is that of the scan. The gradient
    is the same as the scan's and does not pass through the sweeps.
    """
    h_btd = _states(cell, "newton", _given(inputs_bt, weights, h_bd, reset_bt))
    return h_btd, h_btd[:, -1]


def elementwise_cell(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`elementwise_cell_reference` in the form `forms.json` names for this shape."""
    return run(
        "elementwise_cell",
        elementwise_cell_step,
        {"scan": elementwise_cell_scan, "newton": elementwise_cell_newton},
        (inputs_bt,),
        h_bd,
        reset_bt,
        size=jax.tree.leaves(inputs_bt)[0].shape[-1],
        cell=cell,
        weights=weights,
    )


def newton_sweeps(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Start = None,
    reset_bt: Resets = None,
) -> tuple[Array, Array, Array]:
    """What `elementwise_cell_newton` does before it decides whether to believe it.

    Returns:
      States h_btd, the number of sweeps, and whether the last one changed nothing.
    """
    return _newton(cell, _given(inputs_bt, weights, h_bd, reset_bt))


def tanh_diagonal(
    a: Array, b: Array, h: Start = None, reset_bt: Resets = None
) -> Result:
    """h_t = tanh(a_t * h_{t-1} + b_t), [B, T, D], as an `elementwise_cell`."""
    return elementwise_cell(_tanh_diagonal_cell, (a, b), (), h, reset_bt)


def _tanh_diagonal_cell(h: Array, inputs: tuple[Array, Array], weights: Any) -> Array:
    del weights
    return jnp.tanh(inputs[0] * h + inputs[1])


def _given(inputs_bt: Any, weights: Any, h_bd: Start, reset_bt: Resets) -> Given:
    start = zeros_unless(h_bd, jax.tree.leaves(inputs_bt)[0][:, 0].shape)
    return Given(float32(inputs_bt), weights, start, reset_bt)


def _wide(weights: Any, rank: int) -> Any:
    """Gives weights [D] the rank of a state, in float32."""
    return jax.tree.map(
        lambda w: w.astype(jnp.float32).reshape((1,) * (rank - 1) + w.shape), weights
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _states(cell: Cell, form: str, given: Given) -> Array:
    def scan() -> Array:
        inputs, weights, h_bd, reset_bt = given
        fixed = {"cell": cell, "weights": weights}
        return elementwise_cell_reference(inputs, h_bd, reset_bt, **fixed)[0]

    if form == "scan":
        return scan()
    h_btd, _, converged = _newton(cell, given)
    return lax.cond(converged, lambda: h_btd, scan)


def _newton(cell: Cell, given: Given) -> tuple[Array, Array, Array]:
    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        old_btd, count, _ = carry
        before_btd = before(given.h_bd, old_btd, given.reset_bt)
        value_btd, slope_btd = _linearized(cell, before_btd, given)
        rest_btd = value_btd - slope_btd * before_btd
        new_btd, _ = diagonal_associative(slope_btd, rest_btd, given.h_bd)
        size = jnp.maximum(1, jnp.abs(new_btd).max())
        # Not a number is not small.
        converged = jnp.abs(new_btd - old_btd).max() <= TOLERANCE * size
        return new_btd, count + 1, converged

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        _, count, converged = carry
        return ~converged & (count < MOST_SWEEPS)

    zero_btd = jnp.zeros_like(jax.tree.leaves(given.inputs)[0])
    return lax.while_loop(goes_on, sweep, (zero_btd, jnp.int32(0), jnp.bool_(False)))


def _linearized(cell: Cell, before_btd: Array, given: Given) -> tuple[Array, Array]:
    """The cell at all frames, and its slope along the state, zero after a reset."""
    value_btd, slope_btd = jax.jvp(
        lambda h: cell(h, given.inputs, _wide(given.weights, 3)),
        (before_btd,),
        (jnp.ones_like(before_btd),),
    )
    return value_btd, restart(given.reset_bt, slope_btd)


def _forward(cell: Cell, form: str, given: Given) -> tuple[Array, tuple[Given, Array]]:
    h_btd = _states(cell, form, given)
    return h_btd, (given, h_btd)


def _backward(
    cell: Cell, form: str, kept: tuple[Given, Array], y_bar_btd: Array
) -> tuple[Given]:
    del form
    given, h_btd = kept
    before_btd = before(given.h_bd, h_btd, given.reset_bt)
    _, slope_btd = _linearized(cell, before_btd, given)
    last_b1d = jnp.zeros_like(slope_btd[:, :1])
    next_btd = jnp.concatenate([slope_btd[:, 1:], last_b1d], axis=1)
    # lambda_t = g_t + a_{t+1} lambda_{t+1}, a the slopes of the cell.
    adjoint_btd = diagonal_backwards(next_btd, y_bar_btd)
    _, pull = jax.vjp(
        lambda x, w: cell(before_btd, x, _wide(w, 3)), given.inputs, given.weights
    )
    d_inputs, d_weights = pull(adjoint_btd)
    return (Given(d_inputs, d_weights, slope_btd[:, 0] * adjoint_btd[:, 0], None),)


_states.defvjp(_forward, _backward)
