"""Kolmogorov-Arnold networks: a learned function on every edge, no fixed ones."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import Initializer, lecun
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.splines import DEGREE, cubic_spline_basis


class SplineDense(nn.Module):
    """y_o = sum_i w_oi SiLU(x_i) + sum_ig c_oig B_g(x_i), as one matmul.

    The rows of the kernel [D (G + 4), O] are w, then c basis by basis.

    Attributes:
      features: O.
      grid: G, cells on [-1, 1].
      scale: factor on the initial kernel.
      dtype: type of the matmul; the basis is float32.
    """

    features: int
    grid: int
    scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Maps [..., D] on the grid to [..., O]."""
        rows = x_btd.shape[-1] * (self.grid + DEGREE + 1)
        kernel = self.param(
            "kernel", _spline_kernel(self.grid, self.scale), (rows, self.features)
        )

        # Eq. 2.10: w SiLU(x) + Σ c B(x), all inputs of all edges as one product.
        # The basis is G + 4 times as large as x: cheaper to make twice than to keep.
        @jax.checkpoint
        def product(x_btd: jax.Array, kernel: jax.Array) -> jax.Array:
            basis_btgd = cubic_spline_basis(x_btd, self.grid)
            basis_btk = basis_btgd.reshape(*x_btd.shape[:-1], -1)
            feature_btk = jnp.concatenate([nn.silu(x_btd), basis_btk], axis=-1)
            return feature_btk.astype(self.dtype) @ kernel.astype(self.dtype)

        return product(x_btd.astype(jnp.float32), kernel)


class KAN(Mixer):
    """Layers of splines, each frame by itself: a backbone, or a block's second half.

    Equations:
      each stage:  u = tanh(LN(x));  x = W [SiLU(u), B(u)]
      B the cubic B-splines on a grid of [-1, 1];  output  x after the last stage

    Source: Liu et al. 2024, arXiv:2404.19756, eq. 2.10 to 2.12.

    Differences:
      - Inputs are brought to the grid, normalised and squashed, instead of the grid to
        the inputs, so the grid is never refitted.
      - SiLU sees the same u as the splines.
      - Each basis function has one coefficient, and there is no factor on their sum.

    Attributes:
      stages: layers of splines, the paper's depth.
      grid: cells on [-1, 1]; G + 4 parameters for each edge.
    """

    stages: int = 2
    grid: int = 5

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; O((G + 4) D^2) work for a frame and stage."""
        for stage in range(self.stages):
            last = stage == self.stages - 1
            spline = SplineDense(
                self.width,
                self.grid,
                self.out_scale if last else 1.0,
                self.dtype,
                name="out" if last else f"stage_{stage}",
            )
            normalize = nn.LayerNorm(
                epsilon=1e-6,
                dtype=jnp.float32,
                use_scale=False,
                use_bias=False,
                use_fast_variance=False,
                name=f"norm_{stage}",
            )
            x_btd = spline(jnp.tanh(normalize(x_btd)))
        return x_btd, ()

    def check(self):
        for name in ("stages", "grid"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name}={value} of kan must be at least 1")


def _spline_kernel(grid: int, scale: float) -> Initializer:
    """Ordinary weights for SiLU; splines that start near 0, of size 0.1 / G."""

    def init(key, shape, dtype=jnp.float32):
        rows, features = shape
        inputs = rows // (grid + DEGREE + 1)
        keys = jax.random.split(key)
        base = lecun(scale)(keys[0], (inputs, features), dtype)
        size = scale * 0.1 / grid * inputs**-0.5
        shape = (rows - inputs, features)
        return jnp.concatenate([base, size * jax.random.normal(keys[1], shape, dtype)])

    return init
