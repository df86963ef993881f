"""The selective scan of Mamba-1: a diagonal recurrence with inputs made on the fly.

h_t = exp(dt_t a) * h_{t-1} + dt_t b_t u_t,  y_t = c_t . h_t + d * u_t
(Gu & Dao 2023, arXiv 2312.00752, equations 2 and 3 with Euler's rule for b).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.diagonal import diagonal_associative
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    float32,
    restart,
    run,
    scan_frames,
    time_first,
    zeros_unless,
)


class Frames(NamedTuple):
    """What the frames of a call bring, [B, T, ...]; in a step [B, ...].

    Attributes:
      u_bte: input; in the fused form dt u, what is written along b.
      dt_bte: time step, positive (softplus already applied).
      b_btn: input matrix of each frame, shared by the channels.
      c_btn: read-out of each frame, shared by the channels.
    """

    u_bte: Array
    dt_bte: Array
    b_btn: Array
    c_btn: Array


def selective_scan_reference(
    frames: Frames, h_ben: Start, reset_bt: Resets, *, a_en: Array, d_e: Array
) -> Result:
    """The selective scan by a plain `lax.scan` of `selective_scan_step`.

    Args:
      frames: u, dt, b and c.
      a_en: Decay rate, negative.
      d_e: Skip.

    Returns:
      y_bte and the last state [B, E, N], float32. O(T E N) work and memory.
    """
    start = zeros_unless(h_ben, (frames.u_bte.shape[0], *a_en.shape))
    fixed = {"a_en": a_en, "d_e": d_e}
    return scan_frames(selective_scan_step, (frames,), start, reset_bt, **fixed)


def selective_scan_step(
    frame: Frames, h_ben: Start, reset_b: Resets, *, a_en: Array, d_e: Array
) -> Result:
    """One frame of the selective scan. Returns y_be and the state [B, E, N]."""
    (u_be, dt_be, b_bn, c_bn), a_en, d_e = float32((frame, a_en, d_e))
    h_ben = restart(reset_b, zeros_unless(h_ben, (u_be.shape[0], *a_en.shape)))
    decay_ben = jnp.exp(dt_be[:, :, None] * a_en[None])
    # Eq. 2 with Euler's rule for b, then the read-out.
    h_ben = decay_ben * h_ben + (dt_be * u_be)[:, :, None] * b_bn[:, None, :]
    y_be = jnp.einsum("ben,bn->be", h_ben, c_bn) + d_e[None] * u_be
    return y_be, h_ben


def selective_scan_fused(
    frames: Frames,
    h_ben: Start,
    reset_bt: Resets,
    *,
    a_en: Array,
    d_e: Array,
    chunk: int = 32,
) -> Result:
    """The selective scan with a backward pass of its own, in blocks of frames.

    The forward pass keeps one state for each block of about `chunk` frames; the
    backward pass makes a block's states again and walks them back. No [B, T, E, N]
    array exists: peak memory is T / chunk + chunk states. Channels are the last axis
    of what is computed, so that sums over states and products are long vectors.
    """
    (u_tbe, dt_tbe, b_tbn, c_tbn), reset_tb = time_first((float32(frames), reset_bt))
    length = u_tbe.shape[0]
    count = -(-length // chunk)
    size = -(-length // count)

    def blocks(x_tb: Array) -> Array:
        # dt = 0 leaves the state as it is, so zeros are frames that do nothing.
        pad = ((0, count * size - length),) + ((0, 0),) * (x_tb.ndim - 1)
        return jnp.pad(x_tb, pad).reshape(count, size, *x_tb.shape[1:])

    parts = Frames(*map(blocks, (dt_tbe * u_tbe, dt_tbe, b_tbn, c_tbn)))
    flags = None if reset_tb is None else blocks(reset_tb)
    h_ben = zeros_unless(h_ben, (u_tbe.shape[1], *a_en.shape))
    h_bne = jnp.swapaxes(h_ben, 1, 2)
    y_cbe, h_bne = _in_blocks(parts, float32(a_en.T), h_bne, flags)
    y_tbe = y_cbe.reshape(count * size, *y_cbe.shape[2:])[:length]
    y_tbe = y_tbe + float32(d_e)[None, None] * u_tbe
    return jnp.moveaxis(y_tbe, 0, 1), jnp.swapaxes(h_bne, 1, 2)


@jax.custom_vjp
def _in_blocks(frames: Frames, a_ne: Array, h_bne: Array, reset_csb: Resets) -> Result:
    """Reads sum_n c h of every frame, [blocks, S, B, E], and the last state."""
    return _in_blocks_forward(frames, a_ne, h_bne, reset_csb)[0]


def _decay(dt_be: Array, a_ne: Array, reset_b: Resets) -> Array:
    """What a frame leaves of the state, [B, N, E]."""
    return restart(reset_b, jnp.exp(dt_be[:, None] * a_ne[None]))


def _in_blocks_forward(
    frames: Frames, a_ne: Array, h_bne: Array, reset_csb: Resets
) -> tuple[tuple[Array, Array], tuple]:
    def frame(h_bne: Array, xs: tuple) -> Result:
        (x_be, dt_be, b_bn, c_bn), reset_b = xs
        h_bne = _decay(dt_be, a_ne, reset_b) * h_bne + x_be[:, None] * b_bn[..., None]
        return h_bne, jnp.einsum("bne,bn->be", h_bne, c_bn)

    def run(h_bne: Array, xs: tuple) -> tuple[Array, tuple[Array, Array]]:
        after_bne, y_sbe = lax.scan(frame, h_bne, xs)
        return after_bne, (h_bne, y_sbe)

    last_bne, (start_cbne, y_csbe) = lax.scan(run, h_bne, (frames, reset_csb))
    return (y_csbe, last_bne), (frames, a_ne, reset_csb, start_cbne)


def _in_blocks_backward(
    kept: tuple, cotangents: tuple[Array, Array]
) -> tuple[Frames, Array, Array, None]:
    frames, a_ne, reset_csb, start_cbne = kept
    y_bar_csbe, last_bar_bne = cotangents

    def again(h_bne: Array, xs: tuple) -> tuple[Array, tuple[Array, Array]]:
        """The states once more; what c gets is made while they are at hand."""
        (x_be, dt_be, b_bn, _), reset_b, y_bar_be = xs
        left_bne = _decay(dt_be, a_ne, reset_b) * h_bne
        h_bne = left_bne + x_be[:, None] * b_bn[..., None]
        return h_bne, (left_bne, jnp.einsum("bne,be->bn", h_bne, y_bar_be))

    def back(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple, Frames]:
        h_bar_bne, a_bar_bne = carry
        (x_be, dt_be, b_bn, c_bn), reset_b, y_bar_be, left_bne, c_bar_bn = xs
        h_bar_bne = h_bar_bne + y_bar_be[:, None] * c_bn[..., None]
        rate_bar_bne = h_bar_bne * left_bne
        bars = Frames(
            jnp.einsum("bne,bn->be", h_bar_bne, b_bn),
            (rate_bar_bne * a_ne[None]).sum(1),
            jnp.einsum("bne,be->bn", h_bar_bne, x_be),
            c_bar_bn,
        )
        # Summed over sequences at the end: a sum over the first axis is slow.
        a_bar_bne = a_bar_bne + rate_bar_bne * dt_be[:, None]
        return (h_bar_bne * _decay(dt_be, a_ne, reset_b), a_bar_bne), bars

    def run(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple, Frames]:
        start_bne, *rest = xs
        _, made = lax.scan(again, start_bne, tuple(rest))
        return lax.scan(back, carry, (*rest, *made), reverse=True)

    start = (last_bar_bne, jnp.zeros_like(last_bar_bne))
    xs = (start_cbne, frames, reset_csb, y_bar_csbe)
    (h_bar_bne, a_bar_bne), bars = lax.scan(run, start, xs, reverse=True)
    return bars, a_bar_bne.sum(0), h_bar_bne, None


_in_blocks.defvjp(_in_blocks_forward, _in_blocks_backward)


def selective_scan_associative(
    frames: Frames, h_ben: Start, reset_bt: Resets, *, a_en: Array, d_e: Array
) -> Result:
    """The selective scan by a parallel prefix. O(log T) depth, [B, T, E, N] memory."""
    (u_bte, dt_bte, b_btn, c_btn), a_en, d_e = float32((frames, a_en, d_e))
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
    h_ben: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`selective_scan_reference` in the form `forms.json` names for this shape."""
    forms = {
        "fused": selective_scan_fused,
        "associative": selective_scan_associative,
        "scan": selective_scan_reference,
    }
    return run(
        "selective_scan",
        selective_scan_step,
        forms,
        (Frames(u_bte, dt_bte, b_btn, c_btn),),
        h_ben,
        reset_bt,
        size=a_en.size,
        a_en=a_en,
        d_e=d_e,
    )
