"""Temporal ensembling: a frame's controller from all chunks that cover it.

Every frame brings a chunk, so frame t is covered by those of t, t - 1, ..., t - H + 1.
They are averaged with weights exp(-0.01 i), i = 0 the oldest, which sum to one (Zhao et
al. 2023, arXiv:2304.13705, section IV.C).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxbench.tasks.zelda.chunks import action

DECAY = 0.01
# {"chunks": [B, H, H, 13], the newest first; "count_b": how many there are}.
Plan = dict[str, jax.Array]


def first_plan(games: int, horizon: int) -> Plan:
    """Nothing planned: what a game starts with."""
    return {
        "chunks": jnp.zeros((games, horizon, horizon, action.SIZE)),
        "count_b": jnp.zeros(games, jnp.int32),
    }


def follow(
    plan: Plan, chunk_bhc: jax.Array, start_b: jax.Array
) -> tuple[jax.Array, Plan]:
    """The action of this frame, [B, 13], and the plan with its chunk in it.

    Args:
      plan: after the frame before.
      chunk_bhc: this frame's, [B, H, 13].
      start_b: true where a game starts: what was planned before counts nothing.
    """
    horizon = chunk_bhc.shape[1]
    count_b = jnp.where(start_b, 1, jnp.minimum(plan["count_b"] + 1, horizon))
    chunks = jnp.concatenate([chunk_bhc[:, None], plan["chunks"][:, :-1]], axis=1)
    age = jnp.arange(horizon)
    # The chunk made `age` frames ago means the present by its place `age`.
    now_bhc = chunks[:, age, age]
    order = count_b[:, None] - 1 - age[None]
    weight = jnp.where(order >= 0, jnp.exp(-DECAY * order), 0.0)
    weight = weight / weight.sum(-1, keepdims=True)
    # Chunks of the game before may be anything: zero times them is not always zero.
    now_bhc = jnp.where((order >= 0)[..., None], now_bhc, 0.0)
    return jnp.sum(weight[..., None] * now_bhc, axis=1), {
        "chunks": chunks,
        "count_b": count_b,
    }
