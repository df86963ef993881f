"""A trained policy plays Melee in Dolphin, through libmelee.

    python examples/play_melee.py --run=runs/zelda/mamba/seed0-1a2b3c4d \
        --dolphin=FOLDER --iso=melee.iso --opponent=FALCO

It needs `pip install melee`, Slippi's Dolphin and your own copy of the game. The policy
holds port 1 and plays whom it imitates; a level 9 computer player, or you with --human,
holds port 2. A frame that cannot be read is skipped: the last controller goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from jaxbench.data.characters import (
    EXTERNAL_ID,
    EXTERNAL_TO_INTERNAL,
    character_key,
    internal_ids,
)
from jaxbench.errors import InputError, nearest
from jaxbench.serving import melee as adapter
from jaxbench.serving.policy import MODES, BadFrame, Policy, controllers

PORT, OTHER = 1, 2


def main() -> int:
    """Plays until it is interrupted."""
    options = parse()
    try:
        import melee
    except ImportError:
        print(f"play_melee: {adapter.INSTALL}", file=sys.stderr)
        return 2
    try:
        # What the game does not delay, the policy holds back itself.
        policy = Policy.load(
            options.run,
            mode=options.mode,
            temperature=options.temperature,
            hold=options.hold,
            any_character=options.any_character,
        )
        play(policy, melee, options)
    except InputError as error:
        print(f"play_melee: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return os.EX_OK


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a run")
    parser.add_argument("--dolphin", required=True, help="folder of Slippi's Dolphin")
    parser.add_argument("--iso", required=True, help="the game")
    parser.add_argument("--character", help="libmelee's name; else whom it imitates")
    parser.add_argument(
        "--any_character", action="store_true", help="also one it does not imitate"
    )
    parser.add_argument("--opponent", default="FALCO", help="libmelee's name of it")
    parser.add_argument("--stage", default="BATTLEFIELD", help="libmelee's name of it")
    parser.add_argument("--human", action="store_true", help="port 2 is a real pad")
    parser.add_argument("--mode", choices=MODES, default="stateful")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument(
        "--hold", type=int, default=0, help="frames of the run's delay to wait here"
    )
    return parser.parse_args()


def play(policy: Policy, melee: Any, options: argparse.Namespace) -> None:
    """Starts the game and answers every frame of it."""
    mine = fighter(policy, melee.Character, options.character)
    theirs = member(melee.Character, options.opponent)
    stage = member(melee.Stage, options.stage)
    if not Path(options.iso).is_file():
        raise InputError(f"there is no game {options.iso}; give your own copy of it")
    try:
        console = melee.Console(path=options.dolphin, fullscreen=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"libmelee cannot use {options.dolphin} ({' '.join(str(error).split())}); "
            "give the folder of Slippi's Dolphin"
        ) from error
    pad = melee.Controller(console=console, port=PORT)
    kind = melee.ControllerType
    second = melee.Controller(
        console=console,
        port=OTHER,
        type=kind.GCN_ADAPTER if options.human else kind.STANDARD,
    )
    fresh = state = policy.initial_state()  # compiles, so before the game starts
    console.run(iso_path=options.iso)
    try:
        for what in (console, pad, second):
            if not what.connect():
                raise InputError(f"cannot connect to {what}; is Dolphin running?")
        menus = melee.MenuHelper()
        held = None
        while True:
            gamestate = console.step()
            if gamestate is None:
                continue
            if gamestate.menu_state in (melee.Menu.IN_GAME, melee.Menu.SUDDEN_DEATH):
                state, held = answer(policy, state, gamestate, held, console)
                adapter.press(held, pad)  # sent by the next console.step
                continue
            if state.skipped:
                print(f"{state.skipped} frames skipped, the last: {state.reason}")
            state, held = fresh, None
            menus.menu_helper_simple(gamestate, pad, mine, stage, autostart=True)
            if not options.human:
                menus.menu_helper_simple(gamestate, second, theirs, stage, cpu_level=9)
    finally:
        console.stop()


def answer(
    policy: Policy, state: Any, gamestate: Any, held: Any, console: Any
) -> tuple[Any, Any]:
    """The state after a frame, and the controller for the next."""
    try:
        view = adapter.view_of_gamestate(
            gamestate,
            PORT,
            held=held,
            zero_indices=getattr(console, "zero_indices", None),
        )
    except BadFrame as error:
        state, labels_ba = policy.skip(state, str(error))
        return state, controllers(labels_ba)[0]
    return policy.step(state, view)


def fighter(policy: Policy, kinds: Any, name: str | None) -> Any:
    """libmelee's character of that name; without one, whom the policy imitates."""
    if name is None:
        someone = "fox" if policy.character == "any" else policy.character
        return kinds(EXTERNAL_TO_INTERNAL[EXTERNAL_ID[character_key(someone)]])
    chosen = member(kinds, name)
    played = None if policy.any_character else internal_ids(policy.character)
    if played is not None and chosen.value not in played:
        raise InputError(
            f"the run imitates {policy.character} and never saw {chosen.name} play; "
            "leave --character out, or add --any_character"
        )
    return chosen


def member(kinds: Any, name: str) -> Any:
    """The member of one of libmelee's enums that has this name."""
    if name.upper() not in kinds.__members__:
        near = nearest(name.upper(), kinds.__members__)
        raise InputError(
            f"{name!r} is no {kinds.__name__} of libmelee; nearest: {near}"
        )
    return kinds[name.upper()]


if __name__ == "__main__":
    sys.exit(main())
