"""Widths and depths that bring a backbone to a number of parameters or of FLOPs.

    shape = solve("mamba2*2+swa", "100m")
    build_stack("mamba2*2+swa", width=shape.width, depth=shape.depth,
                options=shape.options)

`solve` counts a byte-level language model: the stack with its last norm, and one
embedding of 256 bytes that is also the output. `match` counts the stack alone: tables
of tokens and positions are the task's and the same for all. Nothing is computed: one
layer of each kind is traced, and what was traced is remembered.
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
from jaxbench.models.backbone import Layer, canonical, parse, resolve, row_of
from jaxbench.models.block import Block, Handed, field_names, mixer_class
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.flops import count_flops
from jaxbench.models.row import CHANNELS, PUBLISHED, SIZES, Published
from jaxbench.models.stack import Stack
from jaxbench.models.zoo import ROWS
from jaxbench.ops.forms import forms_of

BYTES = 256
# How far a count may be from what was asked for, over that: of `solve`, of the others.
OF_SIZE, OF_MATCH = 0.01, 0.05
# Where a search stops: far beyond any layer of 350 million parameters; and below that,
# because a mixer may make matrices as wide as it is when it is traced.
WIDEST, WIDEST_MATCH = 1 << 16, 1 << 12
# A width that divides by more than this is no better for a device.
_LANES = 64
# Widths guessed from the counts of others before the search only halves.
_GUESSES = 12
# FLOPs are those of the forms of one backend: the same question has the same answer on
# every device. Those of a CPU do the least work twice.
_BACKEND = "cpu"

_Count = tuple[int, int]  # A width, and its count.


@dataclasses.dataclass(frozen=True)
class Shape:
    """What makes a backbone as large as it was asked to be.

    Attributes:
      width: model width D.
      depth: layers.
      options: fields of mixers to set, for `build.build_stack`.
      parameters: exact count: of stack, last norm and tied byte embedding by `solve`,
        without the embedding by the others.
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
      InputError: as `build_stack`; an unknown size; a row that was not published; no
        width and depth come within 1 % (the message says the nearest counts).
    """
    options = dict(options or {})
    if size == PUBLISHED:
        published = _published(backbone)
        options = {**published.shape, **options}
        layers = published.depth if depth is None else depth
        counter = Counter(backbone, options, compat, table=BYTES)
        parameters = counter.exact(published.width, layers)
        return Shape(published.width, layers, options, parameters)
    if size not in SIZES:
        known = [*SIZES, PUBLISHED]
        raise InputError(
            f"size={size!r} is unknown; nearest: {nearest(size, known)} "
            f"(known: {', '.join(known)})"
        )
    budget, preferred = SIZES[size]
    counter = Counter(backbone, options, compat, table=BYTES)
    depths = [depth] if depth is not None else _depths(backbone, preferred)
    try:
        width, layers = _search(counter, budget, depths, OF_SIZE)
    except InputError as error:
        raise InputError(f"size={size}: {error}") from error
    return Shape(width, layers, options, counter.exact(width, layers))


def match(
    backbone: str,
    budget: int,
    *,
    length: int = 0,
    depth: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Shape:
    """Finds the width at which a stack has so many parameters, or costs so much.

    The count is within 5 %; widths up to 4096 are chosen as in `solve`.

    Args:
      backbone: a row, an alias or a pattern, as in `build.build_stack`.
      budget: parameters of the stack with its last norm, or FLOPs of a token.
      length: tokens of the sequence whose FLOPs are meant; 0 for parameters.
      depth: layers; None is the row's own, or the pattern's length.
      options: fields of mixers, as in `build_stack`.

    Raises:
      InputError: as `build_stack`; no width comes within 5 % (the message says the
        nearest counts).
    """
    counter = Counter(backbone, options or {}, length=length)
    unit = "FLOPs a token" if length else "parameters"
    if budget < 1:
        raise InputError(f"{budget:,} {unit} must be at least 1")
    layers = resolve(backbone).default_depth if depth is None else depth
    width, _ = _search(counter, budget, [layers], OF_MATCH, unit, WIDEST_MATCH)
    parameters = Counter(backbone, counter.options).exact(width, layers)
    return Shape(width, layers, counter.options, parameters)


def _depths(backbone: str, preferred: int) -> list[int]:
    """Depths to try, the best first."""
    resolved = resolve(backbone)
    period = len(resolved.elements)
    elements = parse(backbone)
    own = row_of(elements[0].name).depth if len(elements) == 1 else None
    start = own or period * max(1, round(preferred / period))
    shallowest, deepest = max(start // 2, period), 10 * max(start, preferred)

    def order(depth: int) -> tuple[bool, int, int]:
        away = abs(depth - start)
        return depth % period > 0 or away > start / 4, away, depth

    near = sorted(range(shallowest, deepest + 1), key=order)
    depths = [d for d in near if resolved.elements[(d - 1) % period].join != "next"]
    return depths or [len(resolved.layers(start))]  # raises: no depth stands alone


def _published(backbone: str) -> Published:
    """What a row was published as."""
    elements = parse(backbone)
    published = {name: row.published for name, row in ROWS.items() if row.published}
    name = canonical(elements[0].name)
    if len(elements) == 1 and name in published:
        return published[name]
    raise InputError(
        f"size={PUBLISHED!r}: backbone {backbone!r} was not published as a byte-level "
        f"language model; these were: {', '.join(published)}"
    )


def _search(
    counter: Counter,
    budget: int,
    depths: list[int],
    tolerance: float,
    unit: str = "parameters",
    widest: int = WIDEST,
) -> tuple[int, int]:
    """A width and a depth at which the count is within the tolerance of the budget.

    Raises:
      InputError: there are none, or the mixers refuse all widths that were tried.
    """
    for depth in depths:
        width = search_width(counter, budget, depth, tolerance, widest)
        if width is not None:
            return width, depth
    by_count = sorted((n, width, depth) for (width, depth), n in counter.seen.items())
    under = [found for found in by_count if found[0] < budget][-1:]
    over = [found for found in by_count if found[0] > budget][:1]
    reached = " and ".join(
        f"{n:,} at width {width} and depth {depth}" for n, width, depth in under + over
    )
    where = f"depth {depths[0]}" if len(depths) == 1 else f"depths up to {max(depths)}"
    raise InputError(
        f"no width of backbone {counter.backbone!r} at {where} has within "
        f"{100 * tolerance:g} % of {budget:,} {unit}; nearest: {reached}"
    )


def search_width(
    counter: Counter, budget: int, depth: int, tolerance: float, widest: int = WIDEST
) -> int | None:
    """A width within the tolerance at this depth, or None; raises as `_search`.

    Keeps two widths whose counts lie below and above the budget, and draws them
    together; counts between them are guessed by a power law.
    """
    low, high = _bracket(counter, budget, depth, widest)
    tried: set[int] = set()
    latest = [low, high]
    while True:
        for width, total in latest:
            if abs(total - budget) <= tolerance * budget:
                return width
        open_ = [width for width in range(low[0] + 1, high[0]) if width not in tried]
        if not open_:
            return None
        spread = 0.0 if len(tried) > _GUESSES else 1.5 * tolerance
        width = _guess(open_, low, high, budget, spread)
        tried.add(width)
        count = counter.at(width, depth)
        latest = [] if count is None else [(width, count)]
        for found in latest:
            low, high = (found, high) if found[1] < budget else (low, found)


def _bracket(counter: Counter, budget: int, depth: int, widest: int) -> list[_Count]:
    """A width below the budget (or 0) and one above it, each with its count."""
    low, refused = (0, 0), 0
    high: _Count | None = None
    # Layers of widths that were counted at other depths need not be traced again.
    known = sorted({width for width, _ in counter.seen})
    while known:
        middle = len(known) // 2
        width, total = known[middle], counter.at(known[middle], depth)
        if total is None:
            del known[middle]
        elif total < budget:
            low, known = (width, total), known[middle + 1 :]
        else:
            high, known = (width, total), known[:middle]
    width = _wider(*low, budget) if low[0] else _LANES
    while high is None:
        total = counter.at(width, depth)
        if total is None:
            refused += 1
            if refused > _LANES:
                raise InputError(counter.refused)
            width += _LANES
        elif total >= budget:
            high = width, total
        elif width == widest:
            low, high = (width, total), (width + 1, 2 * budget)
        else:
            low, width = (width, total), min(_wider(width, total, budget), widest)
    return [low, high]


def _wider(width: int, total: int, budget: int) -> int:
    """A multiple of 64 that is likely to reach the budget, from a width that did not.

    Most counts grow with the square of the width, none faster.
    """
    growth = math.sqrt(budget / total) if width == _LANES else budget / total
    return _LANES * max(math.ceil(growth * width / _LANES), width // _LANES + 1)


def _guess(
    open_: list[int], low: _Count, high: _Count, budget: int, spread: float
) -> int:
    """The width between two to count next; the middle one where the spread is 0.

    The spread is how far from the budget a guessed count may be.
    """
    power = math.log(high[1] / low[1]) / math.log(high[0] / low[0]) if low[0] else 1.5
    target = high[0] * (budget / high[1]) ** (1 / power) if power > 0 else low[0]
    if spread == 0:
        target = (low[0] + high[0]) / 2
    near = [
        width
        for width in open_
        if abs(high[1] * (width / high[0]) ** power / budget - 1) < spread
    ]
    if not near:
        # Far off it need not be exact, and heads refuse round widths the least.
        slack = max(min(abs(width - target) for width in open_), (high[0] - low[0]) / 8)
        near = [width for width in open_ if abs(width - target) <= slack]
    return max(near, key=lambda w: (min(w & -w, _LANES), -abs(w - target), -w))


class Counter:
    """Counts one backbone at many widths and depths, and remembers.

    What it counts are the parameters of the stack, its last norm included, and of a
    table of tokens; or, where it is given a length, FLOPs of the stack: those of matrix
    products and convolutions in a forward pass over so many tokens, a token's share of
    them, in the forms that a CPU runs (see `flops.count_flops`).

    Args:
      backbone, options, compat: as in `build.build_stack`.
      table: tokens in the table, 0 for none.
      length: tokens of that pass; 0 to count parameters.

    Attributes:
      backbone, options: as given.
      seen: counts by width and depth.
      refused: what a mixer said of the last width that it refused.
    """

    def __init__(
        self,
        backbone: str,
        options: Mapping[str, Any],
        compat: bool = False,
        *,
        table: int = 0,
        length: int = 0,
    ):
        self.backbone, self.options = backbone, dict(options)
        self.seen: dict[tuple[int, int], int] = {}
        self.refused = ""
        self._table, self._length = table, length
        self._doubtful: dict[Layer, _Place] = {}
        self._numbered: dict[Layer, bool] = {}
        self._refusals: set[tuple[frozenset[Layer], int]] = set()
        self._stack = functools.cache(
            lambda depth: build_stack(
                backbone, width=1, depth=depth, options=self.options, compat=compat
            )
        )

    def exact(self, width: int, depth: int | None) -> int:
        """The count; raises InputError where a mixer refuses the width."""
        if width < 1:
            raise InputError(f"width={width} must be at least 1")
        stack = self._stack(depth)
        if not self._length:
            return self._table * width + self._parameters(stack, width)
        if stack.window:
            flops = _window_flops(stack.clone(width=width), self._length)
        else:
            flops = sum(map(_flops, self._places(stack, width)))
        return round(flops / self._length)

    def at(self, width: int, depth: int) -> int | None:
        """The count, or None where a mixer refuses the width."""
        case = frozenset(self._stack(depth).layers), width
        if case in self._refusals:
            return None
        try:
            # The layers that refused other widths are the ones to ask first.
            for place in self._doubtful.values():
                _trace(place._replace(width=width))
            total = self.exact(width, depth)
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
            return _initial_bytes(stack.clone(width=width), {})
        return sum(
            _initial_bytes(place.block(), _trace(place)[0])
            for place in self._places(stack, width)
        )

    def _parameters(self, stack: Stack, width: int) -> int:
        """Parameters of a stack at another width than its own, layer by layer."""
        layers = stack.layers
        total = _norm_size(layers[-1].norm_after, width)
        for index, place in enumerate(self._places(stack, width)):
            if not place.layer.shared or layers.index(place.layer) == index:
                total += _parameters(place)
        return total

    def _places(self, stack: Stack, width: int) -> Iterator[_Place]:
        """Each layer from the input on, with what the one below hands it."""
        names = [layer.name for layer in stack.layers]
        below = _Place(stack.layers[0], width, self._length or stack.window or 2)
        for position, layer in enumerate(stack.layers):
            place = below._replace(layer=layer, number=0, among=1)
            try:
                if _asks_for_place(layer):
                    # The first of a row may have other shapes than those above it.
                    index = min(names[:position].count(layer.name), 1)
                    count = names.count(layer.name)
                    if not self._by_number(place):
                        count = min(count, 2)
                    place = place._replace(number=index, among=count)
                after = _trace(place)[1]
            except InputError:
                if place.side is None and not place.lower:
                    self._doubtful[layer] = place
                raise
            yield place
            lower = [(k, v) for k, v in after.lower.items() if k != "embedding"]
            below = place._replace(side=after.side_bte, lower=tuple(sorted(lower)))

    def _by_number(self, place: _Place) -> bool:
        """Whether a layer's parameters depend on how many of its row there are."""
        if place.layer not in self._numbered:
            two, three = (_parameters(place._replace(among=n)) for n in (2, 3))
            self._numbered[place.layer] = two != three
        return self._numbered[place.layer]


class _Place(NamedTuple):
    """A layer where it stands, all that its shapes depend on: it is layer `number` of
    `among` of its row, and the layer below hands it `side` and `lower`."""

    layer: Layer
    width: int
    length: int
    number: int = 0
    among: int = 1
    side: Any = None
    lower: tuple[tuple[str, Any], ...] = ()

    def block(self) -> Block:
        return Block(self.layer, self.width, index=self.number, count=self.among)

    def handed(self) -> Handed:
        """Shapes of what the layer is given."""
        x_btd: Any = jax.ShapeDtypeStruct((1, self.length, self.width), jnp.float32)
        return Handed(x_btd, self.side, {"embedding": x_btd, **dict(self.lower)})


@functools.lru_cache(maxsize=10_000)
def _trace(place: _Place) -> tuple[Any, Any]:
    """Shapes of a layer's variables, and of what it hands on."""
    (after, _), variables = jax.eval_shape(
        place.block().init_with_output, jax.random.key(0), place.handed()
    )
    return variables, after


@functools.lru_cache(maxsize=10_000)
def _parameters(place: _Place) -> int:
    return count_parameters(_trace(place)[0].get("params", {}))


@functools.lru_cache(maxsize=10_000)
def _flops(place: _Place) -> int:
    """FLOPs of a layer's forward pass; norms have none."""
    with forms_of(_BACKEND):
        return count_flops(place.block().apply, _trace(place)[0], place.handed())


@functools.lru_cache(maxsize=1_000)
def _window_flops(stack: Stack, length: int) -> int:
    x_btd = jax.ShapeDtypeStruct((1, length, stack.width), jnp.float32)
    with forms_of(_BACKEND):
        variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
        return count_flops(stack.apply, variables, x_btd)


def _initial_bytes(module: Block | Stack, variables: Any) -> int:
    initial = functools.partial(module.apply, method="initial_state")
    return state_bytes(jax.eval_shape(lambda shapes: initial(shapes, 1), variables))


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
