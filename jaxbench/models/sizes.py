"""Widths and depths that bring a backbone to a number of parameters.

Parameters are those of a byte-level language model: the stack with its last norm, and
one embedding of 256 bytes that is also the output, 256 * width.

    shape = solve("mamba2*2+swa", "100m")
    build_stack("mamba2*2+swa", width=shape.width, depth=shape.depth,
                options=shape.options)

Nothing is computed: parameters are counted from shapes, one layer of each kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import canonical, parse, resolve
from jaxbench.models.counting import Counter
from jaxbench.models.row import PUBLISHED, SIZES, Published
from jaxbench.models.search import search_width, unreached
from jaxbench.models.zoo import ROWS

BYTES = 256
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Shape:
    """What makes a backbone as large as it was asked to be.

    Attributes:
      width: model width D.
      depth: layers.
      options: fields of mixers to set, for `build.build_stack`.
      parameters: exact count of what was asked for: here stack, last norm and tied
        byte embedding; in `matching` without the embedding.
    """

    width: int
    depth: int
    options: Mapping[str, Any]
    parameters: int


def solve(
    backbone: str,
    size: str,
    *,
    depth: int | None = None,
    options: Mapping[str, Any] | None = None,
    compat: bool = False,
) -> Shape:
    """Finds the width and depth at which a backbone has the parameters of a size.

    The count is within 1 % of the budget. The size's depth is tried first, then the
    nearest ones from half of it up: whole repeats of a pattern before others, and from
    the depth of its own where a row has one. Among the widths that fit, one that
    divides by a high power of two is preferred, up to 64; widths that a mixer refuses,
    because of its heads, are passed over. The same question has the same answer.

    Args:
      backbone: a row, an alias or a pattern, as in `build_stack`.
      size: a key of `row.SIZES`, or "published": width, depth and shape in which the
        row was published, whatever that counts under this protocol.
      depth: layers; None leaves it to this function.
      options: fields of mixers, as in `build_stack`. They win over published ones.
      compat: count the row as it was published, faults included.

    Raises:
      InputError: as `build_stack`; the size is unknown; the row was not published; no
        width and depth come within 1 % (the message says the nearest counts).
    """
    options = dict(options or {})
    if size == PUBLISHED:
        published = _published(backbone)
        options = {**published.shape, **options}
        layers = published.depth if depth is None else depth
        counter = _counter(backbone, options, compat)
        count = counter.exact(published.width, layers)
        return Shape(published.width, layers, options, count)
    if size not in SIZES:
        known = [*SIZES, PUBLISHED]
        raise InputError(
            f"size={size!r} is unknown; nearest: {nearest(size, known)} "
            f"(known: {', '.join(known)})"
        )
    budget, preferred = SIZES[size]
    counter = _counter(backbone, options, compat)
    depths = [depth] if depth is not None else _depths(backbone, preferred)
    for layers in depths:
        found = search_width(counter, budget, layers, TOLERANCE)
        if found is not None:
            return Shape(found, layers, options, counter.exact(found, layers))
    why = unreached(counter, budget, depths, TOLERANCE, "parameters")
    raise InputError(f"size={size}: {why}")


def count(
    backbone: str,
    *,
    width: int,
    depth: int | None = None,
    options: Mapping[str, Any] | None = None,
    compat: bool = False,
) -> int:
    """Counts the parameters of a byte-level language model, tied embedding included.

    Raises:
      InputError: as `build_stack`, or the width does not fit the mixers.
    """
    return _counter(backbone, dict(options or {}), compat).exact(width, depth)


def stream_bytes(backbone: str, shape: Shape, *, compat: bool = False) -> int:
    """Counts the bytes of state of one sequence in a backbone of a shape.

    Raises:
      InputError: as `build_stack`, or the width does not fit the mixers.
    """
    counter = _counter(backbone, shape.options, compat)
    return counter.state_bytes(shape.width, shape.depth)


def _counter(backbone: str, options: Mapping[str, Any], compat: bool) -> Counter:
    return Counter(backbone, options, compat, table=BYTES)


def _depths(backbone: str, preferred: int) -> list[int]:
    """Depths to try, the best first."""
    resolved = resolve(backbone)
    period = len(resolved.elements)
    elements = parse(backbone)
    own = ROWS[canonical(elements[0].name)].depth if len(elements) == 1 else None
    start = own or period * max(1, round(preferred / period))
    shallowest, deepest = max(start // 2, period), 10 * max(start, preferred)

    def order(depth: int) -> tuple[bool, int, int]:
        away = abs(depth - start)
        return depth % period > 0 or away > start / 4, away, depth

    near = sorted(range(shallowest, deepest + 1), key=order)
    depths = [d for d in near if resolved.elements[(d - 1) % period].join != "next"]
    # No depth stands alone: this raises, and says why.
    return depths or [len(resolved.layers(start))]


def _published(backbone: str) -> Published:
    """What a row was published as."""
    elements = parse(backbone)
    row = ROWS[canonical(elements[0].name)]
    if len(elements) == 1 and row.published is not None:
        return row.published
    known = ", ".join(name for name, row in ROWS.items() if row.published)
    raise InputError(
        f"size={PUBLISHED!r}: backbone {backbone!r} was not published as a byte-level "
        f"language model; these were: {known}"
    )
