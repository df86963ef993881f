"""From tokens to vectors and back, at the positions that are asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbench.data.synthetic.event import IGNORE
from jaxbench.errors import InputError
from jaxbench.models.backbone import resolve
from jaxbench.tasks.task import Batch


def learns_positions(model: Mapping[str, Any]) -> bool:
    """Whether tokens get learned positions; "row" is what the backbone asks for.

    Args:
      model: that section of a recipe.
    """
    if model["positions"] == "row":
        return resolve(model["backbone"]).learned_positions
    return model["positions"] == "learned"


class TokenTable(nn.Module):
    """A vector for each token, normal with mean 0.

    Attributes:
      vocabulary: V.
      width: D.
      scale: standard deviation.
    """

    vocabulary: int
    width: int
    scale: float = 0.02

    def setup(self) -> None:
        init = nn.initializers.normal(self.scale)
        self.table = self.param("token_embedding", init, (self.vocabulary, self.width))

    def __call__(self, tokens_bt: jax.Array) -> jax.Array:
        """x_btd in float32, the type of the residual stream."""
        return jnp.take(self.table.astype(jnp.float32), tokens_bt, axis=0)

    def logits(self, h_bmd: jax.Array, dtype: Any) -> jax.Array:
        """h E^T, [..., V]: the product in `dtype`, summed and returned in float32."""
        return jax.lax.dot_general(
            h_bmd.astype(dtype),
            self.table.astype(dtype),
            (((h_bmd.ndim - 1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )


class TokenEncoder(nn.Module):
    """Embedded tokens, plus a learned vector for each position where asked for.

    Attributes:
      table: shared with the head.
      positions: how many positions have a vector; 0 for no positions.
      scale: standard deviation of those vectors.
      dropout: rate on the sum, on exactly when the rng stream "dropout" is given.
    """

    table: TokenTable
    positions: int = 0
    scale: float = 0.02
    dropout: float = 0.0

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        x_btd = self.table(batch["tokens_bt"])
        if self.positions:
            length = x_btd.shape[1]
            if length > self.positions:
                raise InputError(
                    f"a sequence of {length} tokens is longer than the "
                    f"{self.positions} positions the model has learned"
                )
            init = nn.initializers.normal(self.scale)
            shape = (self.positions, self.table.width)
            table_td = self.param("position_embedding", init, shape)
            x_btd = x_btd + table_td[None, :length].astype(jnp.float32)
        drop = nn.Dropout(self.dropout)
        return drop(x_btd, deterministic=not self.has_rng("dropout"))


class TokenHead(nn.Module):
    """Logits [B, M, V] at the positions that are asked, through the encoder's table.

    Attributes:
      table: shared with the encoder.
      dtype: compute type of the product.
    """

    table: TokenTable
    dtype: Any = jnp.float32

    def __call__(self, h_btd: jax.Array, batch: Batch) -> jax.Array:
        place_bm = batch["position_bm"]
        h_bmd = jnp.take_along_axis(h_btd, place_bm[:, :, None], axis=1)
        return self.table.logits(h_bmd, self.dtype)


def gather(
    answers: Mapping[int, int], arrays: Mapping[str, jax.Array], rows_b2t: jax.Array
) -> Batch:
    """Tokens and what is asked of them.

    Args:
      answers: sequence length -> the most targets a sequence of that length has.
      arrays: not needed: the rows hold everything.
      rows_b2t: tokens and targets.

    Returns:
      "tokens_bt"; "position_bm", where targets stand, in their order; "target_bm", the
      targets, `IGNORE` where a sequence has fewer.
    """
    del arrays
    tokens_bt, targets_bt = rows_b2t[:, 0], rows_b2t[:, 1]
    asked_bt = (targets_bt != IGNORE).astype(jnp.int32)
    # Of equal values top_k gives the first ones first.
    _, place_bm = jax.lax.top_k(asked_bt, answers[tokens_bt.shape[1]])
    return {
        "tokens_bt": tokens_bt,
        "position_bm": place_bm,
        "target_bm": jnp.take_along_axis(targets_bt, place_bm, axis=1),
    }
