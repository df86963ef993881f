"""A simulated game as an animated picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from jaxbench.data.simulation import arena, environment, fight, hits, moves
from jaxbench.data.simulation.fight import ARRAYS, Controls, State
from jaxbench.errors import InputError

FPS = environment.FRAMES_PER_SECOND
_WIDTH, _HEIGHT = 576, 360
# Drawn so many times as large and reduced, which smooths the edges.
_OVER = 2
# What is seen beside the main floor and below it, in units of the game.
_BESIDE, _BELOW, _MARGIN = 72.0, 62.0, 7.0
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

    It shows the stage with its platforms, both fighters (which way they face, a ring
    while they are in hitstun, a bubble as large as what is left of the shield, pale
    while nothing can hit them), active hitboxes, projectiles, percent, stocks and the
    clock. A fighter that is out of sight is a mark at the border.

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
    for n in chosen:
        shown = _Canvas(states[n]).show(states[n], names, (side, 1 - side))
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
    inks = (_INK, _TOP, _DIM, _HURT, _HIT, *_PLAYERS, _FLOOR)
    mixed = [
        _blend(below, above, share)
        for above in inks
        for below in (_SKY, _FLOOR)
        for share in np.linspace(0, 1, 9)
    ]
    # Percent turns red as it grows.
    mixed += [_blend(_INK, _HURT, share) for share in np.linspace(0, 1, 13)]
    image = Image.new("P", (1, 1))
    image.putpalette(bytes(sum(dict.fromkeys(mixed), ())))
    return image


@dataclasses.dataclass
class _Canvas:
    """A picture to draw on, in the game's units: right and up are positive."""

    state: State

    def __post_init__(self) -> None:
        stage = arena.STAGES[int(self.state.stage[0])]
        reach = stage.edge + _BESIDE
        self._scale = _OVER * _WIDTH / (2 * reach)
        high = 2 * reach * _HEIGHT / _WIDTH - _BELOW
        self.low, self.high = np.array([-reach, -_BELOW]), np.array([reach, high])
        self._image = Image.new("RGB", (_OVER * _WIDTH, _OVER * _HEIGHT), _SKY)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._draw_stage(stage)

    def show(
        self, state: State, names: tuple[str, str], order: tuple[int, int]
    ) -> Image.Image:
        """The picture; `order` has the places of the player and of the opponent."""
        safe = hits.intangible(state)[0] | (state.invulnerable[0] > 0)
        for n, player in enumerate(order):
            self._draw_fighter(state, player, _PLAYERS[n], bool(safe[player]))
            at, percent = _AT[n] * _WIDTH, float(state.percent[0, player])
            self._text(at, 0.95, names[n], _PLAYERS[n], 12)
            hurt = _blend(_INK, _HURT, min(1.0, percent / 150))
            self._text(at, 0.9, f"{percent:.0f}%", hurt, 26)
            for stock in range(int(state.stocks[0, player])):
                self._dot(at + 5 + 11 * stock, 0.79 * _HEIGHT, 4, _PLAYERS[n])
        left = max(0, int(state.limit[0] - state.frame[0]))
        clock = f"{left // (60 * FPS)}:{math.ceil(left / FPS) % 60:02d}"
        self._text(_WIDTH / 2, 0.09, clock, _INK, 18, "ms")
        if bool(state.over[0]):
            end = "GAME" if (state.stocks == 0).any() else "TIME"
            self._text(_WIDTH / 2, 0.4, end, _INK, 30, "ms")
        return self._image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX)

    def _draw_fighter(self, s: State, p: int, color: str, safe: bool) -> None:
        x, y, facing = float(s.x[0, p]), float(s.y[0, p]), float(s.facing[0, p])
        action, age = int(s.action[0, p]), int(s.age[0, p])
        centre = np.array([x, y + 8])
        inside = np.clip(centre, self.low + _MARGIN, self.high - _MARGIN)
        if moves.IS_DEAD[action]:
            if age < _FLASH_FRAMES:
                fade = 0.8 * (1 - age / _FLASH_FRAMES)
                self._ellipse(inside, 6 + age, 6 + age, _INK, fade)
        elif (np.abs(centre - inside) > _MARGIN).any():
            self._ellipse(inside, 5, 5, _INK)
            self._ellipse(inside, 4, 4, color)
        else:
            width, height = (17, 9) if moves.IS_DOWN[action] else (11, 17)
            middle = (x, y + height / 2)
            if int(s.hitstun[0, p]) > 0:
                self._ellipse(middle, width / 2 + 2.5, height / 2 + 2.5, _HURT)
                self._ellipse(middle, width / 2 + 1.5, height / 2 + 1.5, _SKY)
            self._ellipse(middle, width / 2, height / 2, color, 0.5 if safe else 1.0)
            self._ellipse((x + 2.6 * facing, y + 0.7 * height), 1.8, 2.5, _SKY)
            if moves.IS_SHIELDED[action]:
                size = 5 + 9 * float(s.shield[0, p]) / fight.SHIELD_MAX
                self._ellipse(middle, size, size, color, 0.38)
            if moves.HIT_START[action] <= age <= moves.HIT_END[action]:
                hit = (x + facing * moves.HIT_X[action], y + moves.HIT_Y[action])
                size = float(moves.HIT_RADIUS[action])
                self._ellipse(hit, size, size, _HIT, 0.55)
        if int(s.shot_left[0, p]) > 0:
            shot = np.array([float(s.shot_x[0, p]), float(s.shot_y[0, p])])
            tail = shot - [2 * float(s.shot_vx[0, p]), 0]
            self._line([tail, shot], color, 4)

    def _draw_stage(self, stage: arena.Stage) -> None:
        edge = stage.edge
        rock = [(-edge, 0), (edge, 0), (0.8 * edge, -20), (0.3 * edge, -40)]
        rock += [(-x, y) for x, y in reversed(rock[2:])]
        self._draw.polygon([self._pixel(corner) for corner in rock], fill=_FLOOR)
        for left, right, height in [(-edge, edge, 0.0), *stage.platforms]:
            self._line([(left, height - 1), (right, height - 1)], _FLOOR, 5)
            self._line([(left, height), (right, height)], _TOP, 3)
        for x in (-edge, edge):
            self._ellipse((x, -1), 1.2, 1.2, _HIT)

    def _pixel(self, place: Sequence[float] | np.ndarray) -> tuple[float, float]:
        return (
            (float(place[0]) - self.low[0]) * self._scale,
            (self.high[1] - float(place[1])) * self._scale,
        )

    def _ellipse(
        self,
        place: Sequence[float] | np.ndarray,
        half_width: float,
        half_height: float,
        color: str,
        share: float = 1.0,
    ) -> None:
        x, y = self._pixel(place)
        a, b = half_width * self._scale, half_height * self._scale
        fill = (*ImageColor.getrgb(color), round(255 * share))
        self._draw.ellipse((x - a, y - b, x + a, y + b), fill=fill)

    def _line(self, places: Sequence[Any], color: str, width: int) -> None:
        pixels = [self._pixel(place) for place in places]
        self._draw.line(pixels, fill=color, width=_OVER * width // 2)

    def _dot(self, x: float, y: float, size: float, color: str) -> None:
        box = [_OVER * v for v in (x - size, y - size, x + size, y + size)]
        self._draw.ellipse(box, fill=color)

    def _text(
        self,
        x: float,
        share: float,
        text: str,
        color: str | tuple[int, ...],
        size: int,
        anchor: str = "ls",
    ) -> None:
        """A line of text, its foot at pixel x and a share of the height from above."""
        font = ImageFont.load_default(_OVER * size)
        place = (_OVER * x, _OVER * share * _HEIGHT)
        self._draw.text(place, text, fill=color, font=font, anchor=anchor)


def _blend(first: str, second: str, share: float) -> tuple[int, int, int]:
    """The colour between two."""
    pairs = zip(ImageColor.getrgb(first), ImageColor.getrgb(second), strict=True)
    red, green, blue = (round((1 - share) * a + share * b) for a, b in pairs)
    return red, green, blue
