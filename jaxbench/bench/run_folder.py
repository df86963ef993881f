"""The run folder: which config it belongs to, and files that are whole or absent.

Nothing here imports jax: a suite's parent reads and writes these folders too.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import digest, identity
from jaxbench.errors import InputError
from jaxbench.training.disk import disk_is_full, full_disk_message


def config_hash(config: Mapping[str, Any]) -> str:
    """A short digest of everything in the config that changes results."""
    return digest(config)


def default_folder(config: Mapping[str, Any]) -> Path:
    """`runs/<task>/<backbone>/seed<seed>-<hash>`: the same config, the same folder."""
    name = f"seed{config['seed']}-{config_hash(config)[:8]}"
    return (
        Path("runs") / config["task"] / folder_name(config["model"]["backbone"]) / name
    )


def folder_name(backbone: str) -> str:
    """A backbone's name or pattern as the name of a folder.

    Slashes stay apart from the other signs: `swa/mlp` is not `swa+mlp`.
    """
    text = backbone.replace("/", "-")
    return "".join(c if c.isalnum() or c in "_-" else "." for c in text)


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Holds `folder` for this process; the system lets go when the process ends.

    Raises:
      InputError: another process holds it: its number, its machine and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"{what} {folder} is held by {holder}; wait for it, stop it, or name "
                "another folder"
            ) from error
        file.truncate(0)
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {platform.node()} since {now}")
        file.flush()
        yield


def is_held(folder: Path) -> bool:
    """Whether some process holds `folder` now."""
    try:
        with (folder / "lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def check_owner(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a folder that belongs to another config or to something else.

    Raises:
      InputError: naming the first keys that differ.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir {folder} is a file; name a folder")
    saved = folder / "config.json"
    if not saved.exists():
        if folder.is_dir() and any(p.name != "lock" for p in folder.iterdir()):
            raise InputError(
                f"--workdir {folder} is not empty and holds no run; name another folder"
            )
        return
    theirs = identity(json.loads(saved.read_text()))
    different = differences(theirs, identity(config))
    if different:
        raise InputError(
            f"--workdir {folder} belongs to another config ({different}); "
            "use another folder or the same settings"
        )


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first settings in which two flat configs differ, "" where they agree."""
    names = [k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k)]
    return ", ".join(
        f"{k} is {theirs.get(k)!r} there and {ours.get(k)!r} here" for k in names[:3]
    )


def claim(folder: Path, config: Mapping[str, Any]) -> None:
    """Makes the folder and marks it as this config's by writing that."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**config, "config_hash": config_hash(config)})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that is either whole or not there.

    Raises:
      InputError: the disk is full; an older file is left as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if disk_is_full(error):
            raise InputError(full_disk_message(path.parent)) from error
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON file, or None where it does not exist."""
    return json.loads(path.read_text()) if path.exists() else None
