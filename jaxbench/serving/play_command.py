"""`jaxbench play`: trained policies fight in the simulation.

One run after the other, each in a process of its own, as for `jaxbench latency`: a
policy that fails takes nobody with it. The parent imports no jax.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from jaxbench.bench.result import read_result
from jaxbench.bench.run_folder import read_config
from jaxbench.data.characters import character_key
from jaxbench.data.simulation import arena, environment
from jaxbench.errors import InputError, printable
from jaxbench.serving.bar import counting
from jaxbench.serving.each_run import (
    finished_runs,
    in_a_process,
    name_of,
    wide_console,
)
from jaxbench.serving.match import EVERY, VERSION, Schedule, play, require, schedule
from jaxbench.tasks.rules import LARGEST
from jaxbench.tasks.table import find

if TYPE_CHECKING:
    from jaxbench.serving.players import Player

BASELINES = ("scripted", "random", "copy_previous")
MODES = ("stateful", "window")
# What a floor's copy in a run's result does without.
_OF_A_RUN = ("protocol", "weights", "each", "fps")
_FPS = environment.FRAMES_PER_SECOND


@dataclasses.dataclass(frozen=True)
class Terms:
    """Settings of a match, equal for all players that are compared.

    Attributes:
      opponent: one of `BASELINES`, or the folder of a run.
      games, seconds, seed: see `match.schedule`.
      mode, temperature, which: of the policies, see `Policy.load`.
    """

    opponent: str
    games: int
    seconds: int
    seed: int
    mode: str
    temperature: float
    which: str

    def protocol(self, character: str) -> dict[str, Any]:
        """The settings as a result keeps them, with names in place of folders.

        Results whose protocols are equal may be compared.
        """
        rival, plays = self.opponent, EVERY
        if rival not in BASELINES:
            result, config = _run(Path(rival))
            rival = f"{result['backbone']} seed{result['seed']} {result['config_hash']}"
            plays = simulated(config["data"]["character"])
        return {
            "version": VERSION,
            "opponent": rival,
            "opponent_character": plays,
            "character": character,
            "games": self.games,
            "seconds": self.seconds,
            "seed": self.seed,
            "mode": self.mode,
            "temperature": self.temperature,
            "weights": self.which,
        }


def simulated(character: str) -> str:
    """The fighter that a run trained on `character` plays in the simulation.

    "every", all in turn, where it imitates anyone or somebody who is not there.
    """
    if character == "any":
        return EVERY
    name = character_key(character)
    return name if name in arena.FIGHTER_INDEX else EVERY


def play_command(options: argparse.Namespace) -> int:
    """Plays every named run, prints a table, and returns the exit code.

    Raises:
      InputError: there is no finished run of zelda, no such opponent, or a number is
        out of range.
    """
    _check(options)
    terms = Terms(
        options.opponent,
        options.games,
        options.seconds,
        options.seed,
        options.mode,
        options.temperature,
        options.which,
    )
    runs = finished_runs(options.folders)
    _check_runs(runs, options.picture)
    rows: list[tuple[str, Mapping[str, Any] | str]] = []
    # Whose games the floors play too: of each character, who is to keep them.
    characters: dict[str, list[str]] = {}

    def played(player: str, character: str, **more: Any) -> Mapping[str, Any] | str:
        given: dict[str, Any] = {"terms": dataclasses.asdict(terms), "picture": None}
        given |= {"player": player, "character": character, **more}
        folder = None if player in BASELINES else Path(player)
        return in_a_process("jaxbench.serving.play_command", folder, given)

    for number, (folder, result) in enumerate(runs, start=1):
        name = name_of(result)
        if find(result["task"]).emits != "controller":
            rows.append((name, f"a run of {result['task']}, which is not played"))
            continue
        try:
            config = read_config(folder)
        except InputError as error:
            rows.append((name, printable(str(error))))
            continue
        character = simulated(config["data"]["character"])
        keeps = characters.setdefault(character, [])
        known = _known(result, terms.protocol(character))
        if known is None or options.again or options.picture:
            _say(f"[{number}/{len(runs)}] {name} against {terms.opponent}")
            film = (str(options.picture), options.picture_seconds)
            picture = film if options.picture else None
            known = played(str(folder), character, picture=picture)
        if not isinstance(known, str):
            keeps.append(str(folder))
        rows.append((name, known))
    if options.baselines:
        for character, keeps in characters.items():
            for player in BASELINES:
                _say(f"{player} against {terms.opponent}")
                shown = player if len(characters) == 1 else f"{player}, {character}"
                rows.append((shown, played(player, character, keeps=keeps)))
    rival = terms.opponent if terms.opponent in BASELINES else "a run"
    title = (
        f"{terms.games} games of {terms.seconds} s against {rival}, {terms.mode} "
        f"policies, seed {terms.seed}"
    )
    wide_console(170).print(play_table(rows, title, terms.games))
    return 1 if any(isinstance(row, str) for _, row in rows) else 0


def _known(
    result: Mapping[str, Any], protocol: Mapping[str, Any]
) -> Mapping[str, Any] | str | None:
    """The match in a result, if it was played under the same settings."""
    found = result.get("play")
    return found if found and found["protocol"] == protocol else None


def play_table(
    rows: Sequence[tuple[str, Mapping[str, Any] | str]], title: str, games: int
) -> Table:
    """One line for each player, the most stocks ahead first, failures last."""
    done = [(name, row) for name, row in rows if not isinstance(row, str)]
    failed = [f"{name}: {row}" for name, row in rows if isinstance(row, str)]
    done.sort(key=lambda pair: -pair[1]["stocks_difference"]["value"])
    caption = [
        "Means over games with 95 % intervals. Stocks: taken minus lost. Ratio: damage "
        "dealt over taken. Fighters are not equal: a script of one need not come out "
        f"level with scripts of others. fps: frames a second of all {games} games "
        f"together; {_FPS} is real time.",
        *failed,
    ]
    table = Table(
        title=escape(title),
        caption=escape("\n".join(caption)),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("player")
    table.add_column("fighter")
    table.add_column("temperature", justify="right")
    for name in ("stocks", "damage dealt", "damage taken", "ratio", "wins", "fps"):
        table.add_column(name, justify="right")
    for name, row in done:
        wins = row["wins"]
        level = f", {wins['level']} level" if wins["level"] else ""
        terms = row.get("protocol") or {}
        # A script and a floor draw nothing by a temperature.
        drawn = terms.get("temperature") if row.get("weights") else None
        table.add_row(
            escape(name),
            str(terms.get("character", "-")),
            "-" if drawn is None else f"{drawn:g}",
            _told(row["stocks_difference"], "+.2f"),
            _told(row["damage_dealt"], ".0f"),
            _told(row["damage_taken"], ".0f"),
            _told(row["damage_ratio"], ".2f"),
            f"{_told(wins, '.0%')}{level}",
            f"{row['fps']:.0f}",
        )
    for name, answer in rows:
        if isinstance(answer, str):
            table.add_row(escape(name), "failed")
    return table


def _told(found: Mapping[str, Any], form: str) -> str:
    """A value with its interval; "-" where there is no number."""
    if found["value"] is None:
        return "-"
    told = f"{found['value']:{form}}"
    if found["low"] is None or found["high"] is None:
        return told
    return f"{told} ({found['low']:{form}} to {found['high']:{form}})"


def _say(line: str) -> None:
    print(f"play: {line}", file=sys.stderr, flush=True)


def _check(options: argparse.Namespace) -> None:
    require("--games", options.games, 1)
    require("--seconds", options.seconds, 1, environment.SECONDS)
    # The opponent draws from the one after it.
    require("--seed", options.seed, 0, LARGEST - 1)
    require("--picture_seconds", options.picture_seconds, 1, environment.SECONDS)
    if not 0 <= options.temperature < float("inf"):
        raise InputError(f"--temperature={options.temperature} must be 0 or more")
    rival = options.opponent
    if rival not in BASELINES:
        if not Path(rival).is_dir():
            raise InputError(
                f"--opponent={rival!r} is neither a folder of a run nor one of "
                f"{', '.join(BASELINES)}"
            )
        result, _ = _run(Path(rival))
        if find(result["task"]).emits != "controller":
            raise InputError(
                f"--opponent={rival} is a run of {result['task']}, which is not "
                "played; name one of configs/zelda.py"
            )


def _run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    result = read_result(folder)
    if result is None:
        raise InputError(
            f"{folder} holds no finished run: name a folder with result.json and "
            "config.json"
        )
    return result, read_config(folder)


def _check_runs(
    runs: Sequence[tuple[Path, Mapping[str, Any]]], picture: Path | None
) -> None:
    tasks = sorted({result["task"] for _, result in runs})
    if all(find(task).emits != "controller" for task in tasks):
        raise InputError(
            f"only runs of configs/zelda.py are played; those named are of "
            f"{', '.join(tasks)}"
        )
    if picture is not None:
        from jaxbench.serving.picture import check_place

        check_place(picture)
        if len(runs) > 1:
            raise InputError(
                f"--picture shows a game of one run and {len(runs)} are named; name one"
            )


def answer(
    terms: Mapping[str, Any], picture: Sequence[Any] | None, **given: Any
) -> dict[str, Any]:
    """In the child: plays one match."""
    film = (picture[0], picture[1]) if picture else None
    return measure_play(Terms(**terms), picture=film, **given)


def measure_play(
    terms: Terms,
    player: str,
    character: str,
    picture: tuple[str, int] | None = None,
    keeps: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays a match; a run's `result.json` gets the answer as `play`.

    A floor's answer goes into the `play` of runs that played the same games, as one of
    its `floors`.

    Args:
      terms: of the match.
      player: the folder of a finished run, or one of `BASELINES`.
      character: whom it plays, see `simulated`.
      picture: a file for a GIF of the first game, and its seconds.
      keeps: folders of runs that played under these terms, where a floor plays.

    Returns:
      protocol, `Terms.protocol`; weights {which, step}, None for a baseline; and
      `Match.summary`.

    Raises:
      InputError: a run cannot be loaded, or the picture cannot be written.
    """
    from jaxbench.bench.trained import write_measurement
    from jaxbench.serving.picture import one_game

    protocol = terms.protocol(character)
    games = schedule(
        games=terms.games,
        seconds=terms.seconds,
        seed=terms.seed,
        character=character,
        opponent=protocol["opponent_character"],
    )
    own, step = _player(player, terms, own=True)
    rival, _ = _player(terms.opponent, terms, own=False)
    film: list[Any] = []
    kept = picture[1] * _FPS if picture else 0
    with counting(terms.seconds * _FPS, "play") as advance:

        def watch(state: Any) -> None:
            if len(film) < kept and not (film and bool(film[-1].over[0])):
                film.append(one_game(state, 0))
            advance(int(state.frame.max()))

        played = play(own, rival, games, watch=watch)
    weights = None if step is None else {"which": terms.which, "step": step}
    found = {"protocol": protocol, "weights": weights, **played.summary()}
    if step is not None:
        write_measurement(Path(player), ("play",), found)
    floor = {name: value for name, value in found.items() if name not in _OF_A_RUN}
    for folder in keeps:
        write_measurement(Path(folder), ("play", "floors", player), floor)
    if picture:
        _draw(Path(picture[0]), film, games, player, protocol["opponent"])
    return found


def _player(name: str, terms: Terms, *, own: bool) -> tuple[Player, int | None]:
    """A player, and the step of its weights where it has any."""
    from jaxbench.serving import players

    if name in BASELINES:
        return players.baselines(rival=not own)[name], None
    from jaxbench.serving.policy import Policy

    policy = Policy.load(
        Path(name),
        which=terms.which,
        mode=terms.mode,
        temperature=terms.temperature,
        # Two policies of one run do not draw the same.
        seed=terms.seed + (0 if own else 1),
        hold=_run(Path(name))[1]["data"]["delay"],
        # Whom the simulation lacks is played as everybody, see `simulated`.
        any_character=True,
    )
    return players.PolicyPlayer(policy), policy.step_of_weights


def _draw(
    path: Path, film: Sequence[Any], games: Schedule, player: str, rival: str
) -> None:
    from jaxbench.serving.picture import draw

    side = int(games.side_b[0])
    shown = player if player in BASELINES else _run(Path(player))[0]["backbone"]
    names = tuple(
        f"{name}, {games.fighters[0][place].replace('_', ' ')}"
        for name, place in ((shown, side), (rival.split()[0], 1 - side))
    )
    with counting(len(film) // 3, "picture") as advance:
        draw(path, film, names=(names[0], names[1]), side=side, progress=advance)
