"""The attention block that all call sites of a Zamba share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import head_width, merge_heads, split_heads
from jaxbench.layers.inits import lecun
from jaxbench.layers.norms import norm
from jaxbench.ops.attention import AttentionCache, banded_attention, initial_cache


class SharedAttention(nn.Module):
    """MLP(norm(attention(norm([x, x_0])))) at twice the model width, no residuals.

    x_0 is the embedding of the frame. The result, [B, T, 2 D], is projected by the
    layer above (`join="next"`), so the call sites share this block but not that
    projection. Source: Glorioso et al. 2024, arXiv:2405.16712, section 2. Differences:
    causal attention to a window, so that a stream has a bounded cache; the shared
    kernels start `out_scale` smaller. No positions, as in the paper.

    Attributes:
      width: model width D.
      dtype: type of the matmuls; scores and softmax are float32.
      out_scale: factor on the initial output projection.
      heads: H; divides 2 D.
      window: frames a frame sees, itself included.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    heads: int = 4
    window: int = 30

    @nn.compact
    def __call__(
        self,
        x_btd: jax.Array,
        state: AttentionCache | None = None,
        reset_bt: jax.Array | None = None,
        *,
        lower: dict[str, jax.Array],
    ) -> tuple[jax.Array, AttentionCache, dict[str, jax.Array]]:
        """Mixes [B, T, D] along time into [B, T, 2 D]; O(T window D) work."""
        inner = 2 * self.width
        heads = self.heads
        head_width(inner, heads)

        def dense(size: int, name: str) -> nn.Dense:
            return nn.Dense(size, use_bias=False, dtype=self.dtype, name=name)

        both = jnp.concatenate([x_btd, lower["embedding"]], axis=-1)
        qkv = dense(3 * inner, "qkv")(norm("rms", self.dtype, "norm")(both))
        q, k, v = (split_heads(x, heads) for x in jnp.split(qkv, 3, axis=-1))
        o, state = banded_attention(
            q, k, v, window=self.window, cache=state, reset_bt=reset_bt
        )
        h = dense(inner, "attention_out")(merge_heads(o))
        h = norm("rms", self.dtype, "mlp_norm")(h)
        h = nn.gelu(dense(2 * inner, "in")(h))
        out = nn.Dense(
            inner,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun(self.out_scale),
            name="out",
        )
        return out(h), state, lower

    @nn.nowrap
    def initial_state(self, batch_size: int) -> AttentionCache:
        """Returns an empty cache of `window - 1` frames."""
        head = head_width(2 * self.width, self.heads)
        return initial_cache(
            batch_size,
            window=self.window,
            heads=self.heads,
            key_size=head,
            value_size=head,
        )
