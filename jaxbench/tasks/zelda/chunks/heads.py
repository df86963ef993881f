"""Heads that answer with chunks: what they share, and how to make one.

`head(h_btd, batch)` gives objective_bt and its terms where the batch has chunks, and in
evaluation action_bthc too, the chunk decided on at temperature 0. The rng stream
"noise" is there in training only. Without it, noise is drawn by a key of each frame's
own, so a validation gives the same numbers however its frames are batched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda.chunks import action, networks, options
from jaxbench.tasks.zelda.chunks.act import ActHead
from jaxbench.tasks.zelda.chunks.diffusion import DiffusionHead
from jaxbench.tasks.zelda.chunks.flow_matching import FlowMatchingHead

POLICIES: dict[str, type[nn.Module]] = {
    "diffusion": DiffusionHead,
    "act": ActHead,
    "flow_matching": FlowMatchingHead,
}


class ChunkHead(nn.Module):
    """A policy over chunks as a head of the model.

    Attributes:
      policy: one of `POLICIES`.
      ensembled: whether acting averages over chunks, see `ensemble`.
    """

    policy: Any
    ensembled: bool

    def __call__(self, h_btd: jax.Array, batch: Batch) -> dict[str, Any]:
        """objective_bt [B, T], terms {name: [B, T]}, action_bthc [B, T, H, 13].

        The first two where the batch has chunks, the last in evaluation.
        """
        outputs: dict[str, Any] = {}
        if self.is_initializing() and "chunk_btha" not in batch:
            batch = batch | _any_chunk(h_btd, self.policy.horizon)
        if "chunk_btha" in batch:
            key = jax.random.key(0)
            if self.has_rng("noise"):
                key = self.make_rng("noise")
            keys_bt = networks.frame_keys(key, batch["chunk_row_bt"])
            objective, terms = self.policy.objective(h_btd, batch, keys_bt)
            outputs |= {"objective_bt": objective, "terms": terms}
        # Acting costs many calls of the network, and its values no gradient.
        if not self.has_rng("noise") and not self.is_initializing():
            outputs["action_bthc"] = self.chunk(h_btd, jax.random.key(0), 0.0)
        return outputs

    def chunk(
        self, h_btd: jax.Array, key: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """A chunk for each frame, [B, T, H, 13].

        The temperature is a factor on the noise a chunk is made of: 1 draws from what
        was learned. 0 draws nothing: of a process the noise is then one that is fixed,
        of `act` there is none, and the chunk depends on h alone.
        """
        return self.policy.chunk(h_btd, key, temperature)

    def sample(
        self, h_btd: jax.Array, key: jax.Array, temperature: float = 1.0
    ) -> jax.Array:
        """The first controller of a chunk, int32 [B, T, 6]."""
        return action.decode(self.chunk(h_btd, key, temperature)[..., 0, :])


def make(name: str, given: Mapping[str, Any], dtype: Any = jnp.float32) -> ChunkHead:
    """The head of a policy type.

    Args:
      name: one of `POLICIES`.
      given: settings, see `options.DEFAULTS`.
      dtype: compute type.

    Raises:
      InputError: see `options.resolve`.
    """
    policy = POLICIES[name](**options.resolve(name, given), dtype=dtype)
    return ChunkHead(policy=policy, ensembled=name == "act")


def _any_chunk(h_btd: jax.Array, horizon: int) -> Batch:
    """Chunks to make parameters with: only their shapes count."""
    shape = h_btd.shape[:2]
    return {
        "chunk_btha": jnp.zeros((*shape, horizon, 6), jnp.int32),
        "chunk_valid_bth": jnp.ones((*shape, horizon), bool),
        "chunk_row_bt": jnp.zeros(shape, jnp.int32),
    }
