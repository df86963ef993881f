"""A trained policy that plays: a state and a frame in, a state and a controller out.

    policy = Policy.load("runs/zelda/mamba/seed0-1a2b3c4d")
    state = policy.initial_state()
    state, controller = policy.step(state, frame)  # every frame

A policy sees what training showed it (`tasks.zelda.windows`): frames from the timer's
start on, the first of them a reset, and the controller sent last. `step` is a pure
function: the same state and frame give the same answer, and an old state stays good.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxbench.errors import InputError, nearest
from jaxbench.models.model import Model
from jaxbench.serving.bad_frame import (
    BadFrame,
    problems,
    raise_first,
    wrong_character,
)
from jaxbench.serving.decide import Memory, act, bind, first_memory, where_game
from jaxbench.serving.weights import Variables, example_batch, load_trained_policy
from jaxbench.tasks import rules
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda import view as views
from jaxbench.tasks.zelda.chunks.heads import ChunkHead
from jaxbench.tasks.zelda.view import View

__all__ = ["BadFrame", "Controller", "Policy", "State", "controllers"]

MODES = ("stateful", "window")
# In `State.frame_b`: no frame of a game has been seen.
NO_FRAME = np.iinfo(np.int32).min


@dataclasses.dataclass(frozen=True)
class Controller:
    """A controller as it is to be held for one frame.

    Attributes:
      main_x, main_y, c_x, c_y: sticks in [-1, 1], right and up are positive.
      shoulder: the analog trigger in [0, 1].
      buttons: names of those that are pressed, of `tasks.zelda.controller.BUTTONS`.
    """

    main_x: float
    main_y: float
    c_x: float
    c_y: float
    shoulder: float
    buttons: tuple[str, ...]


def controllers(labels_ba: np.ndarray) -> list[Controller]:
    """Rows of six labels as controllers."""
    held = controller.decode(labels_ba)
    names = np.array(controller.BUTTONS)
    return [
        Controller(
            main_x=float(held["main_x"][row]),
            main_y=float(held["main_y"][row]),
            c_x=float(held["c_x"][row]),
            c_y=float(held["c_y"][row]),
            shoulder=float(held["shoulder"][row]),
            buttons=tuple(names[pressed].tolist()),
        )
        for row, pressed in enumerate(held["buttons"])
    ]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["memory", "frame_b", "stage_b", "sent_bqa", "skipped_b"],
    meta_fields=["reasons"],
)
@dataclasses.dataclass(frozen=True)
class State:
    """State of a policy in B games, carried from frame to frame; immutable.

    Attributes:
      memory: of the compiled step, on the device; see `step`.
      frame_b: int64 [B], the last frame id seen, `NO_FRAME` before a game's first.
      stage_b: int64 [B], the stage of that frame.
      sent_bqa: int32 [B, hold + 1, 6], the last controllers decided, the newest last;
        the oldest is the last one returned. Neutral at a game's start.
      skipped_b: int64 [B], frames that were not acted on, since the initial state.
      reasons: of each game, why the last of those was skipped; "" where none was.
    """

    memory: Memory
    frame_b: np.ndarray
    stage_b: np.ndarray
    sent_bqa: np.ndarray
    skipped_b: np.ndarray
    reasons: tuple[str, ...]

    @property
    def skipped(self) -> int:
        """Frames that were not acted on, over all games."""
        return int(self.skipped_b.sum())

    @property
    def reason(self) -> str:
        """Why a frame was last skipped, in the first game in which one was."""
        return next((reason for reason in self.reasons if reason), "")


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model that answers frames; make one with `load`, or of a model with `of`.

    Attributes:
      model, variables: the network.
      window: frames that training showed it.
      delay: a controller decided at frame t is that of frame t + 1 + delay.
      character: whom it learned to play, "any" for everybody.
      any_character: whether it plays on with a fighter it has not learned to play.
      mode: "stateful" carries the model's state from the game's start on; "window" sees
        the last `window` frames anew at each frame, as training did.
      temperature: 0 takes the likeliest label of each group; else labels are drawn. Of
        a head over chunks it is a factor on the noise a chunk is made of, and at 0 that
        noise is fixed: the chunk depends on what was seen alone.
      seed: of the draws; game i of a batch draws from its own stream.
      hold: frames for which a controller is held back before it is returned.
      step_of_weights: updates behind the weights, None where that is not known.
      answer: the compiled step: (memory, rows, controllers last sent, bool [B] where a
        game starts, bool [B] where the memory is to stay) -> (labels, memory).
    """

    model: Model
    variables: Variables
    window: int
    delay: int
    character: str
    any_character: bool
    mode: str
    temperature: float
    seed: int
    hold: int
    step_of_weights: int | None
    answer: Callable[..., tuple[jax.Array, Memory]] = dataclasses.field(repr=False)
    _scores: Callable[..., dict[str, jax.Array]] = dataclasses.field(repr=False)

    @classmethod
    def load(
        cls, folder: Path | str, *, which: str = "best", **settings: Any
    ) -> Policy:
        """Reads a finished run of the zelda task; its data need not be there.

        Args:
          folder: of the run, protocol clean.
          which: weights, "best" or "last".
          settings: mode, temperature, seed, hold, any_character; see `of`.

        Raises:
          InputError: see `weights.load_trained_policy`; a value out of its range.
        """
        trained = load_trained_policy(folder, which)
        known = {k: trained.config["data"][k] for k in ("window", "delay", "character")}
        known["step_of_weights"] = trained.step
        return cls.of(trained.model, trained.variables, **known, **settings)

    @classmethod
    def of(
        cls,
        model: Model,
        variables: Variables,
        *,
        window: int,
        delay: int = 0,
        character: str = "any",
        mode: str = "stateful",
        temperature: float = 0.0,
        seed: int = 0,
        hold: int = 0,
        any_character: bool = False,
        step_of_weights: int | None = None,
    ) -> Policy:
        """A policy of a model of the clean zelda task and its variables.

        Args:
          model, variables, window, delay, character, step_of_weights: see the class.
          mode: "stateful" or "window". The first costs one step of the backbone a
            frame, but soon has seen more than training ever showed; the second a whole
            window.
          temperature: of the draws; 0 draws nothing.
          seed: of the draws.
          hold: frames to hold controllers back, up to `delay`. A run that learned to
            act with a delay expects it: leave 0 where the game delays inputs (netplay),
            else give the part of it that the game does not.
          any_character: answer also where the own fighter is another than it learned to
            play; such frames are bad ones else, see `step_views`.

        Raises:
          InputError: a value out of its range.
        """
        if mode not in MODES:
            raise InputError(
                f"mode={mode!r} is none of {', '.join(MODES)}; "
                f"nearest: {nearest(str(mode), MODES, 1)}"
            )
        if not 0 <= temperature < np.inf:
            raise InputError(f"temperature={temperature} must be a number >= 0")
        rules.seed("seed", seed)
        if not 0 <= hold <= delay:
            raise InputError(
                f"hold={hold} must be between 0 and the delay the policy was trained "
                f"with, {delay}"
            )
        seen = window if mode == "window" else 0

        def decide(
            temperature: float,
            variables: Variables,
            memory: Memory,
            rows: Mapping[str, jax.Array],
            previous_ba: jax.Array,
            start_b: jax.Array,
        ) -> Any:
            frame = frame_inputs(rows, previous_ba, start_b)
            return act(
                *(model, variables, frame, memory), window=seen, temperature=temperature
            )

        # Two programs, because every output of a compiled call costs time.
        def answer(
            variables: Variables, memory: Memory, *given: Any
        ) -> tuple[jax.Array, Memory]:
            *frame, idle_b = given
            labels_ba, _, after = decide(temperature, variables, memory, *frame)
            keep = functools.partial(where_game, idle_b)
            return labels_ba, jax.tree.map(keep, memory, after)

        def scores(variables: Variables, *given: Any) -> dict[str, jax.Array]:
            return decide(0.0, variables, *given)[1]

        return cls(
            model=model,
            variables=variables,
            window=window,
            delay=delay,
            character=character,
            any_character=any_character or character == "any",
            mode=mode,
            temperature=temperature,
            seed=seed,
            hold=hold,
            step_of_weights=step_of_weights,
            answer=bind(answer, variables),
            _scores=bind(scores, variables),
        )

    def initial_state(self, games: int = 1) -> State:
        """The state before the first frame of `games` games.

        The first call for a number of games compiles the program that answers, so that
        no frame waits for it.
        """
        if games < 1:
            raise InputError(f"games={games} must be at least 1")
        state = State(
            memory=self._first_memory(games),
            frame_b=np.full(games, NO_FRAME, np.int64),
            stage_b=np.zeros(games, np.int64),
            sent_bqa=_neutral(games, self.hold + 1),
            skipped_b=np.zeros(games, np.int64),
            reasons=("",) * games,
        )
        none = np.zeros(games, bool)
        rows = read_rows(views.arrays(views.blank(games)))
        previous_ba = state.sent_bqa[:, -1]
        answer = self.answer(state.memory, rows, previous_ba, none, none)
        jax.block_until_ready(answer)
        return state

    def step(
        self, state: State, frame: View, *, strict: bool = False
    ) -> tuple[State, Controller]:
        """The controller for one game's frame, and the state after it.

        As `step_views`, of one game.
        """
        state, labels_ba = self.step_views(state, frame, strict=strict)
        if len(labels_ba) != 1:
            raise InputError(
                f"step answers one game and the state is of {len(labels_ba)}; use "
                "step_views"
            )
        return state, controllers(labels_ba)[0]

    def step_views(
        self,
        state: State,
        view: View,
        *,
        previous_ba: np.ndarray | None = None,
        strict: bool = False,
    ) -> tuple[State, np.ndarray]:
        """The controllers for a frame of B games, and the state after it.

        A game starts, from the initial state, at the first frame that a state sees of
        it, and again when its frame id goes back or its stage changes: rolled-back
        frames must not be sent. Frames before the timer starts (id < 0) are answered
        with a neutral controller and not looked at, as in training. A frame that
        cannot be acted on (`bad_frame.problems`, a fighter that the policy does not
        imitate, or the id of the frame before) leaves its game as it was: the last
        controller goes on, and the state counts it.
        One call of a compiled program, the same for all frames; no game looks at
        another.

        Args:
          state: from `initial_state(B)` or the call before.
          view: the frames.
          previous_ba: [B, 6], to take for the controllers last sent, of a player who
            is followed. None is the frame's own controllers where the policy has no
            delay, else what it decided last itself.
          strict: raise instead of skipping.

        Returns:
          The state, and labels int32 [B, 6]: what to send now. They are those just
          decided, or decided `hold` frames ago.

        Raises:
          BadFrame: a frame cannot be acted on and `strict` is true.
          InputError: the view has not as many games as the state.
        """
        found = self._found(state, view)
        if strict:
            raise_first(found)
        bad_b = np.array([reason is not None for reason in found])
        if bad_b.all():
            return _unmoved(state, found), state.sent_bqa[:, 0].copy()
        early_b = ~bad_b & (view.frame_b < 0)
        idle_b = bad_b | early_b
        start_b = ~idle_b & _starts(state, view)
        # Neither a game's first frame nor its countdown has anything sent before it.
        queue = np.where(
            (start_b | early_b)[:, None, None],
            _neutral(len(found), self.hold + 1),
            state.sent_bqa,
        )
        memory = state.memory
        if not idle_b.all():
            whole = views.without(view, bad_b) if bad_b.any() else view
            rows = views.arrays(whole)
            previous = self._previous(rows, queue, previous_ba)
            labels, memory = self.answer(
                memory, read_rows(rows), previous, start_b, idle_b
            )
            newest = np.asarray(labels)[:, None]
            moved = np.concatenate([queue[:, 1:], newest], axis=1)
            queue = np.where(idle_b[:, None, None], queue, moved)
        frame_b = np.where(bad_b, state.frame_b, view.frame_b)
        after = State(
            memory=memory,
            frame_b=np.where(early_b, NO_FRAME, frame_b),
            stage_b=np.where(idle_b, state.stage_b, view.stage_b),
            sent_bqa=queue,
            skipped_b=state.skipped_b,
            reasons=state.reasons,
        )
        return _unmoved(after, found), queue[:, 0].copy()

    def skip(self, state: State, reason: str) -> tuple[State, np.ndarray]:
        """Skips a frame that cannot even be read: the last controllers go on."""
        found = [reason] * len(state.frame_b)
        return _unmoved(state, found), state.sent_bqa[:, 0].copy()

    def logits(
        self, state: State, view: View, *, previous_ba: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Logits by which `step_views` would decide, float32 [B, classes] by group.

        Those of an autoregressive head are given the likeliest groups before.

        Raises:
          BadFrame: a frame cannot be acted on, or is before the timer.
          InputError: the head is one over chunks, which has no logits.
        """
        if isinstance(self.model.head, ChunkHead):
            raise InputError(
                "a head over chunks has no logits; take its controllers from step_views"
            )
        found = self._found(state, view)
        raise_first(found)
        if (view.frame_b < 0).any():
            raise BadFrame("the timer has not started; ask from frame 0 on")
        start_b = _starts(state, view)
        neutral = _neutral(len(found), self.hold + 1)
        queue = np.where(start_b[:, None, None], neutral, state.sent_bqa)
        rows = views.arrays(view)
        previous = self._previous(rows, queue, previous_ba)
        scores = self._scores(state.memory, read_rows(rows), previous, start_b)
        return {name: np.asarray(values) for name, values in scores.items()}

    def _found(self, state: State, view: View) -> list[str | None]:
        """Reasons not to act on each game's frame, a repeated frame id included."""
        games = len(state.frame_b)
        found = problems(view)
        if any(reason is None for reason in found) and len(found) != games:
            raise InputError(
                f"the view is of {len(found)} games and the state of {games}; make the "
                f"state with initial_state({len(found)})"
            )
        if len(found) != games:
            # The view has no shape that could be compared.
            return [found[0] if found else "the view holds no game"] * games
        if not self.any_character and None in found:
            others = wrong_character(view, self.character)
            found = [old or new for old, new in zip(found, others, strict=True)]
        for game, reason in enumerate(found):
            if reason is None and view.frame_b[game] == state.frame_b[game]:
                found[game] = f"frame {view.frame_b[game]} has been answered already"
        return found

    def _previous(
        self, rows: views.Rows, queue: np.ndarray, given_ba: np.ndarray | None
    ) -> np.ndarray:
        """The controllers last sent, int32 [B, 6]: see `tasks.zelda.windows`."""
        if given_ba is not None:
            return np.asarray(given_ba, np.int32).reshape(len(queue), 6)
        if self.delay == 0:
            return views.own_controller(rows).astype(np.int32)
        return queue[:, -1]

    def _first_memory(self, games: int) -> Memory:
        memory = first_memory(
            self.model,
            self.variables,
            games,
            window=self.window if self.mode == "window" else 0,
            frame=example_batch(1),
            seed=self.seed if self.temperature else None,
        )
        # Each answer's memory is bound to the weights' device; were the first not, the
        # second frame would compile the program again.
        return jax.device_put(memory, jax.tree.leaves(self.variables)[0].sharding)


def read_rows(rows: views.Rows) -> dict[str, np.ndarray]:
    """The rows that `view.inputs` reads; the others are not sent to the device."""
    return {name: values for name, values in rows.items() if name != "controller"}


def frame_inputs(
    rows: Mapping[str, jax.Array], previous_ba: jax.Array, start_b: jax.Array
) -> dict[str, jax.Array]:
    """What `decide.act` reads of one frame of B games, [B, 1, ...]. Pure: for jit."""
    return views.inputs(rows) | {
        "previous_bta": previous_ba[:, None],
        "reset_bt": start_b[:, None],
    }


def _starts(state: State, view: View) -> np.ndarray:
    """Whether each game starts with this frame, bool [B]."""
    return (
        (state.frame_b == NO_FRAME)
        | (view.frame_b < state.frame_b)
        | (view.stage_b != state.stage_b)
    )


def _unmoved(state: State, found: Sequence[str | None]) -> State:
    """The state with invalid frames counted."""
    if all(reason is None for reason in found):
        return state
    bad_b = np.array([reason is not None for reason in found])
    reasons = tuple(
        old if new is None else new
        for old, new in zip(state.reasons, found, strict=True)
    )
    return dataclasses.replace(
        state, skipped_b=state.skipped_b + bad_b, reasons=reasons
    )


def _neutral(games: int, frames: int) -> np.ndarray:
    """Neutral controllers, int32 [games, frames, 6]."""
    return np.tile(controller.NEUTRAL.astype(np.int32), (games, frames, 1))
