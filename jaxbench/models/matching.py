"""Widths at which backbones are as large, or work as much, as each other.

    shape = match_parameters("swa/conv", 200_000, depth=2)
    build_stack("swa/conv", width=shape.width, depth=shape.depth,
                options=shape.options)

What is matched is the stack alone, its last norm included: tables of tokens and
positions are the task's and the same for all. `sizes` is for whole byte-level models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxbench.errors import InputError
from jaxbench.models.backbone import resolve
from jaxbench.models.counting import Counter
from jaxbench.models.search import search_width, unreached
from jaxbench.models.sizes import Shape

TOLERANCE = 0.05
# A mixer may make matrices as wide as it is when it is traced.
WIDEST = 1 << 12


def match_parameters(
    backbone: str,
    parameters: int,
    *,
    depth: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> Shape:
    """Finds the width at which a stack has a number of parameters, within 5 %.

    Among the widths that fit, up to 4096, one that divides by a high power of two is
    preferred, up to 64; widths that a mixer refuses, because of its heads, are passed
    over.

    Args:
      backbone: a row, an alias or a pattern, as in `build.build_stack`.
      parameters: of the stack with its last norm, without embeddings.
      depth: layers; None is the row's own, or the pattern's length.
      options: fields of mixers, as in `build_stack`.

    Returns:
      The shape; its parameters are those of the stack.

    Raises:
      InputError: as `build_stack`; no width comes within 5 % (the message says the
        nearest counts).
    """
    options = dict(options or {})
    counter = Counter(backbone, options)
    return _match(counter, options, depth, parameters, "parameters")


def match_flops(
    backbone: str,
    flops_per_token: int,
    *,
    depth: int | None = None,
    length: int = 64,
    options: Mapping[str, Any] | None = None,
) -> Shape:
    """Finds the width at which a stack's forward pass costs so much, within 5 %.

    As `match_parameters`, for the FLOPs of `flops_per_token`.

    Args:
      backbone, depth, options: as in `match_parameters`.
      flops_per_token: what a token costs.
      length: tokens of a sequence.

    Returns:
      The shape; its parameters are those of the stack.

    Raises:
      InputError: as `match_parameters`, or the length is less than 1.
    """
    options = dict(options or {})
    counter = _work(backbone, length, options)
    return _match(counter, options, depth, flops_per_token, "FLOPs a token")


def flops_per_token(
    backbone: str,
    *,
    width: int,
    depth: int | None = None,
    length: int = 64,
    options: Mapping[str, Any] | None = None,
) -> int:
    """Counts what a token costs a stack in a forward pass over a sequence.

    FLOPs of matrix products and convolutions of the traced program, over the tokens of
    the sequence (see `flops.count_flops`: recurrences that go element by element count
    nothing). They are those of the forms that a CPU runs, on every device.

    Raises:
      InputError: as `build_stack`, the width does not fit the mixers, or the length is
        less than 1.
    """
    return _work(backbone, length, dict(options or {})).exact(width, depth)


def _work(backbone: str, length: int, options: Mapping[str, Any]) -> Counter:
    if length < 1:
        raise InputError(f"length={length} must be at least 1")
    return Counter(backbone, options, length=length)


def _match(
    counter: Counter,
    options: Mapping[str, Any],
    depth: int | None,
    budget: int,
    unit: str,
) -> Shape:
    if budget < 1:
        raise InputError(f"{budget:,} {unit} must be at least 1")
    layers = resolve(counter.backbone).default_depth if depth is None else depth
    width = search_width(counter, budget, layers, TOLERANCE, WIDEST)
    if width is None:
        raise InputError(unreached(counter, budget, [layers], TOLERANCE, unit))
    stack = Counter(counter.backbone, options)
    return Shape(width, layers, options, stack.exact(width, layers))
