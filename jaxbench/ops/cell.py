"""P5: nonlinear cells scanned over time, and the LSTM and GRU among them.

Every product with an input is made outside, for all frames in one matmul; only what
depends on the previous state is inside the scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxbench.ops.forms import choose

State = TypeVar("State")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
Cell = Callable[[State, Inputs], tuple[State, Outputs]]


def cell_scan_reference(
    cell: Cell,
    inputs_bt: Inputs,
    state: State | None,
    initial_state: State,
    reset_bt: Array | None = None,
) -> tuple[Outputs, State]:
    """s_t, y_t = cell(s_{t-1}, x_t), one frame after the other.

    Args:
      cell: `cell(state, x_t) -> (state, y_t)` on trees without the time axis.
      inputs_bt: Tree of arrays [B, T, ...].
      state: Tree of arrays [B, ...]; None is `initial_state`.
      initial_state: What the state becomes where `reset_bt` is true. Same tree.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      The outputs, a tree of [B, T, ...], and the last state. O(T) depth.
    """
    return cell_scan(cell, inputs_bt, state, initial_state, reset_bt)


def cell_scan(
    cell: Cell,
    inputs_bt: Inputs,
    state: State | None,
    initial_state: State,
    reset_bt: Array | None = None,
    *,
    block: int | None = None,
    unroll: int = 1,
) -> tuple[Outputs, State]:
    """`cell_scan_reference` with less memory or fewer loop iterations.

    Args:
      block: Frames per rematerialised block: the backward pass keeps one state per
        block and rebuilds the rest. None keeps every state.
      unroll: Frames per iteration of the compiled loop (gains nothing on CPU).
    """
    start = initial_state if state is None else state
    inputs = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (inputs_bt, reset_bt))

    def body(state: State, xs: tuple[Inputs, Array | None]) -> tuple[State, Outputs]:
        x_b, reset_b = xs
        return cell(_restart(state, initial_state, reset_b), x_b)

    def run(state: State, inputs: tuple) -> tuple[State, Outputs]:
        return lax.scan(body, state, inputs, unroll=unroll)

    length = jax.tree.leaves(inputs)[0].shape[0]
    if block is None or block >= length:
        last, y = run(start, inputs)
    else:
        last, y = _in_blocks(run, start, inputs, block)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), y), last


def _restart(state: State, initial_state: State, reset_b: Array | None) -> State:
    if reset_b is None:
        return state

    def select(first: Array, now: Array) -> Array:
        flag = reset_b.reshape(reset_b.shape + (1,) * (now.ndim - 1))
        return jnp.where(flag, first, now)

    return jax.tree.map(select, initial_state, state)


def _in_blocks(
    run: Callable, state: State, inputs: tuple, block: int
) -> tuple[State, Outputs]:
    """Runs whole blocks under remat, then the frames that are left over."""
    length = jax.tree.leaves(inputs)[0].shape[0]
    count = length // block
    whole = count * block
    blocks = jax.tree.map(
        lambda x: x[:whole].reshape(count, block, *x.shape[1:]), inputs
    )
    state, y = lax.scan(jax.checkpoint(run, prevent_cse=False), state, blocks)
    y = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), y)
    if whole == length:
        return state, y
    state, rest = run(state, jax.tree.map(lambda x: x[whole:], inputs))
    return state, jax.tree.map(lambda x, z: jnp.concatenate([x, z]), y, rest)


def lstm_step(
    gates_b4d: Array,
    r_d4d: Array,
    h_bd: Array | None = None,
    c_bd: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """One frame of the LSTM: see `lstm_reference`. Returns h_bd and (h_bd, c_bd)."""
    h_bd, c_bd = _zeros_if_none(gates_b4d, 4, h_bd, c_bd)
    if reset_b is not None:
        h_bd, c_bd = _zero_where(reset_b[:, None], h_bd, c_bd)
    i, f, g, o = _lstm_gates(gates_b4d, r_d4d, h_bd)
    c_bd = f * c_bd + i * g
    h_bd = o * jnp.tanh(c_bd)
    return h_bd, (h_bd, c_bd)


def lstm_reference(
    gates_bt4d: Array,
    r_d4d: Array,
    h_bd: Array | None = None,
    c_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """The LSTM with forget gate (Gers et al. 2000), no peepholes, by a plain scan.

    (i, f, g, o) = gates_t + h_{t-1} R; c_t = sig(f) c_{t-1} + sig(i) tanh(g);
    h_t = sig(o) tanh(c_t).

    Args:
      gates_bt4d: x W + b for the gates in the order i, f, g, o.
      r_d4d: Recurrent kernel; the product is made in its dtype, summed in float32.
      h_bd: Output of the frame before; None is zero.
      c_bd: Cell; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      h_btd and the state (h_bd, c_bd), float32.
    """
    h_bd, c_bd = _zeros_if_none(gates_bt4d[:, 0], 4, h_bd, c_bd)

    def cell(
        state: tuple[Array, Array], gates_b4d: Array
    ) -> tuple[tuple[Array, Array], Array]:
        y_bd, state = lstm_step(gates_b4d, r_d4d, *state)
        return state, y_bd

    zero = (jnp.zeros_like(h_bd), jnp.zeros_like(c_bd))
    return cell_scan_reference(cell, gates_bt4d, (h_bd, c_bd), zero, reset_bt)


def lstm_deferred(
    gates_bt4d: Array,
    r_d4d: Array,
    h_bd: Array | None = None,
    c_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """`lstm_reference` whose backward pass forms the gradient of R in one matmul.

    A plain scan adds a [D, 4D] matrix every frame; here the backward scan only emits
    the gradients of the gates. Exact, and less memory traffic when T is long.
    """
    h_bd, c_bd = _zeros_if_none(gates_bt4d[:, 0], 4, h_bd, c_bd)
    gates, resets = _over_time(gates_bt4d, reset_bt)
    h_tbd, c_bd = _lstm(gates, r_d4d, h_bd, c_bd, resets)
    return jnp.moveaxis(h_tbd, 0, 1), (h_tbd[-1], c_bd)


def lstm_scan(
    gates_bt4d: Array,
    r_d4d: Array,
    h_bd: Array | None = None,
    c_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """`lstm_reference` in the form `forms.json` names for this shape."""
    length, size = gates_bt4d.shape[1], 2 * r_d4d.shape[0]
    if length == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y_bd, state = lstm_step(gates_bt4d[:, 0], r_d4d, h_bd, c_bd, reset_b)
        return y_bd[:, None], state
    forms = {"scan": lstm_reference, "deferred": lstm_deferred}
    run = forms[choose("lstm", length=length, state_size=size)]
    return run(gates_bt4d, r_d4d, h_bd, c_bd, reset_bt)


def gru_step(
    gates_b3d: Array,
    r_d3d: Array,
    bias_n_d: Array,
    h_bd: Array | None = None,
    reset_b: Array | None = None,
) -> tuple[Array, Array]:
    """One frame of the GRU: see `gru_reference`. Returns h_bd twice."""
    (h_bd,) = _zeros_if_none(gates_b3d, 3, h_bd)
    if reset_b is not None:
        (h_bd,) = _zero_where(reset_b[:, None], h_bd)
    _, z, n, _ = _gru_gates(gates_b3d, r_d3d, bias_n_d, h_bd)
    h_bd = (1 - z) * n + z * h_bd
    return h_bd, h_bd


def gru_reference(
    gates_bt3d: Array,
    r_d3d: Array,
    bias_n_d: Array,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """The GRU in the form of cuDNN (reset gate after the product), by a plain scan.

    With (u_r, u_z, u_n) = h_{t-1} R: r = sig(r_t + u_r); z = sig(z_t + u_z);
    n = tanh(n_t + r (u_n + b')); h_t = (1 - z) n + z h_{t-1}. Cho et al. 2014
    (arXiv 1406.1078, equations 5 to 8) apply r before the product with R, without b'.

    Args:
      gates_bt3d: x W + b in the order r, z, n.
      r_d3d: Recurrent kernel; the product is made in its dtype, summed in float32.
      bias_n_d: The bias b' inside r (u_n + b').
      h_bd: State; None is zero.
      reset_bt: True where an episode starts; None is nowhere.

    Returns:
      h_btd and the last state h_bd, float32.
    """
    (h_bd,) = _zeros_if_none(gates_bt3d[:, 0], 3, h_bd)

    def cell(h_bd: Array, gates_b3d: Array) -> tuple[Array, Array]:
        return gru_step(gates_b3d, r_d3d, bias_n_d, h_bd)

    return cell_scan_reference(cell, gates_bt3d, h_bd, jnp.zeros_like(h_bd), reset_bt)


def gru_deferred(
    gates_bt3d: Array,
    r_d3d: Array,
    bias_n_d: Array,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`gru_reference` whose backward pass forms the gradient of R in one matmul.

    See `lstm_deferred`.
    """
    (h_bd,) = _zeros_if_none(gates_bt3d[:, 0], 3, h_bd)
    gates, resets = _over_time(gates_bt3d, reset_bt)
    h_tbd = _gru(gates, r_d3d, bias_n_d.astype(jnp.float32), h_bd, resets)
    return jnp.moveaxis(h_tbd, 0, 1), h_tbd[-1]


def gru_scan(
    gates_bt3d: Array,
    r_d3d: Array,
    bias_n_d: Array,
    h_bd: Array | None = None,
    reset_bt: Array | None = None,
) -> tuple[Array, Array]:
    """`gru_reference` in the form `forms.json` names for this shape."""
    length = gates_bt3d.shape[1]
    if length == 1:
        reset_b = None if reset_bt is None else reset_bt[:, 0]
        y_bd, h_bd = gru_step(gates_bt3d[:, 0], r_d3d, bias_n_d, h_bd, reset_b)
        return y_bd[:, None], h_bd
    forms = {"scan": gru_reference, "deferred": gru_deferred}
    run = forms[choose("gru", length=length, state_size=r_d3d.shape[0])]
    return run(gates_bt3d, r_d3d, bias_n_d, h_bd, reset_bt)


def _zeros_if_none(
    gates_bx: Array, count: int, *state: Array | None
) -> tuple[Array, ...]:
    """Zeros in float32 for each part of the state that is None."""
    batch, width = gates_bx.shape
    zero = jnp.zeros((batch, width // count), jnp.float32)
    return tuple(zero if x is None else x.astype(jnp.float32) for x in state)


def _over_time(gates_btx: Array, reset_bt: Array | None) -> tuple[Array, Array | None]:
    gates = jnp.moveaxis(gates_btx.astype(jnp.float32), 1, 0)
    return gates, None if reset_bt is None else reset_bt.T[..., None]


def _before(first_bd: Array, all_tbd: Array, reset_tb1: Array | None) -> Array:
    """The state each frame starts from: the one before it, or zero after a reset."""
    before = jnp.concatenate([first_bd[None], all_tbd[:-1]])
    return before if reset_tb1 is None else jnp.where(reset_tb1, 0, before)


def _zero_where(flag: Array | None, *arrays: Array) -> tuple[Array, ...]:
    if flag is None:
        return arrays
    return tuple(jnp.where(flag, 0, x) for x in arrays)


def _product(x: Array, kernel: Array) -> Array:
    """x @ kernel in the kernel's dtype, summed and returned in float32."""
    return jnp.matmul(
        x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
    )


def _kernel_gradient(h_tbd: Array, gates_tbx: Array, dtype: jnp.dtype) -> Array:
    product = jnp.einsum("tbd,tbx->dx", h_tbd.astype(dtype), gates_tbx.astype(dtype))
    return product.astype(dtype)


def _lstm_gates(
    gates_b4d: Array, r_d4d: Array, h_bd: Array
) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(gates_b4d + _product(h_bd, r_d4d), 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


@jax.custom_vjp
def _lstm(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb1: Array | None
) -> tuple[Array, Array]:
    h_tbd, c_tbd, _ = _lstm_run(gates, r_d4d, h_bd, c_bd, reset_tb1)
    return h_tbd, c_tbd[-1]


def _lstm_run(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb1: Array | None
) -> tuple[Array, Array, tuple]:
    def body(state: tuple[Array, Array], xs: tuple) -> tuple[tuple, tuple]:
        h, c = _zero_where(xs[1], *state)
        acts = i, f, g, o = _lstm_gates(xs[0], r_d4d, h)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, acts)

    return lax.scan(body, (h_bd, c_bd), (gates, reset_tb1))[1]


def _lstm_forward(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb1: Array | None
) -> tuple[tuple[Array, Array], tuple]:
    h_tbd, c_tbd, acts = _lstm_run(gates, r_d4d, h_bd, c_bd, reset_tb1)
    kept = (r_d4d, h_bd, c_bd, reset_tb1, h_tbd, c_tbd, acts)
    return (h_tbd, c_tbd[-1]), kept


def _lstm_backward(kept: tuple, cotangents: tuple[Array, Array]) -> tuple:
    r_d4d, h_bd, c_bd, reset_tb1, h_tbd, c_tbd, acts = kept
    c_before = _before(c_bd, c_tbd, reset_tb1)

    def body(carry: tuple[Array, Array], xs: tuple) -> tuple[tuple, Array]:
        dh, dc = carry
        (i, f, g, o), c, c_last, y_bar, reset = xs
        dh, tanh_c = dh + y_bar, jnp.tanh(c)
        dc = dc + dh * o * (1 - tanh_c**2)
        parts = (
            dc * g * i * (1 - i),
            dc * c_last * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        )
        d_gates = jnp.concatenate(parts, -1)
        return _zero_where(reset, _product(d_gates, r_d4d.T), dc * f), d_gates

    start = (jnp.zeros_like(h_bd), cotangents[1])
    inputs = (acts, c_tbd, c_before, cotangents[0], reset_tb1)
    (dh, dc), d_gates = lax.scan(body, start, inputs, reverse=True)
    h_before = _before(h_bd, h_tbd, reset_tb1)
    return d_gates, _kernel_gradient(h_before, d_gates, r_d4d.dtype), dh, dc, None


_lstm.defvjp(_lstm_forward, _lstm_backward)


def _gru_gates(
    gates_b3d: Array, r_d3d: Array, bias_n_d: Array, h_bd: Array
) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the recurrent term of n before r gates it."""
    x_r, x_z, x_n = jnp.split(gates_b3d, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(_product(h_bd, r_d3d), 3, axis=-1)
    u_n = u_n + bias_n_d[None]
    r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
    return r, z, jnp.tanh(x_n + r * u_n), u_n


@jax.custom_vjp
def _gru(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb1: Array | None
) -> Array:
    return _gru_run(gates, r_d3d, bias, h_bd, reset_tb1)[0]


def _gru_run(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb1: Array | None
) -> tuple[Array, tuple]:
    def body(h: Array, xs: tuple) -> tuple[Array, tuple]:
        (h,) = _zero_where(xs[1], h)
        acts = _, z, n, _ = _gru_gates(xs[0], r_d3d, bias, h)
        h = (1 - z) * n + z * h
        return h, (h, acts)

    return lax.scan(body, h_bd, (gates, reset_tb1))[1]


def _gru_forward(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb1: Array | None
) -> tuple[Array, tuple]:
    h_tbd, acts = _gru_run(gates, r_d3d, bias, h_bd, reset_tb1)
    return h_tbd, (r_d3d, h_bd, reset_tb1, h_tbd, acts)


def _gru_backward(kept: tuple, y_bar_tbd: Array) -> tuple:
    r_d3d, h_bd, reset_tb1, h_tbd, acts = kept
    h_before = _before(h_bd, h_tbd, reset_tb1)

    def body(dh: Array, xs: tuple) -> tuple[Array, tuple[Array, Array]]:
        (r, z, n, u_n), h_last, y_bar, reset = xs
        dh = dh + y_bar
        d_n = dh * (1 - z) * (1 - n**2)
        d_z = dh * (h_last - n) * z * (1 - z)
        d_r = d_n * u_n * r * (1 - r)
        recurrent = jnp.concatenate([d_r, d_z, d_n * r], -1)
        (dh,) = _zero_where(reset, dh * z + _product(recurrent, r_d3d.T))
        return dh, (jnp.concatenate([d_r, d_z, d_n], -1), recurrent)

    start, inputs = jnp.zeros_like(h_bd), (acts, h_before, y_bar_tbd, reset_tb1)
    dh, (d_gates, recurrent) = lax.scan(body, start, inputs, reverse=True)
    d_bias = recurrent[..., 2 * h_bd.shape[-1] :].sum((0, 1))
    return d_gates, _kernel_gradient(h_before, recurrent, r_d3d.dtype), d_bias, dh, None


_gru.defvjp(_gru_forward, _gru_backward)
