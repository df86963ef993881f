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
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.cell import cell_scan_reference
from jaxbench.ops.diagonal import diagonal_associative, diagonal_backwards
from jaxbench.ops.forms import choose

Cell = Callable[[Array, Any, Any], Array]

# Newton's method squares its error: a last change this small, relative to states of at
# least 1, leaves nothing but rounding.
TOLERANCE = 1e-5
# Sweeps after which the scan takes over. Contracting cells need 3 to 8.
MOST_SWEEPS = 16


def elementwise_cell_reference(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """h_t = cell(h_{t-1}, x_t, w), one frame after the other.

    Args:
      cell: `cell(h, inputs, weights) -> h`, made of elementwise operations only. It is
        called with trees of one rank ([B, D] or [B, T, D]; weights have ones before D),
        and compared by identity: define it at the top of a module.
      inputs_bt: Tree of arrays [B, T, D].
      weights: Tree of arrays [D].
      h_bd: State; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      All states h_btd and the last one h_bd, float32. O(T) depth.
    """
    inputs_bt, h_bd = _prepare(inputs_bt, h_bd)

    def body(h_bd: Array, inputs_b: Any) -> tuple[Array, Array]:
        h_bd = cell(h_bd, inputs_b, _wide(weights, 2))
        return h_bd, h_bd

    return cell_scan_reference(body, inputs_bt, h_bd, jnp.zeros_like(h_bd), reset_bt)


def elementwise_cell_step(
    cell: Cell,
    inputs_b: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of `elementwise_cell_reference`, inputs [B, D]. Returns h_bd twice."""
    inputs_bt, h_bd = _prepare(jax.tree.map(lambda x: x[:, None], inputs_b), h_bd)
    if reset_b is not None:
        h_bd = jnp.where(reset_b[:, None], 0, h_bd)
    inputs_b = jax.tree.map(lambda x: x[:, 0], inputs_bt)
    h_bd = cell(h_bd, inputs_b, _wide(weights, 2))
    return h_bd, h_bd


def elementwise_cell_scan(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`elementwise_cell_reference`, keeping states and inputs for the backward pass.

    Automatic differentiation would keep every intermediate result of the cell. Here the
    cell is computed once more, for all frames at once.
    """
    return _run("scan", cell, inputs_bt, weights, h_bd, reset_bt)


def elementwise_cell_newton(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`elementwise_cell_reference` by Newton's method, O(log T) depth a sweep.

    A sweep linearises the cell at the states it has and solves
    h_t = a_t h_{t-1} + b_t for all frames by a parallel prefix. It ends when a sweep
    changes nothing; where `MOST_SWEEPS` of them do not get there, or numbers overflow
    on the way, the scan runs instead, so the result is that of the scan. The gradient
    is the same as the scan's and does not pass through the sweeps.
    """
    return _run("newton", cell, inputs_bt, weights, h_bd, reset_bt)


def elementwise_cell(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`elementwise_cell_reference` in the form `forms.json` names for this shape."""
    _, length, width = jax.tree.leaves(inputs_bt)[0].shape
    if length == 1:
        inputs_b = jax.tree.map(lambda x: x[:, 0], inputs_bt)
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y_bd, h_bd = elementwise_cell_step(cell, inputs_b, weights, h_bd, reset_b)
        return y_bd[:, None], h_bd
    form = choose("elementwise_cell", length=length, state_size=width)
    return _run(form, cell, inputs_bt, weights, h_bd, reset_bt)


def newton_sweeps(
    cell: Cell,
    inputs_bt: Any,
    weights: Any = (),
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array, Array]:
    """What `elementwise_cell_newton` does before it decides whether to believe it.

    Returns:
      States h_btd, the number of sweeps, and whether the last one changed nothing.
    """
    inputs_bt, h_bd = _prepare(inputs_bt, h_bd)
    return _newton(cell, inputs_bt, weights, h_bd, reset_bt)


def _prepare(inputs_bt: Any, h_bd: Array | None) -> tuple[Any, Array]:
    inputs_bt = jax.tree.map(lambda x: x.astype(jnp.float32), inputs_bt)
    first_bd = jax.tree.leaves(inputs_bt)[0][:, 0]
    zero_bd = jnp.zeros_like(first_bd)
    return inputs_bt, zero_bd if h_bd is None else h_bd.astype(jnp.float32)


def _wide(weights: Any, rank: int) -> Any:
    """Gives weights [D] the rank of a state, in float32."""
    return jax.tree.map(
        lambda w: w.astype(jnp.float32).reshape((1,) * (rank - 1) + w.shape), weights
    )


def _run(
    form: str,
    cell: Cell,
    inputs_bt: Any,
    weights: Any,
    h_bd: Array | None,
    reset_bt: Array | None,
) -> tuple[Array, Array]:
    inputs_bt, h_bd = _prepare(inputs_bt, h_bd)
    h_btd = _states(cell, form, inputs_bt, weights, h_bd, reset_bt)
    return h_btd, h_btd[:, -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _states(
    cell: Cell,
    form: str,
    inputs_bt: Any,
    weights: Any,
    h_bd: Array,
    reset_bt: Array | None,
) -> Array:
    given = (cell, inputs_bt, weights, h_bd, reset_bt)
    if form == "scan":
        return elementwise_cell_reference(*given)[0]
    if form == "newton":
        h_btd, _, converged = _newton(*given)
        return lax.cond(
            converged, lambda: h_btd, lambda: elementwise_cell_reference(*given)[0]
        )
    raise ValueError(f"unknown form of the elementwise recurrence: {form!r}")


def _newton(
    cell: Cell, inputs_bt: Any, weights: Any, h_bd: Array, reset_bt: Array | None
) -> tuple[Array, Array, Array]:
    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        old_btd, count, _ = carry
        before_btd = _before(h_bd, old_btd, reset_bt)
        value_btd, slope_btd = _linearized(
            cell, before_btd, inputs_bt, weights, reset_bt
        )
        rest_btd = value_btd - slope_btd * before_btd
        new_btd, _ = diagonal_associative(slope_btd, rest_btd, h_bd)
        size = jnp.maximum(1, jnp.abs(new_btd).max())
        # Not a number is not small.
        converged = jnp.abs(new_btd - old_btd).max() <= TOLERANCE * size
        return new_btd, count + 1, converged

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        _, count, converged = carry
        return ~converged & (count < MOST_SWEEPS)

    zero_btd = jnp.zeros_like(jax.tree.leaves(inputs_bt)[0])
    return lax.while_loop(goes_on, sweep, (zero_btd, jnp.int32(0), jnp.bool_(False)))


def _before(first_bd: Array, all_btd: Array, reset_bt: Array | None) -> Array:
    """The state each frame starts from: the one before it, or zero after a reset."""
    before_btd = jnp.concatenate([first_bd[:, None], all_btd[:, :-1]], axis=1)
    if reset_bt is None:
        return before_btd
    return jnp.where(reset_bt[..., None], 0, before_btd)


def _linearized(
    cell: Cell,
    before_btd: Array,
    inputs_bt: Any,
    weights: Any,
    reset_bt: Array | None,
) -> tuple[Array, Array]:
    """The cell at all frames, and its slope along the state, zero after a reset."""
    value_btd, slope_btd = jax.jvp(
        lambda h: cell(h, inputs_bt, _wide(weights, 3)),
        (before_btd,),
        (jnp.ones_like(before_btd),),
    )
    if reset_bt is not None:
        slope_btd = jnp.where(reset_bt[..., None], 0, slope_btd)
    return value_btd, slope_btd


def _forward(
    cell: Cell,
    form: str,
    inputs_bt: Any,
    weights: Any,
    h_bd: Array,
    reset_bt: Array | None,
) -> tuple[Array, tuple]:
    h_btd = _states(cell, form, inputs_bt, weights, h_bd, reset_bt)
    return h_btd, (inputs_bt, weights, h_bd, reset_bt, h_btd)


def _backward(cell: Cell, form: str, kept: tuple, y_bar_btd: Array) -> tuple:
    del form
    inputs_bt, weights, h_bd, reset_bt, h_btd = kept
    before_btd = _before(h_bd, h_btd, reset_bt)
    _, slope_btd = _linearized(cell, before_btd, inputs_bt, weights, reset_bt)
    last_b1d = jnp.zeros_like(slope_btd[:, :1])
    next_btd = jnp.concatenate([slope_btd[:, 1:], last_b1d], axis=1)
    adjoint_btd = diagonal_backwards(next_btd, y_bar_btd)
    _, pull = jax.vjp(lambda x, w: cell(before_btd, x, _wide(w, 3)), inputs_bt, weights)
    d_inputs, d_weights = pull(adjoint_btd)
    return d_inputs, d_weights, slope_btd[:, 0] * adjoint_btd[:, 0], None


_states.defvjp(_forward, _backward)
