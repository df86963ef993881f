"""The width at which something that grows with it reaches a number."""

from __future__ import annotations

import math
from typing import Protocol

from jaxbench.errors import InputError

# A width that divides by more than this is no better for a device.
_LANES = 64
# Widths guessed from the counts of others before the search only halves.
_GUESSES = 12


class Counts(Protocol):
    """What is searched, see `counting.Counter`."""

    backbone: str
    seen: dict[tuple[int, int], int]
    refused: str

    def at(self, width: int, depth: int) -> int | None:
        """The count, or None where the width cannot be."""


def search_width(
    counter: Counts,
    budget: int,
    depth: int,
    tolerance: float,
    widest: int = 1 << 16,
) -> int | None:
    """A width within the tolerance at this depth, or None.

    Keeps two widths whose counts lie below and above the budget, and draws them
    together; counts between them are guessed by a power law.

    Args:
      counter: what is counted.
      budget: the count to reach.
      depth: layers.
      tolerance: how far from the budget a count may be, over the budget.
      widest: width to stop at; by default far more than the widest layer of 350
        million parameters has.

    Raises:
      InputError: the mixers refuse all widths that were tried.
    """
    low, below, high, above = _bracket(counter, budget, depth, widest)
    for width, total in ((low, below), (high, above)):
        if _fits(total, budget, tolerance):
            return width
    tried: set[int] = set()
    while True:
        open_ = [width for width in range(low + 1, high) if width not in tried]
        if not open_:
            return None
        spread = 0.0 if len(tried) > _GUESSES else 1.5 * tolerance
        width = _guess(open_, low, below, high, above, budget, spread)
        tried.add(width)
        found = counter.at(width, depth)
        if found is None:
            continue
        if _fits(found, budget, tolerance):
            return width
        if found < budget:
            low, below = width, found
        else:
            high, above = width, found


def _bracket(
    counter: Counts, budget: int, depth: int, widest: int
) -> tuple[int, int, int, int]:
    """A width below the budget (or 0) and one above it, each with its count."""
    low, below, refused = 0, 0, 0
    total: int | None
    # Layers of widths that were counted at other depths need not be traced again.
    known = sorted({width for width, _ in counter.seen})
    high: tuple[int, int] | None = None
    while known:
        middle = len(known) // 2
        width, total = known[middle], counter.at(known[middle], depth)
        if total is None:
            del known[middle]
        elif total < budget:
            low, below, known = width, total, known[middle + 1 :]
        else:
            high, known = (width, total), known[:middle]
    if high is not None:
        return low, below, *high
    width = _wider(low, below, budget) if low else _LANES
    while True:
        total = counter.at(width, depth)
        if total is None:
            refused += 1
            if refused > _LANES:
                raise InputError(counter.refused)
            width += _LANES
        elif total >= budget:
            return low, below, width, total
        else:
            low, below = width, total
            if low == widest:
                return low, below, low + 1, 2 * budget
            width = min(_wider(low, below, budget), widest)


def _wider(width: int, total: int, budget: int) -> int:
    """A multiple of 64 that is likely to reach the budget, from a width that did not.

    Most counts grow with the square of the width, none faster.
    """
    growth = math.sqrt(budget / total) if width == _LANES else budget / total
    return _LANES * max(math.ceil(growth * width / _LANES), width // _LANES + 1)


def _guess(
    open_: list[int],
    low: int,
    below: int,
    high: int,
    above: int,
    budget: int,
    spread: float,
) -> int:
    """The width between two to count next; the middle one where the spread is 0.

    The spread is how far from the budget a guessed count may be.
    """
    halve = spread == 0
    power = math.log(above / below) / math.log(high / low) if low else 1.5
    target = high * (budget / above) ** (1 / power) if power > 0 else low
    if halve:
        target = (low + high) / 2
    near = [
        width
        for width in open_
        if abs(above * (width / high) ** power / budget - 1) < spread
    ]
    if halve or not near:
        # Far off it need not be exact, and heads refuse round widths the least.
        slack = max(min(abs(width - target) for width in open_), (high - low) / 8)
        near = [width for width in open_ if abs(width - target) <= slack]
    return max(near, key=lambda w: (min(w & -w, _LANES), -abs(w - target), -w))


def _fits(total: int, budget: int, tolerance: float) -> bool:
    return abs(total - budget) <= tolerance * budget


def unreached(
    counter: Counts, budget: int, depths: list[int], tolerance: float, unit: str
) -> str:
    """Says that no width reaches a budget, and which counts came nearest."""
    by_count = sorted((n, width, depth) for (width, depth), n in counter.seen.items())
    under = [found for found in by_count if found[0] < budget][-1:]
    over = [found for found in by_count if found[0] > budget][:1]
    reached = " and ".join(
        f"{n:,} at width {width} and depth {depth}" for n, width, depth in under + over
    )
    where = f"depth {depths[0]}" if len(depths) == 1 else f"depths up to {max(depths)}"
    return (
        f"no width of backbone {counter.backbone!r} at {where} has within "
        f"{100 * tolerance:g} % of {budget:,} {unit}; nearest: {reached}"
    )
