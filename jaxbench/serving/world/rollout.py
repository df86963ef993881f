"""Rollouts: a world model is fed its own predictions, every member its own.

    place = warm_up(world, history, controllers_btna)
    trajectory, place = rollout(world, place, horizon, recorded(controllers_bhna))

A place goes on where the last rollout stopped, so chunks and single steps agree. All is
pure: for jit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbench.serving.world.members import World
from jaxbench.tasks.world import frame
from jaxbench.tasks.world.frame import Frame

# (the frame as a member sees it, steps since the place) -> int32 [B, 2, 6].
Act = Callable[[Frame, jax.Array], jax.Array]


class Place(NamedTuple):
    """State of a rollout; every array has the members' axis in front.

    Attributes:
      frame: the present frame, [M, B, ...].
      memory: the backbone's state after all frames before it.
    """

    frame: Frame
    memory: Any


class Trajectory(NamedTuple):
    """Each member's predictions of the frames that follow a place.

    Attributes:
      state_mbhs: [M, B, H, STATE], in the game's units.
      action_state_mbhn: int32 [M, B, H, 2].
      reward_mbh: of the step that leads to the frame.
      done_mbh: probability that it ended the episode.
    """

    state_mbhs: Any
    action_state_mbhn: Any
    reward_mbh: Any
    done_mbh: Any


def recorded(controllers_bhna: jax.Array) -> Act:
    """Makes an `Act` of recorded controllers, int32 [B, H, 2, 6]."""

    def act(seen: Frame, step: jax.Array) -> jax.Array:
        del seen
        return jax.lax.dynamic_index_in_dim(controllers_bhna, step, 1, keepdims=False)

    return act


def warm_up(world: World, history: Frame, controllers_btna: jax.Array) -> Place:
    """Reads real frames; the last is where the rollout begins.

    Args:
      world: M members.
      history: [B, W, ...], the first of them starts an episode.
      controllers_btna: int32 [B, W - 1 or more, 2, 6], those that act on the frame
        after each.
    """
    batch, length = history.stage_b.shape
    memory = empty_memory(world, batch)
    if length > 1:
        past = jax.tree.map(lambda x: x[:, :-1], history)
        first = jnp.zeros((batch, length - 1), bool).at[:, 0].set(True)
        memory = read(world, memory, past, controllers_btna[:, : length - 1], first)
    present = jax.tree.map(lambda x: x[:, -1], history)
    return Place(of_every_member(world, present), memory)


def empty_memory(world: World, batch: int) -> Any:
    """The members' states before any frame, [M, B, ...]: what a reset leaves."""

    def of_member(variables: Any) -> Any:
        return world.model.apply(variables, batch, method="initial_state")

    return jax.vmap(of_member)(world.variables)


def read(
    world: World,
    memory: Any,
    seen: Frame,
    controllers_btna: jax.Array,
    reset_bt: jax.Array,
) -> Any:
    """The members' states after real frames, [M, B, ...].

    Args:
      world: M members.
      memory: their states before these frames.
      seen: [B, T, ...], the same for every member.
      controllers_btna: int32 [B, T, 2, 6], those that act on the frame after each.
      reset_bt: bool [B, T], True where an episode starts.
    """
    given = frame.inputs(seen, controllers_btna, world.scales)
    given = {**given, "reset_bt": reset_bt}

    def of_member(variables: Any, state: Any) -> Any:
        return world.model.apply(variables, given, state)[1]

    return jax.vmap(of_member)(world.variables, memory)


def of_every_member(world: World, seen: Frame) -> Frame:
    """A real frame as each member has it, [M, B, ...]."""
    return jax.tree.map(
        lambda x: jnp.broadcast_to(x, (world.members, *jnp.shape(x))), seen
    )


def rollout(
    world: World, place: Place, horizon: int, act: Act
) -> tuple[Trajectory, Place]:
    """The next `horizon` frames, each predicted from those predicted before it.

    Cost: `horizon` steps of the backbone for each member and example.

    Args:
      world: M members.
      place: from `warm_up` or another rollout.
      horizon: H.
      act: `recorded`, or a policy of both players.
    """

    def of_member(variables: Any, start: Place) -> tuple[Trajectory, Place]:
        def step(here: Place, count: jax.Array) -> tuple[Place, Trajectory]:
            sent = act(here.frame, count)
            now = jax.tree.map(lambda x: x[:, None], here.frame)
            given = frame.inputs(now, sent[:, None], world.scales)
            # The episode goes on: its start is in the memory.
            given["reset_bt"] = jnp.zeros(now.stage_b.shape, bool)
            outputs, memory = world.model.apply(variables, given, here.memory)
            then, reward, done = frame.following(
                now, outputs, world.scales, world.residual
            )
            then = jax.tree.map(lambda x: x[:, 0], then)
            said = Trajectory(
                then.state_bs, then.action_state_bn, reward[:, 0], done[:, 0]
            )
            return Place(then, memory), said

        end, said = jax.lax.scan(step, start, jnp.arange(horizon))
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), said), end

    return jax.vmap(of_member)(world.variables, place)
