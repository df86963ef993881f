"""A frame's controller from what a head draws, whichever head it is.

What is carried from frame to frame besides the model's state is the head's plan: the
chunks that `ensemble` averages, or nothing.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from jaxbench.tasks.zelda.chunks import action, ensemble
from jaxbench.tasks.zelda.chunks.heads import ChunkHead

Plan = ensemble.Plan | tuple[()]


def first_plan(head: nn.Module, games: int) -> Plan:
    """The plan with which games begin."""
    if isinstance(head, ChunkHead) and head.ensembled:
        return ensemble.first_plan(games, head.policy.horizon)
    return ()


def follow(plan: Plan, drawn: jax.Array, start_b: jax.Array) -> tuple[jax.Array, Plan]:
    """The frame's controllers, int32 [B, 6], and the plan after it.

    Args:
      plan: of `first_plan` or the frame before.
      drawn: of one frame: labels [B, 6], or the whole chunk [B, H, 13] where the head
        averages over chunks.
      start_b: bool [B], where a game starts.
    """
    if not plan:
        return drawn, ()
    action_bc, plan = ensemble.follow(plan, drawn, start_b)
    return action.decode(action_bc), plan
