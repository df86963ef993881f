"""RWKV-7 (Goose): a generalised delta rule with a decay for every key channel."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxbench.layers.heads import GroupNorm, head_count, merge_heads, split_heads
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import l2_normalize
from jaxbench.layers.token_shift import (
    ChannelMixState,
    TimeMixState,
    time_mix_shapes,
    token_shift,
)
from jaxbench.ops.delta_rule import delta_rule

# Under this name the lowest layer hands up its values.
VALUES = "rwkv7_values"

# The smallest log decay of a frame: w > exp(-e^{-1/2}).
FLOOR = -math.exp(-0.5)

# How fast the initial token shift of each projection falls off along the channels.
SHIFTS = {
    "receptance": 0.2,
    "decay": 0.9,
    "key": 0.7,
    "value": 0.7,
    "rate": 0.9,
    "gate": 0.2,
}


# Low ranks over sqrt(D), in steps of 32.
RANKS = {"decay": 2.5, "rate": 2.5, "share": 1.7, "gate": 5.0}


class TimeMix(Mixer):
    """RWKV-7's recurrence: a delta rule whose removed and written keys differ.

    Equations:
      w = exp(-e^{-1/2} sigmoid(w_0 + tanh(x_w W_1) W_2));  κ = ξ * k / |ξ * k| a head
      η = sigmoid(a_0 + x_a A_1 A_2);  k~ = k (1 + (η - 1) ψ)
      S_t = (Diag(w_t) - κ_t (κ_t * η_t)^T)^T S_{t-1} + k~_t v_t^T
      output  W_out ((GroupNorm(S_t^T r_t) + (r · (k~ * ρ)) v_t) * g)

    w > 0.545. Values of upper layers move towards the lowest layer's by a learned
    share. Initial values are those of the authors' training code (BlinkDL/RWKV-LM,
    RWKV-v7/train_temp/src/model.py, `RWKV_Tmix_x070`, and `generate_init_weight`, whose
    orthogonal kernels replace the uniform ones before training): key of gain 0.1, W_out
    zero (`out_scale` is not read), the group norm's scales ((1 + l) / L)^0.7 in layer l
    of L.

    Source: Peng et al. 2025, arXiv:2503.14456, eq. 3 to 21.

    Differences:
      - There is no extra norm on the embedding.

    Attributes:
      heads: H; 0 is one head for 64 channels.
      rank: of the projections of decay, rate and value share; 0 is that code's rule,
        2.5 sqrt(D) for decay and rate, 1.7 sqrt(D) for the share, in steps of 32.
      gate_rank: of the projection of the gate; 0 is 5 sqrt(D) in steps of 32.
    """

    layer: int = 0
    layers: int = 1
    heads: int = 0
    rank: int = 0
    gate_rank: int = 0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None, *, lower):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        heads = head_count(self.width, self.heads)
        s_bhkv, x_bd = state or (None, None)
        shifted, x_bd = token_shift(x_btd, x_bd, reset_bt)
        mixed = self._mixed(x_btd, shifted - x_btd)
        w0, a0, v0, xi = self._starts(heads)

        r = self._project("receptance", mixed, 1.0)
        k = self._project("key", mixed, 0.1)
        v = self._project("value", mixed, 1.0)
        # w = exp(-e^{-1/2} sigmoid(w_0 + tanh(x_w W_1) W_2)), and η
        logit = self._low_rank("decay", mixed["decay"], w0, jnp.tanh)
        log_decay = FLOOR * nn.sigmoid(logit)
        eta = nn.sigmoid(self._low_rank("rate", mixed["rate"], a0))
        gate = self._low_rank("gate", mixed["gate"], None, nn.sigmoid)
        if self.layer == 0:
            lower = {**lower, VALUES: v}
        else:
            share = self._low_rank("share", mixed["value"], v0)
            v = v + (lower[VALUES] - v) * nn.sigmoid(share)
        # κ = ξ * k / |ξ * k|, the key that is removed; k~, the key that is written
        xi_d = self.param("key_removed", lambda *_: jnp.float32(xi))
        psi_d = self.param("key_rate", lambda *_: jnp.full(self.width, 1.02))
        kappa = l2_normalize(split_heads(k * xi_d[None, None], heads), 1e-12)
        k = k * (1 + (eta - 1) * psi_d[None, None])
        r, k, v, eta, log_decay = (
            split_heads(x, heads) for x in (r, k, v, eta, log_decay)
        )
        o, s_bhkv = delta_rule(
            r, k, v, log_decay, -kappa, kappa * eta, s_bhkv, reset_bt, floor=FLOOR
        )
        rho_init = nn.initializers.constant(-0.04)
        rho_hk = self.param("bonus", rho_init, (heads, self.width // heads))
        # (r · (k~ * ρ)) v: a frame reads what it wrote past the state.
        own_bth = jnp.einsum("bthk,bthk,hk->bth", r, k, rho_hk)
        epsilon = 1e-5 * (self.width // heads)
        scale = ((1 + self.layer) / self.layers) ** 0.7
        norm = GroupNorm(heads, epsilon=epsilon, scale=scale, name="head_norm")
        o_btd = norm(merge_heads(o))
        o_btd = (o_btd + merge_heads(own_bth[..., None] * v)) * gate
        out = self.dense(self.width, "out", init=nn.initializers.zeros)
        return out(o_btd.astype(self.dtype)), TimeMixState(s_bhkv, x_bd), lower

    def _project(self, name: str, mixed, scale: float) -> jax.Array:
        dense = self.dense(self.width, name, init=nn.initializers.orthogonal(scale))
        return dense(mixed[name]).astype(jnp.float32)

    def _mixed(self, x_btd: jax.Array, step_btd: jax.Array) -> dict[str, jax.Array]:
        """The token shift: one mixture with the frame before for each projection."""
        ratio, power = np.arange(self.width) / self.width, 1 - self.layer / self.layers

        def mixed(name: str, speed: float) -> jax.Array:
            start = 1 - ratio ** (speed * power)
            mu = self.param(f"shift_{name}", lambda *_: jnp.float32(start))
            return x_btd + step_btd * mu.astype(x_btd.dtype)[None, None]

        return {name: mixed(name, speed) for name, speed in SHIFTS.items()}

    def _low_rank(self, name: str, x_btd, start, activation=None):
        """start + activation(x W_1) W_2, float32."""
        given = self.gate_rank if name == "gate" else self.rank
        growth = RANKS[name] * math.sqrt(self.width)
        rank = given or max(32, round(growth / 32) * 32)
        down = self.param(f"{name}_down", nn.initializers.zeros, (self.width, rank))
        init = nn.initializers.orthogonal(0.1)
        up = self.param(f"{name}_up", init, (rank, self.width))
        low = x_btd.astype(jnp.float32) @ down
        y_btd = (low if activation is None else activation(low)) @ up
        if start is None:
            return y_btd
        group = "ssm_decay" if name == "decay" else f"{name}_bias"
        bias_d = self.param(group, lambda *_: jnp.float32(start))
        return y_btd + bias_d[None, None]

    @nn.nowrap
    def _starts(self, heads: int) -> tuple[np.ndarray, ...]:
        """Initial biases of decay, rate and value share, and xi, as the authors'."""
        place = np.arange(self.width) / max(self.width - 1, 1)
        line = place - 0.5
        head = self.width // heads
        middle = max((head - 1) / 2, 0.5)
        zigzag = (np.arange(self.width) % head - (head - 1) / 2) / middle
        zigzag = zigzag * np.abs(zigzag)
        depth = self.layer / max(self.layers - 1, 1)
        decay = -6 + 6 * place ** (1 + depth**0.3) + 0.5 + 2.5 * zigzag
        rate = -0.19 + 0.3 * zigzag + 0.4 * line
        return decay, rate, 0.73 - 0.4 * line, 0.71 - 0.1 * line

    def state_shapes(self):
        return time_mix_shapes(self.width, head_count(self.width, self.heads))


class ChannelMix(Mixer):
    """RWKV-7's channel mixer, of a mixture with the frame before, without a gate.

    Equations:
      output  W_out ReLU(W_k (x + (x_{t-1} - x) * μ))²

    Initial values are those of the authors' training code (BlinkDL/RWKV-LM,
    RWKV-v7/train_temp/src/model.py, `RWKV_CMix_x070` and `generate_init_weight`): W_k
    orthogonal, W_out zero (`out_scale` is not read).

    Source: Peng et al. 2025, arXiv:2503.14456, eq. 22 and 23.

    Attributes:
      expansion: hidden width over model width.
    """

    layer: int = 0
    layers: int = 1
    expansion: float = 4.0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D] and the one before it."""
        (x_bd,) = state or (None,)
        shifted, x_bd = token_shift(x_btd, x_bd, reset_bt)
        power = (1 - self.layer / self.layers) ** 4
        start = 1 - (np.arange(self.width) / self.width) ** power
        mu_d = self.param("shift_key", lambda *_: jnp.float32(start))
        mixed = x_btd + (shifted - x_btd) * mu_d.astype(x_btd.dtype)[None, None]
        key = self.dense(
            round(self.expansion * self.width), "key", init=nn.initializers.orthogonal()
        )
        out = self.dense(self.width, "out", init=nn.initializers.zeros)
        return out(jnp.square(nn.relu(key(mixed)))), ChannelMixState(x_bd)

    def state_shapes(self):
        return ChannelMixState((self.width,))
