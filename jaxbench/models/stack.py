"""Depth: the layers of a backbone one after the other."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.norms import norm
from jaxbench.models.backbone import Layer
from jaxbench.models.block import Block

# One entry for each layer: its mixer's state.
StackState = tuple[Any, ...]


class Stack(nn.Module):
    """Blocks in order, then the norm of the last layer's kind.

    Parameters live under `blocks_<i>`, i the layer's index. Equal layers marked as
    shared use the parameters of the first of them; each keeps its own state.

    Attributes:
      layers: what to build, from `Backbone.layers`.
      width: model width D.
      dtype: compute type.
      dropout: rate on the residual branches.
      remat: recompute each block in the backward pass: memory of one block instead of
        all, for one more forward pass. Values and parameter paths do not change.
    """

    layers: tuple[Layer, ...]
    width: int
    dtype: Any = jnp.float32
    dropout: float = 0.0
    remat: bool = False

    def setup(self) -> None:
        # last_only is static; index 0 is the module itself.
        block = nn.remat(Block, static_argnums=(4,)) if self.remat else Block
        branches = sum(1 + (layer.channel != "none") for layer in self.layers)
        self.blocks = {
            str(index): block(layer, self.width, self.dtype, self.dropout, branches)
            for index, layer in enumerate(self.layers)
            if self._weights_of(index) == index
        }
        self.norm = norm(self.layers[-1].norm, self.dtype)

    def __call__(
        self,
        x_btd: jax.Array,
        state: StackState | None = None,
        reset_bt: jax.Array | None = None,
        last_only: bool = False,
    ) -> tuple[jax.Array, StackState]:
        """Runs the layers.

        Args:
          x_btd: embedded frames, [B, T, D]; its type is the type of the residual
            stream.
          state: from `initial_state` or the previous call; None is the initial one.
          reset_bt: bool [B, T], true where an episode starts; None for no resets.
          last_only: return the last frame only. All that comes after the last layer
            that moves information along time is then computed for that frame alone.

        Returns:
          Normalised features, [B, T, D] ([B, 1, D] with `last_only`), and the state
          after the last frame.
        """
        temporal = [i for i, layer in enumerate(self.layers) if layer.temporal]
        cut = temporal[-1] if temporal else -1
        if last_only and cut < 0:
            x_btd, reset_bt = x_btd[:, -1:], None
        states = []
        for index in range(len(self.layers)):
            block = self.blocks[str(self._weights_of(index))]
            block_state = None if state is None else state[index]
            cut_here = last_only and index == cut
            x_btd, block_state = block(x_btd, block_state, reset_bt, cut_here)
            if cut_here:
                reset_bt = None
            states.append(block_state)
        if self.norm is not None:
            x_btd = self.norm(x_btd)
        return x_btd, tuple(states)

    def initial_state(self, batch_size: int) -> StackState:
        """Returns the state an episode starts from, one entry for each layer."""
        return tuple(
            self.blocks[str(self._weights_of(index))].initial_state(batch_size)
            for index in range(len(self.layers))
        )

    @nn.nowrap
    def _weights_of(self, index: int) -> int:
        """Index of the layer whose parameters layer `index` uses."""
        layer = self.layers[index]
        return self.layers.index(layer) if layer.shared else index
