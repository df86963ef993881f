"""P1: the diagonal linear recurrence h_t = a_t * h_{t-1} + b_t, real or complex.

The gradient is the same recurrence run backwards: with g the cotangent of h,
lambda_t = g_t + a_{t+1} lambda_{t+1}, db_t = lambda_t, da_t = lambda_t h_{t-1}
(Martin & Cundy 2018, arXiv 1709.04057, section 2.3). JAX transposes without
conjugating, so the complex case has the same formulas. Only a and h are kept for the
backward pass, also by the associative form.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.forms import choose
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    restart,
    run,
    scan_frames,
)


def diagonal_reference(
    a: Array, b: Array, h: Start = None, reset_bt: Resets = None
) -> Result:
    """h_t = a_t * h_{t-1} + b_t by a scan of `diagonal_step`.

    Args:
      a: Decay [B, T, *F], float32 or complex64.
      b: Input, shape of `a`.
      h: State [B, *F]; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      All states [B, T, *F] and the last one [B, *F]. Cost O(T), depth O(T).
    """
    a, b, start = _promote(a, b, h)
    return scan_frames(diagonal_step, (a, b), start, reset_bt)


def diagonal_step(
    a_b: Array, b_b: Array, h: Start = None, reset_b: Resets = None
) -> Result:
    """One frame: a_b * h + b_b, all [B, *F]. Returns it as output and as state."""
    a_b, b_b, h = _promote(a_b, b_b, h, step=True)
    h = restart(reset_b, a_b) * h + b_b
    return h, h


def diagonal_scan(
    a: Array, b: Array, h: Start = None, reset_bt: Resets = None
) -> Result:
    """`diagonal_reference` by a scan whose gradient is the reversed scan.

    Keeps a and h for the backward pass; O(T) work, O(T) depth. Fastest on CPU.
    """
    return _run("scan", a, b, h, reset_bt)


def diagonal_associative(
    a: Array, b: Array, h: Start = None, reset_bt: Resets = None
) -> Result:
    """`diagonal_reference` by a parallel prefix over pairs (a, b).

    (a1, b1) then (a2, b2) is (a2 a1, a2 b1 + b2) (Blelloch 1990, section 1.4).
    O(T) work, O(log T) depth. Meant for GPU and TPU.
    """
    return _run("associative", a, b, h, reset_bt)


def diagonal(a: Array, b: Array, h: Start = None, reset_bt: Resets = None) -> Result:
    """`diagonal_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": diagonal_scan, "associative": diagonal_associative}
    size = math.prod(b.shape[2:])
    return run("diagonal", diagonal_step, forms, (a, b), h, reset_bt, size=size)


def diagonal_backwards(a: Array, b: Array) -> Array:
    """h_t = a_t * h_{t+1} + b_t from the end, h_{T+1} = 0: what gradients obey.

    In the form `forms.json` names for `diagonal` at this shape. Returns all h.
    """
    a, b, h = _promote(a, b, None)
    size = math.prod(b.shape[2:])
    form = choose("diagonal", length=b.shape[1], state_size=size)
    return _recurrence(form, True, a, b, h)


def _promote(
    a: Array, b: Array, h: Start, *, step: bool = False
) -> tuple[Array, Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"a and b must have one shape, got {a.shape} and {b.shape}")
    dtype = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    shape = b.shape if step else b.shape[:1] + b.shape[2:]
    h = jnp.zeros(shape, dtype) if h is None else jnp.asarray(h, dtype)
    return jnp.asarray(a, dtype), jnp.asarray(b, dtype), h


def _run(form: str, a: Array, b: Array, h: Start, reset_bt: Resets) -> Result:
    a, b, h = _promote(a, b, h)
    h_all = _recurrence(form, False, restart(reset_bt, a), b, h)
    return h_all, h_all[:, -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _recurrence(form: str, reverse: bool, a: Array, b: Array, h: Array) -> Array:
    """All states; with `reverse`, h_t = a_t * h_{t+1} + b_t from the end."""
    if form == "scan":
        return _by_scan(reverse, a, b, h)
    if form == "associative":
        return _by_prefix(reverse, a, b, h)
    raise ValueError(f"unknown form of the diagonal recurrence: {form!r}")


def _by_scan(reverse: bool, a: Array, b: Array, h: Array) -> Array:
    def body(h: Array, ab: tuple[Array, Array]) -> Result:
        h = ab[0] * h + ab[1]
        return h, h

    over_time = (jnp.moveaxis(a, 1, 0), jnp.moveaxis(b, 1, 0))
    _, h_all = lax.scan(body, h, over_time, reverse=reverse)
    return jnp.moveaxis(h_all, 0, 1)


def _by_prefix(reverse: bool, a: Array, b: Array, h: Array) -> Array:
    def combine(first: tuple[Array, Array], second: tuple[Array, Array]) -> Result:
        return second[0] * first[0], second[0] * first[1] + second[1]

    start = -1 if reverse else 0
    b = b.at[:, start].add(a[:, start] * h)
    return lax.associative_scan(combine, (a, b), reverse=reverse, axis=1)[1]


def _forward(
    form: str, reverse: bool, a: Array, b: Array, h: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    h_all = _recurrence(form, reverse, a, b, h)
    return h_all, (a, h, h_all)


def _backward(
    form: str, reverse: bool, kept: tuple[Array, Array, Array], g: Array
) -> tuple[Array, Array, Array]:
    a, h, h_all = kept
    zero = jnp.zeros_like(h)[:, None]
    if reverse:
        a_next = jnp.concatenate([zero, a[:, :-1]], 1)
        h_before = jnp.concatenate([h_all[:, 1:], h[:, None]], 1)
    else:
        a_next = jnp.concatenate([a[:, 1:], zero], 1)
        h_before = jnp.concatenate([h[:, None], h_all[:, :-1]], 1)
    # lambda_t = g_t + a_{t+1} lambda_{t+1}; db = lambda, da_t = lambda_t h_{t-1}.
    adjoint = _recurrence(form, not reverse, a_next, g, zero[:, 0])
    start = -1 if reverse else 0
    return adjoint * h_before, adjoint, a[:, start] * adjoint[:, start]


_recurrence.defvjp(_forward, _backward)
