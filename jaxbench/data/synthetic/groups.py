"""Finite groups of order 60, made of permutations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Cycles that generate each group; points are 0, 1, ..
GENERATORS: dict[str, tuple[tuple[tuple[int, ...], ...], ...]] = {
    "A5": (((0, 1, 2),), ((0, 1, 2, 3, 4),)),
    "A4xZ5": (((0, 1, 2),), ((0, 1), (2, 3)), ((4, 5, 6, 7, 8),)),
    "Z60": ((tuple(range(60)),),),
}


class Group(NamedTuple):
    """A group as permutations and as a table.

    Attributes:
      elements_gp: int16 [G, points], where each element sends each point; in
        lexicographic order, so that element 0 is the identity.
      table_gg: int16 [G, G], the Cayley table: [a, b] is ab, first a and then b.
    """

    elements_gp: np.ndarray
    table_gg: np.ndarray


@functools.cache
def group(name: str) -> Group:
    """One of `GENERATORS`, generated; the arrays are shared and cannot be written."""
    cycles = GENERATORS[name]
    points = 1 + max(point for element in cycles for c in element for point in c)
    elements = _closure([_permutation(element, points) for element in cycles], points)
    place = {element: index for index, element in enumerate(elements)}
    table = [[place[_then(a, b)] for b in elements] for a in elements]
    made = Group(np.array(elements, np.int16), np.array(table, np.int16))
    for array in made:
        array.flags.writeable = False
    return made


def _permutation(cycles: Sequence[Sequence[int]], points: int) -> tuple[int, ...]:
    sent = list(range(points))
    for cycle in cycles:
        for index, point in enumerate(cycle):
            sent[point] = cycle[(index + 1) % len(cycle)]
    return tuple(sent)


def _then(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """First a, then b."""
    return tuple(b[point] for point in a)


def _closure(
    generators: Sequence[tuple[int, ...]], points: int
) -> list[tuple[int, ...]]:
    """All products of generators, sorted."""
    found = {tuple(range(points))}
    new = found
    while new:
        new = {_then(a, b) for a in new for b in generators} - found
        found = found | new
    return sorted(found)
