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

from jaxbench.ops.cell import cell_scan_reference
from jaxbench.ops.forms import choose


def dense_linear_step(
    u_bd: Array, w_dd: Array, h_bd: Array | None = None, reset_b: Array | None = None
) -> tuple[Array, Array]:
    """One frame, h_bd W + u_bd. Returns it as output and as state."""
    u_bd, h_bd = _prepare(u_bd, u_bd, h_bd)
    if reset_b is not None:
        h_bd = jnp.where(reset_b[:, None], 0, h_bd)
    h_bd = _product(h_bd, w_dd) + u_bd
    return h_bd, h_bd


def dense_linear_reference(
    u_btd: Array, w_dd: Array, h_bd: Array | None = None, reset_bt: Array | None = None
) -> tuple[Array, Array]:
    """h_t = h_{t-1} W + u_t by a plain scan.

    Args:
      u_btd: Input.
      w_dd: Recurrent matrix; products are made in its dtype, summed in float32.
      h_bd: State; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      All states h_btd and the last one h_bd, float32. T products of [B, D] with W, one
      after the other.
    """
    u_btd, h_bd = _prepare(u_btd, u_btd[:, 0], h_bd)

    def cell(h_bd: Array, u_bd: Array) -> tuple[Array, Array]:
        return dense_linear_step(u_bd, w_dd, h_bd)

    return cell_scan_reference(cell, u_btd, h_bd, jnp.zeros_like(h_bd), reset_bt)


def dense_linear_scan(
    u_btd: Array, w_dd: Array, h_bd: Array | None = None, reset_bt: Array | None = None
) -> tuple[Array, Array]:
    """`dense_linear_reference` whose gradient for W is one product."""
    return _run("scan", u_btd, w_dd, h_bd, reset_bt)


def dense_linear_doubling(
    u_btd: Array,
    w_dd: Array,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
    *,
    chunk: int = 32,
) -> tuple[Array, Array]:
    """`dense_linear_reference` by doubling inside chunks, a scan over their ends.

    Twice the products of the scan, in 2 log2(chunk) large ones and T / chunk small
    ones, and log2(chunk) squarings of W, in float32 whatever the dtype of W.

    Args:
      chunk: Frames in a chunk, rounded down to a power of two.
    """
    return _run(f"doubling:{chunk}", u_btd, w_dd, h_bd, reset_bt)


def dense_linear(
    u_btd: Array, w_dd: Array, h_bd: Array | None = None, reset_bt: Array | None = None
) -> tuple[Array, Array]:
    """`dense_linear_reference` in the form `forms.json` names for this shape."""
    _, length, width = u_btd.shape
    if length == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y_bd, h_bd = dense_linear_step(u_btd[:, 0], w_dd, h_bd, reset_b)
        return y_bd[:, None], h_bd
    form = choose("dense_linear", length=length, state_size=width)
    return _run(form, u_btd, w_dd, h_bd, reset_bt)


def _prepare(u: Array, like_bd: Array, h_bd: Array | None) -> tuple[Array, Array]:
    zero_bd = jnp.zeros(like_bd.shape, jnp.float32)
    h_bd = zero_bd if h_bd is None else h_bd.astype(jnp.float32)
    return u.astype(jnp.float32), h_bd


def _product(x: Array, w_dd: Array) -> Array:
    """x @ W in the dtype of W, summed and returned in float32."""
    return jnp.matmul(x.astype(w_dd.dtype), w_dd, preferred_element_type=jnp.float32)


def _run(
    form: str, u_btd: Array, w_dd: Array, h_bd: Array | None, reset_bt: Array | None
) -> tuple[Array, Array]:
    u_btd, h_bd = _prepare(u_btd, u_btd[:, 0], h_bd)
    h_btd = _states(form, u_btd, w_dd, h_bd, reset_bt)
    return h_btd, h_btd[:, -1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _states(
    form: str, u_btd: Array, w_dd: Array, h_bd: Array, reset_bt: Array | None
) -> Array:
    name, _, chunk = form.partition(":")
    if name == "scan":
        return dense_linear_reference(u_btd, w_dd, h_bd, reset_bt)[0]
    if name == "doubling":
        length = u_btd.shape[1]
        levels = min(int(chunk), length).bit_length() - 1
        return _doubling(u_btd, _powers(w_dd, levels), h_bd, reset_bt)
    raise ValueError(f"unknown form of the dense linear recurrence: {form!r}")


def _powers(w_dd: Array, levels: int) -> tuple[Array, ...]:
    """W, W^2, W^4, .., W^(2^levels), squared in float32, in the dtype of W."""
    powers = [w_dd.astype(jnp.float32)]
    for _ in range(levels):
        square = jnp.matmul(powers[-1], powers[-1], precision=lax.Precision.HIGHEST)
        powers.append(square)
    return tuple(power.astype(w_dd.dtype) for power in powers)


def _doubling(
    u_btd: Array, powers: tuple[Array, ...], h_bd: Array, reset_bt: Array | None
) -> Array:
    """All states; halves the number of frames until one power is left."""
    w_dd, *rest = powers
    if not rest or u_btd.shape[1] == 1:
        return dense_linear_reference(u_btd, w_dd, h_bd, reset_bt)[0]
    batch, length, width = u_btd.shape
    if length % 2:
        # A frame at the end that nobody reads.
        u_btd = jnp.pad(u_btd, ((0, 0), (0, 1), (0, 0)))
        if reset_bt is not None:
            reset_bt = jnp.pad(reset_bt, ((0, 0), (0, 1)))
    u_bt2d = u_btd.reshape(batch, -1, 2, width)
    even_btd, odd_btd = u_bt2d[:, :, 0], u_bt2d[:, :, 1]
    resets = both = None
    if reset_bt is not None:
        reset_bt2 = reset_bt.reshape(batch, -1, 2)
        resets = reset_bt2[..., 0, None], reset_bt2[..., 1, None]
        both = reset_bt2.any(axis=-1)
    # Two frames as one: u_2i W + u_2i+1, then the power W^2.
    within_btd = _product(even_btd, w_dd)
    if resets is not None:
        within_btd = jnp.where(resets[1], 0, within_btd)
    ends_btd = _doubling(within_btd + odd_btd, tuple(rest), h_bd, both)
    before_btd = jnp.concatenate([h_bd[:, None], ends_btd[:, :-1]], axis=1)
    if resets is not None:
        before_btd = jnp.where(resets[0], 0, before_btd)
    starts_btd = _product(before_btd, w_dd) + even_btd
    h_bt2d = jnp.stack([starts_btd, ends_btd], axis=2)
    return h_bt2d.reshape(batch, -1, width)[:, :length]


def _forward(
    form: str, u_btd: Array, w_dd: Array, h_bd: Array, reset_bt: Array | None
) -> tuple[Array, tuple]:
    h_btd = _states(form, u_btd, w_dd, h_bd, reset_bt)
    return h_btd, (w_dd, h_bd, reset_bt, h_btd)


def _backward(form: str, kept: tuple, y_bar_btd: Array) -> tuple:
    w_dd, h_bd, reset_bt, h_btd = kept
    resets = None
    if reset_bt is not None:
        # Nothing comes back over a start: frame t hears t + 1 unless that one starts.
        resets = jnp.pad(reset_bt[:, :0:-1], ((0, 0), (1, 0)))
    backwards_btd = _states(
        form, y_bar_btd[:, ::-1], w_dd.T, jnp.zeros_like(h_bd), resets
    )
    adjoint_btd = backwards_btd[:, ::-1]
    before_btd = jnp.concatenate([h_bd[:, None], h_btd[:, :-1]], axis=1)
    first_bd = _product(adjoint_btd[:, 0], w_dd.T)
    if reset_bt is not None:
        before_btd = jnp.where(reset_bt[..., None], 0, before_btd)
        first_bd = jnp.where(reset_bt[:, :1], 0, first_bd)
    dw_dd = jnp.einsum(
        "btd,bte->de", before_btd.astype(w_dd.dtype), adjoint_btd.astype(w_dd.dtype)
    )
    return adjoint_btd, dw_dd, first_bd, None


_states.defvjp(_forward, _backward)
