"""P5: cells whose recurrent part is a product with a matrix inside a tanh.

The matrix can be given as a product of factors (low rank) or as blocks on the diagonal
(heads); with or without a gate that keeps the old state. The products with the input
are made before, for all frames; the gradient of the matrices after the backward scan,
in one product each, as `ops.cell` does for the LSTM and the GRU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.cell import cell_scan_reference
from jaxbench.ops.forms import choose

Kernels = tuple[Array, ...]


def dense_cell_step(
    x_bd: Array,
    kernels: Kernels,
    keep_bd: Array | None = None,
    h_bd: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of `dense_cell_reference`, inputs [B, D]. Returns h_bd twice."""
    h_bd = _state(x_bd, h_bd)
    if reset_b is not None:
        h_bd = jnp.where(reset_b[:, None], 0, h_bd)
    h_bd, _ = _cell(x_bd.astype(jnp.float32), kernels, _float(keep_bd), h_bd)
    return h_bd, h_bd


def dense_cell_reference(
    x_btd: Array,
    kernels: Kernels,
    keep_btd: Array | None = None,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """v = tanh(x_t + h_{t-1} K_1 K_2 ..); h_t = v, or keep h_{t-1} + (1 - keep) v.

    A plain scan (Elman 1990).

    Args:
      x_btd: What is added inside the tanh, the bias included.
      kernels: K_1, K_2, ..: matrices, applied from left to right, each [D, E], or
        [H, N, M] for H blocks on a diagonal. The products are made in their dtype and
        summed in float32.
      keep_btd: Share of the old state, in [0, 1]; None is no share.
      h_bd: State; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      All states h_btd and the last one h_bd, float32. O(T) depth.
    """
    h_bd = _state(x_btd[:, 0], h_bd)
    inputs = (x_btd.astype(jnp.float32), _float(keep_btd))

    def cell(h_bd: Array, inputs_b: tuple[Array, Array | None]) -> tuple[Array, Array]:
        h_bd, _ = _cell(inputs_b[0], kernels, inputs_b[1], h_bd)
        return h_bd, h_bd

    return cell_scan_reference(cell, inputs, h_bd, jnp.zeros_like(h_bd), reset_bt)


def dense_cell_deferred(
    x_btd: Array,
    kernels: Kernels,
    keep_btd: Array | None = None,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`dense_cell_reference` whose backward pass forms each kernel's gradient at once.

    A plain scan adds a [D, D] matrix every frame; here the backward scan only emits the
    gradients of the states. Exact, and less memory traffic when T is long.
    """
    h_bd = _state(x_btd[:, 0], h_bd)
    x, keep = (
        None if a is None else jnp.moveaxis(a, 1, 0)
        for a in (_float(x_btd), _float(keep_btd))
    )
    resets = None if reset_bt is None else reset_bt.T[..., None]
    h_tbd = _states(x, tuple(kernels), keep, h_bd, resets)
    return jnp.moveaxis(h_tbd, 0, 1), h_tbd[-1]


def dense_cell(
    x_btd: Array,
    kernels: Kernels,
    keep_btd: Array | None = None,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`dense_cell_reference` in the form `forms.json` names for this shape."""
    _, length, width = x_btd.shape
    if length == 1:
        keep_bd = None if keep_btd is None else keep_btd[:, 0]
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y_bd, h_bd = dense_cell_step(x_btd[:, 0], kernels, keep_bd, h_bd, reset_b)
        return y_bd[:, None], h_bd
    forms = {"scan": dense_cell_reference, "deferred": dense_cell_deferred}
    run = forms[choose("dense_cell", length=length, state_size=width)]
    return run(x_btd, kernels, keep_btd, h_bd, reset_bt)


def block_product(x: Array, kernel: Array) -> Array:
    """x @ kernel over the last axis of x, [D, E] or blocks [H, N, M] on a diagonal.

    The product is made in the kernel's dtype, summed and returned in float32.
    """
    x = x.astype(kernel.dtype)
    if kernel.ndim == 2:
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    heads = _heads(x, kernel.shape[0])
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


def _float(x: Array | None) -> Array | None:
    return None if x is None else x.astype(jnp.float32)


def _state(x_bd: Array, h_bd: Array | None) -> Array:
    if h_bd is None:
        return jnp.zeros(x_bd.shape, jnp.float32)
    return h_bd.astype(jnp.float32)


def _cell(
    x_bd: Array, kernels: Kernels, keep_bd: Array | None, h_bd: Array
) -> tuple[Array, Array]:
    """The new state, and v."""
    recurrent = h_bd
    for kernel in kernels:
        recurrent = block_product(recurrent, kernel)
    v_bd = jnp.tanh(x_bd + recurrent)
    if keep_bd is None:
        return v_bd, v_bd
    return keep_bd * h_bd + (1 - keep_bd) * v_bd, v_bd


@jax.custom_vjp
def _states(
    x: Array, kernels: Kernels, keep: Array | None, h_bd: Array, resets: Array | None
) -> Array:
    return _forward(x, kernels, keep, h_bd, resets)[0]


def _forward(
    x: Array, kernels: Kernels, keep: Array | None, h_bd: Array, resets: Array | None
) -> tuple[Array, tuple]:
    def body(h: Array, xs: tuple) -> tuple[Array, tuple[Array, Array | None]]:
        x_bd, keep_bd, reset = xs
        h = h if reset is None else jnp.where(reset, 0, h)
        h, v = _cell(x_bd, kernels, keep_bd, h)
        # Without a gate v is h: nothing more to keep.
        return h, (h, None if keep_bd is None else v)

    h_tbd, v_tbd = lax.scan(body, h_bd, (x, keep, resets))[1]
    return h_tbd, (kernels, keep, h_bd, resets, h_tbd, v_tbd)


def _backward(kept: tuple, y_bar_tbd: Array) -> tuple:
    kernels, keep, h_bd, resets, h_tbd, v_tbd = kept
    v = h_tbd if v_tbd is None else v_tbd
    slope = 1 - v**2 if keep is None else (1 - keep) * (1 - v**2)
    transposed = tuple(kernel.swapaxes(-1, -2) for kernel in reversed(kernels))

    def body(dh: Array, xs: tuple) -> tuple[Array, Array]:
        y_bar, slope_bd, keep_bd, reset = xs
        dh = dh + y_bar
        before = dh * slope_bd
        for kernel in transposed:
            before = block_product(before, kernel)
        if keep_bd is not None:
            before = before + dh * keep_bd
        return before if reset is None else jnp.where(reset, 0, before), dh

    inputs = (y_bar_tbd, slope, keep, resets)
    first, dh_tbd = lax.scan(body, jnp.zeros_like(h_bd), inputs, reverse=True)
    before = jnp.concatenate([h_bd[None], h_tbd[:-1]])
    before = before if resets is None else jnp.where(resets, 0, before)
    dx_tbd = dh_tbd * slope
    d_keep = None if keep is None else dh_tbd * (before - v)
    d_kernels = _kernel_gradients(kernels, before, dx_tbd)
    return dx_tbd, d_kernels, d_keep, first, None


def _kernel_gradients(kernels: Kernels, before: Array, dx_tbd: Array) -> Kernels:
    """Gradients of the factors, each in one product over all frames."""
    entering = [before]
    for kernel in kernels[:-1]:
        entering.append(block_product(entering[-1], kernel))
    gradients, y_bar = [], dx_tbd
    for x, kernel in zip(reversed(entering), reversed(kernels), strict=True):
        gradients.append(_kernel_gradient(x, y_bar, kernel))
        if len(gradients) < len(kernels):
            y_bar = block_product(y_bar, kernel.swapaxes(-1, -2))
    return tuple(reversed(gradients))


_states.defvjp(_forward, _backward)
