"""The short causal convolution in front of many recurrences, with its state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import symmetric_uniform
from jaxbench.ops.convolution import short_convolution


class ShortConvolution(nn.Module):
    """Depthwise causal convolution over the last `taps` frames.

    y_t = bias + sum_w kernel_w * x_{t - taps + 1 + w}; frames before the episode are 0.

    Attributes:
      width: channels E.
      dtype: type of the result; the sum over taps is float32.
      taps: length of the filter; 1 is a factor for each channel.
      bias: whether each channel has one.
    """

    width: int
    dtype: Any = jnp.float32
    taps: int = 4
    bias: bool = True

    @nn.compact
    def __call__(
        self,
        x_bte: jax.Array,
        state_bwe: jax.Array | None = None,
        reset_bt: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Filters [B, T, E]; the state, zero at first, is the last inputs.

        State: float32 [B, taps - 1, E].

        Raises:
          InputError: `taps` is less than 1.
        """
        if self.taps < 1:
            raise InputError(
                f"taps={self.taps} must be at least 1, which sees one frame only"
            )
        init = symmetric_uniform(self.taps**-0.5)
        kernel_we = self.param("kernel", init, (self.taps, self.width))
        bias_e = self.param("bias", init, (self.width,)) if self.bias else None
        return short_convolution(
            x_bte.astype(self.dtype), kernel_we, bias_e, state_bwe, reset_bt
        )

    @nn.nowrap
    def initial_state(self, batch_size: int) -> jax.Array:
        """Returns zeros."""
        return jnp.zeros((batch_size, self.taps - 1, self.width), jnp.float32)
