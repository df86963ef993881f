"""From a batch of frames to vectors of the model's width."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbench.tasks.task import Batch
from jaxbench.tasks.zelda import controller, frames
from jaxbench.tasks.zelda.features import ACTION_STATES, CHARACTERS


class CleanEncoder(nn.Module):
    """Dense(numbers, embedded ids, previous controller): x_btd.

    Action states and characters have one table each, shared by all fighters, as the
    original meant to have; each has a last row for ids it does not know, and whoever is
    not there contributes zeros. The previous controller enters as eight bits and five
    one-hot vectors. Cost: one product of about 590 x width a frame.

    Attributes:
      width: D.
      dtype: compute type; tables and kernel are float32.
      action_width, character_width, stage_width, item_width: columns of the tables.
    """

    width: int
    dtype: jnp.dtype = jnp.float32
    action_width: int = 64
    character_width: int = 64
    stage_width: int = 8
    item_width: int = 8

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        parts = [batch["numeric_btf"].astype(self.dtype)]
        for name, ids, rows, width in (
            ("action_state", "action_state_btn", ACTION_STATES + 1, self.action_width),
            ("character", "character_btp", CHARACTERS + 1, self.character_width),
            ("stage", "stage_bt", len(frames.STAGES) + 1, self.stage_width),
            ("item", "item_type_bti", frames.ITEM_TYPES, self.item_width),
        ):
            index = batch[ids]
            table = nn.Embed(rows, width, dtype=self.dtype, name=name)
            here = (index >= 0).astype(self.dtype)[..., None]
            x = table(jnp.maximum(index, 0)) * here
            parts.append(x.reshape(*batch["reset_bt"].shape, -1))
        parts.append(spread(batch["previous_bta"]).astype(self.dtype))
        x_btf = jnp.concatenate(parts, axis=-1)
        return nn.Dense(self.width, dtype=self.dtype, name="input")(x_btf)


class CompatEncoder(nn.Module):
    """Dense of the 288 columns, ids as raw numbers: x_btd.

    The bfloat16 vector is read exactly; the product runs in `dtype`.

    Attributes:
      width: D.
      dtype: compute type.
    """

    width: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        x_btf = batch["frame_btf"].astype(self.dtype)
        return nn.Dense(self.width, dtype=self.dtype, name="input")(x_btf)


def buttons(packed: jax.Array) -> jax.Array:
    """Bits of packed buttons, bool [..., 8]."""
    shift = jnp.arange(len(controller.BUTTONS))
    shift = shift.reshape((1,) * packed.ndim + (-1,))
    return ((packed[..., None] >> shift) & 1) == 1


def spread(
    labels: jax.Array, components: int = len(controller.COMPONENTS)
) -> jax.Array:
    """The first `components` labels [..., 6] as bits and one-hot vectors, float32."""
    parts = [buttons(labels[..., 0]).astype(jnp.float32)]
    for i, name in enumerate(controller.COMPONENTS[1:components], start=1):
        parts.append(jax.nn.one_hot(labels[..., i], controller.CLASSES[name]))
    return jnp.concatenate(parts, axis=-1)
