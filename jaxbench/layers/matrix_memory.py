"""What the mixers of the Elman ladder with a matrix for a state have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.heads import split_heads
from jaxbench.layers.inits import Initializer
from jaxbench.layers.ladder import xavier


class MatrixState(NamedTuple):
    """What a matrix memory carries.

    Attributes:
      s_bhkv: matrix of each head, row k what the key channel k holds, float32.
    """

    s_bhkv: jax.Array


def initial_matrix_state(
    batch_size: int, heads: int, keys: int, values: int
) -> MatrixState:
    """Returns zeros.

    Raises:
      InputError: a size is below 1.
    """
    if min(heads, keys, values) < 1:
        raise InputError(
            f"heads={heads} of {keys} keys and {values} values: each must be at least 1"
        )
    return MatrixState(jnp.zeros((batch_size, heads, keys, values), jnp.float32))


def constant(value: float) -> Initializer:
    """The same number everywhere."""
    return nn.initializers.constant(value)


def project_heads(
    x_bte: jax.Array,
    heads: int,
    size: int,
    dtype: Any,
    name: str,
    bias: float | None = None,
) -> jax.Array:
    """W x for each head, float32 [B, T, heads, size].

    One Xavier-uniform matrix for all heads, called `name`; with a `bias`, one that
    starts at this value. To be called inside a compact method.
    """
    dense = nn.Dense(
        heads * size,
        use_bias=bias is not None,
        dtype=dtype,
        kernel_init=xavier(),
        bias_init=constant(bias or 0.0),
        name=name,
    )
    return split_heads(dense(x_bte), heads).astype(jnp.float32)
