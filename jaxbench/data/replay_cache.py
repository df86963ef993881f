"""Parsed replays on disk: one file each, found by the replay's bytes.

A file is an .npz of two arrays: `header`, JSON that describes a game and where its
columns lie, and `blob`, all columns one after another, deflated at the fastest level
(an eighth of the size for a tenth of a second per 40 MB). A replay that
cannot be used is remembered by its reason. The key covers the bytes of the replay,
the parser and its version, and the layout below, so nothing stale is ever read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import uuid
import warnings
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from jaxbench.data.game import Character, Game, Items, Player

# Raise it whenever `parse` or `Game` changes what a replay turns into.
SCHEMA_VERSION = 3

_ALIGN = 16
_ABANDONED_SECONDS = 3600


class ReplayCache:
    """Looks up and stores parsed replays in one folder.

    Several processes may share the folder: a file appears whole or not at all. A
    damaged file counts as absent. When the folder cannot be written (disk full, no
    permission) one warning says so, and nothing more is stored.
    """

    def __init__(self, folder: Path | str, parser: str) -> None:
        self.folder = Path(folder)
        self._parser = f"{parser} {_parser_version()}"
        self._writes = True
        self._sweep()

    def path(self, sha256: str) -> Path:
        """Returns where the replay with these bytes is, or would be."""
        key = f"{sha256}\n{self._parser}\n{SCHEMA_VERSION}"
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.npz"

    def load(self, sha256: str, name: str) -> Game | str | None:
        """Returns the game under the file's present name, the reason why it cannot
        be used, or None when it has to be parsed."""
        path = self.path(sha256)
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(stored["header"].tobytes())
                # A bytearray, so that the columns can be written like parsed ones.
                blob = bytearray(zlib.decompress(stored["blob"]))
            if header["sha256"] != sha256:
                return None
            if "reason" in header:
                return str(header["reason"])
            return _unpack(header, blob, name)
        except Exception:
            # Absent or damaged in whatever way: the replay is parsed again.
            return None

    def store(self, sha256: str, result: Game | str) -> None:
        """Stores a game, or the reason why there is none."""
        if not self._writes:
            return
        if isinstance(result, str):
            header, columns = {"reason": result}, b""
        else:
            header, columns = _pack(result)
        text = json.dumps({"sha256": sha256} | header).encode()
        blob = zlib.compress(columns, level=1)
        try:
            self._write(self.path(sha256), text, blob)
        except OSError as error:
            self._writes = False
            warnings.warn(
                f"the replay cache {self.folder} cannot be written "
                f"({error.strerror or error}); going on without it, replays will be "
                "parsed again next time",
                RuntimeWarning,
                stacklevel=2,
            )

    def _write(self, path: Path, header: bytes, blob: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as file:
                np.savez(
                    file,
                    header=np.frombuffer(header, np.uint8),
                    blob=np.frombuffer(blob, np.uint8),
                )
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        """Removes what killed processes left half-written."""
        try:
            for part in self.folder.glob("*.part"):
                if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                    part.unlink(missing_ok=True)
        except OSError:
            # Someone else removed it, or the folder cannot be read: `store` tells.
            return


def _parser_version() -> str:
    try:
        return metadata.version("peppi-py")
    except metadata.PackageNotFoundError:
        return "absent"


class _Blob:
    """Columns laid one after another; each is named by [dtype, shape, offset]."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def add(self, values: np.ndarray) -> list[Any]:
        data = np.ascontiguousarray(values).tobytes()
        place = [values.dtype.str, list(values.shape), self.size]
        padding = -len(data) % _ALIGN
        self.pieces += [data, bytes(padding)]
        self.size += len(data) + padding
        return place

    def columns(self, values: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        return {name: self.add(column) for name, column in values.items()}


def _pack(game: Game) -> tuple[dict[str, Any], bytes]:
    blob = _Blob()

    def fighter(it: Character | None) -> dict[str, Any] | None:
        if it is None:
            return None
        return {
            "present": blob.add(it.present_t),
            "pre": blob.columns(it.pre),
            "post": blob.columns(it.post),
        }

    header: dict[str, Any] = {
        "version": list(game.version),
        "stage": game.stage,
        "is_teams": game.is_teams,
        "is_pal": game.is_pal,
        "end": game.end,
        "rows": game.rows,
        "missing": sorted(game.missing),
        "remarks": list(game.remarks),
        "frame": blob.add(game.frame_t),
        "players": [
            {
                "port": player.port,
                "kind": player.kind,
                "character": player.character,
                "team": player.team,
                "who": player.who,
                "leader": fighter(player.leader),
                "nana": fighter(player.nana),
            }
            for player in game.players
        ],
        "items": None,
    }
    if game.items is not None:
        header["items"] = {
            "frame": blob.add(game.items.frame_i),
            "fields": blob.columns(game.items.fields),
        }
    return header, b"".join(blob.pieces)


def _unpack(header: dict[str, Any], blob: bytearray, name: str) -> Game:
    def column(place: list[Any]) -> np.ndarray:
        dtype, shape, offset = np.dtype(place[0]), place[1], place[2]
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(blob, dtype, count, offset).reshape(shape)

    def columns(places: dict[str, list[Any]]) -> dict[str, np.ndarray]:
        return {field: column(place) for field, place in places.items()}

    def fighter(it: dict[str, Any]) -> Character:
        return Character(column(it["present"]), columns(it["pre"]), columns(it["post"]))

    players = tuple(
        Player(
            **dict(
                player,
                leader=fighter(player["leader"]),
                nana=player["nana"] and fighter(player["nana"]),
            )
        )
        for player in header["players"]
    )
    items = header["items"]
    plain = {"version", "stage", "is_teams", "is_pal", "end", "rows", "missing"}
    game = Game(
        name=name,
        sha256=header["sha256"],
        frame_t=column(header["frame"]),
        players=players,
        items=items and Items(column(items["frame"]), columns(items["fields"])),
        **{key: header[key] for key in plain},
    )
    return dataclasses.replace(
        game,
        version=tuple(header["version"]),
        missing=frozenset(header["missing"]),
        remarks=tuple(header["remarks"]),
    )
