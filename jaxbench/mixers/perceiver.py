"""Perceiver IO: a few latent vectors read the window, think, and are asked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_width
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.layers.sinusoid import sinusoid
from jaxbench.ops.attention import attention


class Perceiver(Mixer):
    """A few latent vectors read the window, think, and are asked by each frame.

    Equations:
      f_t = W [x_t, sinusoids of t's distance to the window's last frame]
      attend(q, m):  q += W_o attention(LN(q), LN(m)), then q += MLP(LN(q))
      z = attend(latents, f);  `blocks` times z = attend(z, z);  y_t = attend(f_t, z)
      output  W_out LN(y)

    All frames are read at once, so y_t depends on later frames too. Only the last
    episode of the window is read, the one its last frame belongs to; the output for
    frames of earlier episodes is 0. With a window for each frame, whose last frame is
    the one of interest, nothing is lost by that.

    Source: Jaegle et al. 2021, arXiv:2103.03206, section 3, and the decoder of Jaegle
    et al. 2021, arXiv:2107.14795 (Perceiver IO), section 3.2.

    Differences:
      - The latents read the frames once.
      - Positions are sinusoids of the distance to the last frame instead of Fourier
        features of a place in a fixed window, so that the current frame always looks
        the same.
      - Queries, keys and values have no biases.

    Attributes:
      latents: N, latent vectors.
      heads: H of every attention; it divides D.
      blocks: self-attention blocks of the latents.
    """

    latents: int = 16
    heads: int = 4
    blocks: int = 2

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps a window [B, T, D]; O((T + blocks * N) * N * D) work for attention."""
        batch, length, _ = x_btd.shape
        read_bt = jnp.ones((batch, length), bool)
        if reset_bt is not None:
            episode_bt = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
            read_bt = episode_bt == episode_bt[:, -1:]
        age_1t = jnp.arange(length - 1, -1, -1)[None]
        place_btd = jnp.broadcast_to(sinusoid(age_1t, self.width), x_btd.shape)
        embed = self.dense(self.width, "embed", bias=True)
        frame_btd = embed(jnp.concatenate([x_btd, place_btd.astype(x_btd.dtype)], -1))
        init = nn.initializers.truncated_normal(0.02)
        latent_nd = self.param("latents", init, (self.latents, self.width))
        z_bnd = jnp.broadcast_to(
            latent_nd.astype(self.dtype)[None], (batch, *latent_nd.shape)
        )
        z_bnd = self._attend("encode")(z_bnd, frame_btd, read_bt[:, None])
        for index in range(self.blocks):
            z_bnd = self._attend(f"blocks_{index}")(z_bnd)
        y_btd = self._attend("decode")(frame_btd, z_bnd)
        out = self.dense_out(bias=True)
        y_btd = out(norm("layer", self.dtype, name="norm")(y_btd))
        return jnp.where(read_bt[..., None], y_btd, 0), ()

    def _attend(self, name: str) -> _Attend:
        return _Attend(self.width, self.dtype, self.heads, name=name)

    def check(self):
        head_width(self.width, self.heads)
        self.at_least(1, "latents")
        if self.blocks < 0:
            raise InputError(f"blocks={self.blocks} must not be negative")


class _Attend(nn.Module):
    """Pre-norm attention of q to a memory (itself if none), then an MLP."""

    width: int
    dtype: Any
    heads: int

    @nn.compact
    def __call__(
        self,
        q_bsd: jax.Array,
        memory_btd: jax.Array | None = None,
        mask_bst: jax.Array | None = None,
    ) -> jax.Array:
        def heads(x_btd: jax.Array, name: str) -> jax.Array:
            dense = nn.Dense(self.width, use_bias=False, dtype=self.dtype, name=name)
            return dense(x_btd).reshape(*x_btd.shape[:2], self.heads, -1)

        h_bsd = norm("layer", self.dtype, name="query_norm")(q_bsd)
        if memory_btd is None:
            memory_btd = h_bsd
        else:
            memory_btd = norm("layer", self.dtype, name="memory_norm")(memory_btd)
        o_bshk = attention(
            heads(h_bsd, "query"),
            heads(memory_btd, "key"),
            heads(memory_btd, "value"),
            mask_bst,
        )
        o_bsd = nn.Dense(self.width, dtype=self.dtype, name="out")(
            o_bshk.reshape(q_bsd.shape)
        )
        q_bsd = q_bsd + o_bsd
        h_bsd = norm("layer", self.dtype, name="mlp_norm")(q_bsd)
        # As wide as the model, as in the paper.
        h_bsd = nn.gelu(nn.Dense(self.width, dtype=self.dtype, name="mlp_in")(h_bsd))
        return q_bsd + nn.Dense(self.width, dtype=self.dtype, name="mlp_out")(h_bsd)
