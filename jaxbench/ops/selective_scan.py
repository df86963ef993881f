"""The selective scan of Mamba-1: a diagonal recurrence with inputs made on the fly.

h_t = exp(dt_t a) * h_{t-1} + dt_t b_t u_t,  y_t = c_t . h_t + d * u_t
(Gu & Dao 2023, arXiv 2312.00752, equations 2 and 3 with Euler's rule for b).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.diagonal import diagonal_associative
from jaxbench.ops.forms import choose


def selective_scan_reference(
    u_bte: Array,
    dt_bte: Array,
    a_en: Array,
    b_btn: Array,
    c_btn: Array,
    d_e: Array,
    h_ben: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """The selective scan by a plain `lax.scan` of `selective_scan_step`.

    Args:
      u_bte: Input.
      dt_bte: Time step, positive (softplus already applied).
      a_en: Decay rate, negative.
      b_btn: Input matrix of each frame, shared by the channels.
      c_btn: Read-out of each frame, shared by the channels.
      d_e: Skip.
      h_ben: State; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      y_bte and the last state [B, E, N], float32. O(T E N) work and memory.
    """
    h_ben = _state(u_bte[:, 0], a_en, h_ben)
    return _scan(_time_major(u_bte, dt_bte, b_btn, c_btn, reset_bt), a_en, d_e, h_ben)


def selective_scan_step(
    u_be: Array,
    dt_be: Array,
    a_en: Array,
    b_bn: Array,
    c_bn: Array,
    d_e: Array,
    h_ben: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of the selective scan. Returns y_be and the state [B, E, N]."""
    u_be, dt_be, a_en, b_bn, c_bn, d_e = (
        x.astype(jnp.float32) for x in (u_be, dt_be, a_en, b_bn, c_bn, d_e)
    )
    h_ben = _state(u_be, a_en, h_ben)
    if reset_b is not None:
        h_ben = jnp.where(reset_b[:, None, None], 0, h_ben)
    decay_ben = jnp.exp(dt_be[:, :, None] * a_en[None])
    h_ben = decay_ben * h_ben + (dt_be * u_be)[:, :, None] * b_bn[:, None, :]
    y_be = jnp.einsum("ben,bn->be", h_ben, c_bn) + d_e[None] * u_be
    return y_be, h_ben


def selective_scan_fused(
    u_bte: Array,
    dt_bte: Array,
    a_en: Array,
    b_btn: Array,
    c_btn: Array,
    d_e: Array,
    h_ben: Array | None = None,
    reset_bt: Array | None = None,
    *,
    block: int = 32,
) -> tuple[Array, Array]:
    """The selective scan in blocks of about `block` frames, each rematerialised.

    The backward pass keeps one state per block and rebuilds the rest, so no
    [B, T, E, N] array exists; peak memory is T / block + block states.
    """
    batch, length, _ = u_bte.shape
    count = -(-length // block)
    block = -(-length // count)
    pad = count * block - length
    start = _state(u_bte[:, 0], a_en, h_ben)

    def blocks(x_tb: Array | None) -> Array | None:
        if x_tb is None:
            return None
        # dt = 0 leaves the state as it is, so zeros are frames that do nothing.
        x_tb = jnp.pad(x_tb, ((0, pad),) + ((0, 0),) * (x_tb.ndim - 1))
        return x_tb.reshape(count, block, *x_tb.shape[1:])

    inputs = _time_major(u_bte, dt_bte, b_btn, c_btn, reset_bt)
    inputs = tuple(blocks(x) for x in inputs)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def body(h_ben: Array, xs: tuple) -> tuple[Array, Array]:
        y_bte, h_ben = _scan(xs, a_en, d_e, h_ben)
        return h_ben, y_bte

    last, y_cbte = lax.scan(body, start, inputs)
    y_bte = jnp.moveaxis(y_cbte, 0, 1).reshape(batch, count * block, -1)
    return y_bte[:, :length], last


def selective_scan_associative(
    u_bte: Array,
    dt_bte: Array,
    a_en: Array,
    b_btn: Array,
    c_btn: Array,
    d_e: Array,
    h_ben: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """The selective scan by a parallel prefix. O(log T) depth, [B, T, E, N] memory."""
    u_bte, dt_bte, a_en, b_btn, c_btn, d_e = (
        x.astype(jnp.float32) for x in (u_bte, dt_bte, a_en, b_btn, c_btn, d_e)
    )
    decay = jnp.exp(dt_bte[..., None] * a_en[None, None])
    write = (dt_bte * u_bte)[..., None] * b_btn[:, :, None, :]
    h_all, h_ben = diagonal_associative(decay, write, h_ben, reset_bt)
    y_bte = jnp.einsum("bten,btn->bte", h_all, c_btn) + d_e[None, None] * u_bte
    return y_bte, h_ben


def selective_scan(
    u_bte: Array,
    dt_bte: Array,
    a_en: Array,
    b_btn: Array,
    c_btn: Array,
    d_e: Array,
    h_ben: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`selective_scan_reference` in the form `forms.json` names for this shape."""
    args = (u_bte, dt_bte, a_en, b_btn, c_btn, d_e, h_ben, reset_bt)
    length = u_bte.shape[1]
    if length == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        u_be, dt_be, b_bn, c_bn = (x[:, 0] for x in (u_bte, dt_bte, b_btn, c_btn))
        y_be, h_ben = selective_scan_step(
            u_be, dt_be, a_en, b_bn, c_bn, d_e, h_ben, reset_b
        )
        return y_be[:, None], h_ben
    form = choose("selective_scan", length=length, state_size=a_en.size)
    name, _, block = form.partition(":")
    if name == "fused":
        return selective_scan_fused(*args, block=int(block))
    if name == "associative":
        return selective_scan_associative(*args)
    if name == "scan":
        return selective_scan_reference(*args)
    raise ValueError(f"unknown form of the selective scan: {form!r}")


def _state(u_be: Array, a_en: Array, h_ben: Array | None) -> Array:
    shape = (u_be.shape[0], *a_en.shape)
    return jnp.zeros(shape, jnp.float32) if h_ben is None else h_ben


def _time_major(*arrays: Array | None) -> tuple[Array | None, ...]:
    return tuple(None if x is None else jnp.moveaxis(x, 1, 0) for x in arrays)


def _scan(inputs: tuple, a_en: Array, d_e: Array, h_ben: Array) -> tuple[Array, Array]:
    def body(h_ben: Array, xs: tuple) -> tuple[Array, Array]:
        u_be, dt_be, b_bn, c_bn, reset_b = xs
        y_be, h_ben = selective_scan_step(
            u_be, dt_be, a_en, b_bn, c_bn, d_e, h_ben, reset_b
        )
        return h_ben, y_be

    h_ben, y_tbe = lax.scan(body, h_ben, inputs)
    return jnp.moveaxis(y_tbe, 0, 1), h_ben
