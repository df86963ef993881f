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
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbench.errors import InputError, nearest
from jaxbench.layers.norms import norm
from jaxbench.models.backbone import Layer, canonical, parse, resolve
from jaxbench.models.block import Block, Handed, field_names, mixer_class
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.row import CHANNELS, PUBLISHED, SIZES, Published
from jaxbench.models.stack import Stack
from jaxbench.models.zoo import ROWS

BYTES = 256
TOLERANCE = 0.01

# Widths searched; the widest layer of 350 million parameters is far below.
_WIDEST = 1 << 16
# A width that divides by more than this is no better for a device.
_LANES = 64
# Widths guessed from the counts of others before the search only halves.
_GUESSES = 12


@dataclasses.dataclass(frozen=True)
class Shape:
    """What makes a backbone as large as it was asked to be.

    Attributes:
      width: model width D.
      depth: layers.
      options: fields of mixers to set, for `build.build_stack`.
      parameters: exact count: stack, last norm and tied byte embedding.
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
        counter = _Counter(backbone, options, compat)
        count = counter.exact(published.width, layers)
        return Shape(published.width, layers, options, count)
    if size not in SIZES:
        known = [*SIZES, PUBLISHED]
        raise InputError(
            f"size={size!r} is unknown; nearest: {nearest(size, known)} "
            f"(known: {', '.join(known)})"
        )
    budget, preferred = SIZES[size]
    counter = _Counter(backbone, options, compat)
    depths = [depth] if depth is not None else _depths(backbone, preferred)
    for layers in depths:
        found = _search(counter, budget, layers)
        if found is not None:
            return Shape(found, layers, options, counter.exact(found, layers))
    raise InputError(_nothing(counter, size, budget, depths))


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
    return _Counter(backbone, dict(options or {}), compat).exact(width, depth)


def stream_bytes(backbone: str, shape: Shape, *, compat: bool = False) -> int:
    """Counts the bytes of state of one sequence in a backbone of a shape.

    Raises:
      InputError: as `build_stack`, or the width does not fit the mixers.
    """
    counter = _Counter(backbone, shape.options, compat)
    return counter.state_bytes(shape.width, shape.depth)


class _Counter:
    """Counts one backbone at many widths and depths, and remembers."""

    def __init__(self, backbone: str, options: Mapping[str, Any], compat: bool):
        self.backbone = backbone
        self.seen: dict[tuple[int, int], int] = {}
        self.refused = ""
        self._doubtful: dict[Layer, tuple[int, tuple[int, int]]] = {}
        self._numbered: dict[Layer, bool] = {}
        self._refusals: set[tuple[frozenset[Layer], int]] = set()
        self._stack = functools.cache(
            lambda depth: build_stack(
                backbone, width=1, depth=depth, options=options, compat=compat
            )
        )

    def exact(self, width: int, depth: int | None) -> int:
        """Parameters; raises InputError where a mixer refuses the width."""
        if width < 1:
            raise InputError(f"width={width} must be at least 1")
        return BYTES * width + self._stack_size(self._stack(depth), width)

    def at(self, width: int, depth: int) -> int | None:
        """Parameters, or None where a mixer refuses the width."""
        stack = self._stack(depth)
        case = frozenset(stack.layers), width
        if case in self._refusals:
            return None
        try:
            # The layers that refused other widths are the ones to ask first.
            for layer, (length, place) in self._doubtful.items():
                _block(layer, width, length, place, None, ())
            total = BYTES * width + self._stack_size(stack, width)
        except InputError as error:
            self.refused = str(error)
            self._refusals.add(case)
            return None
        self.seen[width, depth] = total
        return total

    def state_bytes(self, width: int, depth: int) -> int:
        """Bytes of state of one sequence; raises as `exact`."""
        stack = self._stack(depth)
        if stack.window:
            stack = stack.clone(width=width)
            empty = jax.eval_shape(
                lambda: stack.apply({}, 1, method="initial_state"),
            )
            return state_bytes(empty)
        return sum(
            _block_state_bytes(layer, width, *rest)
            for layer, *rest in self._places(stack, width)
        )

    def _stack_size(self, stack: Stack, width: int) -> int:
        """Parameters of a stack at another width than its own, layer by layer."""
        layers = stack.layers
        total = _norm_size(layers[-1].norm, width)
        for index, (layer, *rest) in enumerate(self._places(stack, width)):
            if not layer.shared or layers.index(layer) == index:
                total += _block(layer, width, *rest).parameters
        return total

    def _places(self, stack: Stack, width: int) -> Iterator[tuple]:
        """Arguments of `_block` but the width, for each layer from the input on."""
        names = [layer.name for layer in stack.layers]
        length = stack.window or 2
        side: int | None = None
        lower: _Lower = ()
        for index, layer in enumerate(stack.layers):
            below, place = names[:index].count(layer.name), (0, 1)
            try:
                if _asks_for_place(layer):
                    number = names.count(layer.name)
                    if not self._by_number(layer, width, length, side, lower):
                        number = min(number, 2)
                    # The first of a row may have other shapes than those above it.
                    place = (min(below, 1), number)
                block = _block(layer, width, length, place, side, lower)
            except InputError:
                if side is None and not lower:
                    self._doubtful[layer] = length, place
                raise
            yield layer, length, place, side, lower
            side, lower = block.side, block.lower

    def _by_number(self, layer: Layer, width: int, *given: Any) -> bool:
        """Whether a layer's parameters depend on how many of its row there are."""
        if layer not in self._numbered:
            length, *below = given
            two, three = (
                _block(layer, width, length, (0, n), *below).parameters for n in (2, 3)
            )
            self._numbered[layer] = two != three
        return self._numbered[layer]


# Shapes of what mixers hand up the stack, by name.
_Lower = tuple[tuple[str, tuple[int, ...]], ...]


class _Block(NamedTuple):
    """Shapes of one layer.

    Attributes:
      parameters: how many.
      side, lower: what it hands on.
      variables: shapes of all its variables.
    """

    parameters: int
    side: int | None
    lower: _Lower
    variables: Any


@functools.lru_cache(maxsize=10_000)
def _block(
    layer: Layer,
    width: int,
    length: int,
    place: tuple[int, int],
    side: int | None,
    lower: _Lower,
) -> _Block:
    """Traces one layer, given what the one below hands on."""

    def shape(*axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, jnp.float32)

    x_btd = shape(1, length, width)
    handed = Handed(
        x_btd,
        None if side is None else shape(1, length, side),
        {"embedding": x_btd, **{name: shape(*axes) for name, axes in lower}},
    )
    index, count = place
    block = Block(layer, width, index=index, count=count)
    (after, _), variables = jax.eval_shape(
        block.init_with_output, jax.random.key(0), handed
    )
    return _Block(
        count_parameters(variables.get("params", {})),
        None if after.side_bte is None else after.side_bte.shape[-1],
        tuple(sorted((k, v.shape) for k, v in after.lower.items() if k != "embedding")),
        variables,
    )


@functools.lru_cache(maxsize=10_000)
def _block_state_bytes(
    layer: Layer, width: int, length: int, place: tuple[int, int], *given: Any
) -> int:
    index, count = place
    block = Block(layer, width, index=index, count=count)
    state = jax.eval_shape(
        lambda variables: block.apply(variables, 1, method="initial_state"),
        _block(layer, width, length, place, *given).variables,
    )
    return state_bytes(state)


@functools.cache
def _asks_for_place(layer: Layer) -> bool:
    parts = [layer.mixer]
    if layer.channel != "none":
        parts.append(CHANNELS[layer.channel].mixer)
    fields = {name for part in parts for name in field_names(mixer_class(part))}
    return not fields.isdisjoint({"layer", "layers"})


@functools.cache
def _norm_size(kind: str, width: int) -> int:
    module = norm(kind, jnp.float32)
    if module is None:
        return 0
    x_bd = jax.ShapeDtypeStruct((1, width), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x_bd)
    return count_parameters(variables["params"])


def _search(counter: _Counter, budget: int, depth: int) -> int | None:
    """A width within the tolerance at this depth, or None.

    Keeps two widths whose counts lie below and above the budget, and draws them
    together; counts between them are guessed by a power law.
    """
    low, below, high, above = _bracket(counter, budget, depth)
    for width, total in ((low, below), (high, above)):
        if _fits(total, budget):
            return width
    tried: set[int] = set()
    while True:
        open_ = [width for width in range(low + 1, high) if width not in tried]
        if not open_:
            return None
        width = _guess(open_, low, below, high, above, budget, len(tried) > _GUESSES)
        tried.add(width)
        found = counter.at(width, depth)
        if found is None:
            continue
        if _fits(found, budget):
            return width
        if found < budget:
            low, below = width, found
        else:
            high, above = width, found


def _bracket(counter: _Counter, budget: int, depth: int) -> tuple[int, int, int, int]:
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
            if low == _WIDEST:
                return low, below, low + 1, 2 * budget
            width = min(_wider(low, below, budget), _WIDEST)


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
    halve: bool,
) -> int:
    """The width between two to count next; the middle one where guesses do not help."""
    power = math.log(above / below) / math.log(high / low) if low else 1.5
    target = high * (budget / above) ** (1 / power) if power > 0 else low
    if halve:
        target = (low + high) / 2
    near = [
        width
        for width in open_
        if abs(above * (width / high) ** power / budget - 1) < 1.5 * TOLERANCE
    ]
    if halve or not near:
        # Far off it need not be exact, and heads refuse round widths the least.
        slack = max(min(abs(width - target) for width in open_), (high - low) / 8)
        near = [width for width in open_ if abs(width - target) <= slack]
    return max(near, key=lambda w: (min(w & -w, _LANES), -abs(w - target), -w))


def _fits(total: int, budget: int) -> bool:
    return abs(total - budget) <= TOLERANCE * budget


def _depths(backbone: str, preferred: int) -> list[int]:
    """Depths to try, the best first."""
    resolved = resolve(backbone)
    period = len(resolved.elements)
    elements = parse(backbone)
    own = ROWS[canonical(elements[0].name)].depth if len(elements) == 1 else None
    start = own or period * max(1, round(preferred / period))
    shallowest, deepest = max(start // 2, period), 8 * max(start, preferred)

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


def _nothing(counter: _Counter, size: str, budget: int, depths: list[int]) -> str:
    by_count = sorted((n, width, depth) for (width, depth), n in counter.seen.items())
    under = [found for found in by_count if found[0] < budget][-1:]
    over = [found for found in by_count if found[0] > budget][:1]
    reached = " and ".join(
        f"{n:,} at width {width} and depth {depth}" for n, width, depth in under + over
    )
    where = f"depth {depths[0]}" if len(depths) == 1 else f"depths up to {max(depths)}"
    return (
        f"size={size}: no width of backbone {counter.backbone!r} at {where} has within "
        f"1 % of {budget:,} parameters; nearest: {reached}"
    )
