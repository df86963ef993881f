"""Modern Hopfield networks: retrieval from patterns seen, or from patterns learned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_width
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.sinusoid import sinusoid
from jaxbench.ops.attention import attention, positions


class Hopfield(Mixer):
    """Retrieves from the frames of the episode so far.

    Equations:
      p_t = LN(x_t) + sinusoids of t;  ξ = W_q p_t;  K = W_k p_s, V = W_v p_s, s <= t
      `steps` times  ξ <- softmax(β ξ K^T) K;  o_t = softmax(β ξ K^T) V for each head
      output  W_out concat(o)

    Each update lowers the energy -log(Σ exp(β K ξ)) / β + |ξ|² / 2; 0 steps is
    attention. The LN has no parameters. t counts from the first frame of the episode
    inside the window, so the same frame is another pattern in the next window: a stream
    computes each window anew.

    Source: Ramsauer et al. 2020, arXiv:2008.02217, eq. 3 and 10.

    Differences:
      - A fixed number of steps is made instead of stopping when ξ hardly changes.
      - Values come from the patterns instead of from the keys, as in the authors'
        layer.
      - Positions are added to the patterns, and there is no dropout on the weights.

    Attributes:
      heads: H; it divides D.
      steps: updates of the state before the values are read.
      beta: inverse temperature: large retrieves one pattern, small an average of all;
        0 is 1 / sqrt(D / H).
    """

    heads: int = 4
    steps: int = 1
    beta: float = 0.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps a window [B, T, D], causally; O(steps * T^2 * D) work."""
        batch, length, _ = x_btd.shape
        zero_b = jnp.zeros((batch,), jnp.int32)
        position_bt, _ = positions(zero_b, reset_bt, length)
        # t sees the frames from the first of its episode up to itself.
        time_t = jnp.arange(length)
        first_bt = time_t[None] - position_bt
        mask_bts = (time_t[None, None] <= time_t[None, :, None]) & (
            time_t[None, None] >= first_bt[:, :, None]
        )
        pattern_btd = _standardize(x_btd, self.dtype)
        place_btd = sinusoid(position_bt, self.width)
        pattern_btd = pattern_btd + place_btd.astype(self.dtype)
        qkv = self.dense(3 * self.width, "qkv")
        qkv_bthk = qkv(pattern_btd).reshape(batch, length, 3 * self.heads, -1)
        qkv_bthk = qkv_bthk.astype(jnp.float32)
        xi_bthk, k_bthk, v_bthk = jnp.split(qkv_bthk, 3, axis=2)
        beta = self.beta or xi_bthk.shape[-1] ** -0.5
        xi_bthk = retrieve(xi_bthk, k_bthk, mask_bts, steps=self.steps, beta=beta)
        o_bthk = attention(xi_bthk, k_bthk, v_bthk, mask_bts, scale=beta)
        return self.dense_out()(o_bthk.reshape(x_btd.shape)), ()

    def check(self):
        _check(self)


class StaticHopfield(Mixer):
    """Retrieves from learned patterns, each frame by itself: nothing moves along time.

    Equations:
      ξ = W_q LN(x_t);  K = W_k LN(P), V = W_v LN(P) with the learned patterns P
      `steps` times  ξ <- softmax(β ξ K^T) K;  o_t = softmax(β ξ K^T) V for each head
      output  W_out concat(o)

    Source: Ramsauer et al. 2020, arXiv:2008.02217, section 3, the layer "Hopfield
    lookup".

    Differences:
      - A fixed number of steps is made instead of stopping when ξ hardly changes.
      - Values come from the patterns instead of from the keys, as in the authors'
        layer.
      - There is no dropout on the weights.

    Attributes:
      heads: H; it divides D.
      steps: updates of the state before the values are read.
      beta: inverse temperature: large retrieves one pattern, small an average of all;
        0 is 1 / sqrt(D / H).
      patterns: M, stored patterns. Many overfit.
    """

    heads: int = 4
    steps: int = 1
    beta: float = 0.0
    patterns: int = 64

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; O(steps * M * D) work for each."""

        def heads(x: jax.Array, name: str) -> jax.Array:
            """All frames, or all patterns, as one sequence of heads."""
            dense = self.dense(self.width, name)
            x = dense(x).reshape(1, -1, self.heads, self.width // self.heads)
            return x.astype(jnp.float32)

        init = nn.initializers.normal(1.0)
        stored_md = self.param("patterns", init, (self.patterns, self.width))
        stored_md = _standardize(stored_md, self.dtype)
        k_1mhk, v_1mhk = heads(stored_md, "key"), heads(stored_md, "value")
        xi_1thk = heads(_standardize(x_btd, self.dtype), "query")
        beta = self.beta or xi_1thk.shape[-1] ** -0.5
        xi_1thk = retrieve(xi_1thk, k_1mhk, steps=self.steps, beta=beta)
        o_1thk = attention(xi_1thk, k_1mhk, v_1mhk, scale=beta)
        return self.dense_out()(o_1thk.reshape(x_btd.shape)), ()

    def check(self):
        _check(self)
        self.at_least(1, "patterns")


def retrieve(
    xi_bthk: jax.Array,
    k_bshk: jax.Array,
    mask_bts: jax.Array | None = None,
    *,
    steps: int,
    beta: float,
) -> jax.Array:
    """`steps` times xi <- softmax(beta xi K^T) K, for each head; like `xi_bthk`.

    Ramsauer et al. 2020 (arXiv:2008.02217), eq. 3: a step never raises the energy
    -log(sum_s exp(beta k_s . xi)) / beta + |xi|^2 / 2, s over the mask.
    """
    for _ in range(steps):
        xi_bthk = attention(xi_bthk, k_bshk, k_bshk, mask_bts, scale=beta)
    return xi_bthk


def _standardize(x: jax.Array, dtype: Any) -> jax.Array:
    layer = nn.LayerNorm(
        epsilon=1e-6,
        use_scale=False,
        use_bias=False,
        dtype=dtype,
        use_fast_variance=False,
    )
    return layer(x)


def _check(mixer: Mixer) -> None:
    head_width(mixer.width, mixer.heads)
    if mixer.steps < 0:
        raise InputError(f"steps={mixer.steps} must not be negative")
    if mixer.beta < 0:
        raise InputError(
            f"beta={mixer.beta} must be above 0, or 0 for 1 / sqrt(head width)"
        )
