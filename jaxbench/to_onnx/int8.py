"""INT8: the weights of products as bytes, their inputs rounded as they come."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx

from .graph import ConversionError


def quantize(
    model: onnx.ModelProto, exclude: Sequence[str] = ()
) -> tuple[onnx.ModelProto, int, int]:
    """Quantises the products of an ONNX model whose right side is a weight.

    ONNX Runtime's dynamic quantisation: weights become INT8 with one scale each, the
    other side is rounded to 8 bits at every call, sums are whole numbers. Everything
    else stays float32: norms, recurrences, state.

    Args:
      model: the float32 model.
      exclude: patterns of node names that stay float32, with * and ?. A node is called
        by its weight ("params/stack/blocks_0/mixer/dt/kernel/MatMul") or its module.

    Returns:
      The model, how many products were quantised, and how many were left.

    Raises:
      ConversionError: a pattern that fits no product, or there is none to quantise.
    """
    from onnxruntime import quantization

    names = product_names(model.graph)
    left: set[str] = set()
    for pattern in exclude:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ConversionError(
                f"exclude={pattern} fits none of the {len(names)} products; they "
                f"are called like {', '.join(names[:3])}"
            )
        left.update(matched)
    if len(left) == len(names):
        raise ConversionError(
            f"exclude leaves none of the {len(names)} products to INT8"
        )
    with tempfile.TemporaryDirectory() as folder, _quiet():
        after = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            model,
            after,
            op_types_to_quantize=["MatMul"],
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=sorted(left),
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
        done = onnx.load(after)
    count = sum(node.op_type == "MatMulInteger" for node in all_nodes(done.graph))
    return done, count, len(names) - count


def product_names(graph: Any) -> list[str]:
    """Names of the products whose right side is a constant of the model."""
    constants = {x.name for x in graph.initializer}
    return [
        node.name
        for node in all_nodes(graph)
        if node.op_type == "MatMul" and node.input[1] in constants
    ]


def all_nodes(graph: Any) -> Iterator[Any]:
    """Nodes of a graph and of the graphs inside it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps onnxruntime's advice to run its shape inference first off the terminal."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
