"""Model-predictive control: a world model plays simulated games by planning.

Model-predictive control: at a frame it plans from what it sees, holds the first
controllers of the plan, and plans anew some frames later. What a plan is worth by the
model's own word is in `planning`; here is what it is worth in a game.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxbench.data.game import Character
from jaxbench.data.simulation import environment
from jaxbench.data.simulation.fight import Controls, State
from jaxbench.serving.bar import counting
from jaxbench.serving.match import Schedule, play
from jaxbench.serving.players import (
    Player,
    Scripted,
    baselines,
    controls_of_labels,
    view_of_state,
)
from jaxbench.serving.world import planning
from jaxbench.serving.world.members import World
from jaxbench.serving.world.rollout import (
    Place,
    empty_memory,
    of_every_member,
    read,
)
from jaxbench.tasks.world import frame, states
from jaxbench.tasks.world.frame import Frame
from jaxbench.tasks.zelda import controller, frames
from jaxbench.tasks.zelda.features import CHARACTERS
from jaxbench.tasks.zelda.view import View

# (memory, frame before, controllers that led on from it) -> memory.
TakeIn = Callable[[Any, Frame, jax.Array], Any]
# (place, the opponent's controller, key) -> labels int32 [B, H, 6].
Decide = Callable[[Place, jax.Array, jax.Array], jax.Array]


class Memory(NamedTuple):
    """What a planner carries from frame to frame.

    Attributes:
      before: the games at the frame before, for a frame's inputs.
      seen: the frame before as the model reads it; None before the timer starts.
      world: the members' states after all frames before `seen`, [M, B, ...].
      labels_bha: the plan that is being held, from its next frame on.
      frames: frames of the timer that have been seen.
    """

    before: State
    seen: Frame | None
    world: Any
    labels_bha: np.ndarray
    frames: int


@dataclasses.dataclass(frozen=True)
class Planner:
    """A player that plans with a world model; made by `planner`.

    The model's memory runs from the timer's first frame on, over deaths too, as in its
    training's windows. Who cannot act holds nothing.

    Attributes:
      world: M members.
      take_in, decide: compiled once for each number of games.
      every: frames of a plan that are held before the next is made.
      seed: of the draws.
    """

    world: World
    take_in: TakeIn
    decide: Decide
    every: int
    seed: int

    def start(self, state: State, side_b: np.ndarray) -> Memory:
        """As `Player.start`."""
        games = len(side_b)
        none = np.zeros((games, 0, 6), np.int32)
        return Memory(state, None, empty_memory(self.world, games), none, 0)

    def act(
        self, memory: Memory, state: State, side_b: np.ndarray
    ) -> tuple[Controls, Memory]:
        """As `Player.act`."""
        neutral_ba = np.tile(controller.NEUTRAL.astype(np.int32), (len(side_b), 1))
        if (state.frame < 0).all():
            return controls_of_labels(neutral_ba), memory._replace(before=state)
        view = view_of_state(memory.before, state, side_b)
        seen = frame_of_view(view)
        both = (view.own, view.opponent)
        sent = [controller.encode(who.pre, "clean") for who in both]
        sent_bna = jnp.asarray(np.stack(sent, axis=1), jnp.int32)
        inner = memory.world
        if memory.seen is not None:
            inner = self.take_in(inner, memory.seen, sent_bna)
        labels_bha = memory.labels_bha
        if labels_bha.shape[1] == 0:
            place = Place(of_every_member(self.world, seen), inner)
            key = jax.random.fold_in(jax.random.key(self.seed), memory.frames)
            labels = self.decide(place, sent_bna[:, 1], key)
            labels_bha = np.asarray(labels)[:, : self.every]
        idle_b = np.isin(view.own.post["state"], frames.IDLE)
        held_ba = np.where(idle_b[:, None], neutral_ba, labels_bha[:, 0])
        after = Memory(state, seen, inner, labels_bha[:, 1:], memory.frames + 1)
        return controls_of_labels(held_ba), after


def planner(
    world: World,
    *,
    method: str,
    goal: planning.Goal,
    search: planning.Search,
    prior: planning.Proposal,
    every: int,
    seed: int = 0,
) -> Planner:
    """Makes a player that plans with a world model.

    Cost of a plan for B games: `search.horizon` steps of the backbone on
    B * `search.samples` sequences, for each member.

    Args:
      world: M members.
      method: a key of `planning.PLANNERS`.
      goal: of what is predicted.
      search: how to look for a plan.
      prior: what the first draws are like, for one situation.
      every: frames of a plan that are held, 1 to `search.horizon`.
      seed: of the draws.
    """

    @jax.jit
    def take_in(memory: Any, seen: Frame, sent_bna: jax.Array) -> Any:
        now = jax.tree.map(lambda x: x[:, None], seen)
        # The first frame meets an empty memory, which is what a reset leaves.
        going_on = jnp.zeros(now.stage_b.shape, bool)
        return read(world, memory, now, sent_bna[:, None], going_on)

    @jax.jit
    def decide(place: Place, rival_ba: jax.Array, key: jax.Array) -> jax.Array:
        cost = planning.predicted_cost(world, place, rival_ba, goal)
        many = jax.tree.map(lambda x: jnp.repeat(x, len(rival_ba), axis=0), prior)
        return planning.PLANNERS[method](key, cost, many, search).labels_bha

    return Planner(world, take_in, decide, every, seed)


def carry_out(player: Player, games: Schedule) -> dict[str, Mapping[str, Any]]:
    """Plays a schedule against the scripts, once with plans and once by each floor.

    Returns:
      name of the player -> `Match.summary`: "plan", and those of `baselines`.
    """
    players: dict[str, Player] = {"plan": player, **baselines()}
    total = games.seconds * environment.FRAMES_PER_SECOND
    found: dict[str, Mapping[str, Any]] = {}
    for name, who in players.items():
        with counting(total, f"{name} against scripted") as advance:

            def watch(state: State, tell: Callable[[int], None] = advance) -> None:
                tell(int(state.frame.max()))

            found[name] = play(who, Scripted(), games, watch=watch).summary()
    return found


def frame_of_view(view: View) -> Frame:
    """A view as the model reads it, [B, ...]: the numbers that training's rows hold."""

    def both(read: Callable[[Character], np.ndarray]) -> np.ndarray:
        return np.stack([read(view.own), read(view.opponent)], axis=1)

    numbers = both(states.fighter_state)
    ids = both(lambda who: who.post["state"])
    character = both(lambda who: who.post["character"])
    return Frame(
        state_bs=numbers.reshape(len(view), states.STATE),
        action_state_bn=np.asarray(frame.known_states(jnp.asarray(ids))),
        character_bn=np.minimum(character.astype(np.int32), CHARACTERS),
        stage_b=np.array([frames.stage_class(s) for s in view.stage_b.tolist()]),
    )
