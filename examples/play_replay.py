"""A trained policy follows a recorded game: how often it decides as the human did.

    python examples/play_replay.py --run=runs/zelda/mamba/seed0-1a2b3c4d \
        --replay=game.slp

It sees what the human saw and had sent, frame by frame, and its answers are not
played: the next frame is the human's again. Change frames are those on which the human
changes any part of the controller; on all others repeating it is right.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from pathlib import Path

import numpy as np

from jaxbench.data import slippi
from jaxbench.data.characters import external_name
from jaxbench.data.game import Game
from jaxbench.data.replays import select_players
from jaxbench.errors import InputError
from jaxbench.serving.policy import MODES, Policy
from jaxbench.tasks.zelda import controller
from jaxbench.tasks.zelda.view import view_of_replay


def main() -> int:
    """Plays one replay through a policy and prints what came of it."""
    options = parse()
    try:
        game = slippi.parse(options.replay)
        policy = Policy.load(
            options.run,
            which=options.which,
            mode=options.mode,
            # Who names a port has chosen whom to follow.
            any_character=options.port is not None,
        )
        player = chosen_player(game, options.port, policy.character)
        follow(policy, game, player, options.frames)
    except (InputError, OSError) as error:
        print(f"play_replay: {error}", file=sys.stderr)
        return 2
    return os.EX_OK


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a run")
    parser.add_argument("--replay", type=Path, required=True, help="a .slp file")
    parser.add_argument("--port", type=int, help="whom to follow; else by character")
    parser.add_argument("--frames", type=int, default=3600, help="at most so many")
    parser.add_argument("--mode", choices=MODES, default="stateful")
    parser.add_argument("--which", choices=("best", "last"), default="best")
    return parser.parse_args()


def chosen_player(game: Game, port: int | None, character: str) -> int:
    """Index of the player in `port`, or of the first who plays `character`."""
    if port is None:
        return select_players([game], character)[0][1]
    ports = [player.port for player in game.players]
    if port not in ports:
        raise InputError(f"{game.name} has nobody in port {port}, only in {ports}")
    return ports.index(port)


def follow(policy: Policy, game: Game, player: int, frames: int) -> None:
    """Lets the policy answer each frame and compares it with the human's answer."""
    ahead = 1 + policy.delay
    human_ta = controller.encode(game.players[player].leader.pre, "clean")
    begin = int(np.searchsorted(game.frame_t, 0))
    end = min(begin + frames, len(game.frame_t) - ahead)
    if frames < 1 or end <= begin:
        raise InputError(f"{game.name} has no frame to answer; give a longer one")
    views = [view_of_replay(game, player, t) for t in range(begin, end)]
    state = policy.initial_state()
    answers, seconds = [], []
    gc.disable()
    for t, view in enumerate(views, start=begin):
        start = time.perf_counter()
        sent = human_ta[t + policy.delay][None]
        state, labels_ba = policy.step_views(state, view, previous_ba=sent)
        seconds.append(time.perf_counter() - start)
        answers.append(labels_ba[0])
    gc.enable()
    report(policy, game, player, np.array(answers), human_ta[begin + ahead :], seconds)
    if state.skipped:
        print(f"{state.skipped} frames skipped, the last because {state.reason}")


def report(
    policy: Policy,
    game: Game,
    player: int,
    answer_ta: np.ndarray,
    human_ta: np.ndarray,
    seconds: list[float],
) -> None:
    """Prints agreement by head, beside that of repeating the last controller."""
    human_ta = human_ta[: len(answer_ta)]
    # The first answered frame has no label before it here.
    answer_ta, human_ta, before_ta = answer_ta[1:], human_ta[1:], human_ta[:-1]
    changes = (human_ta != before_ta).any(axis=1)
    who = external_name(game.players[player].character)
    print(
        f"{game.name}: {len(human_ta)} frames of {who} (port "
        f"{game.players[player].port}), {changes.mean():.0%} of them change frames"
    )
    print(f"{'':10}{'agrees':>10}{'repeating':>12}{'on changes':>12}")
    rows = [(name, slice(i, i + 1)) for i, name in enumerate(controller.COMPONENTS)]
    for name, columns in [*rows, ("all", slice(None))]:
        same = (answer_ta[:, columns] == human_ta[:, columns]).all(axis=1)
        copied = (before_ta[:, columns] == human_ta[:, columns]).all(axis=1)
        changed = f"{same[changes].mean():.1%}" if changes.any() else "-"
        print(f"{name:10}{same.mean():>10.1%}{copied.mean():>12.1%}{changed:>12}")
    p50, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    print(
        f"{policy.mode}: {p50:.2f} ms a frame at p50, {p99:.2f} ms at p99 "
        "(a frame of the game is 16.67 ms)"
    )


if __name__ == "__main__":
    sys.exit(main())
