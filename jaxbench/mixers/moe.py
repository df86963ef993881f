"""Mixture of experts: more parameters for the same work on each frame."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.mixer import Mixer
from jaxbench.ops.routing import (
    Routing,
    expert_share,
    hash_bits,
    hash_routing,
    load_balance,
    mix_all_experts,
    mix_experts,
    switch_routing,
    top_k_routing,
)

ROUTINGS = ("top_k", "switch", "soft", "hash")
EXPERTS = ("mlp", "glu")


class ExpertKernel(nn.Module):
    """The kernels [X, I, O] of one projection of all experts.

    Attributes:
      shape: (experts, inputs, outputs).
      scale: factor on the initial kernels, each a lecun one by itself.
      dtype: compute type; the parameters are float32.
    """

    shape: tuple[int, int, int]
    scale: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns the kernels in the compute type."""
        init = nn.initializers.variance_scaling(
            self.scale**2, "fan_in", "truncated_normal", batch_axis=(0,)
        )
        return jnp.asarray(self.param("kernel", init, self.shape), self.dtype)


class MoE(Mixer):
    """y = sum over the chosen experts of weight * expert(x), each frame by itself.

    With r = softmax(W_r x) in float32 and f_i expert i:

    - "top_k": the k largest r_i, renormalised to sum 1 (Shazeer et al. 2017,
      arXiv:1701.06538, eq. 3 to 5).
    - "switch": r_i f_i for the largest r_i (Fedus et al. 2021, arXiv:2101.03961).
    - "soft": r_i f_i of all experts (Jacobs et al. 1991).
    - "hash": one expert with weight 1, from the signs of fixed random projections of x
      (after Roller et al. 2021, arXiv:2106.04426). It depends on no trained weight of
      this layer, but x itself moves while the layers below learn.

    "top_k" and "switch" add `load_balance * X sum_i share_i mean(r_i)` to the loss
    (Fedus et al., eq. 4): `load_balance` itself where use is even. Differences: no
    noise on the router, no capacity, so no frame is dropped and each frame's output
    depends on that frame alone; experts without biases.

    Sown into "metrics": `max_share` and `min_share`, the largest and smallest part of
    the choices (for "soft", of the weight) that an expert got, and `use_entropy`, the
    entropy of the parts over its maximum log X.

    Cost for N frames: k (soft: X) experts for each, up to twice that in padding, and
    copies of the kernels of one expert for every `ops.routing.MAX_ROWS` rows.

    Attributes:
      experts: X.
      top_k: experts for each frame under "top_k"; the other routings do not read it.
      routing: "top_k", "switch", "soft" or "hash".
      expert: "mlp" is W_out GELU(W_in x), "glu" W_out (SiLU(W_gate x) * W_in x).
      expansion: hidden width of an expert over model width; "glu" takes 2/3 of it, to
        a multiple of 64, for as many parameters.
      load_balance: factor on the auxiliary loss.
    """

    experts: int = 8
    top_k: int = 2
    routing: str = "top_k"
    expert: str = "mlp"
    expansion: float = 4.0
    load_balance: float = 0.01

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        x_nd = x_btd.reshape(-1, self.width)
        hidden, gates = self._hidden(), 1 + (self.expert == "glu")
        shape_in = (self.experts, self.width, gates * hidden)
        shape_out = (self.experts, hidden, self.width)
        kernel_in = ExpertKernel(shape_in, 1.0, self.dtype, name="in")()
        kernel_out = ExpertKernel(shape_out, self.out_scale, self.dtype, name="out")()

        def apply(x_grd: jax.Array, expert_g: jax.Array) -> jax.Array:
            hidden_gre = jnp.einsum("grd,gde->gre", x_grd, kernel_in[expert_g])
            if gates == 2:
                gate_gre, hidden_gre = jnp.split(hidden_gre, 2, axis=-1)
                hidden_gre = nn.silu(gate_gre) * hidden_gre
            else:
                hidden_gre = nn.gelu(hidden_gre)
            return jnp.einsum("gre,ged->grd", hidden_gre, kernel_out[expert_g])

        x_in = x_nd.astype(self.dtype)
        if self.routing == "soft":
            weight_nx = jax.nn.softmax(self._logits(x_nd), axis=-1)
            self._log_use(jnp.mean(weight_nx, axis=0))
            y_nd = mix_all_experts(x_in, weight_nx, apply)
        else:
            routing = self._route(x_nd)
            self._log_use(expert_share(routing.expert_nk, self.experts))
            y_nd = mix_experts(x_in, routing, apply, self.experts)
        return y_nd.reshape(x_btd.shape).astype(self.dtype), ()

    def _logits(self, x_nd: jax.Array) -> jax.Array:
        router = nn.Dense(
            self.experts,
            use_bias=False,
            dtype=jnp.float32,
            precision=jax.lax.Precision.HIGHEST,
            name="router",
        )
        return router(x_nd.astype(jnp.float32))

    def _route(self, x_nd: jax.Array) -> Routing:
        if self.routing == "hash":
            shape = (self.width, hash_bits(self.experts))
            projection = self.variable(
                "constants",
                "projection",
                lambda: jax.random.normal(self.make_rng("params"), shape),
            )
            return hash_routing(x_nd, projection.value, self.experts)
        logit_nx = self._logits(x_nd)
        if self.routing == "switch":
            routing = switch_routing(logit_nx)
        else:
            routing = top_k_routing(logit_nx, self.top_k)
        if not self.is_initializing():
            balance = load_balance(logit_nx, routing.expert_nk)
            self.sow("losses", "load_balance", self.load_balance * balance)
        return routing

    def _log_use(self, share_x: jax.Array) -> None:
        if self.is_initializing():
            return
        entropy = jnp.sum(jax.scipy.special.entr(share_x))
        evenness = entropy / jnp.log(self.experts) if self.experts > 1 else 1.0
        self.sow("metrics", "max_share", jnp.max(share_x))
        self.sow("metrics", "min_share", jnp.min(share_x))
        self.sow("metrics", "use_entropy", jnp.float32(evenness))

    @nn.nowrap
    def _hidden(self) -> int:
        if self.expert == "glu":
            return max(64, 64 * round(2 / 3 * self.expansion * self.width / 64))
        return max(1, round(self.expansion * self.width))

    def check(self):
        for name, value, valid in (
            ("routing", self.routing, ROUTINGS),
            ("expert", self.expert, EXPERTS),
        ):
            if value not in valid:
                raise InputError(
                    f"{name}={value!r} of moe is none of {', '.join(valid)}; nearest: "
                    f"{nearest(value, valid, 1)}"
                )
        if self.experts < 1:
            raise InputError(f"experts={self.experts} of moe must be at least 1")
        if self.routing == "top_k" and not 2 <= self.top_k <= self.experts:
            raise InputError(
                f"top_k={self.top_k} of moe must be from 2 to experts={self.experts}; "
                f"for one expert a frame choose routing='switch'"
            )
        if self.expansion <= 0 or self.load_balance < 0:
            raise InputError(
                f"expansion={self.expansion} of moe must be above 0 and "
                f"load_balance={self.load_balance} not below"
            )
