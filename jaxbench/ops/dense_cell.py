"""P5: cells whose recurrent part is a product with a matrix inside a tanh.

The matrix can be given as a product of factors (low rank) or as blocks on the diagonal
(heads); with or without a gate that keeps the old state. The products with the input
are made before, for all frames; the gradient of the matrices after the backward scan,
in one product each, as `ops.cell` does for the LSTM and the GRU.
"""

from __future__ import annotations

from typing import NamedTuple

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
    time_first,
    zeros_unless,
)

Kernels = tuple[Array, ...]


class DenseFrames(NamedTuple):
    """What the frames of a call bring, [B, T, D]; in a step [B, D].

    Attributes:
      x_btd: What is added inside the tanh, the bias included.
      keep_btd: Share of the old state, in [0, 1]; None is no share.
    """

    x_btd: Array
    keep_btd: Array | None


def dense_cell_step(
    frame: DenseFrames, h_bd: Start, reset_b: Resets, *, kernels: Kernels
) -> Result:
    """One frame of `dense_cell_reference`. Returns h_bd twice."""
    h_bd = restart(reset_b, zeros_unless(h_bd, frame.x_btd.shape))
    h_bd, _ = _cell(float32(frame), kernels, h_bd)
    return h_bd, h_bd


def dense_cell_reference(
    frames: DenseFrames, h_bd: Start, reset_bt: Resets, *, kernels: Kernels
) -> Result:
    """v = tanh(x_t + h_{t-1} K_1 K_2 ..); h_t = v, or keep h_{t-1} + (1 - keep) v.

    A plain scan (Elman 1990).

    Args:
      frames: x and keep.
      kernels: K_1, K_2, ..: matrices, applied from left to right, each [D, E], or
        [H, N, M] for H blocks on a diagonal. The products are made in their dtype and
        summed in float32.

    Returns:
      All states h_btd and the last one h_bd, float32. O(T) depth.
    """
    start = zeros_unless(h_bd, frames.x_btd[:, 0].shape)
    return scan_frames(dense_cell_step, (frames,), start, reset_bt, kernels=kernels)


def dense_cell_deferred(
    frames: DenseFrames, h_bd: Start, reset_bt: Resets, *, kernels: Kernels
) -> Result:
    """`dense_cell_reference` whose backward pass forms each kernel's gradient at once.

    A plain scan adds a [D, D] matrix every frame; here the backward scan only emits the
    gradients of the states. Exact, and less memory traffic when T is long.
    """
    start = zeros_unless(h_bd, frames.x_btd[:, 0].shape)
    over_time, resets = time_first((float32(frames), reset_bt))
    h_tbd = _states(over_time, kernels, start, resets)
    return jnp.moveaxis(h_tbd, 0, 1), h_tbd[-1]


def dense_cell(
    x_btd: Array,
    kernels: Kernels,
    keep_btd: Array | None = None,
    h_bd: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`dense_cell_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": dense_cell_reference, "deferred": dense_cell_deferred}
    args = (forms, (DenseFrames(x_btd, keep_btd),), h_bd, reset_bt)
    size = x_btd.shape[-1]
    return run("dense_cell", dense_cell_step, *args, size=size, kernels=kernels)


def block_product(x: Array, kernel: Array) -> Array:
    """x @ kernel over the last axis of x, [D, E] or blocks [H, N, M] on a diagonal.

    The product is made in the kernel's dtype, summed and returned in float32.
    """
    if kernel.ndim == 2:
        return product(x, kernel)
    heads = _heads(x.astype(kernel.dtype), kernel.shape[0])
    y = jnp.einsum("...hn,hnm->...hm", heads, kernel, preferred_element_type="float32")
    return y.reshape(*x.shape[:-1], -1)


def _heads(x: Array, count: int) -> Array:
    return x.reshape(*x.shape[:-1], count, -1)


def _kernel_gradient(x_tbd: Array, y_bar_tbe: Array, kernel: Array) -> Array:
    """Gradient of `block_product` for its kernel: one product over time and batch."""
    x_tbd, y_bar_tbe = x_tbd.astype(kernel.dtype), y_bar_tbe.astype(kernel.dtype)
    if kernel.ndim == 2:
        return jnp.einsum("tbd,tbe->de", x_tbd, y_bar_tbe)
    x_tbhn, y_bar_tbhm = (_heads(a, kernel.shape[0]) for a in (x_tbd, y_bar_tbe))
    return jnp.einsum("tbhn,tbhm->hnm", x_tbhn, y_bar_tbhm)


def _cell(frame: DenseFrames, kernels: Kernels, h_bd: Array) -> tuple[Array, Array]:
    """The new state, and v."""
    recurrent = h_bd
    for kernel in kernels:
        recurrent = block_product(recurrent, kernel)
    v_bd = jnp.tanh(frame.x_btd + recurrent)
    if frame.keep_btd is None:
        return v_bd, v_bd
    return frame.keep_btd * h_bd + (1 - frame.keep_btd) * v_bd, v_bd


@jax.custom_vjp
def _states(
    frames: DenseFrames, kernels: Kernels, h_bd: Array, reset_tb: Resets
) -> Array:
    return _forward(frames, kernels, h_bd, reset_tb)[0]


def _forward(
    frames: DenseFrames, kernels: Kernels, h_bd: Array, reset_tb: Resets
) -> tuple[Array, tuple]:
    def body(h: Array, xs: tuple) -> tuple[Array, tuple[Array, Array | None]]:
        frame, reset_b = xs
        h, v = _cell(frame, kernels, restart(reset_b, h))
        # Without a gate v is h: nothing more to keep.
        return h, (h, None if frame.keep_btd is None else v)

    h_tbd, v_tbd = lax.scan(body, h_bd, (frames, reset_tb))[1]
    return h_tbd, (kernels, frames.keep_btd, h_bd, reset_tb, h_tbd, v_tbd)


def _backward(kept: tuple, y_bar_tbd: Array) -> tuple:
    kernels, keep, h_bd, reset_tb, h_tbd, v_tbd = kept
    v = h_tbd if v_tbd is None else v_tbd
    slope = 1 - v**2 if keep is None else (1 - keep) * (1 - v**2)
    transposed = tuple(kernel.swapaxes(-1, -2) for kernel in reversed(kernels))

    def body(dh: Array, xs: tuple) -> Result:
        y_bar, slope_bd, keep_bd, reset_b = xs
        dh = dh + y_bar
        earlier = dh * slope_bd
        for kernel in transposed:
            earlier = block_product(earlier, kernel)
        if keep_bd is not None:
            earlier = earlier + dh * keep_bd
        return restart(reset_b, earlier), dh

    inputs = (y_bar_tbd, slope, keep, reset_tb)
    first, dh_tbd = lax.scan(body, jnp.zeros_like(h_bd), inputs, reverse=True)
    starts = before(h_bd, h_tbd, reset_tb, axis=0)
    dx_tbd = dh_tbd * slope
    d_keep = None if keep is None else dh_tbd * (starts - v)
    d_kernels = _kernel_gradients(kernels, starts, dx_tbd)
    return DenseFrames(dx_tbd, d_keep), d_kernels, first, None


def _kernel_gradients(kernels: Kernels, starts: Array, dx_tbd: Array) -> Kernels:
    """Gradients of the factors, each in one product over all frames."""
    entering = [starts]
    for kernel in kernels[:-1]:
        entering.append(block_product(entering[-1], kernel))
    gradients, y_bar = [], dx_tbd
    for x, kernel in zip(reversed(entering), reversed(kernels), strict=True):
        gradients.append(_kernel_gradient(x, y_bar, kernel))
        if len(gradients) < len(kernels):
            y_bar = block_product(y_bar, kernel.swapaxes(-1, -2))
    return tuple(reversed(gradients))


_states.defvjp(_forward, _backward)
