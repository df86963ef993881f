"""P1 with a full matrix: h_t = h_{t-1} W + u_t, the same W at every frame.

W does not change, so blocks of 2, 4, 8, .. frames are joined by W, W^2, W^4, ..: all
frames in matrix products (odd-even reduction, the work-efficient form of recursive
doubling; Kogge & Stone 1973). The gradient is the same recurrence run backwards with
the transpose of W: lambda_t = g_t + lambda_{t+1} W^T, du = lambda, and
dW = sum_t h_{t-1}^T lambda_t in one product.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    before,
    float32,
    product,
    restart,
    run,
    scan_frames,
    zeros_unless,
)


def dense_linear_step(
    u_bd: Array, h_bd: Start, reset_b: Resets, *, w_dd: Array
) -> Result:
    """One frame, h_bd W + u_bd. Returns it as output and as state."""
    h_bd = restart(reset_b, zeros_unless(h_bd, u_bd.shape))
    h_bd = product(h_bd, w_dd) + float32(u_bd)
    return h_bd, h_bd


def dense_linear_reference(
    u_btd: Array, h_bd: Start, reset_bt: Resets, *, w_dd: Array
) -> Result:
    """h_t = h_{t-1} W + u_t by a plain scan.

    Args:
      u_btd: Input.
      w_dd: Recurrent matrix; products are made in its dtype, summed in float32.

    Returns:
      All states h_btd and the last one h_bd, float32. T products of [B, D] with W, one
      after the other.
    """
    start = zeros_unless(h_bd, u_btd[:, 0].shape)
    return scan_frames(dense_linear_step, (u_btd,), start, reset_bt, w_dd=w_dd)


def dense_linear_scan(
    u_btd: Array, h_bd: Start, reset_bt: Resets, *, w_dd: Array
) -> Result:
    """`dense_linear_reference` whose gradient for W is one product."""
    start = zeros_unless(h_bd, u_btd[:, 0].shape)
    h_btd = _states(1, float32(u_btd), w_dd, start, reset_bt)
    return h_btd, h_btd[:, -1]


def dense_linear_doubling(
    u_btd: Array, h_bd: Start, reset_bt: Resets, *, w_dd: Array, chunk: int = 32
) -> Result:
    """`dense_linear_reference` by doubling inside chunks, a scan over their ends.

    Twice the products of the scan, in 2 log2(chunk) large ones and T / chunk small
    ones, and log2(chunk) squarings of W, in float32 whatever the dtype of W.

    Args:
      u_btd, h_bd, reset_bt, w_dd: as in the reference.
      chunk: Frames in a chunk, rounded down to a power of two.
    """
    start = zeros_unless(h_bd, u_btd[:, 0].shape)
    h_btd = _states(chunk, float32(u_btd), w_dd, start, reset_bt)
    return h_btd, h_btd[:, -1]


def dense_linear(
    u_btd: Array, w_dd: Array, h_bd: Start = None, reset_bt: Resets = None
) -> Result:
    """`dense_linear_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": dense_linear_scan, "doubling": dense_linear_doubling}
    args = (forms, (u_btd,), h_bd, reset_bt)
    size = u_btd.shape[-1]
    return run("dense_linear", dense_linear_step, *args, size=size, w_dd=w_dd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(
    chunk: int, u_btd: Array, w_dd: Array, h_bd: Array, reset_bt: Resets
) -> Array:
    levels = min(chunk, u_btd.shape[1]).bit_length() - 1
    return _doubling(u_btd, _powers(w_dd, levels), h_bd, reset_bt)


def _powers(w_dd: Array, levels: int) -> tuple[Array, ...]:
    """W, W^2, W^4, .., W^(2^levels), squared in float32, in the dtype of W."""
    powers = [w_dd.astype(jnp.float32)]
    for _ in range(levels):
        square = jnp.matmul(powers[-1], powers[-1], precision=lax.Precision.HIGHEST)
        powers.append(square)
    return tuple(power.astype(w_dd.dtype) for power in powers)


def _doubling(
    u_btd: Array, powers: tuple[Array, ...], h_bd: Array, reset_bt: Resets
) -> Array:
    """All states; halves the number of frames until one power is left."""
    w_dd, *rest = powers
    if not rest or u_btd.shape[1] == 1:
        return dense_linear_reference(u_btd, h_bd, reset_bt, w_dd=w_dd)[0]
    batch, length, width = u_btd.shape
    if length % 2:
        # A frame at the end that nobody reads.
        u_btd = jnp.pad(u_btd, ((0, 0), (0, 1), (0, 0)))
        if reset_bt is not None:
            reset_bt = jnp.pad(reset_bt, ((0, 0), (0, 1)))
    u_bt2d = u_btd.reshape(batch, -1, 2, width)
    even_btd, odd_btd = u_bt2d[:, :, 0], u_bt2d[:, :, 1]
    first = second = both = None
    if reset_bt is not None:
        reset_bt2 = reset_bt.reshape(batch, -1, 2)
        first, second = reset_bt2[..., 0], reset_bt2[..., 1]
        both = reset_bt2.any(axis=-1)
    # Two frames as one: u_2i W + u_2i+1, then the power W^2.
    within_btd = restart(second, product(even_btd, w_dd))
    ends_btd = _doubling(within_btd + odd_btd, tuple(rest), h_bd, both)
    starts_btd = product(before(h_bd, ends_btd, first), w_dd) + even_btd
    h_bt2d = jnp.stack([starts_btd, ends_btd], axis=2)
    return h_bt2d.reshape(batch, -1, width)[:, :length]


def _forward(
    chunk: int, u_btd: Array, w_dd: Array, h_bd: Array, reset_bt: Resets
) -> tuple[Array, tuple]:
    h_btd = _states(chunk, u_btd, w_dd, h_bd, reset_bt)
    return h_btd, (w_dd, h_bd, reset_bt, h_btd)


def _backward(chunk: int, kept: tuple, y_bar_btd: Array) -> tuple:
    w_dd, h_bd, reset_bt, h_btd = kept
    resets = None
    if reset_bt is not None:
        # Nothing comes back over a start: frame t hears t + 1 unless that one starts.
        resets = jnp.pad(reset_bt[:, :0:-1], ((0, 0), (1, 0)))
    # lambda_t = g_t + lambda_{t+1} W^T, as a recurrence forwards in reversed time.
    backwards_btd = _states(
        chunk, y_bar_btd[:, ::-1], w_dd.T, jnp.zeros_like(h_bd), resets
    )
    adjoint_btd = backwards_btd[:, ::-1]
    before_btd = before(h_bd, h_btd, reset_bt)
    first_bd = product(adjoint_btd[:, 0], w_dd.T)
    if reset_bt is not None:
        first_bd = restart(reset_bt[:, 0], first_bd)
    dw_dd = jnp.einsum(
        "btd,bte->de", before_btd.astype(w_dd.dtype), adjoint_btd.astype(w_dd.dtype)
    )
    return adjoint_btd, dw_dd, first_bd, None


_states.defvjp(_forward, _backward)
