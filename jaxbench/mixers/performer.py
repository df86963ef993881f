"""Performer: softmax attention to the whole past, estimated by random features."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import even_head_width
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.rotary import rotary
from jaxbench.ops.attention import positions
from jaxbench.ops.normalized_linear_attention import (
    NormalizedState,
    initial_state,
    normalized_linear_attention,
)

# Keeps every feature, and with it every weight of the past, above 0.
EPSILON = 1e-6


class PerformerState(NamedTuple):
    """What Performer carries."""

    # Sum of the features of the keys times the values, over e^m, float32.
    s_bhkv: jax.Array
    n_bhk: jax.Array  # sum of the features of the keys, over e^m, float32
    # Largest logarithm of a key's features so far, -inf at first, float32.
    m_bh: jax.Array
    position_b: jax.Array  # frames since the episode started, int32


class Performer(Mixer):
    """Causal attention with exp(q · k / sqrt(K)) estimated by random features.

    Equations:
      x' = x / K^(1/4) for rotated q and k;  φ(x) = exp(Ω x' - |x'|² / 2) / sqrt(M)
      o_t = Σ_s φ(q_t) · φ(k_s) v_s / Σ_s φ(q_t) · φ(k_s),  s <= t in the episode
      output  W_o concat(o)

    The rows of Ω are orthogonal in blocks, shared by the heads and never trained.

    Source: Choromanski et al. 2020, arXiv:2009.14794 (FAVOR+), lemma 1 and section 2.4.

    Differences:
      - Positions are rotary instead of absolute, and there are no biases.
      - Ω, the random directions, is not drawn anew during training.
      - Keys are scaled by their own largest feature, which the recurrence takes as an
        input gate, not by the largest of the whole sequence.

    Attributes:
      heads: H; D / H must be an even integer.
      features: M, random features of a query or key. The error of a weight falls as
        1 / sqrt(M) and grows as exp(|q'| |k'|).
    """

    heads: int = 4
    features: int = 64

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T (D^2 + M D)) work."""
        batch, length, _ = x_btd.shape
        head = self._head_width()
        omega_mk = self.variable(
            "constants",
            "omega",
            lambda: orthogonal_features(self.make_rng("params"), self.features, head),
        ).value
        qkv = self.dense(3 * self.width, "qkv")
        shape = (batch, length, 3, self.heads, head)
        q_bthk, k_bthk, v_bthk = jnp.moveaxis(qkv(x_btd).reshape(shape), 2, 0)
        start_b = jnp.zeros((batch,), jnp.int32) if state is None else state.position_b
        position_bt, position_b = positions(start_b, reset_bt, length)
        # The scale of a query's features is that of its sum, so it cancels.
        q_bthm, _ = positive_features(rotary(q_bthk, position_bt), omega_mk)
        k_bthm, log_i_bth = positive_features(rotary(k_bthk, position_bt), omega_mk)
        o_bthk, memory = normalized_linear_attention(
            q_bthm,
            k_bthm,
            v_bthk,
            jnp.zeros_like(log_i_bth),
            log_i_bth,
            None if state is None else NormalizedState(*state[:3]),
            reset_bt,
            normalizer="sum",
        )
        y_btd = self.dense_out()(o_bthk.reshape(x_btd.shape))
        return y_btd, PerformerState(*memory, position_b)

    @nn.nowrap
    def initial_state(self, batch_size):
        """The sums over no frame, at position 0."""
        head = self._head_width()
        memory = initial_state(
            batch_size, heads=self.heads, key_size=self.features, value_size=head
        )
        return PerformerState(*memory, jnp.zeros((batch_size,), jnp.int32))

    @nn.nowrap
    def _head_width(self) -> int:
        self.at_least(1, "features")
        return even_head_width(self.width, self.heads)


def orthogonal_features(key: jax.Array, count: int, width: int) -> jax.Array:
    """Draws Omega: `count` Gaussian directions, orthogonal in blocks of `width`.

    Each row has the distribution of a standard normal vector: a direction from a
    random orthogonal matrix, and the norm of an independent normal vector
    (Choromanski et al. 2020, section 2.4). Returns float32 [count, width].
    """
    direction_key, norm_key = jax.random.split(key)
    blocks = -(-count // width)
    direction = jax.random.orthogonal(direction_key, width, (blocks,))
    direction = direction.reshape(-1, width)[:count]
    normal = jax.random.normal(norm_key, (count, width))
    return direction * jnp.linalg.norm(normal, axis=-1, keepdims=True)


def positive_features(
    x_bthk: jax.Array, omega_mk: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """FAVOR+ features of queries or keys, their largest one split off.

    With phi(x) = e^scale * features, the mean of phi(q) . phi(k) over Omega is
    exp(q . k / sqrt(K)), but for 1e-6 that keeps every feature positive. The scale
    carries the gradient of -|x|^2 / (2 sqrt(K)) only: what else it does, it takes back
    from the features.

    Args:
      x_bthk: queries or keys.
      omega_mk: from `orthogonal_features`.

    Returns:
      features_bthm, between 0 and about 1 / sqrt(M), and scale_bth, float32.
    """
    x_bthk = x_bthk.astype(jnp.float32) * x_bthk.shape[-1] ** -0.25
    # Lemma 1: exp(q · k) is the mean of φ(q) · φ(k) with φ(x) = exp(Ω x - |x|² / 2).
    # An error of a logit is a relative error of the weight.
    logit_bthm = jnp.einsum(
        "bthk,mk->bthm", x_bthk, omega_mk, precision=jax.lax.Precision.HIGHEST
    )
    largest_bth = jax.lax.stop_gradient(logit_bthm.max(-1))
    features_bthm = jnp.exp(logit_bthm - largest_bth[..., None])
    features_bthm = features_bthm * omega_mk.shape[0] ** -0.5 + EPSILON
    return features_bthm, largest_bth - jnp.square(x_bthk).sum(-1) / 2
