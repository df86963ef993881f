"""Channel mixers every row may have: the position-wise second half of a block."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError, nearest
from jaxbench.layers.mixer import Mixer

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
}


class MLP(Mixer):
    """A channel mixer of two layers with GELU.

    Equations:
      output  W_out GELU(W_in x + b_in) + b_out

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3, with GELU (Hendrycks &
    Gimpel 2016, arXiv:1606.08415), by default in its approximation with tanh.

    Differences:
      - The activation is GELU, where the paper has ReLU.

    Attributes:
      expansion: hidden width over model width.
      exact: GELU with the error function, as PyTorch has it, not with tanh.
    """

    expansion: float = 4.0
    exact: bool = False

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        hidden = self.dense(round(self.expansion * self.width), "in", bias=True)
        out = self.dense_out(bias=True)
        return out(nn.gelu(hidden(x_btd), approximate=not self.exact)), ()


class GLU(Mixer):
    """A gated channel mixer without biases, SwiGLU by default.

    Equations:
      output  W_out (activation(W_gate x) * W_in x)

    The hidden width is the nearest multiple of 64, at least 64; with 8/3 of the model
    width it has as many parameters as `MLP`.

    Source: Shazeer 2020, arXiv:2002.05202, eq. 5 and 6.

    Attributes:
      expansion: hidden width over model width, before rounding.
      activation: of the gate, a key of `ACTIVATIONS`; "gelu" is GeGLU.
      multiple: if not 0, the hidden width is rounded up to a multiple of this instead,
        as in Llama (Touvron et al. 2023, arXiv:2302.13971) of 256.
    """

    expansion: float = 8 / 3
    activation: str = "silu"
    multiple: int = 0

    @nn.compact
    def __call__(self, x_btd, state=None, reset_bt=None):
        """Maps each frame of [B, T, D]; there is no state and nothing to reset."""
        hidden = self._hidden()
        gate_value = self.dense(2 * hidden, "in")
        out = self.dense_out()
        gate, value = jnp.split(gate_value(x_btd), 2, axis=-1)
        return out(ACTIVATIONS[self.activation](gate) * value), ()

    def check(self):
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"activation={self.activation!r} is unknown; nearest: "
                f"{nearest(self.activation, ACTIVATIONS)}"
            )
        if self.multiple < 0:
            raise InputError(f"multiple={self.multiple} must not be negative")

    @nn.nowrap
    def _hidden(self) -> int:
        wanted = self.expansion * self.width
        if self.multiple:
            return self.multiple * max(1, math.ceil(wanted / self.multiple))
        return max(64, 64 * round(wanted / 64))
