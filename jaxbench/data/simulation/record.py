"""Replays for when there are none: simulated games, written as `.slp` files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from jaxbench.data.characters import character_key
from jaxbench.data.simulation import arena, environment, observation, scripted
from jaxbench.data.simulation.fight import ARRAYS, Controls, State
from jaxbench.data.slp_writer import FIRST_FRAME, Recording, write_slp
from jaxbench.errors import InputError

SOURCE = "jaxbench simulation"
# Part of the file names: raise it whenever the same arguments give other bytes.
GENERATOR = 1
_BATCH = 32

_PORTS = ((1, 2), (1, 4), (1, 2), (2, 3), (3, 4))
_MIRROR_EVERY, _ROLLBACK_EVERY = 6, 4
_ROLLBACK_GAP, _ROLLBACK_DEPTH = 140, 7


@dataclasses.dataclass(frozen=True)
class Setup:
    """How one game starts; player 0 is the ego.

    Attributes:
      seed: of the game, below 2**63.
      fighters: character names of players 0 and 1.
      ports: of players 0 and 1, 1 to 4.
      styles: of players 0 and 1, see `scripted`.
      stage: in-game stage id.
      rollbacks: whether rolled-back frames are recorded, as netplay does.
    """

    seed: int
    fighters: tuple[str, str]
    ports: tuple[int, int]
    styles: tuple[int, int]
    stage: int
    rollbacks: bool


def simulate_replays(
    folder: Path | str,
    *,
    games: int = 24,
    seed: int = 0,
    character: str = "zelda",
    seconds: int = 120,
) -> list[Path]:
    """Writes simulated games as `.slp` files and returns their paths, in order.

    Scripted players fight until one has no stock left or the clock runs out. The
    ego plays `character` on a changing port against changing characters, styles
    and stages; one game in six is a mirror match, one in four has rolled-back rows.
    Game i and its bytes depend on `seed`, i, `character` and `seconds` alone.

    File names tell the arguments, so sets share a folder with each other and with
    anything else; a manifest beside them holds digests. What is there and whole
    is kept, only the rest is made. Each file appears whole or not at all, so
    several processes may ask for the same set. 24 games: some 10 s on one core.

    Raises:
      InputError: no such character in the simulation, a number out of range, or
        `folder` is a file.
    """
    name = character_key(character)
    if games < 1:
        raise InputError(f"games={games} must be 1 or more")
    if seed < 0:
        raise InputError(f"seed={seed} must be 0 or more")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder, give another for the replays")
    setups = [game_setup(seed, index, name) for index in range(games)]
    # Before anything is written: it also refuses what the simulation lacks.
    environment.reset([0], [setups[0].fighters], setups[0].stage, seconds)
    prefix = f"simulated{GENERATOR}_{name}_seed{seed}_{seconds}s"
    manifest = folder / f"{prefix}.json"
    paths = [
        folder / f"{prefix}_{index:04d}_{setup.fighters[1]}_stage{setup.stage}.slp"
        for index, setup in enumerate(setups)
    ]
    digests = _read_manifest(manifest)
    missing = [i for i in range(games) if not _intact(paths[i], digests)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(missing), _BATCH):
        batch = missing[first : first + _BATCH]
        recordings = record_games([setups[i] for i in batch], seconds)
        for i, recording in zip(batch, recordings, strict=True):
            write_slp(paths[i], recording)
            digests[paths[i].name] = _sha256(paths[i])
        _write_manifest(manifest, _read_manifest(manifest) | digests)
    return paths


def game_setup(seed: int, index: int, character: str) -> Setup:
    """Returns how game `index` of a set starts."""
    text = f"{seed} {index} {character}".encode()
    rng = np.random.Generator(
        np.random.PCG64(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))
    )
    others = [fighter.name for fighter in arena.FIGHTERS if fighter.name != character]
    mirror = index % _MIRROR_EVERY == _MIRROR_EVERY - 1
    opponent = character if mirror else others[rng.integers(len(others))]
    ports = _PORTS[index % len(_PORTS)]
    swap = bool(rng.integers(2))
    return Setup(
        seed=int(rng.integers(2**63)),
        fighters=(character, opponent),
        ports=(ports[1], ports[0]) if swap else ports,
        styles=(
            int(rng.integers(scripted.STYLE_COUNT)),
            int(rng.integers(scripted.STYLE_COUNT)),
        ),
        stage=arena.STAGES[rng.integers(len(arena.STAGES))].id,
        rollbacks=index % _ROLLBACK_EVERY == 1,
    )


def record_games(setups: list[Setup], seconds: int) -> list[Recording]:
    """Plays games between scripted players and returns what a recorder saw."""
    state = environment.reset(
        [setup.seed for setup in setups],
        [setup.fighters for setup in setups],
        [setup.stage for setup in setups],
        seconds,
    )
    memory = scripted.remember_nothing(state, [setup.styles for setup in setups])
    history = [state]
    while not state.over.all():
        controls, memory = scripted.act(memory, state)
        state = environment.step(state, controls)
        history.append(state)
    over_tb = np.stack([past.over for past in history])
    frames_b = over_tb.argmax(axis=0)
    arrays = {
        name: np.stack([getattr(past, name) for past in history]) for name in ARRAYS
    }
    held = [
        np.stack([past.controls[k] for past in history])
        for k in range(len(Controls._fields))
    ]
    recordings = []
    for game, setup in enumerate(setups):
        end = frames_b[game] + 1
        track = State(
            **{name: values[:end, game] for name, values in arrays.items()},
            controls=Controls(*(values[:end, game] for values in held)),
        )
        recordings.append(_recording(track, setup, seconds))
    return recordings


def _rows(track: State, first: int, last: int | None) -> State:
    part = slice(first, last)
    return State(
        **{name: getattr(track, name)[part] for name in ARRAYS},
        controls=Controls(*(values[part] for values in track.controls)),
    )


def _recording(track: State, setup: Setup, seconds: int) -> Recording:
    """Turns the states of one game, the one before its first frame included."""
    before, after = _rows(track, 0, -1), _rows(track, 1, None)
    frames = len(after.frame)
    pre = observation.pre_fields(before, after.controls)
    post = observation.post_fields(after, setup.ports)
    items, present = observation.item_fields(after, setup.ports)
    start = setup.seed & 0xFFFFFFFF
    drawn = (start + 0x10000 * np.arange(frames, dtype=np.uint64)) & 0xFFFFFFFF
    pre["random_seed"] = np.repeat(drawn.astype(np.uint32)[:, None], 2, axis=1)
    source_r, stale_r = _rolled_back(frames, setup)
    # Netplay records the local player's inputs as they are; those of the other one
    # are guessed to go on as they were until they arrive.
    _mispredict(pre, post, source_r, stale_r)
    columns = np.argsort(setup.ports)
    last = _rows(track, -1, None)
    standing = environment.score(last)
    winner = int(standing.winner[0])
    places = [0 if winner in (-1, player) else 1 for player in range(2)]
    external = observation.EXTERNAL_F[after.fighter[0]]
    mirror = setup.fighters[0] == setup.fighters[1]
    return Recording(
        frame_r=after.frame[source_r],
        latest_finalized_r=np.where(stale_r >= 0, stale_r, source_r) + FIRST_FRAME,
        ports=tuple(int(setup.ports[c]) for c in columns),
        characters=tuple(int(external[c]) for c in columns),
        costumes=tuple(int(mirror and c == 1) for c in columns),
        pre={name: values[:, columns] for name, values in pre.items()},
        post={name: values[:, columns] for name, values in post.items()},
        items={name: values[source_r][:, columns] for name, values in items.items()},
        item_present_ri=present[source_r][:, columns],
        stage=setup.stage,
        stocks=environment.STOCKS,
        timer_seconds=seconds,
        random_seed=start,
        end="game" if (last.stocks == 0).any() else "time",
        placements=tuple(places[c] for c in columns),
        source=SOURCE,
    )


def _rolled_back(frames: int, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    """Returns the frame of each row, and for guessed rows the last known one, or -1."""
    source: list[int] = []
    stale: list[int] = []
    rng = np.random.Generator(np.random.PCG64(setup.seed))
    rollbacks = set()
    if setup.rollbacks:
        count = max(frames // _ROLLBACK_GAP, 1)
        rollbacks = {int(f) for f in rng.integers(1, frames, size=count)}
    frame = 0
    while frame < frames:
        if frame in rollbacks:
            depth = min(int(rng.integers(1, _ROLLBACK_DEPTH + 1)), frames - frame)
            source += range(frame, frame + depth)
            stale += [frame - 1] * depth
        source.append(frame)
        stale.append(-1)
        frame += 1
    return np.array(source, np.int32), np.array(stale, np.int32)


def _mispredict(
    pre: dict[str, np.ndarray],
    post: dict[str, np.ndarray],
    source_r: np.ndarray,
    stale_r: np.ndarray,
) -> None:
    """Spreads fields over the rows; player 1 is a guess on the rolled-back ones."""
    guess = stale_r >= 0
    known = stale_r[guess]
    ahead = (source_r - stale_r)[guess].astype(np.float32)
    drift = post["self_x_air"][known, 1] * ahead
    for fields in (pre, post):
        for name, values in fields.items():
            rows = values[source_r]
            if name != "random_seed":
                rows[guess, 1] = values[known, 1]
            if fields is post and name == "position_x":
                rows[guess, 1] += drift
            fields[name] = rows


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, digests: dict[str, str]) -> bool:
    try:
        return _sha256(path) == digests.get(path.name)
    except FileNotFoundError:
        return False


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        digests = json.loads(path.read_text())
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return {}
    return digests if isinstance(digests, dict) else {}


def _write_manifest(path: Path, digests: dict[str, str]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(json.dumps(digests, indent=1, sort_keys=True) + "\n")
    os.chmod(name, 0o644)
    os.replace(name, path)
