"""RWKV-6 (Finch): linear attention, a data-dependent decay for every key channel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import GroupNorm, head_count, merge_heads, split_heads
from jaxbench.layers.inits import symmetric_uniform
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.token_shift import (
    ChannelMixState,
    TimeMixState,
    time_mix_shapes,
    token_shift,
)
from jaxbench.ops.gated_linear import gated_linear_attention

SHIFTS = ("decay", "key", "value", "receptance", "gate")


class TimeMix(Mixer):
    """RWKV-6's recurrence over mixtures of each frame with the one before.

    Equations:
      w = exp(-exp(w_0 + tanh(x_w W_1) W_2)) for every key channel
      o_t = (S_{t-1} + Diag(u) k_t v_t^T)^T r_t;  S_t = Diag(w_t) S_{t-1} + k_t v_t^T
      output  W_out (GroupNorm(o) * SiLU(g))

    Inputs of the five projections are x + (x_{t-1} - x) * (μ + lora(x)).

    Initial values are those of the authors' training code (BlinkDL/RWKV-LM,
    RWKV-v5/src/model.py, `RWKV_Tmix_x060` and `generate_init_weight`): orthogonal
    kernels, key and gate of gain 0.1, W_out zero (`out_scale` is not read), the group
    norm's scales ((1 + l) / L)^0.7 in layer l of L.

    Source: Peng et al. 2024, arXiv:2404.05892, eq. 14 to 19.

    Attributes:
      heads: H; 0 is one head for 64 channels.
      shift_rank: rank of the data-dependent token shift.
      decay_rank: rank of the data-dependent decay.
    """

    layer: int = 0
    layers: int = 1
    heads: int = 0
    shift_rank: int = 32
    decay_rank: int = 64

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        heads = head_count(self.width, self.heads)
        s_bhkv, x_bd = state or (None, None)
        shifted, x_bd = token_shift(x_btd, x_bd, reset_bt)
        mixed = self._mixed(x_btd, shifted - x_btd)

        def project(name: str) -> jax.Array:
            gain = 0.1 if name in ("key", "gate") else 1.0
            init = nn.initializers.orthogonal(gain)
            return self.dense(self.width, name, init=init)(mixed[name])

        r, k, v = (
            split_heads(project(name), heads).astype(jnp.float32)
            for name in ("receptance", "key", "value")
        )
        # u, the bonus, weighs a frame's own write in its read-out.
        o, s_bhkv = gated_linear_attention(
            r,
            k,
            v,
            split_heads(self._log_decay(mixed["decay"]), heads),
            s_bhkv,
            reset_bt,
            bonus_hk=self.param("bonus", self._bonus, (heads, self.width // heads)),
        )
        # The authors scale epsilon with the square of the head size over 8.
        epsilon = 1e-5 * (self.width // heads)
        scale = ((1 + self.layer) / self.layers) ** 0.7
        norm = GroupNorm(heads, self.dtype, epsilon, scale, name="head_norm")
        o_btd = norm(merge_heads(o)) * nn.silu(project("gate"))
        out = self.dense(self.width, "out", init=nn.initializers.zeros)
        return out(o_btd), TimeMixState(s_bhkv, x_bd)

    def _mixed(self, x_btd: jax.Array, step_btd: jax.Array) -> dict[str, jax.Array]:
        """The data-dependent token shift: one mixture for each projection."""
        power = 1 - self.layer / self.layers
        extra = {"value": 0.3 * self._depth(), "receptance": 0.0}
        ratio = np.arange(self.width) / self.width

        def mu(name: str) -> jax.Array:
            half = 0.5 if name in ("receptance", "gate") else 1.0
            value = 1 - ratio ** (half * power) - extra.get(name, 0.0)
            return self.param(f"shift_{name}", lambda *_: jnp.float32(value))

        rank, count = self.shift_rank, len(SHIFTS)
        zeros = nn.initializers.zeros
        down = self.param("shift_down", zeros, (self.width, count * rank))
        up = self.param("shift_up", symmetric_uniform(0.01), (count, rank, self.width))
        base_btd = x_btd + step_btd * mu("base").astype(x_btd.dtype)[None, None]
        low = jnp.tanh(base_btd @ down.astype(x_btd.dtype))
        low = low.reshape(*low.shape[:2], count, rank)
        delta = jnp.einsum("btsr,srd->sbtd", low, up.astype(x_btd.dtype))
        return {
            name: x_btd
            + step_btd * (mu(name).astype(x_btd.dtype)[None, None] + delta[index])
            for index, name in enumerate(SHIFTS)
        }

    def _log_decay(self, x_btd: jax.Array) -> jax.Array:
        depth, place = self._depth(), np.arange(self.width) / max(self.width - 1, 1)
        start = -6 + 5 * place ** (0.7 + 1.3 * depth)
        w0 = self.param("ssm_decay", lambda *_: jnp.float32(start))
        zeros, small = nn.initializers.zeros, symmetric_uniform(0.01)
        down = self.param("decay_down", zeros, (self.width, self.decay_rank))
        up = self.param("decay_up", small, (self.decay_rank, self.width))
        low = jnp.tanh(x_btd.astype(jnp.float32) @ down)
        return -jnp.exp(w0[None, None] + low @ up)

    def _bonus(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        del key
        place = np.arange(self.width)
        zigzag = ((place + 1) % 3 - 1) * 0.1
        start = self._depth() * (1 - place / max(self.width - 1, 1)) + zigzag
        return jnp.float32(start.reshape(shape))

    @nn.nowrap
    def _depth(self) -> float:
        """0 for the lowest layer, 1 for the highest."""
        return self.layer / max(self.layers - 1, 1)

    def state_shapes(self):
        return time_mix_shapes(self.width, head_count(self.width, self.heads))


class ChannelMix(Mixer):
    """RWKV-6's channel mixer, of mixtures with the frame before.

    Equations:
      output  sigmoid(W_r x_r) * W_out ReLU(W_k x_k)²

    Initial values are those of the authors' training code (BlinkDL/RWKV-LM,
    RWKV-v5/src/model.py, `RWKV_CMix_x060` and `generate_init_weight`): W_k orthogonal,
    W_r and W_out zero (`out_scale` is not read).

    Source: Peng et al. 2024, arXiv:2404.05892, eq. 20 to 23.

    Attributes:
      expansion: hidden width over model width.
    """

    layer: int = 0
    layers: int = 1
    expansion: float = 3.5

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D] and the one before it."""
        (x_bd,) = state or (None,)
        shifted, x_bd = token_shift(x_btd, x_bd, reset_bt)
        step_btd = shifted - x_btd
        power = (1 - self.layer / self.layers) ** 3
        start = jnp.float32(1 - (np.arange(self.width) / self.width) ** power)

        def mixed(name: str) -> jax.Array:
            mu = self.param(f"shift_{name}", lambda *_: start)
            return x_btd + step_btd * mu.astype(x_btd.dtype)[None, None]

        hidden, zeros = round(self.expansion * self.width), nn.initializers.zeros
        to_key = self.dense(hidden, "key", init=nn.initializers.orthogonal())
        to_gate = self.dense(self.width, "receptance", init=zeros)
        key = jnp.square(nn.relu(to_key(mixed("key"))))
        gate = nn.sigmoid(to_gate(mixed("receptance")))
        out = self.dense(self.width, "out", init=zeros)
        return gate * out(key), ChannelMixState(x_bd)

    def state_shapes(self):
        return ChannelMixState((self.width,))
