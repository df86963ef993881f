"""Maps of one frame by itself: the floor under every temporal backbone."""

from __future__ import annotations

from flax import linen as nn

from jaxbench.layers.mixer import Mixer


class FrameMLP(Mixer):
    """One hidden layer for each frame: no information moves along time.

    Equations:
      output  GELU(LayerNorm(W x + b))
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        y_btd = nn.Dense(self.width, dtype=self.dtype)(x_btd)
        y_btd = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, use_fast_variance=False)(
            y_btd
        )
        return nn.gelu(y_btd), ()


class LastFrameMLP(Mixer):
    """Three layers for each frame, meant to stand alone.

    Equations:
      output  W_3 ReLU(W_2 ReLU(W_1 x + b_1) + b_2) + b_3

    What the original benchmark ran under the names SNN, NTM and Bayesian: no memory, no
    spikes, no sampled weights, and neither norm nor residual.
    """

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        y_btd = nn.relu(nn.Dense(self.width, dtype=self.dtype)(x_btd))
        y_btd = nn.relu(nn.Dense(self.width, dtype=self.dtype)(y_btd))
        return nn.Dense(self.width, dtype=self.dtype)(y_btd), ()
