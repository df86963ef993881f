"""HGRN-2: a gated recurrence whose state is expanded to a matrix."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import head_count, merge_heads, split_heads
from jaxbench.layers.mixer import Mixer
from jaxbench.layers.norms import norm
from jaxbench.ops.gated_linear import gated_linear_attention

# Under this name the lowest layer hands up the lower bounds of all of them.
BOUNDS = "hgrn2_lower_bounds"


class HGRN2State(NamedTuple):
    """Matrix state of each head, float32."""

    s_bhkv: jax.Array


class HGRN2(Mixer):
    """A gated recurrence whose forget gates have a lower bound that rises with depth.

    Equations:
      f = lb_l + (1 - lb_l) sigmoid(W_f x),  lb_l = Σ_{1 <= j <= l} softmax(Γ)_j
      S_t = Diag(f_t) S_{t-1} + (1 - f_t) v_t^T;  o_t = S_t^T SiLU(W_q x_t)
      output  W_out RMSNorm(o)

    Layer l never forgets faster than its bound lb_l, so upper layers remember longer.
    Γ, [layers, D], is one parameter of the backbone: the lowest of its HGRN-2 layers
    holds it.

    Source: Qin et al. 2024, arXiv:2404.07904, eq. 4 to 6; bounds: Qin et al. 2023,
    arXiv:2311.04823, section 3.2.

    Attributes:
      heads: H; D / H is the expansion of the state. 0 is one head for 64 channels.
      expand_ratio: D / H, the expansion of the state, instead of `heads`; 0 is by them.
    """

    layer: int = 0
    layers: int = 1
    heads: int = 0
    expand_ratio: int = 0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None, *, lower):
        """Mixes [B, T, D] along time; O(T D^2 / H) work."""
        (s_bhkv,) = state or (None,)
        heads = self._heads()

        def project(name: str) -> jax.Array:
            return self.dense(self.width, name)(x_btd)

        logit = project("forget").astype(jnp.float32)
        if self.layer == 0:
            # The lowest layer's own bound is 0.
            log_forget, key = jax.nn.log_sigmoid(logit), jax.nn.sigmoid(-logit)
            if self.layers > 1:
                lower = {**lower, BOUNDS: self._bounds()}
        else:
            # f = lb + (1 - lb) sigmoid(x) in the log, and the key 1 - f without a
            # difference of numbers near 1.
            bound = lower[BOUNDS][self.layer][None, None]
            log_forget = jnp.logaddexp(
                jnp.log(bound), jnp.log1p(-bound) + jax.nn.log_sigmoid(logit)
            )
            key = (1 - bound) * jax.nn.sigmoid(-logit)
        o, s_bhkv = gated_linear_attention(
            split_heads(nn.silu(project("query")), heads),
            split_heads(key, heads),
            split_heads(project("value"), heads),
            split_heads(log_forget, heads),
            s_bhkv,
            reset_bt,
        )
        o_btd = norm("rms", self.dtype, "output_norm", epsilon=1e-5)(merge_heads(o))
        return self.dense_out()(o_btd), HGRN2State(s_bhkv), lower

    def _bounds(self) -> jax.Array:
        shape = (self.layers, self.width)
        gamma_ld = self.param("ssm_gamma", nn.initializers.ones, shape)
        share_ld = jax.nn.softmax(gamma_ld, axis=0)
        return jnp.cumsum(share_ld, axis=0) - share_ld[:1]

    @nn.nowrap
    def _heads(self) -> int:
        ratio = self.expand_ratio
        if ratio == 0:
            return head_count(self.width, self.heads)
        if ratio < 0 or self.width % ratio:
            raise InputError(f"expand_ratio={ratio} does not divide width={self.width}")
        if self.heads not in (0, self.width // ratio):
            raise InputError(
                f"expand_ratio={ratio} and heads={self.heads} contradict each other at "
                f"width={self.width}; set one of them"
            )
        return self.width // ratio

    def state_shapes(self):
        heads = self._heads()
        head = self.width // heads
        return HGRN2State((heads, head, head))
