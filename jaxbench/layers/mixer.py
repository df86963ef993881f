"""The base of all mixers: three fields, a state of zeros, and the usual projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxbench.errors import InputError
from jaxbench.layers.inits import lecun


class Mixer(nn.Module):
    """What `jaxbench.mixers` builds on; the package's docstring is the contract.

    A mixer adds its options as fields, checks them in `check`, declares `state_shapes`,
    and defines

        @nn.compact
        def __call__(self, x_btd, state=None, reset_bt=None):
            return y_btd, state

    Attributes:
      width: model width D.
      dtype: type of the projections; parameters, gates, decays and states are float32.
      out_scale: factor on the initial output projection, which the block sets from the
        depth; a mixer that does not end in a projection does not read it.
    """

    width: int
    dtype: Any = jnp.float32
    out_scale: float = 1.0

    def setup(self) -> None:
        self.check()

    @nn.nowrap
    def check(self) -> None:
        """Refuses options, before every call and before an initial state is made.

        Raises:
          InputError: an option is out of range, or does not fit the others.
        """

    @nn.nowrap
    def state_shapes(self) -> Any:
        """The state with a shape, without the batch axis, in place of each array.

        A tuple is float32, other types are told by a `jax.ShapeDtypeStruct`; () is the
        state of a mixer that carries nothing.
        """
        return ()

    @nn.nowrap
    def initial_state(self, batch_size: int) -> Any:
        """Zeros of `state_shapes`, unless a mixer starts from something else."""

        def zeros(shape: Any) -> jax.Array:
            if is_shape(shape):
                return jnp.zeros((batch_size, *shape), jnp.float32)
            return jnp.zeros((batch_size, *shape.shape), shape.dtype)

        def is_shape(part: Any) -> bool:
            # A NamedTuple is a tuple too, but a part of the tree.
            return type(part) is tuple

        self.check()
        shapes = self.state_shapes()
        return jax.tree.map(zeros, shapes, is_leaf=is_shape) if shapes else ()

    @nn.nowrap
    def dense(
        self,
        size: int,
        name: str,
        *,
        bias: bool = False,
        init: Callable[..., jax.Array] | None = None,
    ) -> nn.Dense:
        """A projection to `size` channels in the compute type; inside `nn.compact`."""
        return nn.Dense(
            size,
            use_bias=bias,
            dtype=self.dtype,
            kernel_init=init or lecun(),
            name=name,
        )

    @nn.nowrap
    def dense_out(self, *, bias: bool = False) -> nn.Dense:
        """The projection "out" back to the width, `out_scale` times as large."""
        return self.dense(self.width, "out", bias=bias, init=lecun(self.out_scale))

    @nn.nowrap
    def at_least(self, lowest: int, *names: str) -> None:
        """Checks options.

        Raises:
          InputError: one of the fields called `names` is below `lowest`.
        """
        for name in names:
            if getattr(self, name) < lowest:
                raise InputError(
                    f"{name}={getattr(self, name)} must be at least {lowest}"
                )
