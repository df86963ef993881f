"""P5 with a matrix for a state: S_t is no linear function of S_{t-1}.

No parallel form is exact, so frames are computed one after the other. Every product
with an input is the caller's, for all frames at once; the scan holds only what reads
the state. The backward pass keeps one state per `block` of frames and rebuilds the
rest: a state is K V numbers a head, and one for each frame would be most of the memory
of a training step. `block=None` is the reference: a plain scan that keeps every state.
States, gates and sums are float32.

State s_bhkv: row k is what the key channel k holds, as in `ops.delta_rule`. The
publications behind these recurrences write the transposed matrix. `s_bhkv=None` is
zero; `reset_bt` is true where an episode starts, None is nowhere. All return the
outputs and the last state, float32, in O(T K V) work per head and O(T) depth.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxbench.ops.cell import cell_scan
from jaxbench.ops.frames import (
    Resets,
    Result,
    Start,
    float32,
    one_frame,
    restart,
    zeros_unless,
)

# Frames whose states are rebuilt together in the backward pass.
BLOCK = 16

MatrixCell = Callable[[Array, tuple], tuple[Array, Array]]


def tanh_delta(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    decay: Array | None = None,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    block: int | None = BLOCK,
) -> Result:
    """S_t = tanh(S_{t-1} Diag(a_t) + k_t (v_t - S_{t-1}^T k_t)^T), o_t = S_t^T q_t.

    The recurrence of E74, E75 and E88. With |k| <= 1 and a in [0, 1] no step stretches
    a difference of two states: its Jacobian has the factors a - k k^T and tanh'.

    Args:
      q_bthk: Queries.
      k_bthk: Keys; of length 1 the write replaces what they hold.
      v_bthv: Values.
      decay: a, [B, T, H, V] one for a value channel or [B, T, H, 1] one for a head;
        None is 1.
      s_bhkv, reset_bt, block: as above.
    """

    def cell(s_bhkv: Array, xs: tuple) -> tuple[Array, Array]:
        q_bhk, k_bhk, v_bhv, decay = xs
        change = _write(k_bhk, v_bhv - _recall(s_bhkv, k_bhk))
        kept = s_bhkv if decay is None else s_bhkv * decay[..., None, :]
        s_bhkv = jnp.tanh(kept + change)
        return s_bhkv, _recall(s_bhkv, q_bhk)

    return _scan(cell, (q_bthk, k_bthk, v_bthv, decay), s_bhkv, reset_bt, block)


def tanh_memory(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    keep_bthk: Array,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    block: int | None = BLOCK,
) -> Result:
    """S_t = tanh(Diag(z_t) S_{t-1} + k_t v_t^T), o_t = S_t^T q_t: E73.

    Args:
      q_bthk: Queries.
      k_bthk: Keys.
      v_bthv: Values.
      keep_bthk: z in [-1, 1], for each key channel.
      s_bhkv, reset_bt, block: as above.
    """

    def cell(s_bhkv: Array, xs: tuple) -> tuple[Array, Array]:
        q_bhk, k_bhk, v_bhv, keep_bhk = xs
        s_bhkv = jnp.tanh(s_bhkv * keep_bhk[..., None] + _write(k_bhk, v_bhv))
        return s_bhkv, _recall(s_bhkv, q_bhk)

    return _scan(cell, (q_bthk, k_bthk, v_bthv, keep_bthk), s_bhkv, reset_bt, block)


def gated_memory(
    q_bthk: Array,
    k_bthk: Array,
    v_bthv: Array,
    keep_bthv: Array,
    keep_slope_hv: Array | None = None,
    gain_hv: tuple[Array, Array] | None = None,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    block: int | None = BLOCK,
) -> Result:
    """A running mean of k v^T whose gates see what the key holds: E71 and E72.

    r_t = S_{t-1}^T k_t;  a_t = sigmoid(keep_t + d_a r_t);  g_t = sigmoid(d_g r_t + b_g)
    S_t = S_{t-1} Diag(a_t) + k_t ((1 - a_t) g_t v_t)^T;  o_t = S_t^T q_t

    Args:
      q_bthk: Queries.
      k_bthk: Keys.
      v_bthv: Values.
      keep_bthv: Logits of a before the state has its say.
      keep_slope_hv: d_a; None is 0 (E72).
      gain_hv: d_g and b_g; None leaves v as it is (E71).
      s_bhkv, reset_bt, block: as above.
    """

    def cell(s_bhkv: Array, xs: tuple) -> tuple[Array, Array]:
        q_bhk, k_bhk, v_bhv, keep_bhv = xs
        found_bhv = _recall(s_bhkv, k_bhk)
        if keep_slope_hv is not None:
            keep_bhv = keep_bhv + keep_slope_hv[None] * found_bhv
        if gain_hv is not None:
            slope_hv, bias_hv = gain_hv
            gain_bhv = jax.nn.sigmoid(slope_hv[None] * found_bhv + bias_hv[None])
            v_bhv = gain_bhv * v_bhv
        keep = jax.nn.sigmoid(keep_bhv)
        # 1 - a as a sigmoid of its own: no digits are lost where a is near 1.
        write = _write(k_bhk, jax.nn.sigmoid(-keep_bhv) * v_bhv)
        s_bhkv = s_bhkv * keep[..., None, :] + write
        return s_bhkv, _recall(s_bhkv, q_bhk)

    return _scan(cell, (q_bthk, k_bthk, v_bthv, keep_bthv), s_bhkv, reset_bt, block)


def slot_memory(
    q_btd: Array,
    k_btd: Array,
    v_btn: Array,
    keep_btn: Array,
    w_nn: Array,
    s_bdn: Start = None,
    reset_bt: Resets = None,
    *,
    block: int | None = BLOCK,
) -> Result:
    """N slots that answer a key, mix their answers and write them back: E63m.

    r_t = tanh(S_{t-1}^T k_t);  u_t = tanh(r_t W + v_t)
    S_t = S_{t-1} Diag(a_t) + k_t ((1 - a_t) u_t)^T;  o_t = S_t^T q_t

    Args:
      q_btd: Queries.
      k_btd: Keys. At |k| = 1, |W| = 1/2 a step has a Jacobian of at most (1 + a) / 2;
        longer keys enter it as |k|^2.
      v_btn: The input's part of the new content, before its tanh.
      keep_btn: a in [0, 1], for each slot.
      w_nn: W, from the answers (rows) to the contents (columns).
      s_bdn: State, column n a slot; None is zero.
      reset_bt, block: as above.
    """
    w_nn = float32(w_nn)

    def cell(s_bdn: Array, xs: tuple) -> tuple[Array, Array]:
        q_bd, k_bd, v_bn, keep_bn = xs
        found_bn = jnp.tanh(jnp.einsum("bdn,bd->bn", s_bdn, k_bd))
        new_bn = jnp.tanh(jnp.matmul(found_bn, w_nn) + v_bn)
        write = jnp.einsum("bd,bn->bdn", k_bd, (1 - keep_bn) * new_bn)
        s_bdn = s_bdn * keep_bn[:, None] + write
        return s_bdn, jnp.einsum("bdn,bd->bn", s_bdn, q_bd)

    return _scan(cell, (q_btd, k_btd, v_btn, keep_btn), s_bdn, reset_bt, block)


def matrix_rnn(
    q_btk: Array,
    k_btk: Array,
    v_bthv: Array,
    forget_bth: Array,
    w_hvv: Array,
    s_bhkv: Start = None,
    reset_bt: Resets = None,
    *,
    block: int | None = BLOCK,
) -> Result:
    """S_t = f_t S_{t-1} + (1 - f_t) tanh(S_{t-1} W + k_t v_t^T), o_t = S_t^T q_t.

    The recurrence of M2RNN (Mishra et al. 2026, arXiv:2603.14360), whose heads share
    their queries and keys. O(T K V^2) work per head.

    Args:
      q_btk: Queries of all heads.
      k_btk: Keys of all heads.
      v_bthv: Values.
      forget_bth: f in [0, 1].
      w_hvv: W of each head.
      s_bhkv, reset_bt, block: as above.
    """
    w_hvv = float32(w_hvv)

    def cell(s_bhkv: Array, xs: tuple) -> tuple[Array, Array]:
        q_bk, k_bk, v_bhv, forget_bh = xs
        moved = jnp.einsum("bhkv,hvw->bhkw", s_bhkv, w_hvv)
        new = jnp.tanh(moved + jnp.einsum("bk,bhv->bhkv", k_bk, v_bhv))
        forget = forget_bh[..., None, None]
        s_bhkv = forget * s_bhkv + (1 - forget) * new
        return s_bhkv, jnp.einsum("bhkv,bk->bhv", s_bhkv, q_bk)

    return _scan(cell, (q_btk, k_btk, v_bthv, forget_bth), s_bhkv, reset_bt, block)


def _scan(
    cell: MatrixCell, inputs: tuple, state: Start, reset_bt: Resets, block: int | None
) -> Result:
    inputs = float32(inputs)
    k_b, v_b = inputs[1][:, 0], inputs[2][:, 0]
    zero = jnp.zeros((*v_b.shape[:-1], k_b.shape[-1], v_b.shape[-1]), jnp.float32)
    state = zeros_unless(state, zero.shape)
    if block is None or inputs[0].shape[1] > 1:
        return cell_scan(cell, inputs, state, zero, reset_bt, block=block)

    def step(inputs_b: tuple, state: Array, reset_b: Resets) -> Result:
        state, o_b = cell(restart(reset_b, state), inputs_b)
        return o_b, state

    return one_frame(step, (inputs,), state, reset_bt)


def _recall(s_bhkv: Array, q_bhk: Array) -> Array:
    """S^T q. An einsum: a product and a sum are many times slower on a CPU."""
    return jnp.einsum("bhkv,bhk->bhv", s_bhkv, q_bhk)


def _write(k_bhk: Array, v_bhv: Array) -> Array:
    """k v^T. An einsum, so that its gradients are two products as well, not sums."""
    return jnp.einsum("bhk,bhv->bhkv", k_bhk, v_bhv)
