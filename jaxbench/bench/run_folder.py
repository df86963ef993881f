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
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxbench.bench.defaults import digest, frozen, identity
from jaxbench.errors import InputError
from jaxbench.tasks.table import find
from jaxbench.training.disk import disk_is_full, full_disk_message
from jaxbench.training.records import flatten

_SECTIONS = ("model", "train", "data", "xla")
# Settings that are not in `defaults.json`: examples, by which their types are told.
_OTHERS: Mapping[str, Any] = {
    "task": "",
    "xla.platform": "",
    "xla.allocator": "",
    "xla.preallocate": False,
    "xla.memory_fraction": 0.0,
    "xla.compilation_cache": "",
    "xla.flags": "",
    "xla.memory_limit": 0.0,
}


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


def check_place(folder: Path, flag: str) -> None:
    """Refuses a folder that cannot be made or written, before minutes are spent on it.

    Raises:
      InputError: its name or its path is too long, a file lies in its way, or the disk
        is full or may not be written.
    """
    # As deep as a checkpoint's files lie.
    deepest = folder / "checkpoints" / "last" / ("0" * 100) / ("0" * 100)
    try:
        for path in (folder, deepest):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.stat()
        existing = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if disk_is_full(error):
            raise InputError(full_disk_message(folder)) from error
        raise InputError(
            f"{flag} {str(folder)[:80]} cannot be written ({error.strerror}); name "
            "another folder"
        ) from error


def check_owner(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a folder that belongs to another config or to something else.

    Raises:
      InputError: naming the first keys that differ.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--workdir {folder} is a file; name a folder")
    if not (folder / "config.json").exists():
        if folder.is_dir() and any(p.name != "lock" for p in folder.iterdir()):
            raise InputError(
                f"--workdir {folder} is not empty and holds no run; name another folder"
            )
        return
    different = differences(identity(read_config(folder)), identity(config))
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
    """Reads a file that holds a JSON object, or None where it does not exist.

    Raises:
      InputError: it cannot be read, or it holds anything else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        why = "it is empty" if not path.stat().st_size else "it is cut off or no JSON"
        raise damaged(path, why) from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not named fields")
    return content


def damaged(path: Path, why: str) -> InputError:
    """The error of a file of a run that is not what was written."""
    return InputError(
        f"{path} is damaged: {why}; put it back, or remove it and run the same command "
        "again"
    )


def alike(value: Any, example: Any) -> bool:
    """Whether a value is of an example's type; None is an example of any scalar."""
    if example is None:
        return isinstance(value, str | int | float | None)
    if isinstance(example, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if isinstance(example, float):
        return isinstance(value, int | float)
    return isinstance(value, type(example))


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config of the run in `folder`, without its digest.

    What recipes have gained since is filled in, with the value that computes the same.

    Raises:
      InputError: there is no `config.json`, or it cannot be one.
    """
    path = folder / "config.json"
    config = read_json(path)
    if config is None:
        raise InputError(
            f"{folder} holds no config.json: it is no folder of a run, or only its "
            "result was kept; give one that run.py or a suite made"
        )
    config.pop("config_hash", None)
    for name in _SECTIONS:
        if not isinstance(config.get(name), dict):
            raise damaged(path, f"it has no section {name!r}")
    if not isinstance(config.get("task"), str):
        raise damaged(path, "it names no task")
    find(config["task"])
    known = frozen().get(config["task"], {})
    flat = flatten(config)
    for key, example in {**_OTHERS, **known}.items():
        if key in flat:
            if not alike(flat[key], example):
                raise damaged(path, f"{key} is {str(flat[key])[:40]!r}")
            continue
        section, _, name = key.rpartition(".")
        inside = config.setdefault(section, {}) if section else config
        if key not in known or not isinstance(inside, dict):
            raise damaged(path, f"it lacks {key}")
        inside[name] = example
    return config
