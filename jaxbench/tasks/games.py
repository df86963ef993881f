"""Games of Melee for the tasks that learn from them: read, or simulated where none are.

Imports no jax.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxbench.data.characters import character_key
from jaxbench.tasks.rules import Rule, each, not_negative, positive, seed, within


def _character(key: str, value: str) -> None:
    """A fighter of Melee, or "any"; found before replays are read for minutes."""
    if value.strip().lower() != "any":
        character_key(value)


# Rules for the keys of `config.data` that these tasks share.
RULES: dict[str, Rule] = {
    **each("data.window data.stride data.simulated_games", positive),
    **each("data.max_files data.workers", not_negative),
    "data.split_seed": seed,
    "data.character": _character,
    "data.validation_fraction": within("(0, 1)"),
}


def open_games(
    data: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[list[Any], dict[str, Any]]:
    """Loads the games that a recipe's `data` section names.

    Args:
      data: the section; without `replays` games are simulated.
      say: called with a line where they are.

    Returns:
      The `Game`s in the loader's order, and for results what they are: source, files,
      skipped.

    Raises:
      InputError: no replays, or none that can be read.
    """
    # The parser of replays is loaded by those who read some.
    from jaxbench.data import replays
    from jaxbench.data.simulation.record import simulate_replays

    cache = Path(data["cache"]).expanduser() if data["cache"] else None
    with tempfile.TemporaryDirectory() as scratch:
        if data["replays"]:
            folder = Path(data["replays"]).expanduser()
            replay_source: Path | list[Path] = folder
            source: dict[str, Any] = {"source": "replays", "folder": folder.name}
        else:
            say("no data.replays: simulating games (results will say so)")
            anyone = data["character"].strip().lower() == "any"
            replay_source = simulate_replays(
                (cache or Path(scratch)) / "simulated",
                games=data["simulated_games"],
                seed=data["split_seed"],
                character="zelda" if anyone else data["character"],
            )
            source = {"source": "simulated"}
        games, outcomes = replays.load_replays(
            replay_source,
            max_files=data["max_files"],
            workers=data["workers"],
            cache_dir=cache,
        )
    source["files"] = len(outcomes)
    source["skipped"] = {
        Path(o.name).name: o.reason for o in outcomes if o.status == "skipped"
    }
    return games, source
