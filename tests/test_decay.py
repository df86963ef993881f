"""Which parameters of each row of the zoo decay: `decayed.txt`, reviewed by people.

A change of it is a change of the scores. To write it anew, from the repository's root:

    python tests/test_decay.py > tests/decayed.txt
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from jaxbench.models.build import build_stack
from jaxbench.models.zoo import ROWS
from jaxbench.training.optimizer import parameter_groups

TABLE = Path(__file__).with_name("decayed.txt")
# What no optimiser should pull towards zero, whatever its shape.
NEVER = ("bias", "scale", "slope", "norm", "embedding")


def decayed(row: str) -> list[str]:
    """Paths of the decayed parameters of a row, without the number of the layer."""
    stack = build_stack(row, width=64)
    x_btd = jax.ShapeDtypeStruct((1, 2, 64), np.float32)
    params = jax.eval_shape(stack.init, jax.random.key(0), x_btd).get("params", {})
    paths = {}
    for path, group in jax.tree_util.tree_leaves_with_path(parameter_groups(params)):
        if group == "matrix":
            _, *names = (str(entry.key) for entry in path)
            paths["/".join(names)] = None
    return sorted(paths)


def table() -> dict[str, list[str]]:
    return {name: decayed(name) for name in ROWS}


def test_the_decayed_parameters_of_every_row_are_those_of_the_table():
    found = table()
    lines = TABLE.read_text().splitlines()
    known = {
        name: paths.split() for name, _, paths in (x.partition(":") for x in lines)
    }
    changed = {name for name in found | known if found.get(name) != known.get(name)}
    assert not changed, f"{sorted(changed)}: see the docstring of {Path(__file__).name}"
    wrong = {
        f"{name}: {path}"
        for name, paths in found.items()
        for path in paths
        if path.rpartition("/")[2].rpartition("_")[2] in NEVER or "norm/" in path
    }
    assert not wrong


if __name__ == "__main__":
    for name, paths in table().items():
        print(f"{name}: {' '.join(paths)}".rstrip())
