"""Hawk: a real gated linear recurrence between a convolution and a GELU gate."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.diagonal import diagonal

# The paper's c: how much faster than its slowest a channel may forget.
SHARPNESS = 8.0
# Largest derivative of the square root: it is infinite where nothing is forgotten.
MAX_SLOPE = 1e3


class HawkState(NamedTuple):
    """What Hawk carries."""

    h_be: jax.Array  # state of the recurrence, float32
    conv_bwe: jax.Array  # last inputs of the short convolution, float32
    started_b: jax.Array  # whether a frame came before; bool


class Hawk(Mixer):
    """The recurrent block of Hawk and Griffin, with the RG-LRU.

    Equations:
      z, u = W x;  u = conv(u)
      r = sigmoid(W_r u + b_r);  i = sigmoid(W_i u + b_i);  log a_t = -8 softplus(L) r_t
      h_t = a_t h_{t-1} + sqrt(1 - a_t²) (i_t u_t)
      output  W_out (GELU(z) * h)

    W_r and W_i are block-diagonal. softplus(L) = -log s with s² uniform on [0.9²,
    0.999²] at the start.

    Source: De et al. 2024, arXiv:2402.19427, eq. 1 to 6 and section 2.3.

    Differences:
      - The recurrent width is by default that of the model, as in the released models;
        the text has 4/3 of it.
      - W_r and W_i have 4 blocks by default, fewer than the text's 16.
      - The initial decays are those of the authors' code: near s⁴ where the text has s.
      - The first frame of an episode enters without the square root, since there is
        nothing to make room for.

    Attributes:
      expansion: recurrent width E over model width; E is rounded to the nearest
        multiple of `heads`.
      heads: blocks of W_r and W_i.
      taps: length of the short convolution.
    """

    expansion: float = 1.0
    heads: int = 4
    taps: int = 4

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D E) work."""
        batch, inner = x_btd.shape[0], self._inner()
        project = self.dense(2 * inner, "project")
        unstarted = (None, None, jnp.zeros((batch,), bool))
        h_be, conv_bwe, started_b = state or unstarted
        z_bte, u_bte = jnp.split(project(x_btd), 2, axis=-1)
        conv = ShortConvolution(inner, self.dtype, self.taps, name="conv")
        u_bte, conv_bwe = conv(u_bte, conv_bwe, reset_bt)
        first_bt = jnp.zeros(x_btd.shape[:2], bool).at[:, 0].set(~started_b)
        if reset_bt is not None:
            first_bt = first_bt | reset_bt
        log_a_bte, b_bte = self._gates(u_bte.astype(jnp.float32), first_bt)
        y_bte, h_be = diagonal(jnp.exp(log_a_bte), b_bte, h_be, reset_bt)
        y_btd = self.dense_out()(nn.gelu(z_bte) * y_bte.astype(self.dtype))
        return y_btd, HawkState(h_be, conv_bwe, jnp.ones_like(started_b))

    def _gates(
        self, u_bte: jax.Array, first_bt: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """log a and what enters the recurrence, both [B, T, E]."""
        slowest_e = self.param("ssm_lambda", _lambda, (u_bte.shape[-1],))
        r_bte = nn.sigmoid(self._blocks("r", u_bte))
        i_bte = nn.sigmoid(self._blocks("i", u_bte))
        # Eq. 3 in the log, and the second term of eq. 4
        log_a_bte = -SHARPNESS * jax.nn.softplus(slowest_e)[None, None] * r_bte
        room_bte = _root(-jnp.expm1(2 * log_a_bte))
        room_bte = jnp.where(first_bt[..., None], 1.0, room_bte)
        return log_a_bte, room_bte * i_bte * u_bte

    def _blocks(self, name: str, u_bte: jax.Array) -> jax.Array:
        """A block-diagonal linear map with a bias."""
        batch, length, inner = u_bte.shape
        block = inner // self.heads
        kernel_hkj = self.param(
            f"{name}_kernel",
            nn.initializers.lecun_normal(batch_axis=(0,)),
            (self.heads, block, block),
        )
        bias_e = self.param(f"ssm_{name}_bias", nn.initializers.zeros, (inner,))
        u_bthk = u_bte.reshape(batch, length, self.heads, block)
        y_bthj = jnp.einsum("bthk,hkj->bthj", u_bthk, kernel_hkj)
        return y_bthj.reshape(u_bte.shape) + bias_e[None, None]

    def state_shapes(self):
        inner = self._inner()
        started = jax.ShapeDtypeStruct((), bool)
        return HawkState((inner,), (self.taps - 1, inner), started)

    @nn.nowrap
    def _inner(self) -> int:
        self.at_least(1, "heads")
        inner = self.heads * round(self.expansion * self.width / self.heads)
        if inner < 1:
            raise InputError(
                f"expansion={self.expansion} of width={self.width} leaves no channel "
                f"for each of heads={self.heads}; choose fewer heads or more expansion"
            )
        return inner


def _lambda(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    """L with exp(-softplus(L))^2 uniform on [0.9^2, 0.999^2]."""
    radius = jnp.sqrt(jax.random.uniform(key, shape, dtype, 0.9**2, 0.999**2))
    return jnp.log(1 / radius - 1)


@jax.custom_vjp
def _root(x: jax.Array) -> jax.Array:
    """sqrt(x) for x >= 0 with a derivative of at most `MAX_SLOPE`."""
    return jnp.sqrt(x)


def _root_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    root = jnp.sqrt(x)
    return root, root


def _root_backward(root: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (g / jnp.maximum(2 * root, 1 / MAX_SLOPE),)


_root.defvjp(_root_forward, _root_backward)
