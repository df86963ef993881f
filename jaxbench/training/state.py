"""Everything a training run needs to go on: one pytree."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxbench.training.optimizer import parameter_groups
from jaxbench.training.packed import Packed, layout_of, pack

Params = Any


class TrainState(struct.PyTreeNode):
    """The state of optimisation after `step` updates.

    Attributes:
      step: int32 scalar, optimiser updates done.
      key: typed PRNG key of the run; step t uses `fold_in(key, t)`, so resuming
        needs no random state.
      params: trained parameters, `Packed`; in float32.
      constants: variables that are never trained (the "constants" collection).
      opt_state: state of the optax chain over packed parameters.
      ema_params: exponential moving average of `params`, or () when it is off.
      skips: int32 scalar, updates left out because they were not finite.
      first_skip: int32 scalar, the step of the first of them, or -1.
      broken_step: int32 scalar, the step whose loss, gradient or new parameters were
        not finite, or -1.
        One that was skipped is not broken. From a broken step on nothing is updated:
        the state is the last good one.
      broken_leaf: int32 scalar, index of the first parameter leaf with a non-finite
        gradient at `broken_step`; -1 when the gradient was finite.
    """

    step: jax.Array
    key: jax.Array
    params: Params
    constants: Params
    opt_state: optax.OptState
    ema_params: Params
    skips: jax.Array
    first_skip: jax.Array
    broken_step: jax.Array
    broken_leaf: jax.Array

    @classmethod
    def create(
        cls,
        variables: Params,
        optimizer: optax.GradientTransformation,
        key: jax.Array,
        *,
        ema: bool,
    ) -> TrainState:
        """Builds the state before the first update from `model.init`'s variables."""
        whole = variables["params"]
        params = pack(whole, layout_of(whole, parameter_groups(whole)))
        return cls(
            step=jnp.zeros((), jnp.int32),
            key=key,
            params=params,
            constants=variables.get("constants", {}),
            opt_state=optimizer.init(params),
            # A copy: donated buffers must not be shared between two leaves.
            ema_params=jax.tree.map(jnp.copy, params) if ema else (),
            skips=jnp.zeros((), jnp.int32),
            first_skip=jnp.full((), -1, jnp.int32),
            broken_step=jnp.full((), -1, jnp.int32),
            broken_leaf=jnp.full((), -1, jnp.int32),
        )

    def evaluation_variables(self) -> Params:
        """Packed variables to score and play with: averaged parameters where kept."""
        params = self.params if isinstance(self.ema_params, tuple) else self.ema_params
        return {"params": params, "constants": self.constants}


def leaf_names(params: Packed) -> list[str]:
    """Names the leaves of packed parameters, in flattening order, as 'a/b/c'."""
    names = jax.tree.unflatten(params.layout.structure, params.layout.shapes)
    paths = jax.tree_util.tree_flatten_with_path(
        names, is_leaf=lambda node: isinstance(node, tuple)
    )[0]
    return ["/".join(str(entry.key) for entry in path) for path, _ in paths]
