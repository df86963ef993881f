"""Parameters and states drawn by numpy: nothing is compiled to make them."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np


def shapes_of(module: nn.Module, *inputs: Any, **given: Any) -> Any:
    """Shapes and types of what `module.init` would make."""
    init = functools.partial(module.init, **given)
    return jax.eval_shape(init, jax.random.key(0), *inputs)


def draw(module: nn.Module, *inputs: Any, seed: int = 0, **given: Any) -> Any:
    """Variables as `module.init` would shape them, none at its initial value.

    Kernels have the variance that keeps the size of what they multiply; vectors are a
    third of that of a unit normal, scales of norms near one.
    """
    rng = np.random.default_rng([seed, 17])

    def value(path, leaf):
        drawn = rng.normal(size=leaf.shape)
        if not np.issubdtype(leaf.dtype, np.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        if leaf.ndim > 1:
            drawn = drawn / np.sqrt(leaf.shape[-2])
        elif path[-1].key == "scale":
            drawn = 1 + 0.1 * drawn
        else:
            drawn = drawn / 3
        return drawn.astype(leaf.dtype)

    shapes = shapes_of(module, *inputs, **given)
    return jax.tree_util.tree_map_with_path(value, shapes)


def draw_state(module: nn.Module, batch: int, seed: int = 0) -> Any:
    """A state no episode starts from; flags are true in the first row only."""
    rng = np.random.default_rng([seed, 18])

    def value(leaf):
        if leaf.dtype == bool:
            return np.broadcast_to(np.arange(batch) == 0, leaf.shape)
        drawn = rng.normal(size=leaf.shape)
        if np.iscomplexobj(leaf):
            drawn = drawn + 1j * rng.normal(size=leaf.shape)
        return drawn.astype(leaf.dtype)

    return jax.tree.map(value, jax.device_get(module.initial_state(batch)))


def float64(tree: Any) -> Any:
    """The same numbers, exact enough for an oracle."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
