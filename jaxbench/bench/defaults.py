"""The settings against which a run says what is its own, frozen.

A run's digest is over what differs from `defaults.json`. A recipe that gains a field
gains a line there, with the value that computes what was computed before it: digests of
released runs stay what they are, so that seeds can be added to their boards. A recipe
whose default changes changes nothing there: its runs then differ in that setting.

    python -m jaxbench.bench.defaults      # adds fields that recipes have gained
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxbench.training.records import flatten

# Of the meaning of digests: another number starts all boards anew.
VERSION = 1
FILE = Path(__file__).with_name("defaults.json")
# Names a run by its folder, of which the last part counts.
START = "train.start_from"
# How long the run was that this one extends; no recipe has it, --extend sets it.
EXTENDED = "train.extended"
# They change where and how fast a run goes, never what it computes.
NOT_IDENTITY = ("xla.", "data.workers", "data.cache", "config_hash")


@functools.cache
def frozen() -> Mapping[str, Mapping[str, Any]]:
    """Task -> flat settings; empty for tasks from elsewhere."""
    return json.loads(FILE.read_text())


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that change results, flat, those that a config lacks filled in.

    Folders and files count by their name: the same data lie elsewhere on another
    machine, and a result's fingerprint says whether they are the same.
    """
    known = frozen().get(config["task"], {})
    # Through JSON, so that tuples and lists compare equal.
    own = json.loads(json.dumps(flatten(config)))
    return {
        key: Path(value).name if key == START else portable(value)
        for key, value in {**known, **own}.items()
        if not key.startswith(NOT_IDENTITY)
    }


def differs(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `identity` that is not as in `defaults.json`."""
    known = frozen().get(config["task"], {})
    own = identity(config)
    return {k: v for k, v in own.items() if k not in known or known[k] != v}


def digest(config: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> str:
    """A short digest of the task and of what differs, some settings left out."""
    own = {k: v for k, v in differs(config).items() if k not in without}
    facts = {"version": VERSION, "task": config["task"], "differs": own}
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def command(config: Mapping[str, Any]) -> str:
    """The command line that makes such a run, folders by their name alone.

    Under compat every setting is named, since that protocol has defaults of its own.
    For a run that extends another, RUN stands for the folder of that one.
    """
    compat = config["protocol"] == "compat"
    own = identity(config) if compat else differs(config)
    recipe = f"configs/{config['task']}.py" + (":protocol=compat" if compat else "")
    settings = [
        f"--config.{key}={value}"
        for key, value in own.items()
        if key not in ("task", "protocol", EXTENDED) and value is not None
    ]
    extend = ["--extend=RUN"] if EXTENDED in own else []
    return shlex.join(["python", "run.py", f"--config={recipe}", *settings, *extend])


def portable(value: Any) -> Any:
    """A path of this machine as its last part; anything else as it is."""
    if isinstance(value, str) and value.startswith(("/", "~/")):
        return Path(value).name
    return value


def recipes() -> dict[str, dict[str, Any]]:
    """Task -> flat defaults of its recipe today, those of compat beneath."""
    found = {}
    for path in sorted(Path("configs").glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        if not hasattr(module, "get_config"):
            continue
        merged: dict[str, Any] = {}
        for argument in ("protocol=compat", ""):
            config = json.loads(module.get_config(argument).to_json())
            merged |= flatten(config)
        found[merged["task"]] = {
            key: portable(value)
            for key, value in merged.items()
            if not key.startswith(NOT_IDENTITY)
        }
    return found


def main() -> None:
    """Adds what recipes have gained; what is there stays as it is."""
    known = dict(frozen())
    for task, settings in recipes().items():
        known[task] = {**settings, **known.get(task, {})}
    text = json.dumps(known, indent=1, sort_keys=True)
    FILE.write_text(text + "\n")


if __name__ == "__main__":
    main()
