"""Planning with a world model: controllers of one player for the frames ahead.

Random shooting draws sequences and keeps the best. The cross-entropy method (Rubinstein
1999) draws, keeps the best few, draws anew as those were, and so on; the best sequence
ever drawn is kept. Both are told the cost by a function, so neither knows a model.

A sequence is a decision every `hold` frames; a decision is the six labels of
`zelda.controller`, drawn independently: eight buttons, four sticks, a shoulder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.errors import InputError
from jaxbench.serving.world.members import World
from jaxbench.serving.world.rollout import Place, Trajectory, rollout
from jaxbench.tasks.world import states
from jaxbench.tasks.world.frame import Frame
from jaxbench.tasks.zelda.encoder import spread

METHODS = ("shooting", "cem")
# Cost of sequences, int32 [B, N, H, 6] -> [B, N]; less is better.
Cost = Callable[[jax.Array], jax.Array]
# Cost of what is predicted, [M, B, ...] -> [B].
Goal = Callable[[Trajectory], jax.Array]
# What CEM never believes less than: a label that no elite had may still be good.
FLOOR = 1e-3


@dataclasses.dataclass(frozen=True)
class Search:
    """Settings of the search for a plan.

    Attributes:
      horizon: frames a plan is long.
      hold: frames a decision is held.
      samples: sequences drawn in all.
      rounds: of CEM, which share the samples.
      elites: share of a round's sequences that the next is drawn after.
      keep: share of the old probabilities that a round keeps.
    """

    horizon: int
    hold: int = 4
    samples: int = 256
    rounds: int = 4
    elites: float = 0.1
    keep: float = 0.1


class Proposal(NamedTuple):
    """Probabilities of labels at each of D decisions, in B situations.

    Attributes:
      buttons_bdk: [B, D, 8], that a button is down.
      sticks_bdsk: [B, D, 4, 17].
      shoulder_bdk: [B, D, 5].
    """

    buttons_bdk: jax.Array
    sticks_bdsk: jax.Array
    shoulder_bdk: jax.Array


class Plan(NamedTuple):
    """The cheapest sequence drawn for each of B situations.

    Attributes:
      labels_bha: int32 [B, H, 6].
      cost_b: what it is said to cost.
      first_b: the mean cost of the first sequences drawn: those of the prior.
    """

    labels_bha: jax.Array
    cost_b: jax.Array
    first_b: jax.Array


def as_played(labels_na: np.ndarray, situations: int, search: Search) -> Proposal:
    """Labels as likely as they were among recorded controllers, uint8 [N, 6]."""
    held = np.asarray(spread(jnp.asarray(labels_na, jnp.int32))).mean(axis=0)
    shape = (situations, _decisions(search), len(held))
    return _proposal(jnp.broadcast_to(jnp.asarray(held), shape))


def draw(key: jax.Array, proposal: Proposal, count: int, search: Search) -> jax.Array:
    """`count` sequences for each situation, int32 [B, count, horizon, 6]."""
    keys = jax.random.split(key, 3)
    situations, decisions = proposal.buttons_bdk.shape[:2]
    shape = (situations, count, decisions)
    down = jax.random.uniform(keys[0], (*shape, 8)) < proposal.buttons_bdk[:, None]
    bits = np.left_shift(1, np.arange(8))
    packed = jnp.sum(down * jnp.asarray(bits)[None, None, None], axis=-1)
    sticks = jax.random.categorical(
        keys[1], jnp.log(proposal.sticks_bdsk)[:, None], shape=(*shape, 4)
    )
    shoulder = jax.random.categorical(
        keys[2], jnp.log(proposal.shoulder_bdk)[:, None], shape=shape
    )
    labels = jnp.concatenate(
        [packed[..., None], sticks, shoulder[..., None]], axis=-1
    ).astype(jnp.int32)
    return jnp.repeat(labels, search.hold, axis=2)[:, :, : search.horizon]


def shoot(key: jax.Array, cost: Cost, prior: Proposal, search: Search) -> Plan:
    """Random shooting: the cheapest of `search.samples` draws, for each situation."""
    labels = draw(key, prior, search.samples, search)
    found = cost(labels)
    return _better(None, labels, found, jnp.mean(found, axis=1))


def cem(key: jax.Array, cost: Cost, prior: Proposal, search: Search) -> Plan:
    """The cross-entropy method: `search.rounds` rounds share `search.samples` draws."""
    each = search.samples // search.rounds
    count = max(1, round(search.elites * each))
    proposal, plan = prior, None
    for round_key in jax.random.split(key, search.rounds):
        labels = draw(round_key, proposal, each, search)
        found = cost(labels)
        first = jnp.mean(found, axis=1) if plan is None else plan.first_b
        plan = _better(plan, labels, found, first)
        best = jnp.argsort(found, axis=1)[:, :count]
        elites = jnp.take_along_axis(labels, best[..., None, None], axis=1)
        proposal = _after(elites[:, :, :: search.hold], proposal, search.keep)
    assert plan is not None
    return plan


PLANNERS: Mapping[str, Callable[[jax.Array, Cost, Proposal, Search], Plan]] = {
    "shooting": shoot,
    "cem": cem,
}


def predicted_cost(world: World, place: Place, held_ba: jax.Array, goal: Goal) -> Cost:
    """Cost of sequences as the world predicts it, the opponent's controller held.

    Args:
      world: M members.
      place: [M, B, ...], where the plans begin.
      held_ba: int32 [B, 6], the opponent's last controller.
      goal: of what is predicted.
    """

    def cost(labels_bnha: jax.Array) -> jax.Array:
        situations, count, horizon, _ = labels_bnha.shape
        many = jax.tree.map(
            lambda x: jnp.repeat(x, count, axis=1) if x.ndim > 1 else x, place
        )
        own = labels_bnha.reshape(situations * count, horizon, 6)
        rival = jnp.repeat(held_ba, count, axis=0)

        def act(seen: Frame, step: jax.Array) -> jax.Array:
            del seen
            sent = jax.lax.dynamic_index_in_dim(own, step, 1, keepdims=False)
            return jnp.stack([sent, rival], axis=1)

        said, _ = rollout(world, many, horizon, act)
        return goal(said).reshape(situations, count)

    return cost


def reward_goal(discount: float = 0.99) -> Goal:
    """Minus the discounted reward up to the episode's end, the mean over members.

    sum_h discount^h reward_h prod_{i < h} (1 - done_i)
    """

    def goal(said: Trajectory) -> jax.Array:
        going = jnp.cumprod(1 - said.done_mbh, axis=-1)
        before = jnp.concatenate([jnp.ones_like(going[..., :1]), going[..., :-1]], -1)
        fade = jnp.power(discount, jnp.arange(going.shape[-1]))
        total = jnp.sum(said.reward_mbh * before * fade[None, None], axis=-1)
        return -jnp.mean(total, axis=0)

    return goal


def position_goal(x: float, y: float) -> Goal:
    """The own fighter's distance from (x, y), units: mean over frames and members."""
    columns = states.columns("position")[0]

    def goal(said: Trajectory) -> jax.Array:
        off = said.state_mbhs[..., columns] - jnp.array([x, y])[None, None, None]
        return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(off), axis=-1)), axis=(0, 2))

    return goal


def parse_goal(text: str, discount: float) -> Goal:
    """The goal "reward", or a place "X,Y" to be near.

    Raises:
      InputError: neither.
    """
    if text == "reward":
        return reward_goal(discount)
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = float("nan")
    if not np.isfinite([x, y]).all():
        raise InputError(
            f"--goal={text!r} is neither 'reward' nor a place X,Y in units, such as "
            "0,20"
        )
    return position_goal(x, y)


def _proposal(share_bdl: jax.Array) -> Proposal:
    """Probabilities from the shares of controllers that held each of the labels."""
    buttons, sticks, shoulder = jnp.split(share_bdl, (8, 76), axis=-1)
    return Proposal(buttons, sticks.reshape(*sticks.shape[:-1], 4, 17), shoulder)


def _decisions(search: Search) -> int:
    return -(-search.horizon // search.hold)


def _better(
    old: Plan | None, labels: jax.Array, found: jax.Array, first_b: jax.Array
) -> Plan:
    """The cheaper of a round's best sequence and the plan before, by situation."""
    best = jnp.argmin(found, axis=1)[:, None]
    cost = jnp.take_along_axis(found, best, axis=1)[:, 0]
    chosen = jnp.take_along_axis(labels, best[..., None, None], axis=1)[:, 0]
    if old is not None:
        keep = old.cost_b <= cost
        cost = jnp.where(keep, old.cost_b, cost)
        chosen = jnp.where(keep[:, None, None], old.labels_bha, chosen)
    return Plan(chosen, cost, first_b)


def _after(elites_bnda: jax.Array, old: Proposal, keep: float) -> Proposal:
    """Refits the proposal to the elites, keeping a share of the old one."""
    found = _proposal(jnp.mean(spread(elites_bnda), axis=1))
    mixed = [keep * was + (1 - keep) * now for was, now in zip(old, found, strict=True)]
    buttons = jnp.clip(mixed[0], FLOOR, 1 - FLOOR)
    sticks, shoulder = (jnp.maximum(part, FLOOR) for part in mixed[1:])
    # `draw` takes logarithms, which need no sum of 1.
    return Proposal(buttons, sticks, shoulder)
