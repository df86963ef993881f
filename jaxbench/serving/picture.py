"""A simulated game as an animated picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Ellipse, FancyBboxPatch, Polygon
from matplotlib.text import Text
from PIL import Image

from jaxbench.data.simulation import arena, environment, fight, hits, moves
from jaxbench.data.simulation.fight import ARRAYS, Controls, State
from jaxbench.errors import InputError

FPS = environment.FRAMES_PER_SECOND
_WIDTH, _HEIGHT, _DPI = 576, 360, 100
# What is seen beside the main floor and below it, in units of the game.
_BESIDE, _BELOW = 72.0, 62.0
_MARGIN = 7.0
_TRAIL = 5

_SKY, _FLOOR, _TOP, _DIM = "#10151d", "#27303e", "#93a1b5", "#5d6a7d"
_INK, _HURT, _HIT = "#f2f5f9", "#ff5468", "#ffe08a"
_PLAYERS = ("#46b8ff", "#ff9d42")
_FLASH_FRAMES = 24
# Where what is said of each player begins, as a part of the width.
_AT = (0.14, 0.72)


def one_game(state: State, game: int) -> State:
    """A single game of a batch, as a batch of one, in memory of its own."""
    part = slice(game, game + 1)
    return State(
        **{name: getattr(state, name)[part].copy() for name in ARRAYS},
        controls=Controls(*(field[part].copy() for field in state.controls)),
    )


def check_place(path: Path) -> None:
    """Refuses a file that a picture cannot be written to, before a game is played.

    Raises:
      InputError: it is not named `.gif`, or its folder is not there.
    """
    if path.suffix.lower() != ".gif":
        raise InputError(f"--picture={path} is no .gif; name one, say play.gif")
    if not path.parent.is_dir():
        raise InputError(
            f"--picture={path}: there is no folder {path.parent}; make it first"
        )


def draw(
    path: Path,
    states: Sequence[State],
    *,
    names: tuple[str, str],
    side: int = 0,
    every: int = 3,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes a GIF of one game, in real time; returns its number of pictures.

    It shows the stage with its platforms and ledges, both fighters (which way they
    face, a ring while they are in hitstun, a bubble as large as what is left of the
    shield, pale while nothing can hit them), active hitboxes, projectiles, percent,
    stocks and the clock. Who is out of sight is a mark at the border. About 30 ms and
    1 kB a picture.

    Args:
      path: ends in `.gif`; it appears whole or not at all.
      states: one game, a state a frame, see `one_game`.
      names: of the player, on the left below, and of the opponent.
      side: the player's place in the game, 0 or 1.
      every: frames from one picture to the next; 3 are exactly 50 ms.
      progress: is told how many pictures are drawn.

    Raises:
      InputError: there is nothing to draw, or the file cannot be written.
    """
    check_place(path)
    chosen = range(0, len(states), every)
    if not chosen:
        raise InputError(f"{path}: there is no frame to draw")
    pictures, palette = [], _palette()
    with matplotlib.rc_context({"font.family": "DejaVu Sans"}):
        scene = _Scene(states[0], names, side)
        for n in chosen:
            shown = scene.show(states[n], states[max(0, n - _TRAIL * every) : n + 1])
            # One palette for all: a GIF then stores only what moved.
            pictures.append(shown.quantize(palette=palette, dither=Image.Dither.NONE))
            if progress is not None:
                progress(len(pictures))
    partial = path.with_name(path.name + ".partial")
    try:
        pictures[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * every / FPS),
            loop=0,
        )
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; free some space or name another "
            "file"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return len(chosen)


def _palette() -> Image.Image:
    """The colours of a scene and what smoothed edges make of them."""
    found = [
        _blend(below, above, share)
        for above in (_INK, _TOP, _DIM, _HURT, _HIT, *_PLAYERS, _FLOOR)
        for below in (_SKY, _FLOOR)
        for share in np.linspace(0, 1, 9)
    ]
    # Percent turns red as it grows.
    found += [_blend(_INK, _HURT, share) for share in np.linspace(0, 1, 13)]
    bytes_c3 = np.rint(255 * np.unique(np.array(found), axis=0)).astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette(bytes_c3.tobytes())
    return image


@dataclasses.dataclass(frozen=True)
class _Fighter:
    """The marks of one player.

    Attributes:
      trail, body, eye, ring, shield, hit, shot, away, flash: in the arena.
      percent, stocks: below it.
    """

    trail: Line2D
    body: Ellipse
    eye: Ellipse
    ring: Ellipse
    shield: Circle
    hit: Circle
    shot: Line2D
    away: Line2D
    flash: Circle
    percent: Text
    stocks: Text


class _Scene:
    """A figure whose marks are moved from picture to picture."""

    def __init__(self, state: State, names: tuple[str, str], side: int):
        size = (_WIDTH / _DPI, _HEIGHT / _DPI)
        self.figure = Figure(figsize=size, dpi=_DPI, facecolor=_SKY)
        self._canvas = FigureCanvasAgg(self.figure)
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        stage = arena.STAGES[int(state.stage[0])]
        reach = stage.edge + _BESIDE
        self._low = np.array([-reach, -_BELOW])
        self._high = np.array([reach, 2 * reach * _HEIGHT / _WIDTH - _BELOW])
        axes.set_xlim(self._low[0], self._high[0])
        axes.set_ylim(self._low[1], self._high[1])
        _draw_stage(axes, stage)
        for n, (color, name) in enumerate(zip(_PLAYERS, names, strict=True)):
            self.figure.text(_AT[n], 0.05, name, color=color, fontsize=9)
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self.figure.bbox)
        self._order = (side, 1 - side)
        self._fighters = [
            _marks(axes, self.figure, _AT[n], color) for n, color in enumerate(_PLAYERS)
        ]
        self._clock = self.figure.text(
            0.5, 0.93, "", color=_INK, fontsize=13, ha="center", va="center",
            fontweight="bold",
        )  # fmt: skip
        self._end = self.figure.text(
            0.5, 0.62, "", color=_INK, fontsize=22, ha="center", va="center",
            fontweight="bold",
        )  # fmt: skip

    def show(self, state: State, past: Sequence[State]) -> Image.Image:
        """The picture of `state`, which is the last of `past`."""
        left = max(0, int(state.limit[0] - state.frame[0]))
        self._clock.set_text(f"{left // (60 * FPS)}:{math.ceil(left / FPS) % 60:02d}")
        if bool(state.over[0]):
            self._end.set_text("GAME" if (state.stocks == 0).any() else "TIME")
        intangible = hits.intangible(state)
        for player, fighter in zip(self._order, self._fighters, strict=True):
            trail = np.array([(s.x[0, player], s.y[0, player]) for s in past])
            safe = bool(intangible[0, player] or state.invulnerable[0, player] > 0)
            _move(state, player, fighter, trail, safe, (self._low, self._high))
        self._canvas.restore_region(self._still)
        movers = [
            getattr(fighter, field.name)
            for fighter in self._fighters
            for field in dataclasses.fields(fighter)
        ]
        for mark in sorted(movers, key=lambda mark: mark.get_zorder()):
            self.figure.draw_artist(mark)
        self.figure.draw_artist(self._clock)
        self.figure.draw_artist(self._end)
        return Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")


def _move(
    s: State,
    p: int,
    marks: _Fighter,
    trail: np.ndarray,
    safe: bool,
    sight: tuple[np.ndarray, np.ndarray],
) -> None:
    """Moves the marks of player p to where it is."""
    x, y, facing = float(s.x[0, p]), float(s.y[0, p]), float(s.facing[0, p])
    action, age = int(s.action[0, p]), int(s.age[0, p])
    centre = np.array([x, y + 8])
    dead = bool(moves.IS_DEAD[action])
    inside = np.clip(centre, sight[0] + _MARGIN, sight[1] - _MARGIN)
    seen = not dead and bool((np.abs(centre - inside) <= _MARGIN).all())
    down = bool(moves.IS_DOWN[action])
    hurt = int(s.hitstun[0, p]) > 0 and seen
    for mark in (marks.body, marks.eye, marks.ring):
        mark.set_visible(seen)
    marks.ring.set_visible(hurt)
    shape = (17, 9) if down else (11, 17)
    middle = (x, y + shape[1] / 2)
    for mark, more in ((marks.body, 0), (marks.ring, 5)):
        mark.set_center(middle)
        mark.set_width(shape[0] + more)
        mark.set_height(shape[1] + more)
    marks.body.set_alpha(0.5 if safe else 1.0)
    marks.eye.set_center((x + 2.6 * facing, y + 0.7 * shape[1]))
    marks.trail.set_visible(hurt)
    marks.trail.set_data(trail[:, 0], trail[:, 1] + 8)
    left = float(s.shield[0, p]) / fight.SHIELD_MAX
    marks.shield.set_visible(seen and bool(moves.IS_SHIELDED[action]))
    marks.shield.set_center(middle)
    marks.shield.set_radius(5 + 9 * left)
    active = moves.HIT_START[action] <= age <= moves.HIT_END[action]
    marks.hit.set_visible(seen and bool(active))
    marks.hit.set_center((x + facing * moves.HIT_X[action], y + moves.HIT_Y[action]))
    marks.hit.set_radius(float(moves.HIT_RADIUS[action]))
    shot_x, shot_y = float(s.shot_x[0, p]), float(s.shot_y[0, p])
    marks.shot.set_visible(int(s.shot_left[0, p]) > 0)
    tail = shot_x - 2 * float(s.shot_vx[0, p])
    marks.shot.set_data([tail, shot_x], [shot_y, shot_y])
    marks.away.set_visible(not seen and not dead)
    marks.away.set_data([inside[0]], [inside[1]])
    marks.flash.set_visible(dead and age < _FLASH_FRAMES)
    marks.flash.set_center(tuple(inside))
    marks.flash.set_radius(6 + age)
    marks.flash.set_alpha(max(0.0, 0.8 * (1 - age / _FLASH_FRAMES)))
    percent = float(s.percent[0, p])
    marks.percent.set_text(f"{percent:.0f}%")
    marks.percent.set_color(_blend(_INK, _HURT, min(1.0, percent / 150)))
    stocks = int(s.stocks[0, p])
    marks.stocks.set_text("●" * stocks)


def _draw_stage(axes: Axes, stage: arena.Stage) -> None:
    edge = stage.edge
    rock = [(-edge, 0), (edge, 0), (0.8 * edge, -20), (0.3 * edge, -40)]
    rock += [(-x, y) for x, y in reversed(rock[2:])]
    axes.add_patch(Polygon(rock, closed=True, facecolor=_FLOOR, lw=0))
    axes.plot([-edge, edge], [0, 0], color=_TOP, lw=2.4, solid_capstyle="butt")
    axes.plot([-edge, edge], [-1, -1], "o", color=_HIT, ms=3.4, mew=0)
    for left, right, height in stage.platforms:
        axes.add_patch(
            FancyBboxPatch(
                (left, height - 2.4), right - left, 2.4, boxstyle="square,pad=0",
                facecolor=_FLOOR, lw=0,
            )
        )  # fmt: skip
        axes.plot([left, right], [height, height], color=_TOP, lw=1.8)


def _marks(axes: Axes, figure: Figure, at: float, color: str) -> _Fighter:
    """The marks of one player; what stands below the arena begins at `at`."""

    def line(**style: Any) -> Line2D:
        return axes.plot([], [], color=color, **style)[0]

    def ellipse(width: float, height: float, **style: Any) -> Ellipse:
        mark = Ellipse((0, 0), width, height, **style)
        axes.add_patch(mark)
        return mark

    def circle(face: str, **style: Any) -> Circle:
        mark = Circle((0, 0), 1, facecolor=face, lw=0, **style)
        axes.add_patch(mark)
        return mark

    return _Fighter(
        trail=line(lw=2, alpha=0.45, zorder=2),
        body=ellipse(11, 17, facecolor=color, lw=0, zorder=3),
        eye=ellipse(3.6, 5, facecolor=_SKY, lw=0, zorder=4),
        ring=ellipse(16, 22, fill=False, edgecolor=_HURT, lw=2, zorder=4),
        shield=circle(color, alpha=0.38, zorder=5),
        hit=circle(_HIT, alpha=0.55, zorder=6),
        shot=line(lw=3.2, solid_capstyle="round", zorder=6),
        away=line(marker="o", ms=8, mec=_INK, mew=1.4, ls="none", zorder=7),
        flash=circle(_INK, zorder=7),
        percent=figure.text(at, 0.1, "", color=_INK, fontsize=19, fontweight="bold"),
        stocks=figure.text(at, 0.195, "", color=color, fontsize=10),
    )


def _blend(first: str, second: str, share: float) -> tuple[float, float, float]:
    """The colour between two."""
    one, two = colors.to_rgb(first), colors.to_rgb(second)
    red, green, blue = (
        (1 - share) * a + share * b for a, b in zip(one, two, strict=True)
    )
    return red, green, blue
