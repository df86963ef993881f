"""Decision Transformer: several tokens for each frame, one GPT over all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import even_head_width
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


class DecisionTransformerState(NamedTuple):
    """Keys and values of the last tokens, one cache for each block."""

    caches: tuple[AttentionCache, ...]


class DecisionTransformer(Mixer):
    """A causal GPT over return, action and state tokens; the state token comes out.

    Equations:
      tokens of t:  a learned return; LN(W_a x_t), the action before; LN(W_s x_t), state
      each block:  z += W_o attention(LN(z));  z += W_2 GELU(W_1 LN(z))
      output  LN(z) at the state token

    Each token has a learned vector of its type added; the return token is that vector.
    `out_scale` is not read: a norm follows the last projection.

    Source: Chen et al. 2021, arXiv:2106.01345, section 3 and algorithm 1, over the GPT
    of Radford et al. 2019.

    Differences:
      - Imitation data has no rewards, so the return is one learned vector, and it can
        be left out.
      - x_t holds the state and the action before it, never the action to be predicted,
        so the paper's order (R, s, a) is here (R, a_{t-1}, s).
      - Positions are rotary by frame instead of learned time steps, so that it can
        stream.
      - Tokens are as wide as the model.

    Attributes:
      heads: H; D / H must be an even integer.
      blocks: GPT blocks.
      window: frames the state token sees, its own included. In a stream, `blocks`
        blocks see blocks * (window - 1) frames back.
      returns: whether there is a return token.
    """

    heads: int = 4
    blocks: int = 2
    window: int = 30
    returns: bool = True

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(9 T * (T + window) * D) work a block."""
        batch, length, _ = x_btd.shape
        tokens = self._tokens()
        z_bsd = self._embed(x_btd)
        start_b = jnp.zeros((batch,), jnp.int32)
        if state is not None:
            start_b = state.caches[0].position_b // tokens
        position_bt, _ = positions(start_b, reset_bt, length)
        position_bs = jnp.repeat(position_bt, tokens, axis=1)
        reset_bs = None
        if reset_bt is not None:
            first = (jnp.arange(length * tokens) % tokens == 0)[None]
            reset_bs = jnp.repeat(reset_bt, tokens, axis=1) & first
        caches = []
        for index in range(self.blocks):
            block = _Block(
                self.width,
                self.dtype,
                (2 * self.blocks) ** -0.5,
                self.heads,
                tokens * self.window,
                name=f"blocks_{index}",
            )
            cache = state and state.caches[index]
            z_bsd, cache = block(z_bsd, position_bs, cache, reset_bs)
            caches.append(cache)
        z_btd = z_bsd.reshape(batch, length, tokens, self.width)[:, :, -1]
        y_btd = norm("layer", self.dtype, name="norm")(z_btd)
        return y_btd, DecisionTransformerState(tuple(caches))

    def check(self):
        even_head_width(self.width, self.heads)
        self.at_least(1, "blocks", "window")

    @nn.nowrap
    def initial_state(self, batch_size):
        """Empty caches."""
        self.check()
        window, head = self._tokens() * self.window, self.width // self.heads
        # Not one cache repeated: a caller may donate the state's buffers.
        caches = [
            initial_cache(
                batch_size,
                window=window,
                heads=self.heads,
                key_size=head,
                value_size=head,
            )
            for _ in range(self.blocks)
        ]
        return DecisionTransformerState(tuple(caches))

    def _embed(self, x_btd: jax.Array) -> jax.Array:
        """The tokens of all frames in a row, [B, T * tokens, D]."""
        batch, length, _ = x_btd.shape
        init = nn.initializers.normal(0.02)
        types_nd = self.param("types", init, (self._tokens(), self.width))
        embedded = []
        if self.returns:
            embedded.append(jnp.zeros((batch, length, self.width), self.dtype))
        for name in ("action", "state"):
            token_btd = self.dense(self.width, name, bias=True)(x_btd)
            embedded.append(norm("layer", self.dtype, name=f"{name}_norm")(token_btd))
        z_btnd = jnp.stack(embedded, axis=2) + types_nd.astype(self.dtype)[None, None]
        return z_btnd.reshape(batch, -1, self.width)

    @nn.nowrap
    def _tokens(self) -> int:
        return 3 if self.returns else 2


class _Block(nn.Module):
    """A pre-norm GPT block over tokens; `window` counts tokens."""

    width: int
    dtype: Any
    out_scale: float
    heads: int
    window: int

    @nn.compact
    def __call__(
        self,
        z_bsd: jax.Array,
        position_bs: jax.Array,
        cache: AttentionCache | None,
        reset_bs: jax.Array | None,
    ) -> tuple[jax.Array, AttentionCache]:
        def dense(width: int, name: str, scale: float = 1.0) -> nn.Dense:
            init = lecun(scale)
            return nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)

        h_bsd = norm("layer", self.dtype, name="attention_norm")(z_bsd)
        qkv_bsc = dense(3 * self.width, "qkv")(h_bsd)
        qkv_bshk = qkv_bsc.reshape(*z_bsd.shape[:2], 3 * self.heads, -1)
        q_bshk, k_bshk, v_bshk = jnp.split(qkv_bshk, 3, axis=2)
        o_bshk, cache = banded_attention(
            rotary(q_bshk, position_bs),
            rotary(k_bshk, position_bs),
            v_bshk,
            window=self.window,
            cache=cache,
            reset_bt=reset_bs,
        )
        z_bsd = z_bsd + dense(self.width, "out", self.out_scale)(
            o_bshk.reshape(z_bsd.shape)
        )
        h_bsd = norm("layer", self.dtype, name="mlp_norm")(z_bsd)
        h_bsd = nn.gelu(dense(4 * self.width, "mlp_in")(h_bsd))
        return z_bsd + dense(self.width, "mlp_out", self.out_scale)(h_bsd), cache
