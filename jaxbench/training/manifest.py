"""The files of a checkpoint with their digests, so that damaged ones are not read.

A saved state is a folder of some ten files. `write` lists them in a file of its own
when all are there, so a state without that file is not complete; `check` reads every
file and compares. Both take as long as SHA-256 of the bytes: 0.7 s for each GB on one
core with SHA instructions, beside the seconds of writing them. Imports no jax.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from jaxbench.errors import InputError

FILE = "manifest.json"


def write(state: Path) -> None:
    """Lists all files below `state`, each with its size and its SHA-256."""
    text = json.dumps({"files": _files(state)}, indent=1, sort_keys=True)
    partial = state / f"{FILE}.partial"
    with partial.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(state / FILE)


def complete_steps(folder: Path) -> list[int]:
    """The steps of the states below `folder` that were saved to the end, in order."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(
        int(path.name)
        for path in found
        if path.name.isdigit() and (path / FILE).is_file()
    )


def check(state: Path) -> None:
    """Refuses a state whose files are not those that were written.

    Raises:
      InputError: naming the first file that is missing, cut off or changed.
    """
    try:
        expected = json.loads((state / FILE).read_bytes())["files"]
        found = _files(state)
        wrong = [name for name in {**expected, **found} if name not in found]
        wrong += [name for name in found if found[name] != expected.get(name)]
        if not wrong:
            return
        name = sorted(wrong)[0]
        bytes_then, bytes_now = (
            x.get(name, {}).get("bytes") for x in (expected, found)
        )
        if bytes_now is None:
            why = f"{name} is missing"
        elif bytes_then != bytes_now:
            why = f"{name} has {bytes_now:,} bytes, not {bytes_then or 0:,}"
        else:
            why = f"{name} has changed: its sha256 is another"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{FILE} cannot be read ({type(error).__name__})"
    raise InputError(
        f"the checkpoint {state} is damaged: {why}; put it back, or remove the folder "
        "to use the checkpoint before it, where there is one"
    )


def _files(state: Path) -> dict[str, dict[str, int | str]]:
    found: dict[str, dict[str, int | str]] = {}
    for path in sorted(state.rglob("*")):
        if not path.is_file() or path in (state / FILE, state / f"{FILE}.partial"):
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(state).as_posix()
        found[name] = {"bytes": path.stat().st_size, "sha256": digest}
    return found
