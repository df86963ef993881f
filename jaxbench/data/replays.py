"""A folder of Slippi replays into games: fast, cached, and never stopped by one file.

`slippi` reads one file, `replay_pool` spreads files over the processes of
`replay_worker`, which a crash of the parser cannot leave, `replay_cache` remembers
what was read, `replay_report` tells about it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jaxbench.data import replay_pool
from jaxbench.data.characters import character_key, external_name, plays
from jaxbench.data.game import Game
from jaxbench.data.replay_cache import ReplayCache
from jaxbench.data.replay_report import Meter, Outcome
from jaxbench.data.replay_worker import Rejection
from jaxbench.errors import InputError, printable

# "module:function" of `Path -> Game`; a worker imports it by this name.
PARSER = "jaxbench.data.slippi:parse"


@dataclass(frozen=True)
class CharacterCount:
    """How often a character, by its name at the start, is in a set of games.

    Attributes:
      name: canonical name.
      games: games it is in.
      perspectives: ports that play it; a mirror match counts twice.
      frames: frames over those ports.
    """

    name: str
    games: int
    perspectives: int
    frames: int


def load_replays(
    source: Path | str | Sequence[Path | str],
    *,
    max_files: int = 0,
    workers: int = 0,
    cache_dir: Path | str | None = None,
    progress: bool = True,
) -> tuple[list[Game], list[Outcome]]:
    """Reads replays; a file that cannot be used is skipped with its reason.

    Parsing runs in separate processes, which import neither JAX nor the caller's
    script, so a parser that crashes or hangs costs only the file at fault. A game
    recorded twice counts once (see `drop_duplicates`).

    Args:
      source: a folder, searched through for *.slp and read in lexicographic order
        of the paths, or files, read in the order given.
      max_files: read only the first so many; 0 means all.
      workers: processes that parse. 0 chooses from the amount and the cores.
      cache_dir: where parsed games are kept; None keeps none.
      progress: shows progress and a final table on stderr.

    Returns:
      The games in order, and one outcome per file.

    Raises:
      InputError: no such folder or file, no replays in it, or none can be used.
    """
    if workers < 0:
        raise InputError(f"workers={workers}: must be 0 (automatic) or more")
    label, paths, names = _find(source, max_files)
    sizes = [_size(path) for path in paths]
    results: list[Game | Rejection | None] = [None] * len(paths)
    status = ["read"] * len(paths)
    cache = None if cache_dir is None else ReplayCache(cache_dir, PARSER)
    with Meter(sizes, progress) as meter:
        hashes: dict[int, str] = {}
        if cache is not None:
            for i, (sha256, found) in enumerate(_look_up(cache, paths)):
                hashes[i] = sha256
                if found is not None:
                    results[i], status[i] = found, "cached"
                    meter.advance(sizes[i])

        def finished(i: int, result: Game | Rejection) -> None:
            results[i] = result
            meter.advance(sizes[i])
            if cache is None:
                return
            if isinstance(result, Game):
                cache.store(result.sha256, result)
            elif result.final and hashes[i]:
                cache.store(hashes[i], result.reason)

        waiting = [i for i, result in enumerate(results) if result is None]
        replay_pool.parse_all(
            PARSER, [(i, paths[i], sizes[i]) for i in waiting], workers, finished
        )
        games, outcomes = _sort_out(names, results, status)
        meter.finish(outcomes)
    if not games:
        reason, count = Counter(outcome.reason for outcome in outcomes).most_common()[0]
        raise InputError(
            f"{label}: none of the {len(paths)} replays can be used; most often "
            f"({count} of {len(paths)}) because: {reason}"
        )
    return games, outcomes


def _find(
    source: Path | str | Sequence[Path | str], max_files: int
) -> tuple[str, list[Path], list[str]]:
    """Returns what to call the source, the files, and their names in reports."""
    if max_files < 0:
        raise InputError(f"max_files={max_files}: must be 0 (all) or more")
    if not isinstance(source, (str, Path)):
        label, paths = "files given", [Path(item) for item in source]
        names = [printable(str(path)) for path in paths]
    elif Path(source).is_file():
        label, paths, names = (
            str(source),
            [Path(source)],
            [printable(Path(source).name)],
        )
    elif Path(source).is_dir():
        root, label = Path(source), str(source)
        found = (path for path in root.rglob("*") if path.suffix.lower() == ".slp")
        paths = sorted((path for path in found if path.is_file()), key=str)
        names = [printable(path.relative_to(root).as_posix()) for path in paths]
    else:
        raise InputError(f"{source}: no such folder; give a folder of .slp replays")
    absent = [path for path in paths if not path.is_file()]
    if absent:
        raise InputError(f"{absent[0]}: no such file; give .slp replays")
    if not paths:
        raise InputError(f"{label}: no .slp replays there, nor in folders below")
    last = max_files or None
    return label, paths[:last], names[:last]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _look_up(
    cache: ReplayCache, paths: Sequence[Path]
) -> Iterator[tuple[str, Game | Rejection | None]]:
    """Yields each file's hash and what the cache has for it, in order."""

    def one(path: Path) -> tuple[str, Game | Rejection | None]:
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            # The parser will meet the same error and give it as the reason.
            return "", None
        found = cache.load(sha256, printable(path.name))
        if isinstance(found, str):
            return sha256, Rejection(found, final=True)
        return sha256, found

    # Hashing and reading both release the interpreter lock.
    with ThreadPoolExecutor(replay_pool.cores()) as pool:
        yield from pool.map(one, paths)


def _sort_out(
    names: Sequence[str],
    results: Sequence[Game | Rejection | None],
    status: Sequence[str],
) -> tuple[list[Game], list[Outcome]]:
    found = {i: it for i, it in enumerate(results) if isinstance(it, Game)}
    numbers = list(found)
    games, original = drop_duplicates(list(found.values()))
    copy_of = {numbers[i]: names[numbers[j]] for i, j in original.items()}
    outcomes = []
    for i, (name, result) in enumerate(zip(names, results, strict=True)):
        assert result is not None, name
        if isinstance(result, Rejection):
            outcome = Outcome(name, "skipped", result.reason)
        elif i in copy_of:
            outcome = Outcome(name, "skipped", f"duplicate of {copy_of[i]}")
        else:
            outcome = Outcome(
                name,
                status[i],
                "",
                len(result.frame_t),
                result.rows,
                result.remarks,
            )
        outcomes.append(outcome)
    return games, outcomes


def drop_duplicates(games: Sequence[Game]) -> tuple[list[Game], dict[int, int]]:
    """Keeps the first of each recording: same bytes, or same game saved again.

    A game saved again (another version, edited metadata) has other bytes but the
    same stage, frames, ports and characters, and every position of every port.

    Returns:
      The games kept, and for each one dropped its index -> the index of its original.
    """
    first: dict[str, int] = {}
    original: dict[int, int] = {}
    for i, game in enumerate(games):
        digests = (game.sha256, _track_digest(game))
        j = next((first[digest] for digest in digests if digest in first), i)
        if j != i:
            original[i] = j
        for digest in digests:
            first.setdefault(digest, j)
    return [game for i, game in enumerate(games) if i not in original], original


def _track_digest(game: Game) -> str:
    """Hashes where everybody was on every frame."""
    digest = hashlib.sha256(f"{game.stage} {len(game.frame_t)}".encode())
    for player in game.players:
        digest.update(f" {player.port} {player.character}".encode())
        digest.update(player.leader.post["position_x"].tobytes())
        digest.update(player.leader.post["position_y"].tobytes())
    return digest.hexdigest()


def describe(games: Sequence[Game]) -> list[CharacterCount]:
    """Counts the characters played, by their name at the start, most frames first."""
    played = [
        (external_name(player.character), i, len(game.frame_t))
        for i, game in enumerate(games)
        for player in game.players
    ]
    counts = []
    for name in {who for who, _, _ in played}:
        mine = [(i, frames) for who, i, frames in played if who == name]
        frames = sum(frames for _, frames in mine)
        counts.append(
            CharacterCount(name, len({i for i, _ in mine}), len(mine), frames)
        )
    return sorted(counts, key=lambda count: (-count.frames, count.name))


def select_players(games: Sequence[Game], character: str) -> list[tuple[int, int]]:
    """Returns (game index, player index) of every port that plays a character.

    Args:
      games: where to look.
      character: any spelling `character_key` knows, or "any" for all ports; a
        port that transforms plays both (see `characters.plays`).

    Raises:
      InputError: no such character, or no port plays it; the message lists who is
        there.
    """
    every = character.strip().lower() == "any"
    key = character if every else character_key(character)
    chosen = [
        (i, j)
        for i, game in enumerate(games)
        for j, player in enumerate(game.players)
        if every or plays(player, key)
    ]
    if not chosen:
        found = ", ".join(
            f"{count.name} ({count.games} game{'s' * (count.games != 1)}, "
            f"{count.frames:,} frames)"
            for count in describe(games)
        )
        raise InputError(
            f"character={key} is in none of the {len(games)} games; found: "
            f"{found or 'nobody'}"
        )
    return chosen
