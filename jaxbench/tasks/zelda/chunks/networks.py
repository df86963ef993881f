"""Small networks over chunks, conditioned on the backbone's output."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.norms import norm
from jaxbench.layers.sinusoid import sinusoid
from jaxbench.tasks.zelda.chunks import action

# Times come in [0, 1]; sinusoids tell positions of about this range apart.
_TIME_RANGE = 100.0


class Denoiser(nn.Module):
    """A residual MLP on a whole noisy chunk, given h and the time of the process.

    x = W chunk; x += W_2 SiLU(W_1 (norm(x) + c)) in each layer, c = W_h h + e(time), e
    a sinusoid through two products. The last product starts at zero.

    Attributes:
      hidden: width; each layer widens it twice.
      layers: how many.
      dtype: compute type of the products; the result is float32.
    """

    hidden: int
    layers: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x_bthc: jax.Array, h_btd: jax.Array, time_bt: jax.Array
    ) -> jax.Array:
        """What the process asks for (noise, or velocity), [B, T, H, 13].

        Args:
          x_bthc: the chunk on its way.
          h_btd: of the frames.
          time_bt: in [0, 1].
        """
        wave = sinusoid(_TIME_RANGE * time_bt, self.hidden).astype(self.dtype)
        e_btd = self._dense(self.hidden, "time_1")(wave)
        e_btd = self._dense(self.hidden, "time_2")(nn.silu(e_btd))
        c_btd = self._dense(self.hidden, "h")(h_btd.astype(self.dtype)) + e_btd
        flat = x_bthc.reshape(*x_bthc.shape[:2], -1).astype(self.dtype)
        x = self._dense(self.hidden, "input")(flat)
        for i in range(self.layers):
            y = _layer_norm(self.dtype, f"norm_{i}")(x) + c_btd
            y = nn.silu(self._dense(2 * self.hidden, f"up_{i}")(y))
            x = x + self._dense(self.hidden, f"down_{i}")(y)
        x = _layer_norm(self.dtype, "norm")(x)
        out = nn.Dense(
            flat.shape[-1],
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            name="output",
        )(x)
        return out.reshape(x_bthc.shape).astype(jnp.float32)

    def _dense(self, width: int, name: str) -> nn.Dense:
        return nn.Dense(width, dtype=self.dtype, name=name)


class Transformer(nn.Module):
    """Pre-norm attention to all tokens and MLP, on a few tokens [..., N, E].

    Source: Vaswani et al. 2017, arXiv:1706.03762, with the norms before the parts and
    learned positions.

    Attributes:
      layers: how many.
      heads: of attention; they divide E.
      dtype: compute type.
    """

    layers: int
    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array | None = None) -> jax.Array:
        """The tokens after all layers.

        Args:
          x: [..., N, E].
          seen: bool [..., N], tokens that may be attended to; None for all.
        """
        count, width = x.shape[-2:]
        place = self.param("place", nn.initializers.normal(0.02), (count, width))
        x = x + place.reshape((1,) * (x.ndim - 2) + place.shape).astype(self.dtype)
        mask = None if seen is None else seen[..., None, None, :]
        for i in range(self.layers):
            y = _layer_norm(self.dtype, f"norm_attention_{i}")(x)
            x = x + nn.MultiHeadDotProductAttention(
                self.heads, dtype=self.dtype, name=f"attention_{i}"
            )(y, y, mask=mask)
            y = _layer_norm(self.dtype, f"norm_mlp_{i}")(x)
            y = nn.Dense(4 * width, dtype=self.dtype, name=f"up_{i}")(y)
            x = x + nn.Dense(width, dtype=self.dtype, name=f"down_{i}")(nn.gelu(y))
        return _layer_norm(self.dtype, "norm")(x)


def frame_keys(key: jax.Array, row_bt: jax.Array) -> jax.Array:
    """A random key for each frame, of the frame's number alone, [B, T]."""
    fold = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))
    return fold(key, row_bt)


def frame_normal(keys_bt: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A standard normal array for each frame's key, [B, T, *shape]."""

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.normal(key, shape)

    return jax.vmap(jax.vmap(draw))(keys_bt)


def start(
    key: jax.Array, temperature: float, h_btd: jax.Array, horizon: int
) -> jax.Array:
    """Where a process begins: noise times the temperature, [B, T, H, 13].

    At temperature 0 it is one fixed draw, the same for every frame, so that the chunk
    depends on h alone. Zero would not do: of a hundred numbers of noise none is ever
    near it, and a network asked there answers with anything.

    Raises:
      ValueError: a temperature below 0.
    """
    if temperature < 0:
        raise ValueError(f"temperature {temperature} is below 0")
    shape = (*h_btd.shape[:2], horizon, action.SIZE)
    if temperature == 0:
        # A constant of the program: neither drawn at every call, nor in the way of an
        # export to a format that draws nothing.
        with jax.ensure_compile_time_eval():
            fixed = jax.random.normal(jax.random.key(0), shape[2:])
        return jnp.broadcast_to(fixed[None, None], shape)
    return temperature * jax.random.normal(key, shape)


def chunk_mean(x_bthc: jax.Array, valid_bth: jax.Array) -> jax.Array:
    """Mean over the places of a chunk that count and their 13 numbers, [B, T]."""
    count = jnp.maximum(valid_bth.sum(-1), 1).astype(jnp.float32)
    return jnp.where(valid_bth[..., None], x_bthc, 0).mean(-1).sum(-1) / count


def _layer_norm(dtype: Any, name: str) -> nn.Module:
    made = norm("layer", dtype, name)
    assert made is not None
    return made
