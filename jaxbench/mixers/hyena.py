"""Hyena: gates and a long convolution whose filter a small network writes."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.mixer import Mixer
from jaxbench.layers.short_convolution import ShortConvolution
from jaxbench.ops.convolution import causal_convolution, short_convolution, toeplitz

# The window falls to TARGET at these fractions of the filter: slowest, fastest channel.
TARGET = 1e-2
SLOW, FAST = 1.5, 0.3
# Lowest frequency among the position features.
LOWEST = 1e-4


class HyenaState(NamedTuple):
    """What Hyena carries."""

    # Last filter_length - 1 gated inputs of the long filter, oldest first, float32.
    long_bwd: jax.Array
    short_bwe: jax.Array  # last inputs of the short convolution, float32


class Hyena(Mixer):
    """Order 2: a gate, a long convolution, a gate.

    Equations:
      g, k, v = conv(W x);  u = k * v
      h_l = exp(-a l) MLP(position features of l), sine activations
      z_t = Σ_l h_l u_{t-l} + s u_t,  l < filter_length
      output  W_o (g * z)

    The filter ends after `filter_length` frames, so a ring of the last inputs streams
    exactly what a window computes, at O(filter_length D) a frame.

    Source: Poli et al. 2023, arXiv:2302.10866, sections 3.1 to 3.3 and appendix A.

    Differences:
      - As in the authors' code the short convolution stands for the first of the two
        long ones of the definition, and s is added.
      - The filter has a fixed length of 64 frames, not that of the sequence, so that a
        stream computes what a window does.
      - The sines start with the factor 1, not 14, which is for filters of 2048 frames.
      - The projections have no biases.

    Attributes:
      filter_length: frames the long filter spans.
      filter_width: hidden width of the network that writes it.
      filter_layers: its hidden layers.
      bands: frequencies among the position features.
      taps: length of the short convolution.
      sine_frequency: initial factor inside the sines, learned. The paper's 14 is for
        filters of 2048 frames; every layer multiplies rounding errors by it, which
        reach 1e-3 of the output with three layers of 14.
    """

    filter_length: int = 64
    filter_width: int = 64
    filter_layers: int = 3
    bands: int = 16
    taps: int = 3
    sine_frequency: float = 1.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T filter_length D) work or less."""
        long_bwd, short_bwe = state or (None, None)
        project = self.dense(3 * self.width, "project")
        conv = ShortConvolution(3 * self.width, self.dtype, self.taps, name="conv")
        gkv_bte, short_bwe = conv(project(x_btd), short_bwe, reset_bt)
        g_btd, k_btd, v_btd = jnp.split(gkv_bte.astype(jnp.float32), 3, axis=-1)
        z_btd, long_bwd = _long_convolution(
            k_btd * v_btd, self._filter(), long_bwd, reset_bt
        )
        return self.dense_out()(g_btd * z_btd), HyenaState(long_bwd, short_bwe)

    def _filter(self) -> jax.Array:
        """The taps [L, D], tap 0 for the current frame, with s added to it."""
        h_lf = jnp.asarray(_position_features(self.filter_length, self.bands))
        frequency_f = self.param(
            "frequency",
            nn.initializers.constant(self.sine_frequency),
            (self.filter_width,),
        )
        # Each sine magnifies what the layer before it lost to rounding.
        exact = jax.lax.Precision.HIGHEST
        for index in range(self.filter_layers):
            layer = nn.Dense(self.filter_width, precision=exact, name=f"filter_{index}")
            h_lf = jnp.sin(frequency_f[None] * layer(h_lf))
        out = nn.Dense(self.width, use_bias=False, precision=exact, name="filter_out")
        k_ld = out(h_lf)
        k_ld = k_ld * jnp.asarray(_window(self.filter_length, self.width))
        skip_d = self.param("skip", nn.initializers.normal(1.0), (self.width,))
        return k_ld.at[0].add(skip_d)

    def check(self):
        sizes = ("filter_length", "filter_width", "filter_layers", "bands", "taps")
        self.at_least(1, *sizes)

    def state_shapes(self):
        return HyenaState(
            (self.filter_length - 1, self.width), (self.taps - 1, 3 * self.width)
        )


def _position_features(length: int, bands: int) -> np.ndarray:
    """l / (L - 1), and cos and -sin of 2 pi f l / L, f evenly from 1e-4 to bands - 1.

    At f = 0, where the authors' code does not start, the sine would be 0 for every l.
    """
    place_l = np.arange(length)
    frequency_f = np.linspace(LOWEST, bands - 1, bands)
    angle_lf = 2 * math.pi / length * np.outer(place_l, frequency_f)
    age_l1 = place_l[:, None] / max(length - 1, 1)
    features = np.concatenate([age_l1, np.cos(angle_lf), -np.sin(angle_lf)], axis=1)
    return features.astype(np.float32)


def _window(length: int, width: int) -> np.ndarray:
    """Exponential decay along the filter, at a rate of its own for each channel."""
    age_l = np.arange(length) / max(length - 1, 1)
    rate_d = -math.log(TARGET) * np.linspace(1 / SLOW, 1 / FAST, width)
    return np.exp(-np.outer(age_l, rate_d)).astype(np.float32)


def _long_convolution(
    u_btd: jax.Array,
    k_ld: jax.Array,
    ring_bwd: jax.Array | None,
    reset_bt: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """`short_convolution` of many taps, tap 0 first: what it returns, several times
    faster on a window, because inputs before the call go in as one matmul for each
    channel, and not at all where there are none.
    """
    (batch, length, width), ring = u_btd.shape, k_ld.shape[0] - 1
    if length == 1 or ring == 0:
        return short_convolution(u_btd, k_ld[::-1], None, ring_bwd, reset_bt)
    z_btd = causal_convolution(u_btd, k_ld, reset_bt)
    if ring_bwd is None:
        ring_bwd = jnp.zeros((batch, ring, width), jnp.float32)
    else:
        z_btd = z_btd + _from_before(ring_bwd, k_ld, reset_bt, length)
    seen = jnp.concatenate([ring_bwd, u_btd], axis=1)[:, length:]
    if reset_bt is not None:
        episode = jnp.cumsum(reset_bt.astype(jnp.int32), axis=1)
        episode = jnp.pad(episode, ((0, 0), (ring, 0)))[:, length:]
        seen = jnp.where((episode == episode[:, -1:])[..., None], seen, 0)
    return z_btd, seen


def _from_before(
    ring_bwd: jax.Array, k_ld: jax.Array, reset_bt: jax.Array | None, length: int
) -> jax.Array:
    """What inputs before the call add to its frames, [B, T, D]."""
    ring = ring_bwd.shape[1]
    reached = min(length, ring)
    # Frame t meets slot w at lag ring + t - w, which the filter has for w >= t.
    taps_dtw = toeplitz(k_ld[:0:-1].T)[:, :reached]
    z_btd = jnp.einsum(
        "dtw,bwd->btd", taps_dtw, ring_bwd, precision=jax.lax.Precision.HIGHEST
    )
    if reset_bt is not None:
        fresh = jnp.cumsum(reset_bt[:, :reached], axis=1) > 0
        z_btd = jnp.where(fresh[..., None], 0, z_btd)
    return jnp.pad(z_btd, ((0, 0), (0, length - reached), (0, 0)))
