"""How every linear time-invariant layer runs: frame by frame, or in blocks.

A layer describes one block of frames by its kernel, by what an input writes to the
state and by what the state adds to the outputs; the rest is the same for all of them.
Complex states [.., N] are handled as real pairs [.., 2N], so that every contraction is
a real matmul, with the channels as the leading, batched axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.convolution import causal_convolution
from jaxbench.ops.frames import Resets, Result, Start

# A kernel of this length is one Toeplitz matrix; longer sequences go in blocks.
BLOCK = 64


class Block(NamedTuple):
    """What a layer does to a block of frames, states as (Re, Im) pairs [.., 2N]."""

    kernel_ld: Array  # y_t += kernel_l u_{t-l}
    write_dls: Array  # the state l frames after a unit input's own
    read_dls: Array  # y_l += read_l . state before the block
    # For a number of frames, what they do to a state [D, B, 2N] without input.
    advance: Callable[[int], Callable[[Array], Array]]


def run_in_blocks(
    make: Callable[[int], Block],
    poles_dn: Array,
    u_btd: Array,
    d_d: Array,
    state: Start,
    reset_bt: Resets,
) -> Result:
    """Convolves within blocks of at most `BLOCK` frames, carries states between."""
    u_btd = at_least_float32(u_btd)
    batch, total, width = u_btd.shape
    count = -(-total // BLOCK)
    length = -(-total // count)
    block = make(length)
    pad = count * length - total
    u = jnp.pad(u_btd, ((0, 0), (0, pad), (0, 0))).reshape(-1, length, width)
    reset: Resets = None
    if reset_bt is not None:
        reset = jnp.pad(reset_bt, ((0, 0), (0, pad))).reshape(-1, length)
    y = causal_convolution(u, block.kernel_ld, reset)
    x_dbs: Array | None = None
    if state is not None:
        x_bdn = state_or_zero(u_btd[:, 0], poles_dn, state)
        x_dbs = jnp.moveaxis(as_real(x_bdn), 1, 0)
    starts: Array | None = None
    if count > 1:
        starts = _starts(block, u, x_dbs, reset, batch)
    elif x_dbs is not None:
        starts = x_dbs[:, :, None]
    if starts is not None:
        every = starts.reshape(width, batch * count, -1)
        read = contract("dls,dbs->dbl", block.read_dls, every)
        if reset is not None:
            read = jnp.where((jnp.cumsum(reset, axis=1) == 0)[None], read, 0)
        y = y + jnp.moveaxis(read, 0, 2)
    y = y.reshape(batch, -1, width)[:, :total] + d_d[None, None] * u_btd
    first = (count - 1) * length
    last_reset = None if reset_bt is None else reset_bt[:, first:]
    last_start = None if starts is None else starts[:, :, -1]
    x_dbs = _after(block, u_btd[:, first:], last_start, last_reset)
    return y, as_complex(jnp.moveaxis(x_dbs, 0, 1))


def _starts(
    block: Block, u: Array, x_dbs: Array | None, reset: Resets, batch: int
) -> Array:
    """The state before every block, [D, B, count, 2N]."""
    length, width = u.shape[1:]
    written = _after(block, u, None, reset).reshape(
        width, batch, -1, block.write_dls.shape[-1]
    )
    whole = None if reset is None else ~reset.any(1).reshape(batch, -1).T
    advance = block.advance(length)

    def body(x_dbs: Array, xs: tuple[Array, Array | None]) -> Result:
        moved = advance(x_dbs)
        if xs[1] is not None:
            moved = jnp.where(xs[1][None, :, None], moved, 0)
        return moved + xs[0], x_dbs

    x_dbs = jnp.zeros_like(written[:, :, 0]) if x_dbs is None else x_dbs
    inputs = (jnp.moveaxis(written, 2, 0), whole)
    return jnp.moveaxis(lax.scan(body, x_dbs, inputs)[1], 0, 2)


def _after(block: Block, u_bld: Array, x_dbs: Array | None, reset_bl: Resets) -> Array:
    """The state after the frames `u_bld`, which may be fewer than the block's."""
    length = u_bld.shape[1]
    if reset_bl is not None:
        episode = jnp.cumsum(reset_bl.astype(jnp.int32), axis=1)
        running = episode == episode[:, -1:]
        u_bld = jnp.where(running[..., None], u_bld, 0)
    u_dbl = jnp.moveaxis(u_bld, 2, 0)
    after = contract("dls,dbl->dbs", block.write_dls[:, :length][:, ::-1], u_dbl)
    if x_dbs is None:
        return after
    moved = block.advance(length)(x_dbs)
    if reset_bl is not None:
        moved = jnp.where((episode[:, -1] == 0)[None, :, None], moved, 0)
    return after + moved


def state_or_zero(u_bd: Array, a_dn: Array, state: Start) -> Array:
    """The state [B, D, N], zero if None; ValueError if it is another layer's."""
    shape = (u_bd.shape[0], *a_dn.shape)
    if state is None:
        return jnp.zeros(shape, a_dn.dtype)
    if state.shape != shape:
        raise ValueError(f"state has shape {state.shape}, expected {shape}")
    return state


def at_least_float32(x: Array) -> Array:
    """float32 where x is narrower; a recurrence never runs in less."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pair(w: Array, x: Array) -> Array:
    """R(w x) = 2 Re sum_n w_n x_n, over both conjugate halves."""
    return 2 * (w.real * x.real - w.imag * x.imag).sum(-1)


def as_real(x: Array) -> Array:
    """Complex [.., N] as the real pair [.., 2N]."""
    return jnp.concatenate([x.real, x.imag], -1)


def as_row(w: Array) -> Array:
    """The row r for which r . as_real(x) = R(w x)."""
    return jnp.concatenate([2 * w.real, -2 * w.imag], -1)


def as_complex(x: Array) -> Array:
    """The inverse of `as_real`."""
    re, im = jnp.split(x, 2, axis=-1)
    return lax.complex(re, im)


def contract(spec: str, x: Array, y: Array) -> Array:
    """einsum in full float32: kernels and states do not bear TF32."""
    return jnp.einsum(spec, x, y, precision=lax.Precision.HIGHEST)
