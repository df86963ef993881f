"""The tasks that this program knows: a line for each. Imports no jax.

A line is a name and the module that describes the task, whose `ENTRY` is an
`entry.Entry`; it is imported when somebody asks for that task. A task from outside this
repository needs no line: `config.task` is then the dotted path of its module.
"""

from __future__ import annotations

import importlib

from jaxbench.errors import InputError, nearest
from jaxbench.tasks.entry import Entry

TASKS = {
    "zelda": "jaxbench.tasks.zelda.entry",
    "pile": "jaxbench.tasks.pile.entry",
    "world": "jaxbench.tasks.world.entry",
    "mqar": "jaxbench.tasks.pentathlon.entry",
    "flip_flop": "jaxbench.tasks.pentathlon.entry",
    "knapsack": "jaxbench.tasks.pentathlon.entry",
    "word_problem": "jaxbench.tasks.pentathlon.entry",
    "edit_distance": "jaxbench.tasks.pentathlon.entry",
}


def find(name: str) -> Entry:
    """The description of a task.

    Raises:
      InputError: there is no such task; the nearest are named.
    """
    if name not in TASKS and "." not in name:
        raise InputError(f"task={name!r} is unknown; nearest: {nearest(name, TASKS)}")
    path = TASKS.get(name, name)
    try:
        return importlib.import_module(path).ENTRY
    except ModuleNotFoundError as error:
        # A module that the task itself lacks is no wrong name.
        if not f"{path}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"task={name!r}: Python finds no module {error.name}; a task from outside "
            "is the dotted path of an installed module with an ENTRY"
        ) from error
