"""The nonlinear diagonal recurrence h_t = tanh(a_t * h_{t-1} + b_t).

Forwards it has to be run frame by frame. Its gradient does not: with g the cotangent
of h and c_t = 1 - h_t^2, the cotangent p_t = c_t (g_t + a_{t+1} p_{t+1}) of the
argument is a diagonal linear recurrence from the end, for which there are parallel
forms, and da_t = p_t h_{t-1}, db_t = p_t. Only a and h are kept.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.cell import cell_scan_reference
from jaxbench.ops.diagonal import diagonal_backwards


def tanh_diagonal_reference(
    a: Array, b: Array, h: Array | None = None, reset_bt: Array | None = None
) -> tuple[Array, Array]:
    """h_t = tanh(a_t * h_{t-1} + b_t), one frame after the other.

    Args:
      a: Factor [B, T, *F].
      b: Input, shape of `a`.
      h: State [B, *F]; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      All states [B, T, *F] and the last one [B, *F], float32. O(T) work and depth.
    """
    a, b, h = _prepare(a, b, h)

    def cell(h: Array, ab: tuple[Array, Array]) -> tuple[Array, Array]:
        h = jnp.tanh(ab[0] * h + ab[1])
        return h, h

    return cell_scan_reference(cell, (a, b), h, jnp.zeros_like(h), reset_bt)


def tanh_diagonal(
    a: Array, b: Array, h: Array | None = None, reset_bt: Array | None = None
) -> tuple[Array, Array]:
    """`tanh_diagonal_reference`; its gradient is `diagonal_backwards`."""
    a, b, h = _prepare(a, b, h)
    if reset_bt is not None:
        a = jnp.where(reset_bt.reshape(reset_bt.shape + (1,) * (a.ndim - 2)), 0, a)
    if a.shape[1] == 1:
        h = jnp.tanh(a[:, 0] * h + b[:, 0])
        return h[:, None], h
    h_all = _recurrence(a, b, h)
    return h_all, h_all[:, -1]


def _prepare(a: Array, b: Array, h: Array | None) -> tuple[Array, Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return a, b, jnp.zeros_like(b[:, 0]) if h is None else h.astype(jnp.float32)


@jax.custom_vjp
def _recurrence(a: Array, b: Array, h: Array) -> Array:
    def body(h: Array, ab: tuple[Array, Array]) -> tuple[Array, Array]:
        h = jnp.tanh(ab[0] * h + ab[1])
        return h, h

    _, h_all = lax.scan(body, h, (jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0)))
    return jnp.moveaxis(h_all, 0, 1)


def _forward(a: Array, b: Array, h: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    h_all = _recurrence(a, b, h)
    return h_all, (a, h, h_all)


def _backward(kept: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array, Array]:
    a, h, h_all = kept
    slope = 1 - jnp.square(h_all)
    a_next = jnp.concatenate([a[:, 1:], jnp.zeros_like(a[:, :1])], axis=1)
    p = diagonal_backwards(slope * a_next, slope * g)
    h_before = jnp.concatenate([h[:, None], h_all[:, :-1]], axis=1)
    return p * h_before, p, a[:, 0] * p[:, 0]


_recurrence.defvjp(_forward, _backward)
