"""From bytes to vectors and back: one table, used at both ends."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbench.tasks.task import Batch

BYTES = 256


class ByteTable(nn.Module):
    """A vector for each byte, normal with standard deviation 0.02.

    Attributes:
      width: D.
    """

    width: int

    def setup(self) -> None:
        init = nn.initializers.normal(0.02)
        self.table = self.param("byte_embedding", init, (BYTES, self.width))

    def __call__(self, bytes_bt: jax.Array) -> jax.Array:
        """x_btd in float32, the type of the residual stream."""
        return jnp.take(self.table.astype(jnp.float32), bytes_bt, axis=0)

    def logits(self, h_btd: jax.Array, dtype: Any) -> jax.Array:
        """h E^T, [..., 256]: the product in `dtype`, summed and returned in float32."""
        return jax.lax.dot_general(
            h_btd.astype(dtype),
            self.table.astype(dtype),
            (((h_btd.ndim - 1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )


class ByteEncoder(nn.Module):
    """The embedded bytes of a window, x_btd.

    Attributes:
      table: shared with the head.
    """

    table: ByteTable

    def __call__(self, batch: Batch) -> jax.Array:
        return self.table(batch["bytes_bt"])


class ByteHead(nn.Module):
    """Logits of the next byte, [B, T, 256], through the table of the encoder, no bias.

    Attributes:
      table: shared with the encoder.
      dtype: compute type of the product.
    """

    table: ByteTable
    dtype: Any = jnp.float32

    def __call__(self, h_btd: jax.Array, batch: Batch) -> jax.Array:
        del batch
        return self.table.logits(h_btd, self.dtype)
