"""Softmax attention to the past: a band of it, with an output gate, or forgetting."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_count, head_width
from jaxbench.layers.inits import lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import (
    AttentionCache,
    banded_attention,
    initial_cache,
    positions,
)

GATES = ("elementwise", "headwise")


class SlidingWindowAttention(Mixer):
    """Causal multi-head attention to the last `window` frames, rotary positions.

    Equations:
      q, k, v = W x, q and k rotated by their position
      o_t = Σ_s softmax_s(q_t · k_s / sqrt(K)) v_s,  t - window < s <= t in the episode
      output  W_o concat(o)

    A stack of L layers sees L * (window - 1) frames back, so a stream sees further than
    one window of training. Ordinary causal attention is a window at least as long as
    the training windows: a stream needs a bounded cache, so there is no endless one.

    Source: Beltagy et al. 2020, arXiv:2004.05150, section 3.1, causal; heads as in
    Vaswani et al. 2017; shared key-value heads from Shazeer 2019, arXiv:1911.02150, and
    Ainslie et al. 2023, arXiv:2305.13245.

    Attributes:
      heads: H query heads of K = D / H channels; 0 is one for each 64 channels, at
        least one.
      kv_heads: key and value heads, each shared by heads / kv_heads queries; 1 is
        multi-query attention, 0 is as many as `heads`.
      window: frames a frame sees, itself included. 30 is the original benchmark's, and
        the length of its training windows: there it is ordinary causal attention, and
        8 to 16 make the band matter.
      rotary: part of each head's channels that is rotated: 1 all, 0 none (no positions
        at all), 0.5 as in Griffin (De et al. 2024, arXiv:2402.19427).
      qk_norm: RMS-normalise each head's queries and keys before the rotation, with a
        learned scale (Dehghani et al. 2023, arXiv:2302.05442, section 2, there with
        LayerNorm): scores stay bounded whatever the weights.
      bias: whether queries, keys, values and the output have biases.
    """

    heads: int = 4
    kv_heads: int = 0
    window: int = 30
    rotary: float = 1.0
    qk_norm: bool = False
    bias: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T * (T + window) * D) work."""
        heads, shared, head = self._heads()
        columns = (heads + 2 * shared) * head
        qkv = self.dense(columns, "qkv", bias=self.bias)
        q_bthk, k_bthk, v_bthk = _split(qkv(x_btd), heads, shared)
        if self.qk_norm:
            q_bthk = norm("rms", self.dtype, name="q_norm")(q_bthk)
            k_bthk = norm("rms", self.dtype, name="k_norm")(k_bthk)
        q_bthk, k_bthk = _rotate(q_bthk, k_bthk, self.rotary, state, reset_bt)
        o_bthk, state = banded_attention(
            q_bthk, k_bthk, v_bthk, window=self.window, cache=state, reset_bt=reset_bt
        )
        return self.dense_out(bias=self.bias)(o_bthk.reshape(x_btd.shape)), state

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty cache of `window - 1` frames."""
        _, shared, head = self._heads()
        return _cache(self, batch_size, shared, head)

    @nn.nowrap
    def _heads(self) -> tuple[int, int, int]:
        """Heads of queries, heads of keys and values, channels of one."""
        heads = head_count(self.width, self.heads)
        if self.kv_heads < 0 or heads % (self.kv_heads or 1):
            raise InputError(
                f"kv_heads={self.kv_heads} does not divide heads={heads}; choose "
                f"a divisor of the heads, or 0 for as many"
            )
        head = _head_width(self.width, heads, self.window, self.rotary)
        return heads, self.kv_heads or heads, head


class GatedAttention(Mixer):
    """Causal attention whose output is gated by the frame that asks.

    Equations:
      q, k, v = W x, q and k rotated
      o_t = Σ_s softmax_s(q_t · k_s / sqrt(K)) v_s,  t - window < s <= t in the episode
      output  W_o (o_t * sigmoid(W_g x_t))

    A head can so return nothing, for which plain softmax needs a frame to dump its
    attention on.

    Source: Qiu et al. 2025, arXiv:2505.06708, the gate after the attention (position
    G1), for each head, multiplicative.

    Differences:
      - There are no biases.
      - Attention reaches back `window` frames at most, so that a stream has a bounded
        cache.

    Attributes:
      heads: H; D / H must be an even integer.
      window: frames a frame sees, itself included. 256 covers the training windows of
        frames, where it is then full causal attention; a stream keeps that many.
      gate: "elementwise", a gate for each channel of each head (the paper's best), or
        "headwise", one for each head.
    """

    heads: int = 4
    window: int = 256
    gate: str = "elementwise"

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T * (T + window) * D) work."""
        head = self._head_width()
        columns = self.heads * (head if self.gate == "elementwise" else 1)
        qkv = self.dense(3 * self.width, "qkv")
        gate = self.dense(columns, "gate")
        q_bthk, k_bthk, v_bthk = _split(qkv(x_btd), self.heads, self.heads)
        q_bthk, k_bthk = _rotate(q_bthk, k_bthk, 1.0, state, reset_bt)
        o_bthk, state = banded_attention(
            q_bthk, k_bthk, v_bthk, window=self.window, cache=state, reset_bt=reset_bt
        )
        open_btc = jax.nn.sigmoid(gate(x_btd).astype(jnp.float32))
        open_bthk = open_btc.reshape(*o_bthk.shape[:3], -1)
        o_bthk = (o_bthk * open_bthk).astype(self.dtype)
        return self.dense_out()(o_bthk.reshape(x_btd.shape)), state

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty cache of `window - 1` frames."""
        return _cache(self, batch_size, self.heads, self._head_width())

    @nn.nowrap
    def _head_width(self) -> int:
        if self.gate not in GATES:
            raise InputError(f"gate={self.gate!r} is none of {', '.join(GATES)}")
        return _head_width(self.width, self.heads, self.window, 1.0)


class ForgettingAttention(Mixer):
    """Causal attention in which every frame lets what came before it fade.

    Equations:
      f_t = sigmoid(w_f · x_t + b_f) for each head
      o_t = Σ_s softmax_s(q_t · k_s / sqrt(K) + Σ_{s < l <= t} log f_l) v_s,  s <= t
      output  W_o concat(o)

    The decay tells the order of the frames, so there are no positions by default. The
    cache keeps log f_l of each frame, and sums run back from the frame that asks, so
    nothing grows in a stream.

    Source: Lin et al. 2025, arXiv:2503.02130, section 3 (FoX).

    Differences:
      - It is the plain layer, without the output norm, output gate, QK-norm and shifted
        keys and values of the paper's "Pro" block.
      - Attention reaches back `window` frames at most, so that a stream has a bounded
        cache.

    Attributes:
      heads: H; it divides D.
      window: frames a frame sees, itself included. 256 covers the training windows of
        frames, where it is then full causal attention; a stream keeps that many.
      rotary: part of each head's channels that is rotated by the position.
    """

    heads: int = 4
    window: int = 256
    rotary: float = 0.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T * (T + window) * D) work."""
        _head_width(self.width, self.heads, self.window, self.rotary)
        qkv = self.dense(3 * self.width, "qkv")
        q_bthk, k_bthk, v_bthk = _split(qkv(x_btd), self.heads, self.heads)
        q_bthk, k_bthk = _rotate(q_bthk, k_bthk, self.rotary, state, reset_bt)
        kernel_dh = self.param("forget_kernel", lecun(), (self.width, self.heads))
        bias_h = self.param("ssm_forget_bias", nn.initializers.zeros, (self.heads,))
        # The score of s at t gets the sum of log f_l over s < l <= t.
        logit_bth = x_btd.astype(jnp.float32) @ kernel_dh + bias_h[None, None]
        o_bthk, state = banded_attention(
            q_bthk,
            k_bthk,
            v_bthk,
            window=self.window,
            cache=state,
            reset_bt=reset_bt,
            log_decay_bth=jax.nn.log_sigmoid(logit_bth),
        )
        return self.dense_out()(o_bthk.reshape(x_btd.shape)), state

    @nn.nowrap
    def initial_state(self, batch_size):
        """An empty cache of `window - 1` frames."""
        head = _head_width(self.width, self.heads, self.window, self.rotary)
        return _cache(self, batch_size, self.heads, head, decays=self.heads)


def _split(qkv_btc: jax.Array, heads: int, kv_heads: int) -> list[jax.Array]:
    """Queries, keys and values side by side to heads."""
    qkv_bthk = qkv_btc.reshape(*qkv_btc.shape[:2], heads + 2 * kv_heads, -1)
    return jnp.split(qkv_bthk, [heads, heads + kv_heads], axis=2)


def _rotate(q_bthk, k_bthk, part: float, state, reset_bt):
    """Rotates the first `part` of the channels by the frames since the reset."""
    batch, length, _, head = q_bthk.shape
    turned = round(part * head)
    if not turned:
        return q_bthk, k_bthk
    start_b = jnp.zeros((batch,), jnp.int32) if state is None else state.position_b
    position_bt, _ = positions(start_b, reset_bt, length)

    def rotate(x_bthk: jax.Array) -> jax.Array:
        first = rotary(x_bthk[..., :turned], position_bt)
        return jnp.concatenate([first, x_bthk[..., turned:]], axis=-1)

    return rotate(q_bthk), rotate(k_bthk)


def _cache(mixer: Mixer, batch: int, heads: int, head: int, **kind) -> AttentionCache:
    sizes = {"heads": heads, "key_size": head, "value_size": head}
    return initial_cache(batch, window=mixer.window, **sizes, **kind)


def _head_width(width: int, heads: int, window: int, part: float) -> int:
    """Checks the options that all attention here shares; channels of one head."""
    head = head_width(width, heads)
    if window < 1:
        raise InputError(f"window={window} must be at least 1")
    if not 0 <= part <= 1:
        raise InputError(f"rotary={part} must be between 0 (no channels) and 1 (all)")
    turned = round(part * head)
    if turned % 2 or abs(turned - part * head) > 1e-6:
        raise InputError(
            f"rotary={part} of heads of {head} (width={width} over heads={heads}) "
            f"turns {part * head:g} channels; choose them so that it is an even number"
        )
    return head
