"""The shell of the Elman ladder's mixers with a matrix for a state."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import merge_heads, split_heads
from jaxbench.layers.inits import Initializer, lecun
from jaxbench.layers.ladder import xavier
from jaxbench.layers.mixer import Mixer


class MatrixState(NamedTuple):
    """A matrix for each head, row k what the key channel k holds, float32."""

    s_bhkv: jax.Array


class MatrixMemory(Mixer):
    """Projections to heads, a memory of keys and values, and a projection back.

    Subclasses have `heads` and `state_size`, as fields or as constants.
    """

    heads = 1

    def project(
        self,
        x_bte: jax.Array,
        name: str,
        bias: float | None = None,
        *,
        heads: int | None = None,
        size: int | None = None,
    ) -> jax.Array:
        """W x for each head, float32 [B, T, heads, size], inside the compact call.

        One Xavier-uniform matrix for all heads, called `name`; with a `bias`, one that
        starts at this value. `heads` and `size` are those of the mixer where None.
        """
        heads = self.heads if heads is None else heads
        dense = nn.Dense(
            heads * (self.state_size if size is None else size),
            use_bias=bias is not None,
            dtype=self.dtype,
            kernel_init=xavier(),
            bias_init=constant(bias or 0.0),
            name=name,
        )
        return split_heads(dense(x_bte), heads).astype(jnp.float32)

    def output(self, o_bthv: jax.Array, init: Initializer | None = None) -> jax.Array:
        """W_out of all heads, at the deviation of the other mixers unless told."""
        init = init or lecun(self.out_scale)
        return self.dense(self.width, "out", init=init)(merge_heads(o_bthv))

    def state_shapes(self):
        return self.memory(self.heads, self.state_size, self.state_size)

    @nn.nowrap
    def memory(self, heads: int, keys: int, values: int) -> MatrixState:
        """Shapes of a state; InputError where a size is below 1."""
        if min(heads, keys, values) < 1:
            raise InputError(
                f"heads={heads} of {keys} keys and {values} values: each must be at "
                f"least 1"
            )
        return MatrixState((heads, keys, values))


def constant(value: float) -> Initializer:
    """The same number everywhere."""
    return nn.initializers.constant(value)
