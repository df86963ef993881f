"""Position-wise channel mixers: what a block does between its time mixers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.inits import lecun


class MLP(nn.Module):
    """Dense to `expansion` times the width, GELU, Dense back.

    Attributes:
      width: model width.
      dtype: compute type; parameters are float32.
      out_scale: factor on the initial output projection.
      expansion: hidden width over model width; 4 as in Vaswani et al. 2017.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0
    expansion: int = 4

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Maps each frame by itself, [B, T, D] to [B, T, D]."""
        hidden = nn.Dense(self.expansion * self.width, dtype=self.dtype, name="in")
        out = nn.Dense(
            self.width, dtype=self.dtype, kernel_init=lecun(self.out_scale), name="out"
        )
        return out(nn.gelu(hidden(x_btd)))


class GLU(nn.Module):
    """SwiGLU: W_out (SiLU(W_gate x) * W_in x), without biases.

    Source: Shazeer 2020, arXiv:2002.05202, eq. 6. The hidden width is 8/3 of the model
    width, the nearest multiple of 64 (at least 64): as many parameters as `MLP`.

    Attributes:
      width: model width.
      dtype: compute type; parameters are float32.
      out_scale: factor on the initial output projection.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Maps each frame by itself, [B, T, D] to [B, T, D]."""
        hidden = max(64, 64 * round(8 * self.width / 3 / 64))
        gate_value = nn.Dense(2 * hidden, use_bias=False, dtype=self.dtype, name="in")
        out = nn.Dense(
            self.width,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=lecun(self.out_scale),
            name="out",
        )
        gate, value = jnp.split(gate_value(x_btd), 2, axis=-1)
        return out(nn.silu(gate) * value)
