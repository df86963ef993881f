"""Action chunking with transformers: a chunk from h and a latent that tells styles.

A conditional variational autoencoder (Zhao et al. 2023, arXiv:2304.13705). In training
an encoder reads the true chunk and h and gives a Gaussian of the latent z, a decoder
makes the chunk from h and a draw of z; the loss is L1 + kl_weight KL(q(z) || N(0, 1)).
Acting needs no encoder: z is 0, the prior's mean, or drawn at a temperature above 0.
At each frame the chunks of the last frames that cover it are averaged (`ensemble`).

Differences: h stands for the images and joints there, and the networks are small beside
a backbone (hidden 128, 2 layers; facts of the original are 256, 4 and 8 heads, which
`head_options` gives). The decoder is one transformer over h, z and the places' queries.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda.chunks import action, networks


class ActHead(nn.Module):
    """Decodes a chunk of controllers at once; see the module and `heads`.

    Attributes:
      horizon: H, controllers in a chunk.
      kl_weight: factor on the divergence.
      latent: numbers of z.
      hidden, layers, heads: of both transformers.
      dtype: compute type of the products.
    """

    horizon: int
    kl_weight: float
    latent: int
    hidden: int
    layers: int
    heads: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        self.from_chunk = nn.Dense(self.hidden, dtype=self.dtype)
        self.from_h = nn.Dense(self.hidden, dtype=self.dtype)
        self.encoder = networks.Transformer(self.layers, self.heads, self.dtype)
        self.to_latent = nn.Dense(2 * self.latent, dtype=self.dtype)
        self.decoder_h = nn.Dense(self.hidden, dtype=self.dtype)
        self.decoder_z = nn.Dense(self.hidden, dtype=self.dtype)
        self.decoder = networks.Transformer(self.layers, self.heads, self.dtype)
        self.to_action = nn.Dense(action.SIZE, dtype=self.dtype)

    def objective(
        self, h_btd: jax.Array, batch: Batch, keys_bt: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """L1 + kl_weight KL of each frame's chunk, [B, T], and both terms."""
        clean, valid = action.encode(batch["chunk_btha"]), batch["chunk_valid_bth"]
        mean, log_variance = self.posterior(clean, valid, h_btd)
        noise = networks.frame_normal(keys_bt, (self.latent,))
        found = self.decode(h_btd, mean + jnp.exp(log_variance / 2) * noise)
        l1 = networks.chunk_mean(jnp.abs(found - clean), valid)
        kl = divergence(mean, log_variance)
        return l1 + self.kl_weight * kl, {"l1": l1, "kl": kl}

    def chunk(self, h_btd: jax.Array, key: jax.Array, temperature: float) -> jax.Array:
        """A chunk for each frame, [B, T, H, 13], of z = temperature x noise.

        Raises:
          ValueError: a temperature below 0.
        """
        if temperature < 0:
            raise ValueError(f"temperature {temperature} is below 0")
        z = jnp.zeros((*h_btd.shape[:2], self.latent))
        if temperature > 0:
            z = temperature * jax.random.normal(key, z.shape)
        return self.decode(h_btd, z)

    def posterior(
        self, clean: jax.Array, valid_bth: jax.Array, h_btd: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of z given the chunk, float32 [B, T, latent] each."""
        h = self.from_h(h_btd.astype(self.dtype))[..., None, :]
        chunk = self.from_chunk(clean.astype(self.dtype))
        # The first token is a place to gather what is read; it has only its position.
        tokens = jnp.concatenate([jnp.zeros_like(h), h, chunk], axis=-2)
        always = jnp.ones((*valid_bth.shape[:2], 2), bool)
        seen = jnp.concatenate([always, valid_bth], axis=-1)
        read = self.encoder(tokens, seen)[..., 0, :]
        mean, log_variance = jnp.split(self.to_latent(read), 2, axis=-1)
        return mean.astype(jnp.float32), log_variance.astype(jnp.float32)

    def decode(self, h_btd: jax.Array, z: jax.Array) -> jax.Array:
        """The chunk that h and z [B, T, latent] mean, float32 [B, T, H, 13]."""
        h = self.decoder_h(h_btd.astype(self.dtype))[..., None, :]
        given = self.decoder_z(z.astype(self.dtype))[..., None, :]
        queries = jnp.zeros((*h_btd.shape[:2], self.horizon, self.hidden), self.dtype)
        tokens = jnp.concatenate([h, given, queries], axis=-2)
        places = self.decoder(tokens)[..., 2:, :]
        return self.to_action(places).astype(jnp.float32)


def divergence(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, variance) || N(0, 1)) in nats, summed over the last axis."""
    terms = jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance
    return 0.5 * terms.sum(-1)
