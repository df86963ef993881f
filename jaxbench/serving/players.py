"""Players of simulated games: scripts, floors, and trained policies.

A player holds one place of each of B games, not the same in all of them. Its controls
are `Controls` whose fields are [B]: what it holds on the next frame.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from jaxbench.data.game import Character, Items
from jaxbench.data.simulation import observation, scripted, styles, timed_inputs
from jaxbench.data.simulation.arena import STAGES
from jaxbench.data.simulation.fight import Controls, State
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.view import View

if TYPE_CHECKING:
    from jaxbench.serving.policy import Policy

# Of the places of a game, as replays number them.
PORTS = (1, 2)
STAGE_S = np.array([stage.id for stage in STAGES], np.int32)
# Streams of `scripted.noise` that no scripted player draws from.
_RANDOM_STREAM = 1000


class Player(Protocol):
    """Interface of a player for `match.play`: pure functions of memory and state."""

    def start(self, state: State, side_b: np.ndarray) -> Any:
        """The memory with which games begin.

        Args:
          state: the games before their first frame.
          side_b: int [B], the player's place in each game, 0 or 1.
        """
        ...

    def act(
        self, memory: Any, state: State, side_b: np.ndarray
    ) -> tuple[Controls, Any]:
        """The controls for the next frame, fields [B], and the memory after it.

        Pure, and called once a frame; games that are over are still in the batch.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Scripted:
    """The simulation's scripted player, see `data.simulation.scripted`.

    Attributes:
      style: one of its styles; None for all of them in turn.
      repeat: games in a row that have the same style, where it is None. Two scripted
        players with 1 and `scripted.STYLE_COUNT` meet in all pairs of styles.
    """

    style: int | None = None
    repeat: int = 1

    def start(self, state: State, side_b: np.ndarray) -> scripted.Memory:
        """As `Player.start`."""
        style_b = np.arange(len(side_b)) // self.repeat % scripted.STYLE_COUNT
        if self.style is not None:
            style_b = np.full(len(side_b), self.style)
        # The other column's controls are dropped, so its style does not matter.
        return scripted.remember_nothing(state, np.stack([style_b, style_b], axis=1))

    def act(
        self, memory: scripted.Memory, state: State, side_b: np.ndarray
    ) -> tuple[Controls, scripted.Memory]:
        """As `Player.act`."""
        controls, memory = scripted.act(memory, state)
        return one_side(controls, side_b), memory


@dataclasses.dataclass(frozen=True)
class Random:
    """Draws a controller of the scripted repertoire anew at each frame.

    Drawn uniformly from all frames of all timed inputs of all styles, mirrored or not:
    no frame follows from the one before, or from the game. So it is the floor
    "marginal" in a closed loop, with the weights of a repertoire and not of its use.
    """

    def start(self, state: State, side_b: np.ndarray) -> int:
        """As `Player.start`; the memory counts frames."""
        return 0

    def act(
        self, memory: int, state: State, side_b: np.ndarray
    ) -> tuple[Controls, int]:
        """As `Player.act`."""
        stream = _RANDOM_STREAM + 2 * np.arange(3)[:, None] + side_b
        draw = scripted.noise(state.seed[None], memory, stream)
        n, m = (draw[0] * len(_FRAMES)).astype(int), draw[1] * scripted.STYLE_COUNT
        chosen, frame = _FRAMES[n].T
        style = m.astype(int)
        x, y, cx, cy, trigger = timed_inputs.ANALOG[chosen, frame].T
        mirror = np.where(draw[2] < 0.5, -1, 1).astype(np.float32)
        left, none = styles.GUARDS_LEFT[style], np.float32(0)
        held = Controls(
            stick_x=x * mirror,
            stick_y=y,
            cstick_x=cx * mirror,
            cstick_y=cy,
            trigger_l=np.where(left, trigger, none),
            trigger_r=np.where(left, none, trigger),
            buttons=styles.PRESSED[style, chosen, frame],
        )
        return held, memory + 1


# [N, 2], every frame of every timed input.
_FRAMES = np.array(
    [
        (chosen, frame)
        for chosen, length in enumerate(timed_inputs.LENGTH)
        for frame in range(length)
    ]
)


@dataclasses.dataclass(frozen=True)
class CopyPrevious:
    """Repeats its last controller, which is neutral from the start: it never moves.

    That is what the task's floor of this name is worth in a game. It predicts most
    frames of a replay because somebody else decided when the controller changes.
    """

    def start(self, state: State, side_b: np.ndarray) -> None:
        """As `Player.start`; the game remembers for it."""

    def act(
        self, memory: None, state: State, side_b: np.ndarray
    ) -> tuple[Controls, None]:
        """As `Player.act`."""
        return one_side(state.controls, side_b), None


def baselines(*, rival: bool = False) -> dict[str, Player]:
    """Players that need no run, by name.

    Args:
      rival: they are the others' opponent. Scripts against scripts meet in all pairs of
        styles, so one side changes its style from game to game and the other seldom.
    """
    return {
        "scripted": Scripted(repeat=1 if rival else scripted.STYLE_COUNT),
        "random": Random(),
        "copy_previous": CopyPrevious(),
    }


class PolicyMemory(NamedTuple):
    """What a policy's player carries from frame to frame.

    Attributes:
      before: the state before the one it is shown, for a frame's inputs.
      policy: the policy's own state.
    """

    before: State
    policy: Any


@dataclasses.dataclass(frozen=True)
class PolicyPlayer:
    """A trained policy, which sees each frame as a replay of the game would show it.

    It begins with the timer's first frame, as its training did, and holds nothing
    before.

    Attributes:
      policy: its `hold` is its delay, because the simulation delays nothing.
    """

    policy: Policy

    def __post_init__(self) -> None:
        if self.policy.hold != self.policy.delay:
            raise ValueError(
                f"a policy with a delay of {self.policy.delay} plays with hold="
                f"{self.policy.delay}, not {self.policy.hold}"
            )

    def start(self, state: State, side_b: np.ndarray) -> PolicyMemory:
        """As `Player.start`."""
        return PolicyMemory(state, self.policy.initial_state(len(side_b)))

    def act(
        self, memory: PolicyMemory, state: State, side_b: np.ndarray
    ) -> tuple[Controls, PolicyMemory]:
        """As `Player.act`.

        Raises:
          BadFrame: a frame cannot be acted on.
        """
        view = view_of_state(memory.before, state, side_b)
        # A game that is over stands still, and no frame may come twice.
        now_b = np.full_like(state.frame, state.frame.max())
        view = dataclasses.replace(view, frame_b=now_b)
        after, labels_ba = self.policy.step_views(memory.policy, view, strict=True)
        return controls_of_labels(labels_ba), PolicyMemory(state, after)


def one_side(controls: Controls, side_b: np.ndarray) -> Controls:
    """The controls of one player of each game: fields [B] of fields [B, 2]."""
    row = np.arange(len(side_b))
    return Controls(*(field[row, side_b] for field in controls))


def controls_of_labels(labels_ba: np.ndarray) -> Controls:
    """Decodes six labels as controls, fields [B]; the shoulder is the left trigger.

    A replay's label of the shoulder is the larger of both triggers, so it is the same
    again when it is read back.
    """
    held = controller.decode(np.asarray(labels_ba))
    masks = controller.MASKS.astype(np.int32)
    shoulder = held["shoulder"]
    return Controls(
        stick_x=held["main_x"],
        stick_y=held["main_y"],
        cstick_x=held["c_x"],
        cstick_y=held["c_y"],
        trigger_l=shoulder,
        trigger_r=np.zeros_like(shoulder),
        buttons=np.where(held["buttons"], masks, 0).sum(axis=-1).astype(np.int32),
    )


def view_of_state(before: State, state: State, side_b: np.ndarray) -> View:
    """A frame of each game from one player's side, with the fields of a replay.

    Args:
      before: the games at the end of the frame before.
      state: the games at the end of the frame that is shown.
      side_b: int [B], the player's place in each game.
    """
    pre = observation.pre_fields(before, state.controls)
    post = observation.post_fields(state, PORTS)
    fields, present = observation.item_fields(state, PORTS)
    row = np.arange(len(side_b))

    def fighter(column_b: np.ndarray) -> Character:
        return Character(
            present_t=np.ones(len(row), bool),
            pre={name: values[row, column_b] for name, values in pre.items()},
            post={name: values[row, column_b] for name, values in post.items()},
        )

    return View(
        frame_b=state.frame,
        stage_b=STAGE_S[state.stage],
        own=fighter(side_b),
        opponent=fighter(1 - side_b),
        own_nana=None,
        opponent_nana=None,
        items=Items(
            frame_i=np.nonzero(present)[0].astype(np.int32),
            fields={name: values[present] for name, values in fields.items()},
        ),
        own_port=np.array(PORTS)[side_b],
    )
