"""Simulated games between two players, many at once, and their statistics.

Validation loss measures how well recorded inputs are predicted, not how well a policy
fights: in a closed loop its own errors lead it to states that no recording shows.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from jaxbench.data.simulation import arena, environment
from jaxbench.data.simulation.fight import Controls, State
from jaxbench.errors import InputError
from jaxbench.tasks import rules

if TYPE_CHECKING:
    from jaxbench.serving.players import Player

EVERY = "every"
STAGES = tuple(stage.id for stage in arena.STAGES)
# Raise it when the same arguments give other games.
VERSION = 1
_RESAMPLES = 9999
_SEEDS = 2**48

Clock = Callable[[], float]
Watch = Callable[[State], None]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The games of a match: fighters, stages, sides; results are of the player.

    Attributes:
      seeds: of the games, see `environment.reset`.
      side_b: int [B], which of the two places of a game the player takes.
      fighters: names of the fighters of both places, per game.
      stages: in-game stage ids, per game.
      seconds: the clock.
    """

    seeds: tuple[int, ...]
    side_b: np.ndarray
    fighters: tuple[tuple[str, str], ...]
    stages: tuple[int, ...]
    seconds: int


def schedule(
    *,
    games: int = 64,
    seconds: int = 60,
    seed: int = 0,
    character: str = EVERY,
    opponent: str = EVERY,
    stages: Sequence[int] = STAGES,
) -> Schedule:
    """Draws the games of a match, so that nobody has an advantage.

    The player takes either place in turn, and of two games in each place it starts
    once on the left and once on the right. Characters and stages come equally often,
    up to one game, in an order drawn from `seed`; the games of a smaller match are
    not the first of a larger one.

    Args:
      games: B, at least 1. A multiple of 4 is fair to the last game.
      seconds: of game time, 1 to 480.
      seed: of the draw, see `tasks.rules.seed`.
      character, opponent: fighters of the simulation, or "every" for all in turn.
      stages: in-game stage ids to choose from.

    Raises:
      InputError: a number out of its range.
    """
    require("games", games, 1)
    require("seconds", seconds, 1, environment.SECONDS)
    rules.seed("seed", seed)
    rng = np.random.default_rng(seed)
    index = np.arange(games)
    own, others = (
        _spread(rng, _fighters(name), games) for name in (character, opponent)
    )
    places = _spread(rng, stages, games)
    side_b = index % 2
    # A game's lowest bit says who starts on the left.
    draws = rng.integers(_SEEDS, size=games) & ~1
    seeds = draws + (index // 2) % 2
    return Schedule(
        seeds=tuple(seeds.tolist()),
        side_b=side_b,
        fighters=tuple(
            (other, mine) if side else (mine, other)
            for mine, other, side in zip(own, others, side_b, strict=True)
        ),
        stages=tuple(places),
        seconds=seconds,
    )


def require(name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuses a number that is not between `least` and `most`.

    Raises:
      InputError: naming it.
    """
    if value < least or (most is not None and value > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most}"
        raise InputError(f"{name}={value} must be {allowed}")


def _fighters(name: str) -> tuple[str, ...]:
    return tuple(arena.FIGHTER_INDEX) if name == EVERY else (name,)


def _spread(rng: np.random.Generator, values: Sequence[Any], count: int) -> list[Any]:
    """`count` shuffled values, each as often as any other up to one."""
    index = np.arange(count) % len(values)
    # Who is left over is drawn too.
    order = rng.permutation(len(values))
    return [values[order[i]] for i in rng.permutation(index)]


@dataclasses.dataclass(frozen=True)
class Match:
    """Results of B games, from the player's side.

    Attributes:
      schedule: the games.
      taken_b, lost_b: int [B], stocks of the opponent's and own stocks.
      dealt_b, received_b: float [B], percent of damage over the whole game.
      result_b: int [B], 1 won, 0 level, -1 lost: by stocks, then by percent.
      frames_b: int [B], frames from the start of the timer to the end.
      fps: frames a second of all games together, sixty being real time; the first,
        on which a policy is compiled, is left out. The only number here that another
        match of the same schedule does not repeat.
    """

    schedule: Schedule
    taken_b: np.ndarray
    lost_b: np.ndarray
    dealt_b: np.ndarray
    received_b: np.ndarray
    result_b: np.ndarray
    frames_b: np.ndarray
    fps: float

    def summary(self) -> dict[str, Any]:
        """Means over games with 95 % intervals, as a result file holds them.

        Intervals are percentile bootstraps over games (None for a single game), that
        of the win rate is Wilson's; a level game is not a win. The ratio is damage
        dealt over damage taken, summed over games; None where nothing was taken.
        """
        won, level = int((self.result_b > 0).sum()), int((self.result_b == 0).sum())
        test = stats.binomtest(won, len(self.result_b))
        rate = test.proportion_ci(method="wilson")
        return {
            "stocks_taken": estimate(_mean, self.taken_b),
            "stocks_lost": estimate(_mean, self.lost_b),
            "stocks_difference": estimate(_mean, self.taken_b - self.lost_b),
            "damage_dealt": estimate(_mean, self.dealt_b),
            "damage_taken": estimate(_mean, self.received_b),
            "damage_ratio": estimate(_ratio, self.dealt_b, self.received_b),
            "wins": {
                "value": test.statistic,
                **{"low": float(rate.low), "high": float(rate.high)},
                **{"won": won, "level": level},
            },
            "frames": estimate(_mean, self.frames_b),
            "fps": self.fps,
            "each": {
                "seed": list(self.schedule.seeds),
                "side": self.schedule.side_b.tolist(),
                "stage": list(self.schedule.stages),
                "opponent": [
                    pair[1 - side]
                    for pair, side in zip(
                        self.schedule.fighters, self.schedule.side_b, strict=True
                    )
                ],
                "stocks_taken": self.taken_b.tolist(),
                "stocks_lost": self.lost_b.tolist(),
                "damage_dealt": self.dealt_b.tolist(),
                "damage_taken": self.received_b.tolist(),
                "result": self.result_b.tolist(),
                "frames": self.frames_b.tolist(),
            },
        }


def estimate(
    statistic: Callable[..., Any], *samples_b: np.ndarray
) -> dict[str, float | None]:
    """A statistic over games with its 95 % interval: {value, low, high}.

    A percentile bootstrap over games with a fixed generator, so that the same games
    give the same interval. What is not finite is None.

    Args:
      statistic: (samples, axis) -> value, vectorised.
      samples_b: [B] each; game i of one is game i of the others.
    """
    samples = [np.asarray(sample, np.float64) for sample in samples_b]
    value = float(statistic(*samples, axis=-1))
    low = high = np.nan
    if len(samples[0]) > 1 and np.isfinite(value):
        # A ratio of nothing to nothing has no interval, which nan says below.
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            ends = stats.bootstrap(
                samples,
                statistic,
                n_resamples=_RESAMPLES,
                method="percentile",
                paired=True,
                vectorized=True,
                rng=np.random.default_rng(0),
            ).confidence_interval
        low, high = float(ends.low), float(ends.high)
    found = {"value": value, "low": low, "high": high}
    return {name: x if np.isfinite(x) else None for name, x in found.items()}


def _mean(sample: np.ndarray, axis: int) -> Any:
    return sample.mean(axis=axis)


def _ratio(dealt: np.ndarray, taken: np.ndarray, axis: int) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return dealt.sum(axis=axis) / taken.sum(axis=axis)


def play(
    player: Player,
    opponent: Player,
    games: Schedule,
    *,
    watch: Watch | None = None,
    clock: Clock = time.perf_counter,
) -> Match:
    """Plays all games of a schedule side by side until each has ended.

    Both hold nothing before the timer starts, because policies are trained from there
    on; nobody is ahead when they begin. What a game is does not depend on the games
    beside it, but for the rounding of a policy's larger batch.

    About 3 ms a frame for 64 games between scripted players on one core.

    Args:
      player, opponent: who play.
      games: what they play.
      watch: is shown every state from the first frame of the timer on.
      clock: seconds, for `Match.fps`.
    """
    state = environment.reset(
        games.seeds, games.fighters, games.stages, seconds=games.seconds
    )
    side_b, other_b = games.side_b, 1 - games.side_b
    own = player.start(state, side_b)
    other = opponent.start(state, other_b)
    end_b = np.zeros(len(games.seeds), np.int64)
    began, frames = clock(), 0
    while not state.over.all():
        held, own = player.act(own, state, side_b)
        answered, other = opponent.act(other, state, other_b)
        controls = _both(held, answered, side_b)
        # The next frame is the timer's first or one before it.
        if (state.frame < 0).all():
            controls = Controls(*(np.zeros_like(field) for field in controls))
        before, state = state, environment.step(state, controls)
        np.copyto(end_b, state.frame, where=state.over & ~before.over)
        if watch is not None and (state.frame >= 0).any():
            watch(state)
        frames += 1
        if (before.frame <= 0).any():
            # Not what is asked about: nobody acts yet, then a policy compiles.
            began, frames = clock(), 0
    seconds = clock() - began
    return _match(games, state, end_b, frames / seconds if seconds > 0 else 0.0)


def _both(own: Controls, other: Controls, side_b: np.ndarray) -> Controls:
    """Controls [B, 2] of two players' controls [B], the first's in `side_b`."""
    mine = side_b[:, None] == np.arange(2)
    return Controls(
        *(
            np.where(mine, one[:, None], two[:, None])
            for one, two in zip(own, other, strict=True)
        )
    )


def _match(games: Schedule, state: State, end_b: np.ndarray, fps: float) -> Match:
    score = environment.score(state)
    row, own, other = np.arange(len(end_b)), games.side_b, 1 - games.side_b
    won = score.winner == own
    return Match(
        schedule=games,
        taken_b=environment.STOCKS - score.stocks[row, other],
        lost_b=environment.STOCKS - score.stocks[row, own],
        dealt_b=score.damage[row, own],
        received_b=score.damage[row, other],
        result_b=np.where(score.winner < 0, 0, np.where(won, 1, -1)),
        frames_b=end_b,
        fps=fps,
    )
