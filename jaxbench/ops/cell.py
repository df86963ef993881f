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

from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    before,
    float32,
    over,
    product,
    restart,
    run,
    scan_frames,
    time_first,
)

State = TypeVar("State")
Inputs = TypeVar("Inputs")
Outputs = TypeVar("Outputs")
LSTMState = tuple[Array, Array]
Cell = Callable[[State, Inputs], tuple[State, Outputs]]


def cell_scan(
    cell: Cell,
    inputs_bt: Inputs,
    state: State | None,
    initial_state: State,
    reset_bt: Resets = None,
    *,
    block: int | None = None,
) -> tuple[Outputs, State]:
    """s_t, y_t = cell(s_{t-1}, x_t), one frame after the other.

    Args:
      cell: `cell(state, x_t) -> (state, y_t)` on trees without the time axis.
      inputs_bt: Tree of arrays [B, T, ...].
      state: Tree of arrays [B, ...]; None is `initial_state`.
      initial_state: What the state becomes where `reset_bt` is true. Same tree.
      block: Frames per rematerialised block: the backward pass keeps one state per
        block and rebuilds the rest. None keeps every state.

    Returns:
      The outputs, a tree of [B, T, ...], and the last state. O(T) depth.
    """
    start = initial_state if state is None else state
    inputs = time_first((inputs_bt, reset_bt))

    def body(state: State, xs: tuple[Inputs, Array | None]) -> tuple[State, Outputs]:
        x_b, reset_b = xs
        return cell(_restart(state, initial_state, reset_b), x_b)

    def scan(state: State, inputs: tuple) -> tuple[State, Outputs]:
        return lax.scan(body, state, inputs)

    length = jax.tree.leaves(inputs)[0].shape[0]
    if block is None or block >= length:
        last, y = scan(start, inputs)
    else:
        last, y = _in_blocks(scan, start, inputs, block)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), y), last


def _restart(state: State, initial_state: State, reset_b: Resets) -> State:
    if reset_b is None:
        return state

    def select(first: Array, now: Array) -> Array:
        return jnp.where(over(reset_b, now), first, now)

    return jax.tree.map(select, initial_state, state)


def _in_blocks(
    scan: Callable, state: State, inputs: tuple, block: int
) -> tuple[State, Outputs]:
    """Runs whole blocks under remat, then the frames that are left over."""
    length = jax.tree.leaves(inputs)[0].shape[0]
    count = length // block
    whole = count * block
    blocks = jax.tree.map(
        lambda x: x[:whole].reshape(count, block, *x.shape[1:]), inputs
    )
    state, y = lax.scan(jax.checkpoint(scan, prevent_cse=False), state, blocks)
    y = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), y)
    if whole == length:
        return state, y
    state, rest = scan(state, jax.tree.map(lambda x: x[whole:], inputs))
    return state, jax.tree.map(lambda x, z: jnp.concatenate([x, z]), y, rest)


def lstm_step(
    gates_b4d: Array, state: LSTMState | None, reset_b: Resets, *, r_d4d: Array
) -> tuple[Array, LSTMState]:
    """One frame of the LSTM: see `lstm_reference`. Returns h_bd and (h_bd, c_bd)."""
    h_bd, c_bd = restart(reset_b, float32(state or (_zeros(gates_b4d, 4),) * 2))
    i, f, g, o = _lstm_gates(gates_b4d, r_d4d, h_bd)
    c_bd = f * c_bd + i * g
    h_bd = o * jnp.tanh(c_bd)
    return h_bd, (h_bd, c_bd)


def lstm_reference(
    gates_bt4d: Array, state: LSTMState | None, reset_bt: Resets, *, r_d4d: Array
) -> tuple[Array, LSTMState]:
    """The LSTM with forget gate (Gers et al. 2000), no peepholes, by a plain scan.

    (i, f, g, o) = gates_t + h_{t-1} R; c_t = sig(f) c_{t-1} + sig(i) tanh(g);
    h_t = sig(o) tanh(c_t).

    Args:
      gates_bt4d: x W + b for the gates in the order i, f, g, o.
      state: h_bd, the output of the frame before, and the cell c_bd; None is zero.
      r_d4d: Recurrent kernel; the product is made in its dtype, summed in float32.

    Returns:
      h_btd and the state (h_bd, c_bd), float32.
    """
    state = float32(state or (_zeros(gates_bt4d[:, 0], 4),) * 2)
    return scan_frames(lstm_step, (gates_bt4d,), state, reset_bt, r_d4d=r_d4d)


def lstm_deferred(
    gates_bt4d: Array, state: LSTMState | None, reset_bt: Resets, *, r_d4d: Array
) -> tuple[Array, LSTMState]:
    """`lstm_reference` whose backward pass forms the gradient of R in one matmul.

    A plain scan adds a [D, 4D] matrix every frame; here the backward scan only emits
    the gradients of the gates. Exact, and less memory traffic when T is long.
    """
    state = float32(state or (_zeros(gates_bt4d[:, 0], 4),) * 2)
    gates, resets = time_first((float32(gates_bt4d), reset_bt))
    h_tbd, c_bd = _lstm(gates, r_d4d, *state, resets)
    return jnp.moveaxis(h_tbd, 0, 1), (h_tbd[-1], c_bd)


def lstm_scan(
    gates_bt4d: Array,
    r_d4d: Array,
    h_bd: Start = None,
    c_bd: Array | None = None,
    reset_bt: Resets = None,
) -> tuple[Array, LSTMState]:
    """`lstm_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": lstm_reference, "deferred": lstm_deferred}
    state = None if h_bd is None or c_bd is None else (h_bd, c_bd)
    size, args = 2 * r_d4d.shape[0], ((gates_bt4d,), state, reset_bt)
    return run("lstm", lstm_step, forms, *args, size=size, r_d4d=r_d4d)


def gru_step(
    gates_b3d: Array, h_bd: Start, reset_b: Resets, *, r_d3d: Array, bias_n_d: Array
) -> Result:
    """One frame of the GRU: see `gru_reference`. Returns h_bd twice."""
    h_bd = _zeros(gates_b3d, 3) if h_bd is None else float32(h_bd)
    h_bd = restart(reset_b, h_bd)
    # Cho et al. 2014, eq. 7.
    _, z, n, _ = _gru_gates(gates_b3d, r_d3d, bias_n_d, h_bd)
    h_bd = (1 - z) * n + z * h_bd
    return h_bd, h_bd


def gru_reference(
    gates_bt3d: Array, h_bd: Start, reset_bt: Resets, *, r_d3d: Array, bias_n_d: Array
) -> Result:
    """The GRU in the form of cuDNN (reset gate after the product), by a plain scan.

    With (u_r, u_z, u_n) = h_{t-1} R: r = sig(r_t + u_r); z = sig(z_t + u_z);
    n = tanh(n_t + r (u_n + b')); h_t = (1 - z) n + z h_{t-1}. Cho et al. 2014
    (arXiv 1406.1078, equations 5 to 8) apply r before the product with R, without b'.

    Args:
      gates_bt3d: x W + b in the order r, z, n.
      r_d3d: Recurrent kernel; the product is made in its dtype, summed in float32.
      bias_n_d: The bias b' inside r (u_n + b').

    Returns:
      h_btd and the last state h_bd, float32.
    """
    fixed = {"r_d3d": r_d3d, "bias_n_d": bias_n_d}
    h_bd = _zeros(gates_bt3d[:, 0], 3) if h_bd is None else float32(h_bd)
    return scan_frames(gru_step, (gates_bt3d,), h_bd, reset_bt, **fixed)


def gru_deferred(
    gates_bt3d: Array, h_bd: Start, reset_bt: Resets, *, r_d3d: Array, bias_n_d: Array
) -> Result:
    """`gru_reference` whose backward pass forms the gradient of R in one matmul.

    See `lstm_deferred`.
    """
    h_bd = _zeros(gates_bt3d[:, 0], 3) if h_bd is None else float32(h_bd)
    gates, resets = time_first((float32(gates_bt3d), reset_bt))
    h_tbd = _gru(gates, r_d3d, float32(bias_n_d), h_bd, resets)
    return jnp.moveaxis(h_tbd, 0, 1), h_tbd[-1]


def gru_scan(
    gates_bt3d: Array,
    r_d3d: Array,
    bias_n_d: Array,
    h_bd: Start = None,
    reset_bt: Resets = None,
) -> Result:
    """`gru_reference` in the form `forms.json` names for this shape."""
    forms = {"scan": gru_reference, "deferred": gru_deferred}
    frames, weights = (gates_bt3d,), {"r_d3d": r_d3d, "bias_n_d": bias_n_d}
    size = r_d3d.shape[0]
    return run("gru", gru_step, forms, frames, h_bd, reset_bt, size=size, **weights)


def _zeros(gates_bx: Array, count: int) -> Array:
    """A state for gates [B, count D]."""
    batch, width = gates_bx.shape
    return jnp.zeros((batch, width // count), jnp.float32)


def _kernel_gradient(h_tbd: Array, gates_tbx: Array, dtype: jnp.dtype) -> Array:
    product = jnp.einsum("tbd,tbx->dx", h_tbd.astype(dtype), gates_tbx.astype(dtype))
    return product.astype(dtype)


def _lstm_gates(
    gates_b4d: Array, r_d4d: Array, h_bd: Array
) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(gates_b4d + product(h_bd, r_d4d), 4, axis=-1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


@jax.custom_vjp
def _lstm(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb: Resets
) -> Result:
    h_tbd, c_tbd, _ = _lstm_run(gates, r_d4d, h_bd, c_bd, reset_tb)
    return h_tbd, c_tbd[-1]


def _lstm_run(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb: Resets
) -> tuple[Array, Array, tuple]:
    def body(state: tuple[Array, Array], xs: tuple) -> tuple[tuple, tuple]:
        h, c = restart(xs[1], state)
        acts = i, f, g, o = _lstm_gates(xs[0], r_d4d, h)
        c = f * c + i * g
        h = o * jnp.tanh(c)
        return (h, c), (h, c, acts)

    return lax.scan(body, (h_bd, c_bd), (gates, reset_tb))[1]


def _lstm_forward(
    gates: Array, r_d4d: Array, h_bd: Array, c_bd: Array, reset_tb: Resets
) -> tuple[tuple[Array, Array], tuple]:
    h_tbd, c_tbd, acts = _lstm_run(gates, r_d4d, h_bd, c_bd, reset_tb)
    kept = (r_d4d, h_bd, c_bd, reset_tb, h_tbd, c_tbd, acts)
    return (h_tbd, c_tbd[-1]), kept


def _lstm_backward(kept: tuple, cotangents: tuple[Array, Array]) -> tuple:
    r_d4d, h_bd, c_bd, reset_tb, h_tbd, c_tbd, acts = kept
    c_before = before(c_bd, c_tbd, reset_tb, axis=0)

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
        return restart(reset, (product(d_gates, r_d4d.T), dc * f)), d_gates

    start = (jnp.zeros_like(h_bd), cotangents[1])
    inputs = (acts, c_tbd, c_before, cotangents[0], reset_tb)
    (dh, dc), d_gates = lax.scan(body, start, inputs, reverse=True)
    h_before = before(h_bd, h_tbd, reset_tb, axis=0)
    return d_gates, _kernel_gradient(h_before, d_gates, r_d4d.dtype), dh, dc, None


_lstm.defvjp(_lstm_forward, _lstm_backward)


def _gru_gates(
    gates_b3d: Array, r_d3d: Array, bias_n_d: Array, h_bd: Array
) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the recurrent term of n before r gates it."""
    x_r, x_z, x_n = jnp.split(gates_b3d, 3, axis=-1)
    u_r, u_z, u_n = jnp.split(product(h_bd, r_d3d), 3, axis=-1)
    u_n = u_n + bias_n_d[None]
    r, z = jax.nn.sigmoid(x_r + u_r), jax.nn.sigmoid(x_z + u_z)
    return r, z, jnp.tanh(x_n + r * u_n), u_n


@jax.custom_vjp
def _gru(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb: Resets
) -> Array:
    return _gru_run(gates, r_d3d, bias, h_bd, reset_tb)[0]


def _gru_run(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb: Resets
) -> tuple[Array, tuple]:
    def body(h: Array, xs: tuple) -> tuple[Array, tuple]:
        h = restart(xs[1], h)
        acts = _, z, n, _ = _gru_gates(xs[0], r_d3d, bias, h)
        h = (1 - z) * n + z * h
        return h, (h, acts)

    return lax.scan(body, h_bd, (gates, reset_tb))[1]


def _gru_forward(
    gates: Array, r_d3d: Array, bias: Array, h_bd: Array, reset_tb: Resets
) -> tuple[Array, tuple]:
    h_tbd, acts = _gru_run(gates, r_d3d, bias, h_bd, reset_tb)
    return h_tbd, (r_d3d, h_bd, reset_tb, h_tbd, acts)


def _gru_backward(kept: tuple, y_bar_tbd: Array) -> tuple:
    r_d3d, h_bd, reset_tb, h_tbd, acts = kept
    h_before = before(h_bd, h_tbd, reset_tb, axis=0)

    def body(dh: Array, xs: tuple) -> tuple[Array, tuple[Array, Array]]:
        (r, z, n, u_n), h_last, y_bar, reset = xs
        dh = dh + y_bar
        d_n = dh * (1 - z) * (1 - n**2)
        d_z = dh * (h_last - n) * z * (1 - z)
        d_r = d_n * u_n * r * (1 - r)
        recurrent = jnp.concatenate([d_r, d_z, d_n * r], -1)
        dh = restart(reset, dh * z + product(recurrent, r_d3d.T))
        return dh, (jnp.concatenate([d_r, d_z, d_n], -1), recurrent)

    start, inputs = jnp.zeros_like(h_bd), (acts, h_before, y_bar_tbd, reset_tb)
    dh, (d_gates, recurrent) = lax.scan(body, start, inputs, reverse=True)
    d_bias = recurrent[..., 2 * h_bd.shape[-1] :].sum((0, 1))
    return d_gates, _kernel_gradient(h_before, recurrent, r_d3d.dtype), d_bias, dh, None


_gru.defvjp(_gru_forward, _gru_backward)
