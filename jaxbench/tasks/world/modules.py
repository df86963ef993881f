"""From frames and controllers to vectors, and from vectors to what comes next."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxbench.tasks.task import Batch
from jaxbench.tasks.world.states import FIGHTERS, STATE
from jaxbench.tasks.zelda import frames
from jaxbench.tasks.zelda.encoder import spread
from jaxbench.tasks.zelda.features import ACTION_STATES, CHARACTERS

# Seven of eight frames keep their action state: among 400 logits of 0, this one does.
STAY = 8.0


class WorldEncoder(nn.Module):
    """Dense(state, embedded ids, both controllers): x_btd.

    A controller enters as eight bits and five one-hot vectors. Cost: one product of
    about 400 x width a frame.

    Attributes:
      width: D.
      dtype: compute type; tables and kernel are float32.
      action_width, character_width, stage_width: columns of the tables.
    """

    width: int
    dtype: jnp.dtype = jnp.float32
    action_width: int = 32
    character_width: int = 16
    stage_width: int = 8

    @nn.compact
    def __call__(self, batch: Batch) -> jax.Array:
        shape = batch["stage_bt"].shape
        parts = [batch["state_bts"].astype(self.dtype)]
        for name, ids, rows, width in (
            ("action_state", "action_state_btn", ACTION_STATES + 1, self.action_width),
            ("character", "character_btn", CHARACTERS + 1, self.character_width),
            ("stage", "stage_bt", len(frames.STAGES) + 1, self.stage_width),
        ):
            table = nn.Embed(rows, width, dtype=self.dtype, name=name)
            parts.append(table(batch[ids]).reshape(*shape, -1))
        held = spread(batch["controller_btna"]).astype(self.dtype)
        parts.append(held.reshape(*shape, -1))
        x_btf = jnp.concatenate(parts, axis=-1)
        return nn.Dense(self.width, dtype=self.dtype, name="input")(x_btf)


class WorldHead(nn.Module):
    """The next frame, the reward and whether it is over; outputs are float32.

    state_bts [B, T, STATE] is what `frame.target` scales; zero at the start, so an
    untrained model says that everything changes as it does on average, and no reward.
    action_state_btnk [B, T, 2, K] are logits of both fighters' next action states; to
    that of the present one a number is added that h decides, `STAY` at the start, so
    that staying need not be learned state by state. reward_bt is in `Scales.reward`;
    done_bt is a logit.

    Attributes:
      dtype: compute type of the products.
      hidden: width of the hidden layers of reward and done.
    """

    dtype: jnp.dtype = jnp.float32
    hidden: int = 64

    @nn.compact
    def __call__(self, h_btd: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        def single(name: str) -> jax.Array:
            hidden = nn.Dense(self.hidden, dtype=self.dtype, name=f"{name}_hidden")
            x_btk = nn.gelu(hidden(h_btd))
            said = nn.Dense(
                1, dtype=self.dtype, kernel_init=nn.initializers.zeros, name=name
            )(x_btk)
            return said[..., 0].astype(jnp.float32)

        classes = ACTION_STATES + 1
        pair = len(FIGHTERS)
        state = nn.Dense(
            STATE, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="state"
        )(h_btd)
        logits = nn.Dense(pair * classes, dtype=self.dtype, name="action_state")(h_btd)
        logits = logits.reshape(*h_btd.shape[:-1], pair, classes)
        stay = nn.Dense(
            pair,
            dtype=self.dtype,
            bias_init=nn.initializers.constant(STAY),
            name="stay",
        )(h_btd)
        stay = stay[..., None].astype(jnp.float32)
        here = jax.nn.one_hot(batch["action_state_btn"], classes)
        return {
            "state_bts": state.astype(jnp.float32),
            "action_state_btnk": logits.astype(jnp.float32) + stay * here,
            "reward_bt": single("reward"),
            "done_bt": single("done"),
        }
