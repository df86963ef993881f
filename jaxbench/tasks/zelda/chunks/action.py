"""A controller as a vector of numbers, and back.

Of the 13 numbers the first eight are buttons, 1 pressed and -1 not; then come the four
stick axes in [-1, 1] and the shoulder in [0, 1], each at the value its level has
(`controller.decode`). Any vector decodes: a button by its sign, an axis to the nearest
level. Labels that are encoded and decoded are the same labels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.encoder import buttons

BUTTONS = len(controller.BUTTONS)
SIZE = BUTTONS + len(controller.STICKS) + 1
# Levels of the stick axes and the shoulder, those of neutral, and levels to a unit.
_TOP = np.array([16, 16, 16, 16, 4], np.float32)
_ZERO = np.array([8, 8, 8, 8, 0], np.float32)
_UNIT = np.array([8, 8, 8, 8, 4], np.float32)


def encode(labels: jax.Array) -> jax.Array:
    """Vectors of labels [..., 6], float32 [..., 13]."""
    pressed = jnp.where(buttons(labels[..., 0]), 1.0, -1.0)
    levels = labels[..., 1:].astype(jnp.float32)
    axes = (levels - _as(levels, _ZERO)) / _as(levels, _UNIT)
    return jnp.concatenate([pressed, axes], axis=-1)


def decode(action: jax.Array) -> jax.Array:
    """Labels of vectors [..., 13], int32 [..., 6]; a tie goes to the even level."""
    pressed = (action[..., :BUTTONS] > 0).astype(jnp.int32)
    packed = pressed @ (2 ** jnp.arange(BUTTONS))
    axes = action[..., BUTTONS:]
    levels = jnp.rint(axes * _as(axes, _UNIT) + _as(axes, _ZERO))
    levels = jnp.clip(levels, 0, _as(axes, _TOP))
    return jnp.concatenate([packed[..., None], levels], axis=-1).astype(jnp.int32)


def _as(x: jax.Array, constant: np.ndarray) -> np.ndarray:
    """A constant of the last axis with as many axes as x."""
    return constant.reshape((1,) * (x.ndim - 1) + (-1,))
