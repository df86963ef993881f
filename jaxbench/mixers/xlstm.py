"""xLSTM: LSTMs with exponential input gates, a matrix (mLSTM) or a scalar memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_width
from jaxbench.layers.inits import small
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.cell import cell_scan
from jaxbench.ops.normalized_linear_attention import (
    NormalizedState,
    initial_state,
    normalized_linear_attention,
)


class MLSTMState(NamedTuple):
    """What mLSTM carries."""

    s_bhkv: jax.Array  # matrix memory divided by e^m, float32
    n_bhk: jax.Array  # sum of the gated keys divided by e^m, float32
    m_bh: jax.Array  # logarithm of the unit of both, -inf at first, float32
    conv_bwe: jax.Array  # last inputs of the short convolution, float32


class MLSTM(Mixer):
    """The mLSTM block: a matrix memory between an up- and a down-projection.

    Equations:
      u, z = W x;  c = SiLU(conv(u));  q = W_q c, k = W_k c, v = W_v u (block-diagonal)
      log i = w_i [q, k, v] + b_i;  f = sigmoid(w_f [q, k, v] + b_f), one for each head
      S_t = f S_{t-1} + i k v^T / sqrt(K);  n_t = f n_{t-1} + i k / sqrt(K)
      h = q^T S / max(|q · n|, 1);  output  W_out ((LayerNorm_heads(h) + a c) * SiLU(z))

    As in the authors' code (NX-AI/xlstm, xlstm/blocks/mlstm) the gate kernels start at
    0, b_f from 3 to 6 over the heads, the other kernels but W_out with variance 2 /
    (5 D); the denominator has 1e-6 more, in units of the largest gate so far.

    Source: Beck et al. 2024, arXiv:2405.04517, section 2.3 and the pre-up-projection
    block of its appendix.

    Differences:
      - W_out starts with variance 1 / (L E) for L residual branches, not 4 / (L² D) as
        in that code.

    Attributes:
      heads: H; divides the inner width.
      expansion: inner width E over model width.
      taps: length of the short convolution.
      block_size: channels of one block of W_q, W_k and W_v; divides the inner width.
    """

    heads: int = 4
    expansion: int = 2
    taps: int = 4
    block_size: int = 4

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T (D E + E^2 / H)) work."""
        batch, length, _ = x_btd.shape
        inner, head = self._sizes()
        project = self.dense(2 * inner, "project", init=small(self.width))
        conv = ShortConvolution(inner, self.dtype, self.taps, name="conv")
        *memory, conv_bwe = state or (None,)
        memory = NormalizedState(*memory) if memory else None
        u_bte, z_bte = jnp.split(project(x_btd), 2, axis=-1)
        c_bte, conv_bwe = conv(u_bte, conv_bwe, reset_bt)
        c_bte = nn.silu(c_bte)
        q_bte, k_bte = self._in_blocks("query", c_bte), self._in_blocks("key", c_bte)
        v_bte = self._in_blocks("value", u_bte)
        # log i and log f of each head, from queries, keys and values
        log_i_bth, log_f_bth = self._log_gates(
            jnp.concatenate([q_bte, k_bte, v_bte], axis=-1)
        )
        q_bthk, k_bthk, v_bthk = (
            x_bte.astype(jnp.float32).reshape(batch, length, self.heads, head)
            for x_bte in (q_bte, k_bte, v_bte)
        )
        h_bthk, memory = normalized_linear_attention(
            q_bthk,
            k_bthk * head**-0.5,
            v_bthk,
            log_f_bth,
            log_i_bth,
            memory,
            reset_bt,
            normalizer="maxabs",
        )
        # LayerNorm_heads(h) + a c, the learnable skip
        skip_e = self.param("skip", nn.initializers.ones, (inner,))
        h_bte = _head_norm()(h_bthk).reshape(batch, length, inner)
        h_bte = h_bte + skip_e[None, None] * c_bte.astype(jnp.float32)
        y_btd = self.dense_out()(h_bte.astype(self.dtype) * nn.silu(z_bte))
        return y_btd, MLSTMState(*memory, conv_bwe)

    def _in_blocks(self, name: str, x_bte: jax.Array) -> jax.Array:
        count = x_bte.shape[-1] // self.block_size
        shape = (count, self.block_size, self.block_size)
        kernel = self.param(name, small(self.width), shape)
        return _block_diagonal(x_bte, kernel, self.dtype).reshape(x_bte.shape)

    def _log_gates(self, qkv_bte: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logarithms of the input and the forget gate of each head, float32."""
        kernel = self.param(
            "gates", nn.initializers.zeros, (qkv_bte.shape[-1], 2 * self.heads)
        )
        input_bias_h = self.param(
            "ssm_input_bias", nn.initializers.normal(0.1), (self.heads,)
        )
        forget_bias_h = self.param("ssm_forget_bias", _three_to_six, (self.heads,))
        gates = qkv_bte.astype(jnp.float32) @ kernel
        i_bth, f_bth = jnp.split(gates, 2, axis=-1)
        log_f_bth = jax.nn.log_sigmoid(f_bth + forget_bias_h[None, None])
        return i_bth + input_bias_h[None, None], log_f_bth

    def check(self):
        self._sizes()

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty memory: zeros, and m = -inf."""
        inner, head = self._sizes()
        memory = initial_state(
            batch_size, heads=self.heads, key_size=head, value_size=head
        )
        conv_bwe = jnp.zeros((batch_size, self.taps - 1, inner), jnp.float32)
        return MLSTMState(*memory, conv_bwe)

    @nn.nowrap
    def _sizes(self) -> tuple[int, int]:
        """Inner width and head width."""
        inner = self.expansion * self.width
        for name in ("heads", "block_size"):
            value = getattr(self, name)
            if value < 1 or inner % value:
                raise InputError(
                    f"{name}={value} does not divide the inner width {inner} = "
                    f"expansion {self.expansion} * width {self.width}; choose a divisor"
                )
        return inner, inner // self.heads


class SLSTMState(NamedTuple):
    """What sLSTM carries, one cell a channel."""

    h_bhk: jax.Array  # output of the previous frame, float32
    c_bhk: jax.Array  # cell divided by e^m, float32
    n_bhk: jax.Array  # sum of the gates divided by e^m, float32
    m_bhk: jax.Array  # logarithm of the unit of both, -inf at first, float32
    conv_bwd: jax.Array  # last inputs of the short convolution, float32


class SLSTM(Mixer):
    """sLSTM: a scalar memory with recurrent gates, mixed within each head.

    Equations:
      u = SiLU(conv(x));  log i = W_i u + R_i h_{t-1} + b_i;  W, R one block a head
      f = sigmoid(W_f u + R_f h_{t-1} + b_f);  o = sigmoid(W_o x + R_o h_{t-1} + b_o)
      z = tanh(W_z x + R_z h_{t-1} + b_z);  c_t = f c_{t-1} + i z;  n_t = f n_{t-1} + i
      h_t = o c_t / n_t;  output  LayerNorm_heads(h)

    As in the authors' code (NX-AI/xlstm, xlstm/blocks/slstm) R starts at 0, W with
    variance 2 / (5 D), and b_f falls from 5 to -7 within each head, faster in lower
    layers. There is no output projection: `out_scale` is not read.

    Source: Beck et al. 2024, arXiv:2405.04517, section 2.2 with the sigmoid as forget
    gate, and the post-up-projection block of its appendix, whose gated MLP is the
    block's channel mixer.

    Differences:
      - m, the logarithm of the cell's unit, starts at -inf, not at 0 as in the authors'
        code.

    Attributes:
      heads: H; divides the width.
      taps: length of the short convolution.
    """

    layer: int = 0
    layers: int = 1
    heads: int = 4
    taps: int = 4

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work, T steps one by one."""
        head = head_width(self.width, self.heads)
        *memory, conv_bwd = state or (None,)
        conv = ShortConvolution(self.width, self.dtype, self.taps, name="conv")
        u_btd, conv_bwd = conv(x_btd, conv_bwd, reset_bt)
        gates_bthx = self._input_gates(x_btd, nn.silu(u_btd))
        r_hkx = self.param(
            "recurrent", nn.initializers.zeros, (self.heads, head, 4 * head)
        ).astype(self.dtype)

        def cell(memory, gates_bhx):
            mixed_bhx = jnp.einsum(
                "bhk,hkx->bhx",
                memory[0].astype(self.dtype),
                r_hkx,
                preferred_element_type=jnp.float32,
            )
            memory = _slstm_cell(memory, gates_bhx + mixed_bhx)
            return memory, memory[0]

        first = tuple(self.initial_state(x_btd.shape[0])[:4])
        memory = tuple(memory) or None
        h_bthk, memory = cell_scan(cell, gates_bthx, memory, first, reset_bt)
        y_btd = _head_norm()(h_bthk).reshape(x_btd.shape)
        return y_btd.astype(self.dtype), SLSTMState(*memory, conv_bwd)

    def _input_gates(self, x_btd: jax.Array, u_btd: jax.Array) -> jax.Array:
        """What the gates i, f, z, o get from the frame: float32 [B, T, H, 4 K]."""
        head = head_width(self.width, self.heads)
        shape = (self.heads, head)
        zeros, falling = nn.initializers.zeros, _power_law(self.layer, self.layers)
        biases = [
            self.param("ssm_input_bias", zeros, shape),
            self.param("ssm_forget_bias", falling, shape),
            self.param("bias", zeros, shape),
            self.param("ssm_output_bias", zeros, shape),
        ]
        kernel_if = self.param("input_forget", small(self.width), (*shape, 2 * head))
        kernel_zo = self.param("cell_output", small(self.width), (*shape, 2 * head))
        gates_bthx = jnp.concatenate(
            [
                _block_diagonal(u_btd, kernel_if, self.dtype),
                _block_diagonal(x_btd, kernel_zo, self.dtype),
            ],
            axis=-1,
        )
        return gates_bthx.astype(jnp.float32) + jnp.concatenate(biases, -1)[None, None]

    def state_shapes(self):
        cells = (self.heads, head_width(self.width, self.heads))
        return SLSTMState(*[cells] * 4, (self.taps - 1, self.width))

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty memory: zeros, and m = -inf."""
        state = super().initial_state(batch_size)
        return state._replace(m_bhk=jnp.full_like(state.m_bhk, -jnp.inf))


def _slstm_cell(memory: tuple, gates_bhx: jax.Array) -> tuple:
    """(h, c, n, m) after a frame with these gates i, f, z, o before their functions."""
    _, c, n, m = memory
    i, f, z, o = jnp.split(gates_bhx, 4, axis=-1)
    # m_t = max(log f + m_{t-1}, log i): c and n are kept over e^m (section 2.2).
    log_keep = jax.nn.log_sigmoid(f) + m
    # h does not depend on the unit of c and n, so neither does its gradient.
    m = jax.lax.stop_gradient(jnp.maximum(log_keep, i))
    keep, write = jnp.exp(log_keep - m), jnp.exp(i - m)
    c = keep * c + write * jnp.tanh(z)
    n = keep * n + write
    return jax.nn.sigmoid(o) * c / n, c, n, m


def _block_diagonal(x_bte: jax.Array, kernel_hkx: jax.Array, dtype: Any) -> jax.Array:
    """Each block of channels times its own matrix: [B, T, blocks, out]."""
    blocks, size, _ = kernel_hkx.shape
    x_bthk = x_bte.astype(dtype).reshape(*x_bte.shape[:2], blocks, size)
    return jnp.einsum("bthk,hkx->bthx", x_bthk, kernel_hkx.astype(dtype))


def _head_norm() -> nn.Module:
    """LayerNorm of each head by itself, a scale for every channel, no bias."""
    return nn.LayerNorm(
        epsilon=1e-5,
        use_bias=False,
        use_fast_variance=False,
        reduction_axes=-1,
        feature_axes=(-2, -1),
        name="head_norm",
    )


def _three_to_six(key, shape, dtype=jnp.float32):
    del key
    return jnp.linspace(3, 6, *shape, dtype=dtype)


def _power_law(layer: int, layers: int) -> nn.initializers.Initializer:
    """5 - 12 r^p, r from 0 to 1 within a head, p from 0.3 in the first layer to 1.6."""
    power = 0.3 + 1.3 * layer / max(layers - 1, 1)

    def init(key, shape, dtype=jnp.float32):
        del key
        return jnp.broadcast_to(5 - 12 * jnp.linspace(0, 1, shape[-1]) ** power, shape)

    return init
