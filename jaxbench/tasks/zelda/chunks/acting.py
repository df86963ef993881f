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


def draw(
    head: nn.Module, h_btd: jax.Array, key: jax.Array, temperature: float
) -> jax.Array:
    """What `follow` reads: labels int32 [B, T, 6], or whole chunks [B, T, H, 13].

    The head must be bound. The key is unused at temperature 0.
    """
    if isinstance(head, ChunkHead) and head.ensembled:
        return head.chunk(h_btd, key, temperature)
    return head.sample(h_btd, key, temperature)


def follow(plan: Plan, drawn: jax.Array, start_b: jax.Array) -> tuple[jax.Array, Plan]:
    """The frame's controllers, int32 [B, 6], and the plan after it.

    Args:
      plan: of `first_plan` or the frame before.
      drawn: of `draw`, one frame's: [B, 6] or [B, H, 13].
      start_b: bool [B], where a game starts.
    """
    if not plan:
        return drawn, ()
    action_bc, plan = ensemble.follow(plan, drawn, start_b)
    return action.decode(action_bc), plan
