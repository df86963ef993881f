"""Gated linear attention: a matrix state with a learned decay for every key channel."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.layers.heads import head_width, merge_heads, split_heads
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.ops.gated_linear import gated_linear_attention

# A gate below counts as this: the bound that `ops.decay` makes its chunks by.
LOWEST_LOGIT = -80.0
# Xavier with gain 2^-2.5, as the authors' code.
SMALL = nn.initializers.variance_scaling(2.0**-5, "fan_avg", "uniform")


class GLAState(NamedTuple):
    """Matrix state of each head, float32."""

    s_bhkv: jax.Array


class GLA(Mixer):
    """Gated linear attention: a matrix state, a decay for each key channel.

    Equations:
      q, k, v = W x;  α = sigmoid(W_2 W_1 x + b)^(1/16) for every key channel
      S_t = Diag(α_t) S_{t-1} + k_t v_t^T;  o_t = S_t^T q_t / sqrt(K)
      output  W_out (RMSNorm_head(o) * SiLU(W_gate x))

    No feature map and no normaliser. A sigmoid below e^-80, the gate of a logit under
    -80, counts as e^-80.

    Source: Yang et al. 2023, arXiv:2312.06635, eq. 3 and section 4.4.

    Attributes:
      heads: H; divides the key width.
      key_expansion: key width over model width; values are as wide as the model.
      gate_rank: rank of the decay's projection.
      temperature: the decay's sigmoid is raised to 1 / temperature.
    """

    heads: int = 4
    key_expansion: float = 0.5
    gate_rank: int = 16
    temperature: float = 16.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D K / H) work."""
        (s_bhkv,) = state or (None,)
        keys, heads = self._key_width(), self.heads

        def project(size: int, name: str) -> jax.Array:
            return self.dense(size, name, init=SMALL)(x_btd)

        q = split_heads(project(keys, "query"), heads)
        k = split_heads(project(keys, "key"), heads)
        v = split_heads(project(self.width, "value"), heads)
        # α = sigmoid(W_2 W_1 x + b)^(1/16), section 4.4
        rank = project(self.gate_rank, "decay_down").astype(jnp.float32)
        logit = nn.Dense(keys, kernel_init=SMALL, name="decay_up")(rank)
        log_decay = split_heads(jax.nn.log_sigmoid(logit) / self.temperature, heads)
        # Eq. 3, o_t = S_t^T q_t / sqrt(K)
        q = q.astype(jnp.float32) * q.shape[-1] ** -0.5
        floor = LOWEST_LOGIT / self.temperature
        o, s_bhkv = gated_linear_attention(
            q, k, v, log_decay, s_bhkv, reset_bt, floor=floor
        )
        o_btd = merge_heads(norm("rms", self.dtype, "head_norm", epsilon=1e-5)(o))
        y_btd = self.dense_out()(o_btd * nn.silu(project(self.width, "gate")))
        return y_btd, GLAState(s_bhkv)

    def state_shapes(self):
        keys, values = self._key_width() // self.heads, self.width // self.heads
        return GLAState((self.heads, keys, values))

    @nn.nowrap
    def _key_width(self) -> int:
        keys = round(self.key_expansion * self.width)
        head_width(self.width, self.heads)
        head_width(keys, self.heads)
        return keys
