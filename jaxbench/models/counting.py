"""Parameters, states and FLOPs of a backbone at many widths, from shapes alone.

One layer of each kind is traced, and what was traced is remembered.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbench.errors import InputError
from jaxbench.layers.norms import norm
from jaxbench.models.backbone import Layer
from jaxbench.models.block import Block, Handed, field_names, mixer_class
from jaxbench.models.build import build_stack, count_parameters, state_bytes
from jaxbench.models.flops import count_flops
from jaxbench.models.row import CHANNELS
from jaxbench.models.stack import Stack
from jaxbench.ops.forms import forms_of

# FLOPs are those of the forms of one backend: the same question has the same answer on
# every device. Those of a CPU do the least work twice.
_BACKEND = "cpu"


class Counter:
    """Counts one backbone at many widths and depths, and remembers.

    What it counts are the parameters of the stack, its last norm included, and of a
    table of tokens; or, where it is given a length, FLOPs of the stack.

    Args:
      backbone, options, compat: as in `build.build_stack`.
      table: tokens in the table, 0 for none.
      length: tokens of a forward pass whose FLOPs are counted, a token's share of
        them; 0 to count parameters.

    Attributes:
      backbone: as given.
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
        self.backbone = backbone
        self.seen: dict[tuple[int, int], int] = {}
        self.refused = ""
        self._table, self._length = table, length
        self._doubtful: dict[Layer, tuple[int, tuple[int, int]]] = {}
        self._numbered: dict[Layer, bool] = {}
        self._refusals: set[tuple[frozenset[Layer], int]] = set()
        self._stack = functools.cache(
            lambda depth: build_stack(
                backbone, width=1, depth=depth, options=options, compat=compat
            )
        )

    def exact(self, width: int, depth: int | None) -> int:
        """The count; raises InputError where a mixer refuses the width."""
        if width < 1:
            raise InputError(f"width={width} must be at least 1")
        return self._total(self._stack(depth), width)

    def at(self, width: int, depth: int) -> int | None:
        """The count, or None where a mixer refuses the width."""
        stack = self._stack(depth)
        case = frozenset(stack.layers), width
        if case in self._refusals:
            return None
        try:
            # The layers that refused other widths are the ones to ask first.
            for layer, (length, place) in self._doubtful.items():
                _block(layer, width, length, place, None, ())
            total = self._total(stack, width)
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

    def _total(self, stack: Stack, width: int) -> int:
        if self._length:
            return round(self._stack_flops(stack, width) / self._length)
        return self._table * width + self._stack_size(stack, width)

    def _stack_flops(self, stack: Stack, width: int) -> int:
        """FLOPs of a forward pass, layer by layer; norms have none."""
        if stack.window:
            return _window_flops(stack.clone(width=width), self._length)
        return sum(
            _block_flops(layer, width, *rest)
            for layer, *rest in self._places(stack, width)
        )

    def _stack_size(self, stack: Stack, width: int) -> int:
        """Parameters of a stack at another width than its own, layer by layer."""
        layers = stack.layers
        total = _norm_size(layers[-1].norm_after, width)
        for index, (layer, *rest) in enumerate(self._places(stack, width)):
            if not layer.shared or layers.index(layer) == index:
                total += _block(layer, width, *rest).parameters
        return total

    def _places(self, stack: Stack, width: int) -> Iterator[tuple]:
        """Arguments of `_block` but the width, for each layer from the input on."""
        names = [layer.name for layer in stack.layers]
        length = self._length or stack.window or 2
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
    index, count = place
    block = Block(layer, width, index=index, count=count)
    (after, _), variables = jax.eval_shape(
        block.init_with_output, jax.random.key(0), _handed(width, length, side, lower)
    )
    return _Block(
        count_parameters(variables.get("params", {})),
        None if after.side_bte is None else after.side_bte.shape[-1],
        tuple(sorted((k, v.shape) for k, v in after.lower.items() if k != "embedding")),
        variables,
    )


def _handed(width: int, length: int, side: int | None, lower: _Lower) -> Handed:
    """Shapes of what a layer is given."""

    def shape(*axes: int) -> Any:
        return jax.ShapeDtypeStruct(axes, jnp.float32)

    x_btd = shape(1, length, width)
    return Handed(
        x_btd,
        None if side is None else shape(1, length, side),
        {"embedding": x_btd, **{name: shape(*axes) for name, axes in lower}},
    )


@functools.lru_cache(maxsize=10_000)
def _block_flops(
    layer: Layer,
    width: int,
    length: int,
    place: tuple[int, int],
    side: int | None,
    lower: _Lower,
) -> int:
    index, count = place
    block = Block(layer, width, index=index, count=count)
    with forms_of(_BACKEND):
        return count_flops(
            block.apply,
            _block(layer, width, length, place, side, lower).variables,
            _handed(width, length, side, lower),
        )


@functools.lru_cache(maxsize=1_000)
def _window_flops(stack: Stack, length: int) -> int:
    x_btd = jax.ShapeDtypeStruct((1, length, stack.width), jnp.float32)
    with forms_of(_BACKEND):
        variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
        return count_flops(stack.apply, variables, x_btd)


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
