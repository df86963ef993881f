"""Maps of one frame by itself: the floor under every temporal backbone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class FrameMLP(nn.Module):
    """GELU(LayerNorm(W x + b)): one hidden layer, no information along time.

    Attributes:
      width: model width D.
      dtype: compute type.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, state: tuple[()] | None = None, reset_bt: Any = None
    ) -> tuple[jax.Array, tuple[()]]:
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        del state, reset_bt
        y_btd = nn.Dense(self.width, dtype=self.dtype)(x_btd)
        y_btd = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, use_fast_variance=False)(
            y_btd
        )
        return nn.gelu(y_btd), ()

    @nn.nowrap
    def initial_state(self, batch_size: int) -> tuple[()]:
        """Returns the empty state."""
        del batch_size
        return ()


class LastFrameMLP(nn.Module):
    """W3 ReLU(W2 ReLU(W1 x + b1) + b2) + b3, meant to stand alone.

    What the original benchmark ran under the names SNN, NTM and Bayesian: no memory,
    no spikes, no sampled weights, and neither norm nor residual.

    Attributes:
      width: model width D, of all three layers.
      dtype: compute type.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_btd: jax.Array, state: tuple[()] | None = None, reset_bt: Any = None
    ) -> tuple[jax.Array, tuple[()]]:
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        del state, reset_bt
        y_btd = nn.relu(nn.Dense(self.width, dtype=self.dtype)(x_btd))
        y_btd = nn.relu(nn.Dense(self.width, dtype=self.dtype)(y_btd))
        return nn.Dense(self.width, dtype=self.dtype)(y_btd), ()

    @nn.nowrap
    def initial_state(self, batch_size: int) -> tuple[()]:
        """Returns the empty state."""
        del batch_size
        return ()
