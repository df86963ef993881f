"""The Neural Turing Machine: an LSTM that reads and writes an outside memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import forget_one, lecun, orthogonal_gates
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import l2_normalize
from jaxbench.ops.cell import cell_scan, lstm_step

# What a row holds at first: not 0, so that its cosine with a key has a slope.
_EMPTY = 1e-6

# Frames whose memories are kept for the backward pass; older ones are rebuilt.
_BLOCK = 64


class NTMState(NamedTuple):
    """What a Neural Turing Machine carries."""

    memory_bnm: jax.Array  # N slots of width M, float32
    h_bd: jax.Array  # output of the controller, float32
    c_bd: jax.Array  # cell of the controller, float32
    r_bm: jax.Array  # what was read last, float32
    read_bn: jax.Array  # weights of the read head, they sum to 1, float32
    write_bn: jax.Array  # weights of the write head, they sum to 1, float32


class NTM(Mixer):
    """LSTM controller, one write head, one read head, a memory of N slots.

    Equations:
      h_t = LSTM([x_t, r_{t-1}]);  from h_t each head makes k, β, g, s, γ, in turn w is
        softmax(β cos(k, M_i));  g w + (1 - g) w_{t-1};  Σ_j s_j w_{i-j};  w^γ / Σ w^γ
      M_t = M_{t-1} (1 - w_write e^T) + w_write a^T;  r_t = w_read M_t
      output  W [h_t, r_t] + b

    Each head makes k = tanh, β = softplus, g = sigmoid, s = softmax over the shifts -1,
    0, 1, and γ = 1 + softplus.

    Source: Graves et al. 2014, arXiv:1410.5401, eq. 2 to 9.

    Differences:
      - The memory starts constant (Collier & Beel 2018, arXiv:1807.08518), and the
        weights before the first frame are learned, since equal rows under equal weights
        would stay equal for ever.
      - e and a come from sigmoid and tanh, and the read head sees the memory after the
        write, neither of which the paper fixes.

    Attributes:
      slots: N, rows of the memory, at least 2.
      slot_width: M, width of a row.
    """

    slots: int = 32
    slot_width: int = 32

    def setup(self) -> None:
        self.check()
        gates = 4 * self.width
        heads = 4 * self.slot_width + 12
        self.project = nn.Dense(gates, dtype=self.dtype, bias_init=forget_one)
        self.out = nn.Dense(
            self.width, dtype=self.dtype, kernel_init=lecun(self.out_scale)
        )
        self.recurrent = self.param("recurrent", orthogonal_gates, (self.width, gates))
        self.recall = self.param("recall", lecun(), (self.slot_width, gates))
        self.heads = self.param("heads", lecun(), (self.width, heads))
        self.heads_bias = self.param("heads_bias", nn.initializers.zeros, (heads,))
        normal = nn.initializers.normal(1.0)
        self.read_start = self.param("read_start", normal, (self.slots,))
        self.write_start = self.param("write_start", normal, (self.slots,))

    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T (D^2 + N M)) work, T steps one by one."""
        gates_bt4d = self.project(x_btd).astype(jnp.float32)
        (h_btd, r_btm), state = cell_scan(
            self._cell(),
            gates_bt4d,
            state,
            self.initial_state(x_btd.shape[0]),
            reset_bt,
            block=_BLOCK,
        )
        joined = jnp.concatenate([h_btd, r_btm], axis=-1)
        return self.out(joined.astype(self.dtype)), state

    def check(self):
        if self.slots < 2 or self.slot_width < 1:
            raise InputError(
                f"slots={self.slots} must be at least 2 and "
                f"slot_width={self.slot_width} at least 1"
            )

    def initial_state(self, batch_size):
        """An empty memory, zeros, and the learned weights of both heads."""
        shape = (batch_size, self.slots)
        zero_bd = jnp.zeros((batch_size, self.width), jnp.float32)
        return NTMState(
            jnp.full((*shape, self.slot_width), _EMPTY, jnp.float32),
            zero_bd,
            zero_bd,
            jnp.zeros((batch_size, self.slot_width), jnp.float32),
            jnp.broadcast_to(jax.nn.softmax(self.read_start)[None], shape),
            jnp.broadcast_to(jax.nn.softmax(self.write_start)[None], shape),
        )

    @nn.nowrap
    def _cell(self):
        recurrent, recall, heads = (
            kernel.astype(self.dtype)
            for kernel in (self.recurrent, self.recall, self.heads)
        )
        bias, width = self.heads_bias, self.slot_width

        def product(x, kernel):
            return jnp.matmul(
                x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32
            )

        def cell(state, gates_b4d):
            gates_b4d = gates_b4d + product(state.r_bm, recall)
            lstm = (state.h_bd, state.c_bd)
            _, (h_bd, c_bd) = lstm_step(gates_b4d, lstm, None, r_d4d=recurrent)
            read_bk, write_bk, erase_bm, add_bm = jnp.split(
                product(h_bd, heads) + bias[None],
                [width + 6, 2 * width + 12, 3 * width + 12],
                axis=-1,
            )
            memory_bnm = state.memory_bnm
            write_bn = _address(write_bk, memory_bnm, state.write_bn)
            erase_b1m = jax.nn.sigmoid(erase_bm)[:, None]
            # Eq. 3 and 4: erase, then add; eq. 2: read.
            memory_bnm = memory_bnm * (1 - write_bn[..., None] * erase_b1m)
            memory_bnm += write_bn[..., None] * jnp.tanh(add_bm)[:, None]
            read_bn = _address(read_bk, memory_bnm, state.read_bn)
            r_bm = jnp.einsum("bn,bnm->bm", read_bn, memory_bnm)
            state = NTMState(memory_bnm, h_bd, c_bd, r_bm, read_bn, write_bn)
            return state, (h_bd, r_bm)

        return cell


def _address(head_bk: jax.Array, memory_bnm: jax.Array, w_bn: jax.Array) -> jax.Array:
    """The weights of one head: by content, by the last weights, shifted, sharpened."""
    width = memory_bnm.shape[-1]
    key_bm = jnp.tanh(head_bk[:, :width])
    beta_b1, gate_b1, shift_b3, gamma_b1 = jnp.split(
        head_bk[:, width:], [1, 2, 5], axis=-1
    )
    cosine_bn = jnp.einsum("bnm,bm->bn", l2_normalize(memory_bnm), l2_normalize(key_bm))
    # Eq. 5 to 9, one line each but for the cosine.
    content_bn = jax.nn.softmax(jax.nn.softplus(beta_b1) * cosine_bn)
    gate_b1 = jax.nn.sigmoid(gate_b1)
    w_bn = gate_b1 * content_bn + (1 - gate_b1) * w_bn
    shift_b3 = jax.nn.softmax(shift_b3)
    w_bn = sum(
        shift_b3[:, i : i + 1] * jnp.roll(w_bn, i - 1, axis=-1) for i in range(3)
    )
    # w^gamma / sum in the log: the power of a tiny weight has a finite slope there.
    return jax.nn.softmax((1 + jax.nn.softplus(gamma_b1)) * jnp.log(w_bn + 1e-8))
