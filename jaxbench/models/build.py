"""From text to a stack, and the size of what was built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxbench.errors import InputError, nearest
from jaxbench.models.backbone import Layer, resolve, with_options
from jaxbench.models.block import GIVEN, field_names, mixer_class
from jaxbench.models.row import CHANNELS
from jaxbench.models.stack import Stack


def build_stack(
    backbone: str,
    *,
    width: int,
    depth: int | None = None,
    dropout: float = 0.0,
    dtype: Any = jnp.float32,
    remat: bool = False,
    options: Mapping[str, Any] | None = None,
    compat: bool = False,
) -> Stack:
    """Builds the stack a name or a pattern stands for.

    Args:
      backbone: a row of `models.zoo`, an alias, or a pattern such as "mamba*2+swa".
      width: model width.
      depth: layers; None is the row's own depth, or the pattern's length. A pattern is
        cycled to the depth.
      dropout: rate on the residual branches, in [0, 1).
      dtype: compute type, float32 or bfloat16.
      remat: recompute blocks in the backward pass.
      options: fields of mixers to set, e.g. {"state_size": 32}, or of channel mixers,
        {"channel.experts": 4}. In a hybrid each goes to the layers whose mixer has it.
        A backbone that sees windows has the option "window".
      compat: rows published as byte-level language models are built with their faults.

    Raises:
      InputError: the text does not parse or names no row; width, depth or dropout is
        out of range; an option is unknown to all mixers or has another type than its
        default. The `taps` of a layer with `noconv` are no option.
    """
    resolved = resolve(backbone, compat)
    layers = resolved.layers(depth)
    if width < 1:
        raise InputError(f"width={width} must be at least 1")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} must be in [0, 1)")
    options = dict(options or {})
    window = resolved.window
    if window:
        window = _window(options.pop("window", window))
    layers = _with_options(resolved.name, layers, options)
    return Stack(layers, width, dtype, dropout, remat, window)


def sizes(backbone: str, width: int) -> tuple[int, int]:
    """Parameters, and bytes of state for one sequence, of a row at its own depth.

    Nothing is computed: shapes only.

    Raises:
      InputError: as `build_stack`, or the width does not fit the mixers.
    """
    stack = build_stack(backbone, width=width)
    x_btd = jax.ShapeDtypeStruct((1, 2, width), jnp.float32)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x_btd)
    state = jax.eval_shape(
        lambda variables: stack.apply(variables, 1, method="initial_state"), variables
    )
    return count_parameters(variables["params"]), state_bytes(state)


def count_parameters(params: Any) -> int:
    """Counts the numbers in a tree of parameters (or of their shapes)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def state_bytes(state: Any) -> int:
    """Counts the bytes of a state (or of its shapes), all sequences together."""
    leaves = jax.tree.leaves(state)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _window(window: Any) -> int:
    if type(window) is not int or window < 1:
        raise InputError(f"window={window!r} must be an integer of at least 1")
    return window


def _with_options(
    backbone: str, layers: tuple[Layer, ...], options: Mapping[str, Any]
) -> tuple[Layer, ...]:
    known = [_option_types(layer) for layer in layers]
    every = sorted(set().union(*known))
    for name, value in options.items():
        takers = [types[name] for types in known if name in types]
        if not takers:
            hint = f"nearest: {nearest(name, every)}" if every else "it has none"
            raise InputError(f"backbone {backbone!r} has no option {name!r}; {hint}")
        for wanted in takers:
            if not _fits(value, wanted):
                raise InputError(
                    f"option {name}={value!r} of backbone {backbone!r} must be "
                    f"{wanted.__name__}, not {type(value).__name__}"
                )
    merged = []
    for layer, types in zip(layers, known, strict=True):
        own = {name: value for name, value in options.items() if name in types}
        merged.append(with_options(layer, own))
    return tuple(merged)


def _option_types(layer: Layer) -> dict[str, type]:
    """Options of a layer's two mixers, each with the type of its default."""
    mixers = {"": mixer_class(layer.mixer)}
    if layer.channel != "none":
        mixers["channel."] = mixer_class(CHANNELS[layer.channel].mixer)
    types = {
        prefix + name: type(getattr(mixer, name))
        for prefix, mixer in mixers.items()
        for name in field_names(mixer)
        if name not in GIVEN
    }
    if layer.conv is False:
        del types["taps"]
    return types


def _fits(value: Any, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is wanted
